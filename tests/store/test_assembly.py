"""Whatever is changed, cut or taken from the parts of a team's checkpoint is noticed before it is used."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError
from stopctl.runs.checkpoints import check
from stopctl.store import FILES, CheckpointInfo, Piece, Reader, Sharded, Store, strict
from stopctl.store.assembly import check_sizes
from stopctl.store.blocks import common
from stopctl.store.hashed import FileFact
from support.faults.chunked import small_chunks
from support.faults.counts import count
from support.recorder import Recorder
from support.sharded import captured, commit, drafted, part_files, resign, written

WHOLE = pytest.mark.parametrize("chunks", [False], indirect=True, ids=[""])
"""Of tests that are about files of one chunk."""


@pytest.fixture(autouse=True, params=[False, pytest.param(True, marks=pytest.mark.long)], ids=["", "chunked"])
def chunks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once as it is, and once with files of many chunks."""
    with small_chunks() if request.param else nullcontext():
        yield


@pytest.fixture
def saved(store: Store) -> CheckpointInfo:
    return commit(store, 3, 3)


@contextmanager
def changed(path: Path, data: bytes | None) -> Iterator[None]:
    """The file has other bytes within the block, or is not there."""
    before = path.read_bytes()
    path.unlink() if data is None else path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def used(store: Reader, info: CheckpointInfo, rank: int | None) -> None:
    """Load it, and ask for all data."""

    def asked(tree: Any) -> None:
        if isinstance(tree, Sharded):
            assert all(len(piece.data) for piece in tree.pieces)
        for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple) else ():
            asked(value)

    asked(store.load(info, rank=rank)[0])


