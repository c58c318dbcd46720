"""Arguments of an adapter that are one object, or a dict of several by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stopctl.core.errors import SettingError


def named(
    sort: str, given: Any, fits: Callable[[Any], bool], wanted: str, *, required: bool = False
) -> dict[str, Any]:
    """``{"sort": object}``, or ``{"sort.name": object}`` of a dict; empty for None.

    Args:
        sort: the argument's name.
        given: what it was given.
        fits: whether it takes an object. wanted: which ones, for the error.
        required: None is an error, too.

    Raises:
        SettingError: a name or an object that cannot be; says what to write.
    """
    if given is None and not required:
        return {}
    several = isinstance(given, Mapping)
    if several and not given:
        raise SettingError(f"{sort}={{}} is empty: {f'give a {sort}' if required else 'leave it out'}")
    things = {}
    for key, thing in given.items() if several else [("", given)]:
        if several and (not isinstance(key, str) or not key.isprintable() or not key or "/" in key):
            raise SettingError(f"{sort}={{{key!r}: ...}}: a name is a printable str without a slash")
        name = f"{sort}.{key}" if several else sort
        if isinstance(thing, type):
            raise SettingError(f"{name} is the class {thing.__name__}: pass an object, {thing.__name__}(...)")
        if not fits(thing):
            raise SettingError(f"{name} is {what(thing)}: pass {wanted}")
        things[name] = thing
    return things


def what(thing: Any) -> str:
    """``"a list"``, ``"an int"``, ``"None"``."""
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
