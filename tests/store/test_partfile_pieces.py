"""part-00001.json comes back as it was, and anything else is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stopctl.core.errors import DamagedError
from stopctl.store import strict
from stopctl.store.hashed import FileFact
from stopctl.store.partfile import Part, Saved, encode_part, parse_part

ARRAYS = {"a": ("F32", (4, 2)), "b": ("U8", ()), "c": ("U8", (2**62,))}
MINE = {"a": ("F32", (4, 2)), "b": ("U8", ())}
PIECES = {"a": (Saved((0, 0), (1, 2), "a[0]"), Saved((2, 1), (2, 1), "a[2]")), "b": (Saved((), (), "b"),)}
PART = Part(1, {"rng": {"dict": []}}, MINE, PIECES, FileFact(17, "0" * 64))


def test_it_comes_back_as_it_was() -> None:
    assert parse_part(encode_part(PART), 1, ARRAYS) == PART


def body(**changes: Any) -> bytes:
    whole = json.loads(encode_part(PART)) | changes
    return strict.dumps({name: value for name, value in whole.items() if value is not ...})


A = {"arrays": {"a": ["F32", [4, 2]]}}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"more": 1}, {"rank": ...}, {"rank": 0}, {"rank": True}, {"rank": 1.0},
        {"components": []}, {"components": None}, {"pieces": []}, {"tensors": 1}, {"tensors": {}},
        {"tensors": {"size": 16, "sha256": "0" * 64}},
        {"arrays": {}}, {"arrays": []}, {"arrays": {"x": ["F32", [4, 2]]}, "pieces": {"x": []}},
        {"arrays": {"a": ["F32", [2, 4]]}, "pieces": {"a": []}},
        {"arrays": {"a": ["I32", [4, 2]]}, "pieces": {"a": []}},
        {"pieces": {"a": []}},
        A | {"pieces": {"a": {}}}, A | {"pieces": {"a": [1]}}, A | {"pieces": {"a": [[[0, 0], [1, 2]]]}},
        A | {"pieces": {"a": [[{}, [1, 2], "x"]]}}, A | {"pieces": {"a": [[[0, 0], None, "x"]]}},
        A | {"pieces": {"a": [[[0, 0], [1, 2], 1]]}}, A | {"pieces": {"a": [[[0, -1], [1, 2], "x"]]}},
        A | {"pieces": {"a": [[[0, 0], [1, 2**63], "x"]]}}, A | {"pieces": {"a": [[[0, 0.5], [1, 1], "x"]]}},
        A | {"pieces": {"a": [[[0], [1], "x"]]}}, A | {"pieces": {"a": [[[4, 0], [1, 1], "x"]]}},
        A | {"pieces": {"a": [[[0, 0], [0, 2], "x"]]}}, A | {"pieces": {"a": [[[0, 0], [5, 2], "x"]]}},
        {"arrays": {"c": ["U8", [2**62]]}, "pieces": {"c": [[[0], [2**62], "x"]]}},
    ],
    ids=str,
)  # fmt: skip
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"^part-00001\.json: "):
        parse_part(body(**changes), 1, ARRAYS)


def test_the_same_bytes_may_not_be_many_pieces() -> None:
    """What would make much out of little: each piece counts against the size of the file."""
    many = [[[0, 0], [1, 2], "x"]] * 3
    with pytest.raises(DamagedError, match="pieces of 24 bytes in a file of 17"):
        parse_part(body(**A, pieces={"a": many}), 1, ARRAYS)
