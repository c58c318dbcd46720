"""The weights that a checkpoint holds, and fitting them to objects that are not quite the saved ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stopctl.core.errors import MismatchError, SettingError
from stopctl.runs.choose import choose
from stopctl.store import CheckpointInfo, Tree
from stopctl.store.compare import difference
from stopctl.store.tree import tree_leaves, tree_map

MOST = 6
"""Names that one line tells."""

METADATA = "_metadata"
"""Beside the tensors of a PyTorch module: what its layers load by."""

AVERAGED, INSIDE = "n_averaged", "module."
"""What PyTorch's AveragedModel saves: how many were averaged, and before the names of the averages."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The best weights of another run, for ``start_from_run=``.

    Args:
        directory: that run's, or the URL of its mirror.
        strict: every array must be there, and fit; False: those that are and do are taken, and one line of
            the log tells the others.
        rename: names in that run, and what they are called here: of arrays (``"head.weight"``), of all that
            begins with them (``"backbone": "encoder"``, ``"module": ""``), or of components
            (``"extra.ema": "model"``).
        which: "best", "latest", or the name of a checkpoint.

    Raises:
        SettingError: an argument that cannot be.

    Examples:
        >>> Weights("runs/a", strict=False, rename={"backbone": "encoder"}).rename
        {'backbone': 'encoder'}
    """

    directory: str | Path
    strict: bool = True
    rename: Mapping[str, str] = field(default_factory=dict)
    which: str = "best"

    def __post_init__(self) -> None:
        if not isinstance(self.directory, str | Path):
            raise SettingError(f"Weights({self.directory!r}): write another run's directory")
        check_fit(self.strict, self.rename)

    @property
    def exact(self) -> bool:
        """Whether they are taken as they are."""
        return self.strict and not self.rename

    def fitted(self, given: Mapping[str, Tree]) -> tuple[CheckpointInfo, Fitted]:
        """The checkpoint, and its weights as they go into the given components.

        Raises: what `choose` and `fit` raise.
        """
        info, components = choose(self.directory, self.which)
        moved = {name: here for name, here in self.rename.items() if name in components}
        found = {name: tree for name, tree in weights(components).items() if name not in moved}
        found |= {here: averages(components[name]) for name, here in moved.items()}
        rename = {name: here for name, here in self.rename.items() if name not in moved}
        if self.strict and not rename:
            return info, Fitted(found, [])
        return info, fit(found, given, strict=self.strict, rename=rename)


def check_fit(strict: object, rename: object) -> None:
    """Raise SettingError unless these are arguments of `fit`."""
    if type(strict) is not bool:
        raise SettingError(f"strict={strict!r}: write True or False")
    names = rename.items() if isinstance(rename, Mapping) else [(None, None)]
    if not all(isinstance(name, str) for pair in names for name in pair):
        raise SettingError(f"rename={rename!r}: write a dict of names, {{saved: given}}")


def weights(components: Mapping[str, Tree]) -> dict[str, Tree]:
    """The models ("model", "model.encoder"); where there are none, all but generators and position."""
    models = {name: tree for name, tree in components.items() if name.partition(".")[0] == "model"}
    return models or {
        name: tree for name, tree in components.items() if not name.startswith(("rng.", "run."))
    }


class Fitted(NamedTuple):
    """Trees with what fits of the saved ones, and a line for each array that does not."""

    trees: dict[str, Tree]
    left_out: list[str]


def fit(
    saved: Mapping[str, Tree], given: Mapping[str, Tree], *, strict: bool, rename: Mapping[str, str]
) -> Fitted:
    """The given trees, with the arrays of the saved ones in them that have the same name, shape and dtype.

    Args:
        saved: by component, as it is called here.
        given: the components that are wanted.
        strict: anything that is not in both, or does not fit, is an error.
        rename: names of arrays, or what they begin with, as they are called here; the longest that fits.

    Raises:
        MismatchError: strict, and something differs; or nothing fits at all.
        SettingError: a name to be renamed that was not saved.
    """
    used: set[str] = set()
    trees, left_out, taken = {}, [], 0
    for component, tree in given.items():
        there = {_renamed(path, rename, used): leaf for path, leaf in tree_leaves(saved.get(component, {}))}
        lacks = dict(there)

        def take(value: Any, path: str, _: Any) -> Any:
            name = path[1:]
            found = there.get(name)  # noqa: B023
            lacks.pop(name, None)  # noqa: B023
            if found is None:
                why = "given, but not saved"
            else:
                why = difference(found, value) or _kind(found, value) or ""
            if why:
                left_out.append(f"{component}/{name}: {why}")  # noqa: B023
                return value
            nonlocal taken
            taken += 1
            return found

        trees[component] = tree_map(take, tree)
        left_out += [f"{component}/{name}: saved, but not given" for name in lacks]
    if unknown := [name for name in rename if name not in used]:
        have = ", ".join([path for tree in saved.values() for path, _ in tree_leaves(tree)][:MOST])
        raise SettingError(
            f"rename={dict.fromkeys(unknown, '...')!r}: no such name was saved; there are {have}, ..."
        )
    if left_out and (strict or not taken):
        lines = "\n  ".join(left_out)
        raise MismatchError(f"the saved weights do not fit the objects given:\n  {lines}\n{_advice(strict)}")
    return Fitted(trees, left_out)


def left_out_told(left_out: Collection[str]) -> str:
    """``"left out: model/head.weight: saved F32 (10, 4), given F32 (2, 4); and 3 more"``."""
    more = [f"and {len(left_out) - MOST} more"] if len(left_out) > MOST else []
    return f"left out: {'; '.join([*list(left_out)[:MOST], *more])}"


def averages(tree: Tree) -> Tree:
    """Of what an AveragedModel has saved the averages, called as in the model itself; any other as it is."""
    if not isinstance(tree, dict) or AVERAGED not in tree:
        return tree
    arrays = {name: leaf for name, leaf in tree.items() if name not in (AVERAGED, METADATA)}
    if not arrays or not all(isinstance(name, str) and name.startswith(INSIDE) for name in arrays):
        return tree
    plain = {name.removeprefix(INSIDE): leaf for name, leaf in arrays.items()}
    layers = tree.get(METADATA)
    if isinstance(layers, dict):
        inner = {n.removeprefix("module").removeprefix("."): each for n, each in layers.items() if n}
        plain[METADATA] = inner
    return plain


def _renamed(path: str, rename: Mapping[str, str], used: set[str]) -> str:
    """What an array is called here."""
    for name in sorted(rename, key=len, reverse=True):
        rest = path[len(name) :]
        if path.startswith(name) and (not rest or not name or rest[0] in "./"):
            used.add(name)
            if not name:
                return f"{rename[name]}{'/' if '/' in path else '.'}{path}" if rename[name] else path
            return rename[name] + rest if rename[name] else rest[1:]
    return path


def _kind(saved: Any, given: Any) -> str | None:
    """Why numbers of equal shape are not the same kind of numbers."""
    notes = [set(getattr(leaf, "note", "").split()) & {"complex", "numpy"} for leaf in (saved, given)]
    return None if notes[0] == notes[1] else f"saved {sorted(notes[0])} numbers, given {sorted(notes[1])}"


def _advice(strict: bool) -> str:
    if strict:
        return "strict=False takes those that fit, rename={saved: given} those that are called otherwise"
    return "nothing fits: rename={saved: given} says what is called otherwise"