def sign(path: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change one of the JSON files of a checkpoint, and every hash above it so that it is right again."""
    body = json.loads((path / name).read_bytes())
    change(body)
    (path / name).write_bytes(strict.dumps(body))
    resign(path)


def test_any_flipped_byte_of_any_part_file_is_noticed(store: Store, saved: CheckpointInfo) -> None:
    """Of every third byte one bit, each looked for by one of three ways to read everything."""
    looks = (lambda: used(store, saved, None), lambda: used(store, saved, 1), lambda: check(saved))
    flips = 0
    for path in part_files(saved.path):
        data = path.read_bytes()
        for at in range(flips % 3, len(data), 3):
            with (
                changed(path, data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]),
                pytest.raises(DamagedError, match=path.name),
            ):
                looks[flips % 3]()
            flips += 1
    count("flips", flips)
    assert flips > 800
    used(store, saved, None)


@pytest.mark.parametrize("rank", [None, 0, 1, 2, 3])
def test_a_part_that_is_short_long_or_missing_is_noticed_by_listing_loading_and_verifying(
    store: Store, saved: CheckpointInfo, rank: int | None
) -> None:
    assert len(part_files(saved.path)) == 7
    for path in part_files(saved.path):
        data = path.read_bytes()
        for wrong in (None, b"", data[:-1], data + b"\0"):
            with changed(path, wrong):
                (damage,) = store.list().damaged
                assert damage.name == saved.name
                assert path.name in damage.why
                for look in (lambda: used(store, saved, rank), lambda: check(saved)):
                    with pytest.raises(DamagedError, match=path.name):
                        look()
    assert store.list().good == (saved,)


@WHOLE
def test_a_part_is_read_once_and_only_when_it_is_asked_for(store: Store, saved: CheckpointInfo) -> None:
    files = Recorder()
    reader = Reader(store.path, files=files)
    files.clear()

    def read() -> list[str]:
        found = [op.paths[0].name for op in files.ops if op.name == "open"]
        files.clear()
        return found

    components, _ = reader.load(saved, rank=0)
    assert [name for name in read() if name.endswith(".safetensors")] == ["state.safetensors"]
    weight = components["model"]["w"]
    for piece in [*weight.pieces, *weight.pieces]:
        bytes(piece.data)
    opened = read()
    assert len(opened) == len(set(opened)) >= 1
    assert all(name.startswith("part-") for name in opened)
    reader.load(saved, rank=2)
    assert [name for name in read() if name.endswith(".safetensors")] == [
        "state.safetensors",
        "part-00002.safetensors",
    ]
    reader.load(saved)
    opened = read()
    assert len(opened) == len(set(opened)) == 10


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_of_what_a_rank_wrote_itself_no_other_part_is_looked_at(
    store: Store, saved: CheckpointInfo, rank: int
) -> None:
    files = Recorder()
    reader = Reader(store.path, files=files)
    weight = reader.load(saved, rank=rank)[0]["model"]["w"]
    mine = [(piece.offsets, piece.shape) for piece in captured(3, 3)[rank]["model"]["w"].pieces]
    near = {at: told(weight.around(at)) for at in mine}
    parts = {op.paths[0].name for op in files.ops if op.name == "open" and "part-" in op.paths[0].name}
    assert parts == {f"part-0000{rank}.json", f"part-0000{rank}.safetensors"}
    every = told(weight.pieces)
    assert mine
    assert all(at in {piece[:2] for piece in pieces} and {*pieces} <= {*every} for at, pieces in near.items())


def told(pieces: Any) -> list[Any]:
    return [(piece.offsets, piece.shape, bytes(piece.data)) for piece in pieces]


@pytest.mark.parametrize("ranks", [2, 8, 32])
def test_other_numbers_of_ranks_look_only_into_the_parts_of_which_they_need_something(
    store: Store, ranks: int
) -> None:
    """Rows, as FSDP cuts them, columns as well: whoever needs a third of them opens as many files of any team."""
    rows = [bytes([rank]) * 12 for rank in range(ranks)]

    def components(rank: int) -> dict[str, Any]:
        return {
            "model": {
                f"{kind}.{layer}": Sharded("U8", shape, [Piece(offsets, lengths, rows[rank])])
                for layer in range(3)
                for kind, shape, offsets, lengths in (
                    ("rows", (3 * ranks, 4), (3 * rank, 0), (3, 4)),
                    ("columns", (4, 3 * ranks), (0, 3 * rank), (4, 3)),
                    ("square", (12, ranks), (0, rank), (12, 1)),
                )
            }
        }

    draft = drafted(store, 7, components(0))
    info = draft.publish(written(draft, FILES, 7, [components(rank) for rank in range(ranks)]), ranks)
    files = Recorder()
    reader = Reader(store.path, files=files)
    last = reader.load(info, rank=ranks)[0]["model"]
    files.clear()
    for layer in range(3):
        need = {"rows": ((3 * ranks - 4, 1), (3, 2)), "columns": ((0, 3 * ranks - 2), (4, 1))}
        for kind, block in need.items():
            found = last[f"{kind}.{layer}"].around(block)
            assert sum(common((piece.offsets, piece.shape), block) for piece in found) == math.prod(block[1])
            assert all(bytes(piece.data) in rows[-2:] for piece in found)
    opened = Counter(op.paths[0].name for op in files.ops if op.name == "open")
    near = {"part-00000", *(f"part-{rank:05d}" for rank in (ranks - 2, ranks - 1))}
    assert {name.partition(".")[0] for name in opened} == near
    assert opened.total() <= 3 + 2 * 3


@WHOLE
def test_a_layout_that_says_too_little_is_made_up_for_by_looking_into_all_parts(
    store: Store, saved: CheckpointInfo
) -> None:
    whole = ((0, 0), (6, 4))
    sign(saved.path, "parts.json", lambda body: body.update(layouts=[[0, []] for _ in body["layouts"]]))
    with pytest.raises(DamagedError, match=r"parts\.json: layouts"):
        store.load(saved, rank=3)[0]["model"]["w"].around(whole)
    sign(saved.path, "parts.json", lambda body: body.update(layouts=[[0, [[]] * 9] for _ in body["layouts"]]))
    weight = store.load(saved, rank=3)[0]["model"]["w"]
    assert told(weight.around(whole)) == told(weight.pieces)


def pieces(body: dict[str, Any]) -> list[Any]:
    return next(iter(body["pieces"].values()))


FACTS = {"size": 3, "sha256": "0" * 64}


@WHOLE
@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("parts.json", lambda body: body.update(ranks=4), r"parts\.json: of 4 ranks instead of 3"),
        ("parts.json", lambda body: body["arrays"].update(more=["F32", [2]]), "more: its pieces have 0 of 2 items"),
        ("parts.json", lambda body: body["arrays"].popitem(), "which the checkpoint does not have"),
        ("parts.json", lambda body: body["per_rank"].clear(), "'(rng|position)' is in two files"),
        ("part-00001.json", lambda body: body.update(rank=2), "part-00001.json: it is that of another rank"),
        ("part-00001.json", lambda body: body.update(tensors=FACTS), "pieces of .* bytes in a file of 3|tell of another"),
        ("part-00001.json", lambda body: body["tensors"].update(size=10**9), "tell of another part-00001.safetensors"),
        ("part-00001.json", lambda body: pieces(body).append(pieces(body)[0]), "its pieces have|in a file of"),
        ("part-00001.json", lambda body: pieces(body).pop(), "its pieces have"),
        ("part-00001.json", lambda body: pieces(body)[0].__setitem__(2, "none"), "no .* of the name 'none'"),
        ("part-00001.json", lambda body: body["components"].update(model={"dict": []}), "'model' is in two files"),
    ],
)  # fmt: skip
def test_signed_lies_about_the_parts_are_refused(
    store: Store, name: str, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    info = commit(store, 5, 3)
    sign(info.path, name, change)
    with pytest.raises(DamagedError, match=why):
        used(store, info, None)
        used(store, info, 1)


def test_signing_alone_changes_nothing(store: Store, saved: CheckpointInfo) -> None:
    sign(saved.path, "parts.json", lambda body: None)
    assert store.list().damaged == ()
    used(store, saved, None)


@WHOLE
def test_a_piece_of_another_dtype_than_its_array_is_refused(store: Store, saved: CheckpointInfo) -> None:
    path = next(path for path in saved.path.glob("part-*.safetensors") if b'"F32"' in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    sign(saved.path, path.with_suffix(".json").name, lambda body: body["tensors"].update(sha256=sha))
    with pytest.raises(DamagedError, match=rf"{path.name}: no F32 .* of the name 'model/w\["):
        used(store, saved, None)


@WHOLE
def test_an_array_of_one_file_under_the_name_of_one_in_pieces_is_refused(store: Store) -> None:
    info = commit(store, 5, 2)
    sign(info.path, "parts.json", lambda body: body["arrays"].update({"model/b": ["F32", [0]]}))
    with pytest.raises(DamagedError, match="'model/b' is in two files"):
        used(store, info, None)


@WHOLE
def test_nothing_is_allocated_for_an_array_that_no_file_holds(store: Store) -> None:
    """Declared sizes are looked at before any array is made: 8 TB of pieces in a file of as many, declared."""
    info = commit(store, 5, 2)
    huge = 10**12
    lie = {"size": 8 * huge, "sha256": "0" * 64}

    def parts(body: dict[str, Any]) -> None:
        body["arrays"]["model/x"] = ["F64", [huge]]
        body["files"]["part-00001.safetensors"] = lie

    def part(body: dict[str, Any]) -> None:
        body["arrays"] = {"model/x": ["F64", [huge]]}
        body["pieces"] = {"model/x": [[[0], [huge], "model/x"]]}
        body["tensors"] = lie

    sign(info.path, "part-00001.json", part)
    sign(info.path, "parts.json", parts)
    resign(info.path, "part-00001.safetensors", lie)
    with pytest.raises(DamagedError, match=r"part-00001\.safetensors: \d+ bytes instead of 8000000000000"):
        used(store, info, None)


@WHOLE
def test_many_files_are_looked_at_by_several_threads_and_each_is(tmp_path: Path) -> None:
    facts = {f"{number:03d}": FileFact.of(3, "") for number in range(200)}
    for name in facts:
        (tmp_path / name).write_bytes(b"abc")
    files, seen = Recorder(), set()
    files.hook = lambda index, op: seen.add(threading.get_ident())
    check_sizes(files, tmp_path, facts)
    assert sorted(op.paths[0].name for op in files.ops) == sorted(facts)
    for name in ("000", "117", "199"):
        with (
            changed(tmp_path / name, b"ab"),
            pytest.raises(DamagedError, match=f"^{name}: 2 bytes instead of 3"),
        ):
            check_sizes(files, tmp_path, facts)
        with changed(tmp_path / name, None), pytest.raises(DamagedError, match=f"^{name}: No such file"):
            check_sizes(files, tmp_path, facts)
    files.clear()
    files.hook = lambda index, op: seen.add(threading.get_ident())
    seen.clear()
    check_sizes(files, tmp_path, dict(list(facts.items())[:31]))
    assert seen == {threading.get_ident()}, "of few files, one after the other"
