"""Strict JSON: no NaN or Infinity literals, no duplicate keys, no numbers that overflow, one spelling."""

from __future__ import annotations

import json
import math
from typing import Any, Never, TypeAlias

from stopctl.core.codec import float_to_json
from stopctl.core.errors import TreeError

JsonValue: TypeAlias = Any
"""None | bool | int | float | str | list[JsonValue] | dict[str, JsonValue]"""


def dumps(value: JsonValue, *, sort_keys: bool = False) -> bytes:
    """One line of ASCII JSON without spaces; `value` is strict already (see `plain`)."""
    return _ENCODERS[sort_keys].encode(value).encode("ascii")


def loads(data: bytes | bytearray | memoryview) -> JsonValue:
    """Parse strict JSON in UTF-8; ValueError for anything else, absurd nesting included."""
    try:
        text = bytes(data).decode("utf-8")
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a BOM")
        return (_CAREFUL if _has_long(text) else _DECODER).decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _has_long(text: str) -> bool:
    """Whether there may be 300 digits in a row; much faster than a pattern that is tried at each of them."""
    return len(text) >= 2 * _HALF and any(
        text[at : at + _HALF].isdigit() for at in range(0, len(text), _HALF)
    )


def plain(value: object, path: str) -> JsonValue:
    """Copy `value` into strict JSON; non-finite floats become strings, tuples lists; else TreeError."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int and _is_moderate(value):  # type: ignore[arg-type]
        return value
    if kind is float:
        return value if math.isfinite(value) else float_to_json(value)  # type: ignore[arg-type]
    try:
        if isinstance(value, list | tuple):
            return [plain(item, f"{path}/{i}") for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {_key(key, path): plain(item, f"{path}/{key}") for key, item in value.items()}
    except RecursionError:
        raise TreeError(f"{path.split('/', 1)[0]}: nested too deeply, or it contains itself") from None
    raise TreeError(
        f"{path}: {kind.__module__}.{kind.__qualname__} is no plain JSON value, or too large for one"
    )


def _key(key: object, path: str) -> str:
    if type(key) is not str:
        raise TreeError(f"{path}: the key {key!r} is no str")
    return key


def _no_constant(literal: str) -> Never:
    raise ValueError(f"{literal} is not strict JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"the number {literal[:40]} overflows")
    return value


def _whole(literal: str) -> int:
    """No int that `float` refuses: whoever computes with it may have to make one of it."""
    value = int(literal)
    if not _is_moderate(value):
        raise ValueError(f"the number {literal[:40]} overflows")
    return value


def _is_moderate(value: int) -> bool:
    return value.bit_length() < 1024


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


_HALF = 150
"""Of 300 digits in a row so many begin where they are looked at; a number that overflows has 308."""
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
_CAREFUL = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique
)
"""Looks at each int, which takes time, and so only where there is a long number."""
_ENCODERS = {
    sort_keys: json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=sort_keys)
    for sort_keys in (False, True)
}
