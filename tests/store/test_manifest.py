from __future__ import annotations

import hashlib
import json
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError, SettingError
from stopctl.store import CheckpointInfo
from stopctl.store.hashed import CHUNK, FileFact
from stopctl.store.manifest import (
    LIMIT,
    MAX_RANKS,
    NAME,
    chunks_size,
    directory_name,
    draft,
    encode,
    order,
    parse,
)

FOLDER = Path("/runs/a/checkpoints")
FACTS = {"state.safetensors": FileFact(12, "0" * 64), "state.json": FileFact(3, "f" * 64)}
FIELDS: dict[str, Any] = {
    "epoch": 10,
    "step": 4690,
    "seconds": 1.5,
    "value": 0.25,
    "writer": 3,
    "label": None,
    "pinned": False,
    "reasons": ("every 10 epochs",),
    "components": ("model", "optimizer"),
    "created": "2026-11-25T03:30:09.501Z",
}


def info(**fields: Any) -> CheckpointInfo:
    return draft(FOLDER, **(FIELDS | fields))


def signed(**changes: Any) -> bytes:
    """A manifest with these changes (None of a field: left out) and a hash that is right for them."""
    body = json.loads(encode(info(), FACTS)) | changes
    body = {name: value for name, value in body.items() if value is not ... and name != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["sha256"] = hashlib.sha256(canonical).hexdigest()
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


@given(
    st.fixed_dictionaries(
        {
            "epoch": st.integers(0, 2**63 - 1),
            "step": st.integers(0, 2**63 - 1),
            "seconds": st.floats(0, allow_infinity=False) | st.integers(0, 10**6),
            "value": st.none() | st.floats() | st.integers(-(2**63), 2**63 - 1),
            "label": st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
            "pinned": st.booleans(),
            "reasons": st.lists(st.text(max_size=10), max_size=3),
            "components": st.lists(st.text(max_size=10), max_size=3),
            "values": st.dictionaries(st.sampled_from(["Maximize('f1')", "Minimize('x')"]), st.floats()),
        }
    )
)
def test_a_manifest_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    written = info(**fields)
    data = encode(written, FACTS)
    found, facts = parse(data, FOLDER)
    assert len(data) < LIMIT
    assert facts == FACTS
    assert found.bytes == len(data) + 15
    assert repr(astuple(found)) == repr(astuple(replace(written, bytes=found.bytes)))  # NaN equals itself
    assert found.path == FOLDER / found.name
    assert NAME.fullmatch(found.name)
    assert order(found.name) == (found.step, found.epoch, found.writer)


def test_a_teams_manifest_tells_of_its_ranks_and_counts_their_bytes() -> None:
    facts = FACTS | {"parts.json": FileFact(5, "a" * 64)}
    data = encode(replace(info(), ranks=3), facts, parts=1000)
    found, files = parse(data, FOLDER)
    assert (found.ranks, files) == (3, facts)
    assert found.bytes == len(data) + 20 + 1000
    alone = encode(replace(info(), ranks=1), facts, parts=7)
    assert parse(alone, FOLDER)[0].ranks == 1
    assert b"ranks" not in encode(info(), FACTS)


LARGE = FileFact.of(CHUNK + 1, "a" * 64)
CHUNKED = {
    "state.safetensors": LARGE,
    "state.json": FACTS["state.json"],
    "chunks.bin": FileFact(64, "b" * 64),
}


def test_a_file_of_several_chunks_makes_it_format_2() -> None:
    data = encode(info(), CHUNKED)
    assert json.loads(data)["format"] == 2
    _, facts = parse(data, FOLDER)
    assert facts == CHUNKED
    assert [fact.chunked for fact in facts.values()] == [False, False, True]
    whole = FACTS | {"state.safetensors": FileFact(CHUNK + 1, "a" * 64)}  # as earlier versions wrote it
    data = encode(info(), whole)
    assert json.loads(data)["format"] == 1
    assert parse(data, FOLDER)[1] == whole


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"chunks.bin": ...}, "chunks.bin is not that of its files"),
        ({"chunks.bin": FileFact(32, "b" * 64)}, "chunks.bin is not that of its files"),
        ({"frozen.safetensors": LARGE}, "chunks.bin is not that of its files"),
        ({"state.safetensors": FACTS["state.safetensors"]}, "chunks.bin is not that of its files"),
        (FACTS | {"chunks.bin": ...}, "format 2, but no file has more than one chunk"),
    ],
)
def test_what_tells_of_other_chunks_than_its_files_have_is_damaged(files: dict[str, Any], why: str) -> None:
    told = {name: fact.to_json() for name, fact in (CHUNKED | files).items() if fact is not ...}
    with pytest.raises(DamagedError, match=why):
        parse(signed(format=2, files=told), FOLDER)


