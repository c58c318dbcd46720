"""Putting saved components into live objects: compare all, then change all, or change nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stopctl import MismatchError
from stopctl.ports import Leaf, Tree
from stopctl_tf.parts import OptimizerPart, Part, VariablesPart
from stopctl_tf.rng import RNGS
from stopctl_tf.table import rows


def restore(
    parts: Mapping[str, Part], components: Mapping[str, Tree], allow_missing: Collection[str] = ()
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

    before = {name: part.capture(name) for name, part in RNGS.items()}  # building draws initial values
    try:
        for name, part in both.items():
            part.build(components[name])
        _refuse(_check(both, components, built=True) or _torn(both, components))
        before |= {name: part.capture(name) for name, part in both.items() if name not in before}
        for name, part in both.items():
            part.load(components[name])
    except BaseException:
        for name, tree in before.items():
            {**RNGS, **both}[name].load(tree)
        raise


def _check(parts: Mapping[str, Part], components: Mapping[str, Tree], *, built: bool) -> list[str]:
    return [line for name, part in parts.items() for line in part.check(components[name], name, built=built)]


def _torn(parts: Mapping[str, Part], components: Mapping[str, Tree]) -> list[str]:
    """Variables that are one now and were saved as two with different values: the last would win silently."""
    first: dict[int, tuple[str, Leaf]] = {}
    lines = []
    for name, part in parts.items():
        if isinstance(part, (VariablesPart, OptimizerPart)):
            for i, (row, slot) in enumerate(zip(rows(components[name]) or (), part.slots(), strict=True)):
                where, leaf = first.setdefault(id(slot.raw), (f"{name}/{i}", row.leaf))
                if leaf.data != row.leaf.data:
                    lines.append(f"{where} and {name}/{i}: saved as two variables, given as one")
    return lines


def _refuse(lines: list[str]) -> None:
    if lines:
        raise MismatchError("the checkpoint does not fit the objects given:\n  " + "\n  ".join(lines))
