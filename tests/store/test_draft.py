"""A team's save is all or nothing: whoever fails, whatever is killed, whenever the power goes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import OrderError, SaveError, SettingError, StopctlError, TreeError
from stopctl.store import CheckpointInfo, Leaf, PartFact, Piece, Reader, Sharded, Store, unlock, write_part
from stopctl.store.files import FILES, Files
from stopctl.store.lock import _held
from support.faults.chunked import small_chunks
from support.faults.counts import count
from support.recorder import Op, Recorder, failing
from support.sharded import OWN, captured, commit, content, drafted, facts, own, part_files, written
from support.trees import same

Team = list[dict[str, Any]]


WHOLE = pytest.mark.parametrize("chunks", [False], indirect=True, ids=[""])
"""Of tests that are about files of one chunk."""


@pytest.fixture(autouse=True, params=[False, pytest.param(True, marks=pytest.mark.long)], ids=["", "chunked"])
def chunks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once as it is, and once with files of many chunks."""
    with small_chunks() if request.param else contextlib.nullcontext():
        yield


def is_save(reader: Reader, info: CheckpointInfo) -> bool:
    """Whether everything in it is that of its save, for each rank."""
    number = info.epoch
    mine = [reader.load(info, rank=rank)[0] for rank in range(info.ranks)]
    return (
        same(reader.load(info)[0], content(number) | own(number, 0))
        and reader.load(info)[1] == {"number": number}
        and all(
            same({name: found[name] for name in OWN}, own(number, rank)) for rank, found in enumerate(mine)
        )
    )


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def lacking(team: Team, rank: int) -> None:
    """That rank does not write its pieces of one array."""
    weight = team[rank]["model"]["w"]
    team[rank]["model"]["w"] = team[rank]["model"]["also"] = replace(weight, pieces=())


def doubled(team: Team) -> None:
    """Ranks 0 and 1 write the very same pieces, which are as many as the others' that are not written."""
    weight = team[0]["model"]["w"]
    half = [Piece((0, 0), (3, 4), bytes(48))]
    for components in team:
        components["model"]["w"] = components["model"]["also"] = replace(weight, pieces=half)
    lacking(team, 2)


def of_another_type(team: Team) -> None:
    weight = team[1]["model"]["w"]
    team[1]["model"]["w"] = team[1]["model"]["also"] = replace(weight, dtype="I32")


def of_another_shape(team: Team) -> None:
    weight = team[1]["model"]["w"]
    team[1]["model"]["w"] = team[1]["model"]["also"] = replace(weight, shape=(7, 4))


def more(team: Team) -> None:
    team[1]["model"]["more"] = Sharded("U8", (1,), [Piece((0,), (1,), b"x")])


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda team: lacking(team, 1), r"model/w: F32 \(6, 4\) is not saved whole: its pieces have \d+ of 24 items"),
        (doubled, "model/w: .* is not saved whole: its pieces overlap"),
        (of_another_type, r"pieces of 'model/w', I32 \(6, 4\), which the checkpoint does not have"),
        (of_another_shape, r"pieces of 'model/w', F32 \(7, 4\), which the checkpoint does not have"),
        (more, "pieces of 'model/more', .* which the checkpoint does not have"),
    ],
)  # fmt: skip
def test_ranks_that_do_not_make_every_array_whole_save_nothing(
    store: Store, harm: Callable[[Team], None], why: str
) -> None:
    good = commit(store, 1, 3)
    team = captured(2, 3)
    harm(team)
    draft = drafted(store, 2, team[0])
    with pytest.raises(SaveError, match=why):
        draft.publish(written(draft, FILES, 2, team), 3)
    assert draft.directory.exists(), "the others may be at work in it"
    draft.withdraw()
    assert names(store.path) == [good.name]
    assert commit(store, 2, 3) in store.list().good


def without(told: list[PartFact], directory: Path) -> list[PartFact]:
    return [fact for fact in told if fact.rank != 1]


