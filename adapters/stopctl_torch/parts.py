"""One component of a checkpoint each: how to capture, check and load it; all load, or none does."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from stopctl import MismatchError, TreeError
from stopctl.ports import Leaf, Notice, Tree, differences, flatten
from stopctl_torch.leaves import Encoder, decode, look
from stopctl_torch.sharding import sharded

METADATA = "_metadata"  # beside the tensors of a module: the version numbers that its layers load by
EXTRA_STATE = "_extra_state"
INNER = "_schedulers"


class Keys(NamedTuple):
    """Names that only one of two states has, each in words: ``"'step' of optimizer"``."""

    saved: list[str]
    given: list[str]


class Part(Protocol):
    """One of the user's objects, or one random number generator."""

    def capture(self, encode: Encoder, path: str) -> Tree:
        """Its state as a tree, tensors as leaves."""
        ...

    def check(self, saved: Tree, path: str) -> list[str]:
        """Every difference that makes ``saved`` unfit for it, in words; changes nothing."""
        ...

    def load(self, saved: Tree) -> None:
        """Take over ``saved``, which has passed the check."""
        ...


class KeyedPart(Part):
    """A part whose state may gain and lose keys, from one version of its class to the next or while it steps.

    ``load`` takes over a key that was saved and is not given, and keeps the live value of one that is given
    and was not saved.
    """

    @abstractmethod
    def keys(self, saved: Tree, path: str) -> Keys:
        """The keys that ``saved``, which has passed the check, or the live object alone has."""
        ...

    @abstractmethod
    def drop(self, saved: Tree) -> None:
        """Forget the keys that ``saved`` does not have, so that undoing a load leaves none behind."""
        ...


class ModulePart:
    """The parameters and buffers of a module, by name."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def capture(self, encode: Encoder, path: str) -> Tree:
        """``{tensor name: leaf, "_metadata": ...}``."""
        state = self._module.state_dict()
        if METADATA in state:
            raise TreeError(f"{path}/{METADATA}: this name is taken; call the parameter otherwise")
        tree = encode(dict(state), path)
        tree[METADATA] = encode(dict(getattr(state, METADATA, {})), f"{path}/{METADATA}")
        return tree

    def check(self, saved: Tree, path: str) -> list[str]:
        """Names, shapes and dtypes, both ways."""
        if not isinstance(saved, dict) or METADATA not in saved:
            return [f"{path}: saved is not the state of a torch module"]
        try:
            given = self.capture(Encoder("none"), path)
        except TreeError as error:
            return [str(error)]
        lines = differences(_tensors(saved), _tensors(given), path)
        for name in [name for name in given if name in saved]:
            ours, theirs = is_complex(saved[name]), is_complex(given[name])
            if ours != theirs:
                kinds = ("complex", "real") if ours else ("real", "complex")
                lines.append(f"{path}/{name}: saved {kinds[0]} numbers, given {kinds[1]} ones")
        return lines

    def load(self, saved: Tree) -> None:
        """Copy the tensors into the module's own; an expanded buffer whose items differ becomes whole."""
        tensors = {k: v for k, v in saved.items() if k != METADATA}
        # load_state_dict() copies, so it may be shown the buffer that was read; but extra state is kept
        state_dict = self._module.state_dict()
        live = sharded(state_dict)
        expanded = [k for k, v in state_dict.items() if isinstance(v, torch.Tensor) and overlaps(v)]
        plain = {k for k, v in tensors.items() if isinstance(v, Leaf) and k not in live}
        seen = {k: look(tensors[k]) for k in plain if not k.endswith(EXTRA_STATE)}
        others = decode({k: v for k, v in tensors.items() if seen.get(k) is None}, like=live)
        state = OrderedDict((k, others[k] if k in others else seen[k]) for k in tensors)
        state._metadata = OrderedDict(saved[METADATA])  # type: ignore[attr-defined]
        with _whole(self._module, expanded):
            self._module.load_state_dict(state)


@contextmanager
def _whole(module: torch.nn.Module, names: Collection[str]) -> Iterator[None]:
    """Have expanded buffers whole for a while; each is itself again where its items are still equal."""
    places = []
    for name in names:
        path, _, key = name.rpartition(".")
        buffers = module.get_submodule(path)._buffers
        if (buffer := buffers.get(key)) is not None:
            buffers[key] = buffer.clone(memory_format=torch.contiguous_format)
            places.append((buffers, key, buffer))
    try:
        yield
    finally:
        for buffers, key, buffer in places:
            whole, small = buffers[key], buffer
            assert whole is not None
            for dim, (stride, length) in enumerate(zip(buffer.stride(), buffer.shape, strict=True)):
                if stride == 0 and length:
                    whole, small = whole.narrow(dim, 0, 1), small.narrow(dim, 0, 1)
            if torch.equal(whole.expand_as(buffer), buffers[key]):  # type: ignore[arg-type]
                small.copy_(whole)
                buffers[key] = buffer


