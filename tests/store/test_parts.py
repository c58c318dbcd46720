"""What the ranks of a team write is one checkpoint, and what is read is bitwise what each of them had."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from stopctl.core.errors import DamagedError, SaveError, SettingError, TreeError
from stopctl.store import Leaf, PartFact, Piece, Sharded, Store, write_part
from stopctl.store.blocks import Block, paste
from stopctl.store.files import FILES
from stopctl.store.manifest import MAX_RANKS
from stopctl.store.partfile import PART
from stopctl.store.tree import ITEMSIZE, raw
from support.faults.chunked import small_chunks
from support.recorder import Recorder
from support.sharded import (
    OWN,
    captured,
    commit,
    content,
    cut,
    drafted,
    facts,
    items,
    own,
    part_files,
    shards,
    written,
)
from support.trees import leaves, same

NUMBERS = itertools.count()


WHOLE = pytest.mark.parametrize("chunks", [False], indirect=True, ids=[""])
"""Of tests that are about files of one chunk."""


@pytest.fixture(autouse=True, params=[False, True], ids=["", "chunked"])
def chunks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once as it is, and once with files of many chunks."""
    with small_chunks() if request.param else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store without fsync, for many saves."""
    store = Store.lock(tmp_path_factory.mktemp("quick") / "run", durability="process")
    store.begin({})
    yield store
    store.close()


def pieces_of(tree: Any) -> list[bytes]:
    return [bytes(piece.data) for piece in tree.pieces]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_team_saves_and_one_process_loads_everything_whole(store: Store, ranks: int) -> None:
    info = commit(store, 3, ranks)
    assert store.list().good == (info,)
    assert store.list().damaged == ()
    components, state = store.load(info)
    assert same(components, content(3) | own(3, 0))
    assert state == {"number": 3}
    assert (info.ranks, info.components) == (ranks, tuple(content(3) | own(3, 0)))
    assert info.bytes == sum(path.stat().st_size for path in info.path.iterdir())


@pytest.mark.parametrize("rank", range(6))
def test_each_rank_finds_its_own_components_and_later_ones_those_of_rank_0(store: Store, rank: int) -> None:
    info = commit(store, 3, 4)
    components, state = store.load(info, rank=rank)
    mine = own(3, rank if rank < 4 else 0)
    assert same({name: components[name] for name in components if name in OWN}, mine)
    assert state == {"number": 3}
    assert components.keys() == {"model", "optimizer"} | mine.keys()
    weight = components["model"]["w"]
    assert type(weight) is Sharded
    assert (weight.dtype, weight.shape) == ("F32", (6, 4))
    assert weight.key == components["model"]["also"].key is not None
    assert components["optimizer"][0][0].note == "x"
    assert same(components["model"]["b"], content(3)["model"]["b"])


def test_only_the_components_that_are_wanted_are_built(store: Store) -> None:
    info = commit(store, 3, 3)
    assert store.load(info, only=["model"])[0].keys() == {"model"}
    assert store.load(info, only=["rng", "model", "none"], rank=2)[0].keys() == {"model", "rng"}
    assert same(store.load(info, only=["rng"], rank=2)[0], {"rng": own(3, 2)["rng"]})
    assert same(store.load(info, only=["rng"], rank=7)[0], store.load(info, only=["rng"], rank=0)[0])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_array_cut_at_random_over_any_ranks_comes_back_bitwise(quick: Store, data: st.DataObject) -> None:
    whole = data.draw(leaves())
    ranks = data.draw(st.integers(1, 5))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    parted = shards(rng, whole, ranks, data.draw(st.integers(1, 9)), empty=data.draw(st.booleans()))
    draft = quick.draft(components=["a"], **facts(1), label=f"x{next(NUMBERS)}")
    order = rng.sample(range(ranks), ranks)
    told = [write_part(FILES, draft.directory, rank, {"a": [parted[rank]]}, ()) for rank in order]
    draft.write({"a": [parted[0]]}, state=None)
    info = draft.publish(told, ranks)
    assert same(quick.load(info)[0], {"a": [whole]})
    for rank in (0, ranks):
        (found,) = quick.load(info, rank=rank)[0]["a"]
        assert type(found) is Sharded
        assert (found.dtype, found.shape, found.note) == (whole.dtype, whole.shape, whole.note)
        have = sorted((piece.offsets, piece.shape, bytes(piece.data)) for piece in found.pieces)
        gave = [piece for part in parted for piece in part.pieces if len(bytes(piece.data))]
        assert have == sorted((piece.offsets, piece.shape, bytes(piece.data)) for piece in gave)
        for block in cut(rng, whole.shape, 4):  # as another number of ranks might cut it
            assert put(whole, found.around(block), block) == items(
                bytes(whole.data), whole.shape, ITEMSIZE[whole.dtype], block
            )


def put(whole: Leaf, pieces: Any, block: Block) -> bytes:
    """A block of the array that these pieces make up."""
    data = bytearray(len(whole.data))
    for piece in pieces:
        paste(memoryview(data), whole.shape, ITEMSIZE[whole.dtype], (piece.offsets, piece.shape), raw(piece))
    return items(bytes(data), whole.shape, ITEMSIZE[whole.dtype], block)


@WHOLE
@pytest.mark.parametrize("ranks", [2, 8, 32])
def test_rank_0_looks_at_the_size_of_each_file_and_reads_none(store: Store, ranks: int) -> None:
    files = Recorder()
    store._writing.files = files
    team = captured(2, ranks, pieces=ranks)
    draft = drafted(store, 2, team[0])
    told = written(draft, FILES, 2, team)
    files.clear()
    info = draft.publish(told, ranks)
    looked = Counter(op.name for op in files.ops if any(PART.fullmatch(path.name) for path in op.paths))
    assert looked == {"size": len(part_files(info.path)) - 1}


def test_a_save_is_loaded_and_saved_again_by_other_numbers_of_ranks(store: Store) -> None:
    """4 -> 2 -> 1 -> 3: what is read in pieces can be written in pieces, bitwise the same to the end."""
    info = commit(store, 1, 4, pieces=9)
    for number, ranks in ((2, 2), (3, 1), (4, 3)):
        loaded = [store.load(info, rank=rank)[0] for rank in range(ranks)]

        def mine(tree: Any, rank: int, ranks: int = ranks) -> Any:
            if isinstance(tree, Sharded):
                return replace(tree, pieces=tree.pieces[rank::ranks])
            if isinstance(tree, dict):
                return {key: mine(value, rank) for key, value in tree.items()}
            return tuple(mine(value, rank) for value in tree) if isinstance(tree, tuple) else tree

        team = [
            {name: mine(tree, rank) for name, tree in loaded[rank].items()} | own(1, rank)
            for rank in range(ranks)
        ]
        draft = drafted(store, number, team[0])
        info = draft.publish(written(draft, FILES, number, team), ranks)
        assert same(store.load(info)[0], content(1) | own(1, 0))
    assert info.ranks == 3


def test_one_process_saves_arrays_in_pieces_by_itself(store: Store) -> None:
    info = store.commit(captured(2, 1)[0], state={"number": 2}, **facts(2))
    assert info.ranks == 1
    assert same(store.load(info)[0], content(2) | own(2, 0))
    assert [path.name for path in part_files(info.path)] == [
        "part-00000.json",
        "part-00000.safetensors",
        "parts.json",
    ]
    plain = store.commit(content(3), state=None, **facts(3))
    assert part_files(plain.path) == []
    assert "ranks" not in json.loads((plain.path / "manifest.json").read_text())


def test_one_process_that_has_not_all_pieces_saves_nothing(store: Store) -> None:
    with pytest.raises(SaveError, match=r"a: U8 \(4,\) is not saved whole: its pieces have 3 of 4 items"):
        store.commit({"a": Sharded("U8", (4,), [Piece((1,), (3,), b"abc")])}, state=None, **facts(1))
    assert list((store.path / "checkpoints").iterdir()) == []


def test_arrays_without_an_item_have_no_pieces(store: Store) -> None:
    empty = Sharded("F32", (0, 3), [Piece((0, 0), (0, 3), b"")], note="n")
    info = store.commit({"a": empty}, state=None, **facts(1))
    assert same(store.load(info)[0], {"a": Leaf("F32", (0, 3), b"", note="n")})
    (found,) = store.load(info, rank=0)[0].values()
    assert list(found.pieces) == []


def test_a_rank_that_has_nothing_writes_nothing(store: Store, tmp_path: Path) -> None:
    files = Recorder()
    lacking = {"a": Sharded("U8", (4,), [Piece((4,), (0,), b"")]), "b": Leaf("U8", (1,), b"x")}
    assert write_part(files, tmp_path, 3, lacking, ()) == PartFact(3, 0, "", 0)
    assert files.ops == []
    draft = store.draft(components=["n"], **facts(1))
    draft.write({"n": 1}, state=None)
    told = [write_part(FILES, draft.directory, rank, {"n": 1}, ()) for rank in range(2)]
    info = draft.publish(told, ranks=2)
    assert [path.name for path in part_files(info.path)] == ["parts.json"]
    assert info.ranks == store.list().good[0].ranks == 2
    assert store.load(info, rank=1) == ({"n": 1}, None)


@WHOLE
def test_a_part_says_how_large_it_is_and_its_files_are_on_the_disk(tmp_path: Path) -> None:
    files = Recorder()
    fact = write_part(files, tmp_path, 7, captured(1, 8)[7], OWN)
    paths = [tmp_path / "part-00007.json", tmp_path / "part-00007.safetensors"]
    assert sorted(tmp_path.iterdir()) == paths
    assert fact.bytes == sum(path.stat().st_size for path in paths)
    assert fact == PartFact(*json.loads(json.dumps(fact)))
    assert files.told(tmp_path) == [
        f"{op} part-00007.{kind}" for kind in ("safetensors", "json") for op in ("create", "write", "sync")
    ]


def test_verified_parts_are_read_back(tmp_path: Path) -> None:
    class Lying(Recorder):
        def write(self, handle: Any, data: Any) -> int:
            wrong = bytearray(data)
            wrong[-1] ^= handle.path.suffix == self.wrong  # type: ignore[attr-defined]
            return int(super().write(handle, wrong))

    for rank, wrong in enumerate((".safetensors", ".json")):
        files = Lying()
        files.wrong = wrong  # type: ignore[attr-defined]
        write_part(files, tmp_path, rank, own(1, rank), OWN)
        with pytest.raises(SaveError, match="what was read back is not what was written"):
            write_part(files, tmp_path, 5 + rank, own(1, rank), OWN, verify=True)


def test_the_library_reads_a_part_and_its_names_tell_the_places(store: Store) -> None:
    info = store.commit(
        {"m": {"w": Sharded("I8", (2, 3), [Piece((0, 1), (2, 2), b"bcef"), Piece((0, 0), (2, 1), b"ad")])}},
        state=None,
        **facts(1),
    )
    with safe_open(info.path / "part-00000.safetensors", framework="np") as file:
        found = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
    assert found == {"m/w[0:2,1:3]": b"bcef", "m/w[0:2,0:1]": b"ad"}
    assert bytes(store.load(info)[0]["m"]["w"].data) == b"abcdef"


def test_names_that_meet_in_a_part_are_told_apart(store: Store) -> None:
    team = [
        {"a": Sharded("U8", (2,), [Piece((rank,), (1,), bytes([rank]))]), "a[1:2]": Leaf("U8", (1,), b"x")}
        for rank in range(2)
    ]
    draft = store.draft(components=tuple(team[0]), **facts(1))
    draft.write(team[0], state=None, per_rank=["a[1:2]"])
    told = [
        write_part(FILES, draft.directory, rank, team[rank], ["a[1:2]"] if rank else ()) for rank in range(2)
    ]
    info = draft.publish(told, 2)
    assert bytes(store.load(info)[0]["a"].data) == b"\x00\x01"
    found = store.load(info, rank=1)[0]
    assert bytes(found["a[1:2]"].data) == b"x"
    assert sorted(map(bytes, pieces_of(found["a"]))) == [b"\x00", b"\x01"]


@pytest.mark.parametrize("rank", [-1, MAX_RANKS, True, 1.0, None])
def test_what_is_no_rank_is_refused(tmp_path: Path, rank: Any) -> None:
    with pytest.raises(SettingError, match="a rank is an int from 0 to 99999, not"):
        write_part(FILES, tmp_path, rank, {}, ())
    assert list(tmp_path.iterdir()) == []


def test_what_each_rank_has_for_itself_does_not_lie_in_pieces(store: Store, tmp_path: Path) -> None:
    tree = {"rng": [Sharded("U8", (1,), [Piece((0,), (1,), b"x")])]}
    with pytest.raises(
        TreeError, match=r"^rng/0: each rank has this for itself, so it cannot lie in pieces$"
    ):
        write_part(FILES, tmp_path, 1, tree, ["rng"])
    draft = store.draft(components=["rng"], **facts(1))
    with pytest.raises(TreeError, match="^rng/0: each rank has this"):
        draft.write(tree, state=None, per_rank=["rng"])
    assert list(draft.directory.iterdir()) == []
    draft.withdraw()


def test_a_disk_without_room_and_a_directory_that_is_gone_are_save_errors(tmp_path: Path) -> None:
    files = Recorder()
    files.free = lambda path: 1000  # type: ignore[assignment,method-assign]
    with pytest.raises(SaveError, match=r"saving the part of rank 1 needs \d+ bytes, but 1000 are free"):
        write_part(files, tmp_path, 1, own(1, 1), OWN)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SaveError, match="saving the part of rank 1 failed: .*gone.*: No such file") as caught:
        write_part(FILES, tmp_path / "gone", 1, own(1, 1), OWN)
    assert caught.value.path is not None
    write_part(FILES, tmp_path, 1, own(1, 1), OWN)
    with pytest.raises(SaveError, match="File exists"):
        write_part(FILES, tmp_path, 1, own(1, 1), OWN)


@WHOLE
def test_damage_that_shows_late_is_told_with_its_checkpoint(store: Store) -> None:
    info = commit(store, 3, 3)
    components = store.load(info, rank=0)[0]
    for path in info.path.glob("part-*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\xff\xff"[:1])
    with pytest.raises(DamagedError, match=rf"^{info.name} is damaged: part-0000.\.safetensors: its SHA-256"):
        pieces_of(components["model"]["w"])
    good = commit(store, 4, 3)
    data = pieces_of(store.load(good, rank=0)[0]["model"]["w"])
    for path in good.path.glob("part-*.safetensors"):
        path.unlink()
    assert data
    assert [damage.name for damage in store.list().damaged] == [good.name]


def test_arrays_of_which_no_sums_are_told_are_looked_into_before_they_are_saved(store: Store) -> None:
    shape = (2,) * 9

    def half(at: int) -> dict[str, Any]:
        piece = Piece((at, *(0,) * 8), (1, *(2,) * 8), bytes([at]) * 256)
        return {"a": Sharded("U8", shape, [piece])}

    for last, whole in ((1, True), (0, False)):
        team = [half(0), half(last)]
        draft = drafted(store, 5 + last, team[0])
        told = written(draft, FILES, 5, team)
        assert [fact.corners for fact in told] == [-1, -1]
        if whole:
            info = draft.publish(told, 2)
            assert bytes(store.load(info)[0]["a"].data) == bytes(256) + bytes([1]) * 256
        else:
            with pytest.raises(SaveError, match="a: U8 .* is not saved whole: its pieces overlap"):
                draft.publish(told, 2)
            draft.withdraw()