def twice(told: list[PartFact], directory: Path) -> list[PartFact]:
    return [fact for fact in told if fact.rank != 1] + [fact for fact in told if fact.rank == 2]


def stranger(told: list[PartFact], directory: Path) -> list[PartFact]:
    return [fact if fact.rank else fact._replace(rank=3) for fact in told]


def other_size(told: list[PartFact], directory: Path) -> list[PartFact]:
    return [fact._replace(size=fact.size + 1) for fact in told]


def gone(told: list[PartFact], directory: Path) -> list[PartFact]:
    (directory / "part-00001.json").unlink()
    return told


def arrays_gone(told: list[PartFact], directory: Path) -> list[PartFact]:
    (directory / "part-00002.safetensors").unlink()
    return told


def arrays_short(told: list[PartFact], directory: Path) -> list[PartFact]:
    path = directory / "part-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return told


def as_nothing(told: list[PartFact], directory: Path) -> list[PartFact]:
    return [PartFact(fact.rank, 0, "", 0) if fact.rank == 1 else fact for fact in told]


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (without, "there are 3 ranks, and one part is due of each; told of: 0, 2$"),
        (twice, "told of: 0, 2, 2$"),
        (stranger, "told of: 1, 2, 3$"),
        (lambda told, directory: [], "told of: none$"),
        (other_size, r"part-00000\.json: \d+ bytes instead of"),
        (gone, r"part-00001\.json: No such file"),
        (arrays_gone, r"part-00002\.safetensors: No such file"),
        (arrays_short, r"part-00002\.safetensors: \d+ bytes instead of"),
        (as_nothing, "is not saved whole"),
    ],
)
def test_parts_that_are_not_as_they_were_told_save_nothing(
    store: Store, harm: Callable[[list[PartFact], Path], list[PartFact]], why: str
) -> None:
    team = captured(2, 3)
    draft = drafted(store, 2, team[0])
    told = harm(written(draft, FILES, 2, team), draft.directory)
    with pytest.raises(SaveError, match=why):
        draft.publish(told, 3)
    draft.withdraw()
    assert names(store.path) == []


def test_a_component_that_one_has_for_itself_and_the_others_share_saves_nothing(store: Store) -> None:
    team = captured(2, 2)
    draft = drafted(store, 2, team[0])
    draft.write(team[0], state=None, per_rank=["position"])
    told = [write_part(FILES, draft.directory, rank, team[rank], OWN if rank else ()) for rank in range(2)]
    with pytest.raises(SaveError, match="rank 1 has 'rng' for itself, rank 0 has it for all"):
        draft.publish(told, 2)
    draft.withdraw()


def test_what_is_asked_for_in_the_wrong_order_or_kind_changes_nothing(store: Store) -> None:
    team = captured(1, 2)
    with pytest.raises(SettingError, match="the epoch of a checkpoint is an int from 0"):
        store.draft(components=[], **(facts(1) | {"epoch": -1}))
    draft = drafted(store, 1, team[0])
    with pytest.raises(OrderError, match=r"call write\(\) before publish\(\)"):
        draft.publish()
    with pytest.raises(SettingError, match=r"a draft of \('model', .*\) is not written as \('x',\)"):
        draft.write({"x": 1}, state=None)
    with pytest.raises(TreeError, match="rng: a checkpoint cannot hold builtins.object"):
        draft.write(team[0] | {"rng": object()}, state=None)
    assert list(draft.directory.iterdir()) == []
    told = written(draft, FILES, 1, team)
    for ranks in (0, True, 10**5 + 1, None):
        with pytest.raises(SettingError, match="ranks is an int from 1 to 100000, not"):
            draft.publish(told, ranks)  # type: ignore[arg-type]
    info = draft.publish(told, 2)
    draft.withdraw()
    assert is_save(store, info), "what is published stays"
    with pytest.raises(SaveError, match="exists already, and a checkpoint is never overwritten"):
        drafted(store, 1, team[0])
    assert names(store.path) == [info.name]


