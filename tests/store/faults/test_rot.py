"""A bit that turns over, a block of zeros, a file cut or swapped: always noticed, and the older one loads."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError
from stopctl.store import strict
from stopctl.store.manifest import MANIFEST, parse
from support.faults.counts import COUNTS, count
from support.faults.rot import Specimen, damage_all, flip_all, flip_beside, flips


@pytest.fixture
def specimen(scratch: Path) -> Specimen:
    COUNTS["unnoticed"] += 1  # until the test has come to its end
    return Specimen(scratch)


def noticed(what: str, number: int) -> None:
    COUNTS["unnoticed"] -= 1
    count(what, number)


def test_every_bit_of_every_file(specimen: Specimen) -> None:
    number = sum(flip_all(specimen, name) for name in specimen.files)
    assert number > 4000
    noticed("flips", number)


def test_ten_thousand_random_bits(specimen: Specimen) -> None:
    noticed("flips", flips(specimen, 10_000, seed=5))


def test_truncations_zeroed_blocks_and_swapped_files(specimen: Specimen) -> None:
    number = damage_all(specimen)
    assert number > 50
    noticed("other rot", number)


@pytest.mark.parametrize("name", ["run.json", "journal.jsonl", "run.lock"])
def test_every_bit_of_a_file_beside_the_checkpoints_harms_none_of_them(specimen: Specimen, name: str) -> None:
    number = flip_beside(specimen, name)
    assert number > 400
    noticed("flips", number)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_million_random_bits(specimen: Specimen, seed: int) -> None:
    noticed("flips", flips(specimen, 100_000, seed=seed))


ODD: list[Any] = [
    None, True, False, 0, -1, 2**63, 1.5, 1e308, "", "x", "NaN", "-Infinity", "../x", "\0", [], {}, [None],
    {"a": 1}, ["a"] * 200, {"state.json": {"size": 1, "sha256": "0" * 64}},
]  # fmt: skip


def fuzzed(body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Some fields changed, gone, or new, two levels deep; the manifest's own hash is made right again."""
    body = json.loads(json.dumps(body))
    for _ in range(rng.randint(1, 3)):
        at = body if rng.random() < 0.5 else rng.choice([body.get("files"), body])
        if type(at) is not dict or not at:
            continue
        key = rng.choice(sorted(at))
        if rng.random() < 0.2:
            del at[key]
        elif rng.random() < 0.2:
            at[str(rng.choice(ODD))[:20]] = rng.choice(ODD)
        elif type(at[key]) is dict and at[key] and rng.random() < 0.7:
            at[key][rng.choice(sorted(at[key]))] = rng.choice(ODD)
        else:
            at[key] = rng.choice(ODD)
    body.pop("sha256", None)
    return body | {"sha256": hashlib.sha256(strict.dumps(body, sort_keys=True)).hexdigest()}


def edited(data: bytes, rng: random.Random) -> bytes:
    """Bytes inserted, removed, doubled."""
    at, end = sorted(rng.choices(range(len(data) + 1), k=2))
    how: list[Callable[[], bytes]] = [
        lambda: data[:at] + data[end:],
        lambda: data[:end] + data[at:],
        lambda: data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:],
        lambda: data[:at] + rng.choice([b"[", b"{", b'"', b"NaN", b"1e999", b"\xff", b"[" * 900]) + data[at:],
    ]
    return rng.choice(how)()


def test_a_fuzzed_manifest_is_refused_or_says_what_can_be(specimen: Specimen) -> None:
    """Half of them have a right hash of their own, so that every later check is met as well."""
    rng = random.Random(6)
    data = specimen.files[MANIFEST]
    folder = specimen.info.path.parent
    body = json.loads(data)
    accepted = 0
    for i in range(4000):
        changed = strict.dumps(fuzzed(body, rng), sort_keys=True) if i % 2 else edited(data, rng)
        if changed == data:
            continue
        try:
            info, facts = parse(changed, folder)
        except DamagedError:
            continue
        accepted += 1
        assert i % 2, changed
        assert info.path.parent == folder
        assert facts.keys() == {"state.json", "state.safetensors"}
        assert all(type(number) is int and number >= 0 for number in (info.epoch, info.step, info.writer))
        (specimen.info.path / MANIFEST).write_bytes(changed)
        _only_as_it_says(specimen)
        (specimen.info.path / MANIFEST).write_bytes(data)
    assert accepted > 20
    noticed("manifests fuzzed", 4000)


def _only_as_it_says(specimen: Specimen) -> None:
    """A manifest that is right in itself changes what is said of the checkpoint, never what is loaded."""
    for info in specimen.reader.list().good:
        try:
            components, _ = specimen.reader.load(info)
        except DamagedError:
            continue
        if info.name == specimen.info.name:
            assert components == {"model": {"weight": b"0123456789"}}
