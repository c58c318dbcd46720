"""Files of several chunks: what is read of them, and what is said of one that is damaged."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError
from stopctl.runs.checkpoints import check
from stopctl.store import CheckpointInfo, Leaf, Piece, Reader, Sharded, Store, write_part
from stopctl.store.files import FILES
from stopctl.store.manifest import CHUNKS
from support.faults.chunked import CHUNK, small_chunks
from support.recorder import Recorder
from support.sharded import captured, content, drafted, written
from support.trees import same

SIZES = {"a": 300, "b": 40, "c": 500}


@pytest.fixture(autouse=True)
def chunks() -> Iterator[None]:
    with small_chunks():
        yield


@pytest.fixture
def saved(store: Store) -> CheckpointInfo:
    arrays = {name: Leaf("U8", (size,), (bytes(range(256)) * 2)[:size]) for name, size in SIZES.items()}
    return store.commit({"model": arrays}, state={}, epoch=1, step=1, seconds=1.0, value=1.0)


ROWS, WIDTH = 20, 250


@pytest.fixture
def team(store: Store) -> CheckpointInfo:
    """Two ranks, each of which has written every other row of an array, a piece a row."""
    data = [bytes([row]) * WIDTH for row in range(ROWS)]
    ranks = [
        {
            "model": {
                "w": Sharded("U8", (ROWS, WIDTH), [Piece((row, 0), (1, WIDTH), data[row]) for row in rows])
            }
        }
        for rows in (range(0, ROWS, 2), range(1, ROWS, 2))
    ]
    draft = store.draft(components=("model",), epoch=1, step=1, seconds=1.0, value=1.0)
    told = [write_part(FILES, draft.directory, 1, ranks[1], ())]
    draft.write(ranks[0], state={"note": "x" * 200})
    told.append(write_part(FILES, draft.directory, 0, ranks[0], ()))
    return draft.publish(told, 2)


def places(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor lies in a safetensors file, by the format's own words."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return {name: tuple(8 + length + at for at in entry["data_offsets"]) for name, entry in header.items()}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_chunks_bin_has_the_hash_of_each_chunk_file_by_file(saved: CheckpointInfo) -> None:
    expected = b""
    for name in ("state.json", "state.safetensors"):
        data = (saved.path / name).read_bytes()
        assert len(data) > CHUNK
        expected += b"".join(
            hashlib.sha256(data[at : at + CHUNK]).digest() for at in range(0, len(data), CHUNK)
        )
    assert (saved.path / CHUNKS).read_bytes() == expected


@pytest.mark.parametrize("name", SIZES)
def test_what_is_damaged_is_named_by_its_bytes_and_its_array(
    store: Store, saved: CheckpointInfo, name: str
) -> None:
    path = saved.path / "state.safetensors"
    begin, end = places(path)[f"model/{name}"]
    at = (begin + end) // 2
    flip(path, at)
    first = at // CHUNK * CHUNK
    said = (
        f"state.safetensors: .*: bytes {first} to {min(first + CHUNK, path.stat().st_size) - 1} differ, in .*"
    )
    for look in (lambda: store.load(saved), lambda: check(saved)):
        with pytest.raises(DamagedError, match=f"{said}'model/{name}'"):
            look()


def test_of_a_team_the_whole_of_a_part_is_told_so_too(store: Store, team: CheckpointInfo) -> None:
    path = team.path / "part-00001.safetensors"
    (name, (begin, _)) = max(places(path).items(), key=lambda place: place[1])
    flip(path, begin)
    first = begin // CHUNK * CHUNK
    with pytest.raises(
        DamagedError, match=f"part-00001.*: bytes {first} to .* differ, in .*'{re.escape(name)}'"
    ):
        store.load(team)
    with pytest.raises(
        DamagedError, match=r"part-00001.safetensors: what was read back is not what was written\Z"
    ):
        check(team)
    flip(path, begin)
    flip(team.path / "state.json", 5)
    with pytest.raises(DamagedError, match=rf"state.json: .*: bytes 0 to {CHUNK - 1} differ\Z"):
        check(team)


def test_several_places_and_a_header_that_cannot_be_read_are_told_as_far_as_they_are_known(
    store: Store, saved: CheckpointInfo
) -> None:
    path = saved.path / "state.safetensors"
    flip(path, 0)  # the header's length
    flip(path, path.stat().st_size - 1)
    with pytest.raises(DamagedError, match=rf"bytes 0 to {CHUNK - 1} and 1 more such places differ\Z"):
        store.load(saved)
    flip(saved.path / CHUNKS, 0)
    with pytest.raises(DamagedError, match=r"its SHA-256 is not the one in the manifest\Z"):
        store.load(saved)


def test_chunks_bin_itself_is_verified(store: Store, saved: CheckpointInfo) -> None:
    flip(saved.path / CHUNKS, 5)
    with pytest.raises(DamagedError, match=r"chunks\.bin: its SHA-256"):
        store.load(saved)
    (saved.path / CHUNKS).unlink()
    (damage,) = store.list().damaged
    assert CHUNKS in damage.why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(before=st.integers(1, 6), rank=st.integers(0, 8), seed=st.integers(0, 10**6), pieces=st.integers(1, 9))
def test_arrays_over_any_ranks_come_back_bitwise_in_chunks(
    tmp_path_factory: pytest.TempPathFactory, before: int, rank: int, seed: int, pieces: int
) -> None:
    """Each piece that another rank asks for is read by its chunks, and is what was saved; so is the whole."""
    store = Store.lock(tmp_path_factory.mktemp("ranks") / "run", durability="process")
    try:
        store.begin({})
        team = captured(seed, before, pieces)
        draft = drafted(store, 1, team[0])
        info = draft.publish(written(draft, FILES, 1, team), before)
        parted, _ = store.load(info, rank=rank)
        whole, _ = store.load(info)
        assert same(whole["model"], content(seed)["model"])
        array, reference = parted["model"]["w"], content(seed)["model"]["w"]
        assert sum(math.prod(piece.shape) for piece in array.pieces) == math.prod(array.shape)
        rows = memoryview(bytes(reference.data)).cast("B")
        for piece in array.pieces:
            (row, column), (high, wide) = piece.offsets, piece.shape
            cut = b"".join(bytes(rows[4 * (4 * (row + i) + column) :][: 4 * wide]) for i in range(high))
            assert bytes(piece.data) == cut
    finally:
        store.close()


def test_a_rank_reads_and_verifies_only_the_chunks_that_it_needs(
    run: Path, store: Store, team: CheckpointInfo
) -> None:
    files = Recorder()
    pieces = list(Reader(run, files=files).load(team, rank=5)[0]["model"]["w"].pieces)
    assert len(pieces) == ROWS
    path = team.path / "part-00001.safetensors"
    lies = places(path)
    (header, _), last = min(lies.values()), path.stat().st_size
    flip(path, last - 1)  # in the row that is written last
    files.clear()
    whole, damaged = 0, []
    for piece in pieces:
        row = piece.offsets[0]
        try:
            whole += bytes(piece.data) == bytes([row]) * WIDTH
        except DamagedError as error:
            damaged.append((row, str(error)))
    ((row, why),) = damaged
    assert lies[f"model/w[{row}:{row + 1},0:{WIDTH}]"][1] == last
    begin = (last - 1) // CHUNK * CHUNK
    assert why.endswith(f"part-00001.safetensors: the bytes from {begin} on are not those that were written")
    assert whole == ROWS - 1
    reads = [op.paths[0].name for op in files.ops if op.name == "read"]
    chunks = [-(-(team.path / f"part-0000{rank}.safetensors").stat().st_size // CHUNK) for rank in (0, 1)]
    assert reads.count("part-00000.safetensors") == chunks[0], "each once, however many rows are in it"
    files.clear()
    (piece, *_) = Reader(run, files=files).load(team, rank=5)[0]["model"]["w"].pieces
    files.clear()
    assert len(piece.data) == WIDTH
    assert sum(op.name == "read" for op in files.ops) <= header // CHUNK + 1 + WIDTH // CHUNK + 2


def test_nothing_is_taken_for_a_part_of_another_size_than_it_is_told_to_have(
    store: Store, team: CheckpointInfo
) -> None:
    pieces = store.load(team, rank=5)[0]["model"]["w"].pieces
    with (team.path / "part-00000.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DamagedError, match=r"part-00000.safetensors: \d+ bytes instead of"):
        len(pieces[0].data)
