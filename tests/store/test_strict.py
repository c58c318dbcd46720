from __future__ import annotations

import math
from typing import Any

import pytest

from stopctl.core.errors import TreeError
from stopctl.store import strict


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a":NaN}', "NaN is not strict JSON"),
        (b"[-Infinity]", "-Infinity is not strict JSON"),
        (b'{"a":1,"a":2}', "a key stands twice"),
        (b'[{"b":{"a":1,"a":1}}]', "a key stands twice"),
        (b"1e999", "the number 1e999 overflows"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "Expecting"),
        (b"{} {}", "Extra data"),
        (b'"\xff"', "utf-8"),
        (b"9" * 5000, "4300"),
        (b'{"a":[-' + b"9" * 400 + b"]}", "the number -9999.* overflows"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
def test_what_is_not_strict_json_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        strict.loads(text)


def test_any_buffer_is_read() -> None:
    for text in (b'{"a":[1,2.5,null]}', bytearray(b'{"a":[1,2.5,null]}'), memoryview(b'{"a":[1,2.5,null]}')):
        assert strict.loads(text) == {"a": [1, 2.5, None]}


def test_plain_makes_strict_json_of_plain_values() -> None:
    given = {"a": [1, (2.5, math.nan)], "b": {"c": math.inf, "d": -math.inf}, "e": None, "f": True, "g": "x"}
    plain = strict.plain(given, "state")
    assert plain == {
        "a": [1, [2.5, "NaN"]], "b": {"c": "Infinity", "d": "-Infinity"}, "e": None, "f": True, "g": "x",
    }  # fmt: skip
    assert strict.loads(strict.dumps(plain)) == plain
    assert plain["a"] is not given["a"]


def test_dumps_refuses_what_plain_would_have_changed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict.dumps(math.nan)


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, {2}]}, "state/a/1: builtins.set is no plain JSON value"),
        ({"a": b"x"}, "state/a: builtins.bytes is no"),
        ({"a": {1: 2}}, "state/a: the key 1 is no str"),
        (1 << 1024, "state: builtins.int is no plain JSON value, or too large"),
        (cycle(), "state: nested too deeply, or it contains itself"),
    ],
)
def test_what_json_does_not_hold_is_refused_with_its_path(value: Any, said: str) -> None:
    with pytest.raises(TreeError, match=f"^{said}"):
        strict.plain(value, "state")


@pytest.mark.parametrize("before", range(0, 151, 7))
def test_a_number_that_overflows_is_refused_wherever_it_stands(before):
    assert strict.loads(b" " * before + b"1" * 308 + b" ") == int("1" * 308)
    with pytest.raises(ValueError, match="overflows"):
        strict.loads(b"[" + b" " * before + b"1" * 310 + b"]")