def overlaps(tensor: torch.Tensor) -> bool:
    """Whether some of its items are one place in memory, as ``expand()`` makes them: nothing writes there."""
    return any(
        stride == 0 and length > 1 for stride, length in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _tensors(tree: dict[str, Tree]) -> dict[str, Tree]:
    """Without what may differ from one save to the next: layer versions, and get_extra_state()'s values."""
    return {k: None if k.endswith(EXTRA_STATE) else v for k, v in tree.items() if k != METADATA}


def is_complex(tree: Tree) -> bool:
    """Whether a leaf's pairs are complex numbers."""
    return isinstance(tree, Leaf) and "complex" in tree.note


class ObjectPart:
    """Anything with ``state_dict()`` and ``load_state_dict()``."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def capture(self, encode: Encoder, path: str) -> Tree:
        """``{"class": ..., "state": the encoded state dict}``."""
        return {"class": kind_of(self.thing), "state": encode(self.thing.state_dict(), f"{path}/state")}

    def check(self, saved: Tree, path: str) -> list[str]:
        """The class."""
        return check_class(saved, self.thing, path)

    def load(self, saved: Tree) -> None:
        """Hand a fresh copy to ``load_state_dict()``."""
        self.thing.load_state_dict(decode(saved["state"], like=self.thing.state_dict()))


class SettingsPart(ObjectPart, KeyedPart):
    """A scheduler or scaler: an object whose state is a dict of settings and counters, by name."""

    def check(self, saved: Tree, path: str) -> list[str]:
        """The class, and that loading replaces no method, no property and no optimizer of the object."""
        lines = check_class(saved, self.thing, path, dict)
        if lines:
            return lines
        for where, ours, theirs, thing in _levels(saved["state"], self.thing, f"{path}/state"):
            if not ours or not theirs:  # as a GradScaler(enabled=False) tells none, and takes none
                lines += [f"{where}/{key}: saved, but not given" for key in ours]
                lines += [f"{where}/{key}: given, but not saved" for key in theirs]
                continue
            for key in [key for key in ours if key not in theirs and _is_in_use(thing, key)]:
                kind = type(thing).__name__
                lines.append(f"{where}/{key}: saved, but a method, property or optimizer in the {kind} given")
        return lines

    def keys(self, saved: Tree, path: str) -> Keys:
        """Those of the schedulers inside, too."""
        keys = Keys([], [])
        for where, ours, theirs, _ in _levels(saved["state"], self.thing, path):
            keys.saved.extend(f"{key!r} of {where}" for key in ours if key not in theirs)
            keys.given.extend(f"{key!r} of {where}" for key in theirs if key not in ours)
        return keys

    def load(self, saved: Tree) -> None:
        """Hand a fresh copy to ``load_state_dict()``, with the live values of the keys that it lacks."""
        state = decode(saved["state"], like=self.thing.state_dict())
        for _, ours, theirs, _ in _levels(state, self.thing, ""):
            for key, value in theirs.items():
                ours.setdefault(key, value)
        self.thing.load_state_dict(state)

    def drop(self, saved: Tree) -> None:
        """Attributes, which is what loading makes of keys."""
        for _, ours, theirs, thing in _levels(saved["state"], self.thing, ""):
            for key in theirs.keys() - ours.keys():
                delattr(thing, key)


def _levels(saved: dict[str, Any], thing: Any, path: str) -> Iterator[tuple[str, dict[str, Any], Any, Any]]:
    """Path, saved state, given state and object: of a scheduler, and of each that is inside it."""
    yield path, saved, thing.state_dict(), thing
    inner = zip(saved.get(INNER, ()), getattr(thing, INNER, None) or (), strict=False)
    for i, (state, scheduler) in enumerate(inner):
        yield from _levels(state, scheduler, f"{path}/{INNER}/{i}")


def _is_in_use(thing: object, key: object) -> bool:
    """Whether an object needs what it has under that name: a method, a property, its optimizer."""
    value = inspect.getattr_static(thing, key, None) if isinstance(key, str) else None
    return callable(value) or hasattr(value, "__get__") or isinstance(value, torch.optim.Optimizer)


class GeneratorPart:
    """A torch.Generator: its position in its stream."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def capture(self, encode: Encoder, path: str) -> Tree:
        """``{"class": "Generator", "device": ..., "state": leaf}``."""
        state = encode(self._generator.get_state(), f"{path}/state")
        return {"class": "Generator", "device": self._generator.device.type, "state": state}

    def check(self, saved: Tree, path: str) -> list[str]:
        """The kind of device, and the size of the state."""
        return check_class(saved, self._generator, path, Leaf) or _check_generator(
            saved, self.capture(Encoder("none"), path), path
        )

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        self._generator.set_state(decode(saved["state"]))


def _check_generator(saved: Tree, given: Tree, path: str) -> list[str]:
    if saved.get("device") != given["device"]:
        return [f"{path}: saved on {saved.get('device')}, given on {given['device']}"]
    return differences(saved["state"], given["state"], f"{path}/state")


def kind_of(thing: object) -> str:
    """The class name, with those of the schedulers inside: ``SequentialLR(LinearLR, StepLR)``."""
    inner = getattr(thing, INNER, None) or ()
    return type(thing).__name__ + (f"({', '.join(map(kind_of, inner))})" if inner else "")


def check_class(saved: Tree, thing: object, path: str, state: type = object) -> list[str]:
    """Whether ``saved`` was captured from an object of this class, with a state of that type."""
    if isinstance(saved, dict) and saved.get("class", kind_of(thing)) != kind_of(thing):
        return [f"{path}: saved from {saved['class']}, given {kind_of(thing)}"]
    fields = saved if isinstance(saved, dict) else {}
    if not {"class", "state"} <= fields.keys() or not isinstance(fields["state"], state):
        return [f"{path}: saved is not the state of a {kind_of(thing)}"]
    return []


def load_checked(
    parts: Mapping[str, Part],
    components: Mapping[str, Tree],
    free: Collection[str] = (),
    *,
    undo: Encoder | None = None,
) -> Keys:
    """Compare names both ways and every component with its part; then load all, in the order of ``parts``.

    Names in ``free`` may lack on either side. When a part fails while it loads, which after the comparison is
    the user's own code, everything is put back as it was by the copies of ``undo``, an ``Encoder("copy")``,
    and the error goes on to the caller; without it nothing is.

    Returns:
        The keys in which the two differed though they fit.

    Raises:
        MismatchError: every difference; nothing has changed.
        TreeError: something in the objects that a checkpoint cannot hold, with its path.
    """
    both = {name: part for name, part in parts.items() if name in components}
    lines = _check_names(parts, components, free)
    for name, part in both.items():
        lines += part.check(components[name], name)
    if lines:
        raise MismatchError("the saved state does not fit the objects given:\n  " + "\n  ".join(lines))
    keyed = [(part, name) for name, part in both.items() if isinstance(part, KeyedPart)]
    keys = [part.keys(components[name], name) for part, name in keyed]
    if undo is not None:
        _load_all(both, components, undo)
    else:
        for name, part in both.items():
            part.load(components[name])
    return Keys([key for each in keys for key in each.saved], [key for each in keys for key in each.given])


def outline(parts: Mapping[str, Part], notices: list[Notice]) -> dict[str, Tree]:
    """What parts will save, without bytes; None of what cannot tell it yet, and is tried when it is saved.

    None of a loader, too: it draws random numbers and starts workers to tell its state.

    Args:
        parts: by component name.
        notices: to which is added what cannot tell its state yet.

    Raises:
        TreeError: something that a checkpoint cannot hold, with its path.
    """
    return gathered(parts, Encoder("none", unbuilt=True), notices)


def gathered(parts: Mapping[str, Part], encode: Encoder, notices: list[Notice]) -> dict[str, Tree]:
    """What parts save, by an encoder with ``unbuilt``; the rest as in `outline`."""
    trees: dict[str, Tree] = dict.fromkeys(parts)
    for name, part in parts.items():
        if isinstance(part, ObjectPart) and isinstance(part.thing, torch.utils.data.DataLoader):
            continue
        try:
            trees[name] = part.capture(encode, name)
        except TreeError:
            raise
        except Exception as error:
            notices.append(Notice(f"{name} cannot tell its state yet, so it is tried when saved: {error!r}"))
    return trees


def _check_names(given: Collection[str], saved: Collection[str], free: Collection[str]) -> list[str]:
    lacking = {name: "saved, but not given" for name in saved if name not in {*given, *free}}
    lacking |= {name: "given, but not saved" for name in given if name not in {*saved, *free}}
    lines = [f"{name}: {how}" for name, how in lacking.items()]
    optional = ", ".join(repr(name) for name in lacking if name.partition(".")[0] != "model")
    return [*lines, f"(allow_missing={{{optional}}} goes on without)"] if optional else lines


def _load_all(parts: Mapping[str, Part], components: Mapping[str, Tree], encode: Encoder) -> None:
    before = {name: part.capture(encode, name) for name, part in parts.items()}
    flatten(before)  # so that what could not be saved is told before anything has changed
    for name, part in parts.items():
        try:
            part.load(components[name])
        except BaseException as error:
            error.add_note(f"while {name} was restored; {_put_back(parts, before)}")
            raise


def _put_back(parts: Mapping[str, Part], before: Mapping[str, Tree]) -> str:
    """Undo the load, as far as the objects let us; say how far."""
    stuck = []
    for name, part in parts.items():
        try:
            part.load(before[name])
            if isinstance(part, KeyedPart):
                part.drop(before[name])
        except Exception as error:
            stuck.append(f"{name} ({error})")
    return f"not put back: {', '.join(stuck)}" if stuck else "everything was put back as it was"
