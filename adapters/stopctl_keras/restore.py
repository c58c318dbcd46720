"""Putting saved components into live objects: compare all, then change all, or change nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from stopctl import MismatchError
from stopctl.ports import Leaf, Tree
from stopctl_keras.parts import Part, TablePart, VariablesPart
from stopctl_keras.table import rows


def restore(
    parts: Mapping[str, Part],
    components: Mapping[str, Tree],
    rngs: Mapping[str, Part],
    allow_missing: Collection[str] = (),
) -> None:
    """Compare names both ways and every component with its part, then load them all.

    Raises:
        MismatchError: every difference; no value has changed. (A model or optimizer without variables may
            have been built from the saved shapes before the difference was found.)
    """
    lines = [f"{name}: saved, not given" for name in components if name not in {*parts, *allow_missing}]
    lines += [f"{name}: given, not saved" for name in parts if name not in {*components, *allow_missing}]
    if lines:
        names = sorted({line.partition(":")[0] for line in lines})
        lines.append(f"allow_missing={{{', '.join(map(repr, names))}}} goes on without")
    both = {name: part for name, part in parts.items() if name in components}
    _refuse([*lines, *_check(both, components, built=False)])

    before = {name: part.capture(name) for name, part in rngs.items()}  # building draws initial values
    try:
        for name, part in both.items():
            part.build(components[name])
        _refuse(_check(both, components, built=True) or _torn(both, components))
        before |= {name: part.capture(name) for name, part in both.items() if name not in before}
        _load(both, components)
        _refuse(_differing(both, components))
    except BaseException:
        with suppress(MismatchError):  # of a layer that cannot take what it has told: the first error says so
            _load({name: {**rngs, **both}[name] for name in before}, before)
        raise


def stands(parts: Mapping[str, VariablesPart], components: Mapping[str, Tree]) -> list[str]:
    """What to tell of components that an older version has saved, see `stopctl_keras.layers`."""
    there = [(name, part) for name, part in parts.items() if name in components]
    return [line for name, part in there for line in part.layers.stands(components[name], name)]


def _load(parts: Mapping[str, Part], components: Mapping[str, Tree]) -> None:
    for name, part in parts.items():
        part.load(components[name])
    for name, part in parts.items():
        part.settle(components[name])


def _differing(parts: Mapping[str, Part], components: Mapping[str, Tree]) -> list[str]:
    there = {name: part.layers for name, part in parts.items() if isinstance(part, VariablesPart)}
    return [line for name, layers in there.items() for line in layers.differing(components[name], name)]


def _check(parts: Mapping[str, Part], components: Mapping[str, Tree], *, built: bool) -> list[str]:
    return [line for name, part in parts.items() for line in part.check(components[name], name, built=built)]


def _torn(parts: Mapping[str, Part], components: Mapping[str, Tree]) -> list[str]:
    """Variables that are one now and were saved as two with different values: the last would win silently."""
    first: dict[int, tuple[str, Leaf]] = {}
    lines = []
    for name, part in parts.items():
        if isinstance(part, TablePart):
            saved = components[name]
            for i, (row, slot) in enumerate(zip(rows(saved) or (), part.targets(saved), strict=True)):
                where, leaf = first.setdefault(id(slot.raw), (f"{name}/{i}", row.leaf))
                if leaf.data != row.leaf.data:
                    lines.append(f"{where} and {name}/{i}: saved as two variables, given as one")
    return lines


def _refuse(lines: list[str]) -> None:
    if lines:
        raise MismatchError("the checkpoint does not fit the objects given:\n  " + "\n  ".join(lines))
