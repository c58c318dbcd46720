"""All components or none: check, load, and put back what was loaded when one fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stopctl import MismatchError
from stopctl.ports import Tree
from stopctl_torch.leaves import Encoder
from stopctl_torch.parts import Part


def load_checked(
    parts: Mapping[str, Part],
    components: Mapping[str, Tree],
    free: Collection[str] = (),
    *,
    undo: bool = True,
) -> None:
    """Compare names both ways and every component with its part; then load all, in the order of ``parts``.

    Names in ``free`` may lack on either side. When a part fails while it loads, which after the comparison is
    the user's own code, everything is put back as it was and the error goes on to the caller; without
    ``undo`` nothing is, and no copy is made for it.

    Raises:
        MismatchError: every difference; nothing has changed.
    """
    both = {name: part for name, part in parts.items() if name in components}
    lines = _check_names(parts, components, free)
    for name, part in both.items():
        lines += part.check(components[name], name)
    if lines:
        raise MismatchError("the saved state does not fit the objects given:\n  " + "\n  ".join(lines))
    if undo:
        _load_all(both, components)
    else:
        for name, part in both.items():
            part.load(components[name])


def _check_names(given: Collection[str], saved: Collection[str], free: Collection[str]) -> list[str]:
    lacking = {name: "saved, but not given" for name in saved if name not in {*given, *free}}
    lacking |= {name: "given, but not saved" for name in given if name not in {*saved, *free}}
    lines = [f"{name}: {how}" for name, how in lacking.items()]
    optional = ", ".join(repr(name) for name in lacking if name.partition(".")[0] != "model")
    return [*lines, f"(allow_missing={{{optional}}} goes on without)"] if optional else lines


def _load_all(parts: Mapping[str, Part], components: Mapping[str, Tree]) -> None:
    before = {name: part.capture(Encoder("copy"), name) for name, part in parts.items()}
    for name, part in parts.items():
        try:
            part.load(components[name])
        except BaseException as error:
            error.add_note(f"while {name} was restored; {_put_back(parts, before)}")
            raise


def _put_back(parts: Mapping[str, Part], before: Mapping[str, Tree]) -> str:
    """Undo what was loaded, as far as the objects let us; says how far."""
    stuck = []
    for name, part in parts.items():
        try:
            part.load(before[name])
        except Exception as error:
            stuck.append(f"{name} ({error})")
    return f"not put back: {', '.join(stuck)}" if stuck else "everything was put back as it was"
