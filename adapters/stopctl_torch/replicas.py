"""What of the models is equal on all ranks, what DistributedDataParallel makes rank 0's, what is by rank."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from stopctl import MismatchError, SettingError
from stopctl.ports import Leaf, Tree, tree_leaves, tree_map
from stopctl_torch.parts import EXTRA_STATE

RANK = "rank"
"""The component with what a rank other than 0 has for itself of those that are saved once."""


class Replicas:
    """The copies of the models on all ranks.

    Args:
        modules: by component name, as they are saved.
        given: all that may be, or hold, a DistributedDataParallel of them.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Module], given: Iterable[Any]) -> None:
        self._modules = modules
        self._wrappers: list[weakref.ref[Any]] = []
        modules_given = (thing for thing in given if isinstance(thing, torch.nn.Module))
        self._note(part for module in modules_given for part in module.modules())

    def wrappers(self, *, search: bool = False) -> list[DistributedDataParallel]:
        """Those around a module that is saved; ``search`` also where they were not given."""
        if search:
            self._note(each for each in gc.get_objects() if issubclass(type(each), DistributedDataParallel))
        known = [reference() for reference in self._wrappers]
        return [wrapper for wrapper in known if wrapper is not None]

    def _note(self, things: Iterable[Any]) -> None:
        mine = {id(part) for module in self._modules.values() for part in module.modules()}
        known = {id(wrapper) for wrapper in self.wrappers()}
        for each in things:
            wraps = isinstance(each, DistributedDataParallel) and id(each) not in known
            if wraps and any(id(part) in mine for part in each.module.modules()):
                self._wrappers.append(weakref.ref(each))

    def refuse_join(self) -> None:
        """Raise SettingError inside ``model.join()``, in which ranks train unequal numbers of batches."""
        for wrapper in self.wrappers():
            if getattr(getattr(wrapper, "_join_config", None), "enable", False):
                raise SettingError(
                    "run.batches() inside model.join(): ranks that do not train as many batches decide and "
                    "save at different steps; leave join() out and give all ranks as many, by a "
                    "DistributedSampler or drop_last=True"
                )

    def loose(self, names: Collection[str], *, search: bool = False) -> Collection[str]:
        """Buffers that DistributedDataParallel takes from rank 0, those of averages, and values of layers."""
        wrappers = [each for each in self.wrappers(search=search) if each.broadcast_buffers]
        sent = {
            id(buffer)
            for wrapper in wrappers
            for name, buffer in wrapper.module.named_buffers()
            if name not in wrapper.parameters_to_ignore
        }
        loose = {name for name in names if EXTRA_STATE in name}
        for component, module in self._modules.items():
            average = bool(wrappers) and component.partition(".")[0] == "extra"
            for name, buffer in module.named_buffers(remove_duplicate=False):
                if average or id(buffer) in sent:
                    loose.add(f"{component}/{name}")
        return loose & {*names}

    def remedy(self, names: Collection[str]) -> str:
        """What to write where these arrays differ."""
        buffers = {
            f"{component}/{name}"
            for component, module in self._modules.items()
            for name, _ in module.named_buffers(remove_duplicate=False)
        }
        if buffers.issuperset(names):
            equal = (
                "DistributedDataParallel without broadcast_buffers=False, or SyncBatchNorm, keeps them equal"
            )
            globs = {f"{name.partition('/')[0]}/*{name.rpartition('.')[2]}" for name in names}
            own = f"per_rank={{{', '.join(map(repr, sorted(globs)))}}}"
        else:
            equal = (
                "give Run a model in DistributedDataParallel or fully_shard, which keep ranks equal, and let "
                "nothing else move it"
            )
            own = "per_rank=True, or names such as per_rank={'model/*', 'optimizer/*'},"
        return f"{equal}; where each rank has its own on purpose {own} saves and restores it by rank"


class Globs:
    """``per_rank=`` of the user: which arrays of what is saved once every rank has for itself.

    Args:
        given: globs of names, or True for all.
        components: that are saved once.

    Raises:
        SettingError: something else, or a name that is none of these.
    """

    def __init__(self, given: Any, components: Collection[str]) -> None:
        if isinstance(given, str) or not (type(given) is bool or isinstance(given, Collection)):
            raise SettingError(
                f"per_rank={given!r}: write a set of names, such as {{'model/*.running_*'}}, or True"
            )
        self._patterns = (("*",) if given else ()) if type(given) is bool else tuple(given)
        for pattern in self._patterns:
            head = str(pattern).partition("/")[0]
            if not any(fnmatchcase(name, head) for name in components):
                raise SettingError(
                    f"per_rank={{{pattern!r}}}: begin it with one of {sorted(components)}, "
                    "as in 'model/*.running_*'; generators and extra= values are by rank already"
                )

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def chosen(self, components: Mapping[str, Tree]) -> dict[str, dict[str, Leaf]]:
        """The arrays that they name, by component and name; those in pieces are by rank in any case."""
        found: dict[str, dict[str, Leaf]] = {}
        for component, tree in components.items():
            for name, array in tree_leaves(tree, component):
                if isinstance(array, Leaf) and self._has(name):
                    found.setdefault(component, {})[name] = array
        return found

    def names(self, names: Collection[str]) -> set[str]:
        """Those of these arrays that they name."""
        return {name for name in names if self._has(name)}

    def _has(self, name: str) -> bool:
        return any(fnmatchcase(name, each) for each in self._patterns)


def merged(components: Mapping[str, Tree], own: Any) -> dict[str, Tree]:
    """Components in which a rank's own arrays stand in place of those of rank 0.

    Raises:
        MismatchError: the saved ones are none of these components.
    """
    if not isinstance(own, dict) or not all(isinstance(arrays, dict) for arrays in own.values()):
        raise MismatchError(f"{RANK}: saved is no table of arrays")
    taken = dict(components)
    for component, arrays in own.items():
        left = dict(arrays)
        if component in taken:

            def chosen(leaf: Any, path: str, _: Any, left: dict[str, Any] = left) -> Any:
                return left.pop(path, leaf)

            taken[component] = tree_map(chosen, taken[component], component)
            if left:
                raise MismatchError(f"{RANK}: {min(left)} is saved by rank, and nowhere for all")
    return taken