def test_of_two_drafts_of_one_name_one_is_published(store: Store) -> None:
    team = captured(1, 2)
    drafts = [drafted(store, 1, team[0]) for _ in range(2)]
    told = [written(draft, FILES, 1, team) for draft in drafts]
    info = drafts[0].publish(told[0], 2)
    with pytest.raises(SaveError, match=r"saving epoch-0001-.* failed"):
        drafts[1].publish(told[1], 2)
    drafts[1].withdraw()
    assert names(store.path) == [info.name]
    assert is_save(store, info)


def test_a_draft_of_a_run_that_was_taken_over_is_not_published(run: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    team = captured(1, 2)
    draft = drafted(store, 1, team[0])
    told = written(draft, FILES, 1, team)
    _held.clear()  # as if another process had made it
    other = Store.lock(run, take_over=True)
    other.begin({})
    assert not draft.directory.exists()
    with pytest.raises(SaveError):
        draft.publish(told, 2)
    with pytest.raises(SaveError, match="No such file"):
        write_part(FILES, draft.directory, 1, team[1], OWN)
    draft.withdraw()
    assert names(run) == []
    other.close()
    store.close()
    _held.clear()


@WHOLE
def test_every_file_of_every_rank_is_on_the_disk_before_the_name_is(run: Path) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    files.clear()
    info = commit(store, 1, 3, files=files)
    store.close()
    told = [
        line for line in files.told(run / "checkpoints") if "checkpoints" not in line and ".lock" not in line
    ]
    at = f".tmp-{info.name}-*"
    renamed = told.index(f"rename {at} {info.name}")
    inside = sorted(path.name for path in info.path.iterdir())
    assert len(inside) == 10
    places = [told.index(f"sync {at}/{name}") for name in inside]
    assert told[0] == f"mkdir {at}"
    assert told.index(f"sync {at}/parts.json") < told.index(f"create {at}/manifest.json")
    assert max(places) == told.index(f"sync {at}/manifest.json") == renamed - 2
    assert told[renamed - 1] == f"sync_directory {at}"
    assert told[renamed + 1] == "sync_directory ."


class Recorded:
    """A run with save 1, then the team's save `number` by `ranks`, in an order drawn by the number."""

    def __init__(self, root: Path, number: int, ranks: int) -> None:
        root.mkdir()
        self.root, self.number = root, number
        self.files = Recorder()
        store = Store.lock(root / "run", files=self.files)
        store.begin({})
        commit(store, 1, 2, files=self.files)
        self.begun = len(self.files.ops)
        commit(store, number, ranks, files=self.files)
        self.saved = len(self.files.ops)
        store.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_any_operation_that_fails_is_told_and_the_withdrawn_save_leaves_nothing(
    tmp_path: Path, code: int
) -> None:
    whole = Recorded(tmp_path / "whole", 2, ranks=3)
    files = Recorder()
    store = Store.lock(tmp_path / "run", files=files)
    store.begin({})
    good = commit(store, 1, 2, files=files)
    injected = 0
    for at in range(whole.saved - whole.begun):
        if whole.files.ops[whole.begun + at].name == "real":
            continue
        files.clear()
        files.hook = failing(at, code)
        try:
            info = commit(store, 2, 3, files=files)
        except StopctlError:
            files.hook = None
            left = [name for name in names(tmp_path / "run") if name != good.name]
            # the rename was done, and perhaps not durable: it went by a rename
            assert left == [] or (len(left) == 1 and left[0].startswith(".trash-"))
            shutil.rmtree(tmp_path / "run" / "checkpoints" / left[0]) if left else None
        else:
            files.hook = None
            assert is_save(store, info)
            store.delete([good.name], guarded=())
            shutil.rmtree(info.path)
            good = commit(store, 1, 2, files=files)
        injected += 1
        assert recovered_now(store) == [1]
    store.close()
    count("injected errors", injected)
    assert injected > 50


def recovered_now(store: Store) -> list[int]:
    listing = store.list()
    assert listing.damaged == ()
    assert all(is_save(store, info) for info in listing.good)
    return [info.epoch for info in listing.good]


def test_the_parts_of_a_killed_save_are_swept_and_what_is_not_ours_stays(run: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    team = captured(1, 3)
    drafts = [drafted(store, number, team[0]) for number in (1, 2)]
    for draft in drafts:
        written(draft, FILES, 1, team)
    mine = ["part-1.json", "part-00001.json.bak", "parts.json.old", "part-00001.txt"]
    for name in mine:
        (drafts[1].directory / name).write_text("mine")
    (drafts[1].directory / "part-00009.json").symlink_to("part-1.json")
    (drafts[1].directory / "part-00008.json").mkdir()
    store.close()
    store = Store.lock(run)
    store.begin({})
    (line,) = [line for line in store.journal() if line["event"] == "left"]
    (left,) = (run / "checkpoints").iterdir()
    assert sorted([*mine, "part-00008.json", "part-00009.json"]) == line["names"]
    assert sorted(path.name for path in left.iterdir()) == line["names"]
    store.close()


def test_withdrawing_leaves_what_is_not_ours(store: Store) -> None:
    team = captured(1, 2)
    draft = drafted(store, 1, team[0])
    written(draft, FILES, 1, team)
    (draft.directory / "notes.txt").write_text("mine")
    draft.withdraw()
    draft.withdraw()
    assert [path.name for path in draft.directory.iterdir()] == ["notes.txt"]


def test_a_disk_that_does_nothing_more_lets_a_withdrawal_end_without_an_error(run: Path) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    team = captured(1, 2)
    draft = drafted(store, 1, team[0])
    written(draft, files, 1, team)

    def broken(index: int, op: Op) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    files.hook = broken
    draft.withdraw()
    files.hook = None
    assert draft.directory.exists()
    store.close()


def test_a_teams_checkpoint_is_deleted_wholly(store: Store) -> None:
    first, second = commit(store, 1, 3), commit(store, 2, 3)
    assert len(part_files(first.path)) == 7
    store.delete([first.name], guarded=())
    assert names(store.path) == [second.name]
    unlocked = store.path
    store.close()
    unlock(unlocked)
    assert names(unlocked) == [second.name]


def test_rank_0_still_links_what_does_not_change(run: Path) -> None:
    store = Store.lock(run, durability="process")
    store.begin({})
    still = Leaf("U8", (1 << 21,), bytes(range(256)) * (1 << 13))

    def save(number: int, good: bool = True) -> CheckpointInfo:
        team = [components | {"still": still} for components in captured(number, 2)]
        draft = store.draft(components=tuple(team[0]), **facts(number))
        told = written(draft, FILES, number, team)
        if not good:
            draft.withdraw()
            return draft.info
        return draft.publish(told, 2)

    infos = [save(number) for number in range(1, 6)]
    inodes = [(info.path / "frozen.safetensors").stat().st_ino for info in infos[1:]]
    assert len(set(inodes)) == 2
    save(6, good=False)
    last = save(7)
    assert (last.path / "frozen.safetensors").stat().st_ino not in inodes, (
        "after a failure all is written anew"
    )
    for info in (*infos, last):
        components, _ = store.load(info)
        assert bytes(components.pop("still").data) == bytes(still.data)
        assert same(components, content(info.epoch) | own(info.epoch, 0))
    store.close()


def test_a_directory_that_cannot_be_made_is_a_save_error(run: Path) -> None:
    class Refusing(Files):
        def mkdir(self, path: Path) -> None:
            if path.name.startswith(".tmp-"):
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))
            super().mkdir(path)

    store = Store.lock(run, files=Refusing())
    store.begin({})
    with pytest.raises(SaveError, match=r"saving epoch-0001-.* failed: .*: Disk quota exceeded"):
        store.draft(components=[], **facts(1))
    assert names(run) == []
    store.close()