def test_names_sort_as_they_count_and_carry_the_label() -> None:
    assert directory_name(10, 4690, 3, None) == "epoch-0010-step-000004690-w0003"
    assert directory_name(0, 0, 1, "mid-2") == "epoch-0000-step-000000000-w0001-mid-2"
    assert directory_name(123456, 10**10, 12345, None) == "epoch-123456-step-10000000000-w12345"


@pytest.mark.parametrize(
    "name",
    [
        "epoch-10-step-000004690-w0003", "epoch-0010-step-000004690", "epoch-0010-step-000004690-w0003-",
        "epoch-0010-step-000004690-w0003 copy", ".tmp-epoch-0010-step-000004690-w0003", "x",
        "epoch-0010-step-000004690-w0003-a/b", "epoch-0010-step-000004690-w0003\n", "epoch-٠٠١٠-step-000004690-w0003",
    ],
)  # fmt: skip
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert NAME.fullmatch(name) is None


def test_it_stays_below_two_kilobytes_whatever_goes_in() -> None:
    most = info(
        epoch=2**63 - 1,
        step=2**63 - 1,
        seconds=1.2345678901234567e300,
        value=-1.2345678901234567e-300,
        writer=2**63 - 1,
        label="x" * 64,
        reasons=tuple("r" * 7 for _ in range(200)),
        components=tuple(f"model.{i}" for i in range(52)),
    )
    names = ("state.safetensors.zst", "state.json", "frozen.safetensors", "parts.json")
    big = {name: FileFact.of(2**63 - 1, "a" * 64) for name in names}
    big["chunks.bin"] = FileFact.of(chunks_size(big), "a" * 64)
    most = replace(most, ranks=MAX_RANKS, unpacked=2**63 - 1)
    data = encode(most, big, parts=2**63 - 1)
    assert len(data) < LIMIT
    found, facts = parse(data, FOLDER)
    assert facts == big
    assert found.frozen == 2**63 - 1
    assert 0 < len(found.reasons) < 200
    assert found.reasons == most.reasons[: len(found.reasons)]
    assert found.components == most.components
    more = info(components=(*most.components, "x" * 3000), reasons=("x" * 3000,))
    found, _ = parse(encode(more, FACTS), FOLDER)
    assert found.components == ()
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("epoch", -1, "an int from 0"),
        ("epoch", True, "an int from 0"),
        ("epoch", 1.0, "an int from 0"),
        ("step", 2**63, "an int from 0"),
        ("step", None, "an int from 0"),
        ("seconds", math.nan, "a finite number from 0"),
        ("seconds", -0.1, "a finite number from 0"),
        ("seconds", "1", "a finite number from 0"),
        ("value", "0.1", "a number or None"),
        ("value", [], "a number or None"),
        ("value", 2**63, "a number or None"),
        ("label", "", "at most 64 of"),
        ("label", "-a", "at most 64 of"),
        ("label", "a/b", "at most 64 of"),
        ("label", "..", "at most 64 of"),
        ("label", "a\n", "at most 64 of"),
        ("label", "x" * 65, "at most 64 of"),
        ("label", 1, "at most 64 of"),
        ("pinned", 1, "a bool"),
        ("reasons", "every", "a list of str"),
        ("reasons", (1,), "a list of str"),
        ("components", (1,), "a list of str"),
        ("created", None, "a str"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field: str, value: Any, wanted: str) -> None:
    with pytest.raises(SettingError, match=f"^the {field} of a checkpoint is {wanted}") as caught:
        info(**{field: value})
    assert str(caught.value).endswith(f"not {value!r}")


def test_every_flipped_bit_is_noticed() -> None:
    data = encode(info(label="a", value=math.nan), FACTS)
    for at in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            with pytest.raises(DamagedError, match=r"^manifest\.json: "):
                parse(broken, FOLDER)


def test_every_truncation_is_noticed() -> None:
    data = encode(info(), FACTS)
    for size in range(len(data)):
        with pytest.raises(DamagedError):
            parse(data[:size], FOLDER)


