"""parts.json comes back as it was, and anything else is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from stopctl.core.errors import DamagedError
from stopctl.store import strict
from stopctl.store.hashed import FileFact
from stopctl.store.partfile import PART, Parts, arrays_name, encode_parts, facts_name, parse_parts

FACT = FileFact(3, "0" * 64)
FILES = {name(rank): FACT for rank in (0, 12) for name in (facts_name, arrays_name)}
PARTS = Parts(13, ("rng",), {"a/ä": ("F32", (2, 0)), "b": ("U8", ())}, FILES)


def test_it_comes_back_as_it_was() -> None:
    found = parse_parts(encode_parts(PARTS))
    assert found == PARTS
    told = replace(PARTS, layouts=[[0, [[[[0], [2]]]]], None])
    assert parse_parts(encode_parts(told)) == told
    assert [json.loads(encode_parts(each))["format"] for each in (PARTS, told)] == [1, 3]
    assert found.having() == [0, 12]
    assert found.bytes == 12


def body(**changes: Any) -> bytes:
    whole = json.loads(encode_parts(PARTS)) | changes
    return strict.dumps({name: value for name, value in whole.items() if value is not ...})


FILE = FACT.to_json()
OF_ONE = {"part-00001.json": FILE, "part-00001.safetensors": FILE}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": True}, {"format": ...}, {"more": 1}, {"ranks": ...},
        {"ranks": 0}, {"ranks": True}, {"ranks": 1.0}, {"ranks": 10**5 + 1}, {"ranks": 12}, {"ranks": "2"},
        {"per_rank": {}}, {"per_rank": "rng"}, {"per_rank": [1]},
        {"arrays": []}, {"arrays": {"a": 1}}, {"arrays": {"a": ["F32"]}}, {"arrays": {"a": ["F31", [1]]}},
        {"arrays": {"a": [["F32"], [1]]}}, {"arrays": {"a": ["F32", 1]}}, {"arrays": {"a": ["F32", [-1]]}},
        {"arrays": {"a": ["F32", [2**63]]}}, {"arrays": {"a": ["F32", [1] * 65]}}, {"arrays": {"a": ["F32", [True]]}},
        {"files": []}, {"files": {"part-00001.json": FILE}}, {"files": {"part-00001.safetensors": FILE}},
        {"files": OF_ONE | {"x": FILE}}, {"files": OF_ONE | {"../part-00002.json": FILE}},
        {"files": {"part-1.json": FILE, "part-1.safetensors": FILE}},
        {"files": {"part-0000١.json": FILE, "part-0000١.safetensors": FILE}},
        {"files": {"part-00001.json\n": FILE, "part-00001.safetensors": FILE}},
        {"files": {"part-00013.json": FILE, "part-00013.safetensors": FILE}},
        {"files": OF_ONE | {"part-00001.json": 1}}, {"files": OF_ONE | {"part-00001.json": FILE | {"size": -1}}},
        {"files": OF_ONE | {"part-00001.json": FILE | {"sha256": "x"}}},
        {"format": 4}, {"format": 3}, {"layouts": []}, {"format": 3, "layouts": {}},
        {"format": 3, "layouts": [None]}, {"format": 3, "layouts": [None] * 3},
    ],
    ids=str,
)  # fmt: skip
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"^parts\.json: "):
        parse_parts(body(**changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 10**5, b'{"format":NaN}'])
def test_what_is_no_such_object_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^parts\.json: "):
        parse_parts(data)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("part-00000.json", True), ("part-99999.safetensors", True), ("part-0000.json", False),
        ("part-000000.json", False), ("part-00001.JSON", False), ("part-00001.json.bak", False),
        (".part-00001.json", False), ("part-00001.safetensors.zst", False), ("part-0000a.json", False),
        ("part-00001json", False), ("parts.json", False), ("part-00001.json\n", False),
    ],
)  # fmt: skip
def test_only_two_names_of_a_rank_are_those_of_parts(name: str, is_one: bool) -> None:
    assert (PART.fullmatch(name) is not None) is is_one