FILE = {"size": 1, "sha256": "0" * 64}
GOOD = {"state.safetensors": FILE, "state.json": FILE}


def test_a_signed_manifest_without_changes_is_good() -> None:
    assert parse(signed(files=GOOD), FOLDER)[0].epoch == 10


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": True}, {"format": ...}, {"format": "1"},
        {"epoch": -1}, {"epoch": "1"}, {"epoch": True}, {"epoch": ...}, {"step": 1.0}, {"step": 2**63},
        {"seconds": "NaN"}, {"seconds": -1}, {"value": "nan"}, {"value": True}, {"value": {}},
        {"writer": None}, {"label": "../x"}, {"label": "a/b"}, {"label": 1}, {"pinned": 0}, {"pinned": ...},
        {"reasons": "r"}, {"reasons": [1]}, {"components": [1]}, {"components": {}}, {"created": 1}, {"more": 1},
        {"files": ...}, {"files": []}, {"files": {}}, {"files": {"state.json": FILE}},
        {"files": GOOD | {"more": FILE}},
        {"ranks": 2}, {"parts": 0}, {"ranks": 1, "parts": 1}, {"files": GOOD | {"parts.json": FILE}},
        {"files": GOOD | {"parts.json": FILE}, "ranks": 2}, {"files": GOOD | {"parts.json": FILE}, "parts": 2},
        {"files": GOOD | {"parts.json": FILE}, "ranks": 0, "parts": 1},
        {"files": GOOD | {"parts.json": FILE}, "ranks": 10**5 + 1, "parts": 1},
        {"files": GOOD | {"parts.json": FILE}, "ranks": True, "parts": 1},
        {"files": GOOD | {"parts.json": FILE}, "ranks": 2, "parts": -1},
        {"files": GOOD | {"part-00001.json": FILE}, "ranks": 2, "parts": 1},
        {"files": {"../state.safetensors": FILE, "state.json": FILE}},
        {"files": {"/etc/passwd": FILE, "state.json": FILE}},
        {"files": GOOD | {"state.json": {"size": 1}}},
        {"files": GOOD | {"state.json": FILE | {"path": "../x"}}},
        {"files": GOOD | {"state.json": {"size": -1, "sha256": "0" * 64}}},
        {"files": GOOD | {"state.json": {"size": 2**63, "sha256": "0" * 64}}},
        {"files": GOOD | {"state.json": {"size": 1.0, "sha256": "0" * 64}}},
        {"files": GOOD | {"state.json": {"size": 1, "sha256": "0" * 63}}},
        {"files": GOOD | {"state.json": {"size": 1, "sha256": "G" * 64}}},
        {"files": GOOD | {"state.json": {"size": 1, "sha256": None}}},
        {"files": GOOD | {"state.json": 1}},
        {"reasons": ["x" * 3000]},
    ],
    ids=str,
)  # fmt: skip
def test_a_hostile_manifest_is_damaged_however_well_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"^manifest\.json: "):
        parse(signed(**changes), FOLDER)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"null", b"\xff", b'{"a":NaN}', b"{" * 2000,
        signed().replace(b'"epoch":10', b'"epoch":10,"epoch":10'),
        signed().replace(b'"epoch":10', b'"epoch": 10'), signed() + b"\n", signed() + b" " * LIMIT,
        signed().replace(b'"sha256":"', b'"sha256":1,"x":"', 1),
    ],
)  # fmt: skip
def test_any_other_spelling_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^manifest\.json: "):
        parse(data, FOLDER)


def test_values_of_other_goals_are_numbers_and_few() -> None:
    kept = info(values={"Maximize('f1')": 0.5})
    assert parse(encode(kept, FACTS), FOLDER)[0].values == {"Maximize('f1')": 0.5}
    assert b'"values"' not in encode(info(), FACTS)  # as the first versions wrote it
    for wrong in (
        {"a": "x"},
        {"a": None},
        {"a": True},
        {"a": [1]},
        [1],
        {f"goal {i}": 0.1 for i in range(20)},
    ):
        with pytest.raises(DamagedError, match="values are wrong"):
            parse(signed(values=wrong), FOLDER)
    for wrong in ({1: 0.5}, {"a": "x"}, {f"goal {i}": 0.1 for i in range(20)}):
        with pytest.raises(SettingError, match="let fewer rules name goals of their own"):
            info(values=wrong)
