"""What a mirror refuses, and what it leaves alone: each is a function that fails where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stopctl.core.errors import DamagedError, LockedError, OrderError, SaveError
from stopctl.mirror import document, keys, upload
from stopctl.mirror import journal as segments
from stopctl.mirror.push import put
from stopctl.store.files import FILES
from stopctl.store.rundir import read_meta
from support.mirrors.bucket import Bucket, Died, Faults, Memory
from support.mirrors.machine import QUICK, Machine, World, best, exist, loads


def saved(world: World, saves: int) -> Machine:
    machine = world.machine().open()
    for _ in range(saves):
        machine.save()
    return machine


def one_claim_wins(world: World) -> None:
    one, other = world.machine(), world.machine()
    looks = [machine.mirror.look() for machine in (one, other)]
    assert one.mirror.claim(one.directory, looks[0], 3) == 3
    with pytest.raises(LockedError, match=r"has just been claimed by process \d+ on .* \(writer 3\)"):
        other.mirror.claim(other.directory, looks[1], 1)
    with pytest.raises(OrderError, match="claimed by this Mirror already"):
        one.mirror.claim(one.directory, looks[0], 1)
    assert other.mirror.claim(other.directory, other.mirror.look(), 1) == 4


def a_race_for_one_number(world: World) -> None:
    """The other one's claim comes between the look at the claims and one's own."""
    one, other = world.machine(), world.machine()
    faults = Faults("meanwhile", 5)
    faults.meanwhile = lambda: other.mirror.claim(other.directory, other.mirror.look(), 1)
    one.remote.seam = faults
    with pytest.raises(LockedError, match="writer 1"):
        one.mirror.claim(one.directory, one.mirror.look(), 1)
    assert faults.count > 5


def overtaken_while_claiming(world: World) -> None:
    one, other = world.machine(), world.machine()
    look = one.mirror.look()
    faults = Faults("meanwhile", 2)
    faults.meanwhile = lambda: other.mirror.claim(other.directory, other.mirror.look(), 1)
    one.remote.seam = faults
    with pytest.raises(LockedError, match="writer 2"):
        one.mirror.claim(one.directory, look, 1)


def without_a_claim_nothing_is_written(world: World) -> None:
    machine = world.machine()
    for does in (machine.mirror.describe, machine.mirror.journal, machine.mirror.tag):
        with pytest.raises(OrderError, match=r"call claim\(\) first"):
            does()
    machine.mirror.end()
    assert not world.bucket
    machine.mirror.claim(machine.directory, machine.mirror.look(), 1)
    with pytest.raises(OrderError, match=r"has no run\.json"):
        machine.mirror.describe()


def a_mirror_that_was_emptied(world: World) -> None:
    machine = saved(world, 1)
    world.bucket.clear()
    with pytest.raises(SaveError, match="has lost its claims: this one, 1, mirrors no more"):
        machine.save()
    assert machine.mirror.fenced
    with pytest.raises(SaveError, match="lost its claims"):
        machine.mirror.journal()


def the_newest_stays(world: World) -> None:
    machine = saved(world, 3)
    assert machine.mirror.prune(()) == frozenset()
    assert [commit.name for commit in exist(world.bucket)] == machine.names()[-1:]
    assert machine.mirror.prune(machine.names()) == set(machine.names()[:-1])


def the_best_stays_until_a_better_one_is_there(world: World) -> None:
    """A better one took its place here, but was passed over in the queue."""
    machine = saved(world, 2)
    first, second = machine.names()
    better, newest = world.pool[3, 1], world.pool[4, 1]
    machine.mirror.push(newest)
    assert machine.mirror.prune([better.name, newest.name], best) == {better.name}
    assert [commit.name for commit in exist(world.bucket)] == [second, newest.name]
    machine.mirror.push(better)
    assert machine.mirror.prune([better.name, newest.name], best) == frozenset()
    assert [commit.name for commit in exist(world.bucket)] == [better.name, newest.name]
    assert first < second


def of_one_name_the_newest(world: World) -> None:
    """A push that was told as failed is done again."""
    machine = saved(world, 1)
    source = world.pool[2, 1]
    first, second = machine.mirror.push(source), machine.mirror.push(source)
    assert machine.mirror.look().commits[:1] == (second,)
    machine.mirror.prune([*machine.names(), source.name])
    assert first not in exist(world.bucket)
    assert second in exist(world.bucket)


def a_pinned_one_stays(world: World) -> None:
    machine = saved(world, 3)
    machine.pin(machine.names()[0])
    machine.mirror.prune(machine.names()[-1:])
    assert [commit.name for commit in exist(world.bucket)] == [machine.names()[0], machine.names()[-1]]


def one_that_cannot_be_read_stays(world: World) -> None:
    """It may be pinned, and may share what others have."""
    machine = saved(world, 5)
    first = exist(world.bucket)[0]
    machine.mirror._read.clear()
    world.bucket[first.key] = b"{}"
    stored = {key for key in world.bucket if key.startswith(("data/", "frozen/"))}
    machine.mirror.prune(machine.names()[1:])
    assert first.key in world.bucket
    assert stored <= world.bucket.keys()


def a_commit_in_anothers_place(world: World) -> None:
    machine = saved(world, 2)
    one, other = exist(world.bucket)
    world.bucket[one.key] = world.bucket[other.key]
    assert machine.mirror.info(other).name == other.name
    with pytest.raises(
        DamagedError, match=f"{one.name} is damaged: manifest.json: it is that of {other.name}"
    ):
        machine.mirror.info(one)
    del world.bucket[one.key]
    with pytest.raises(DamagedError, match=f"{one.name} is damaged: it is not there any more"):
        machine.mirror.info(one)


def a_fenced_writer_prunes_nothing(world: World) -> None:
    first = saved(world, 3)
    world.machine().open().save()
    there = dict(world.bucket)
    with pytest.raises(SaveError, match=r"has been claimed by writer 2 on .*: this one, 1, mirrors no more"):
        first.mirror.prune(first.names()[-1:])
    assert world.bucket == there


def a_later_writers_commits_stay(world: World) -> None:
    """Another machine takes over between the look at the claims and the pruning."""
    first = saved(world, 3)
    second = world.machine()

    def meanwhile() -> None:
        second.open()
        for _ in range(3):
            second.save()

    first.remote.seam = Faults("meanwhile", 1)
    first.remote.seam.meanwhile = meanwhile
    first.mirror.prune(first.names()[-1:])
    assert world.due <= {commit.name for commit in exist(world.bucket)}


def frozen_arrays_are_uploaded_once(world: World) -> None:
    machine = saved(world, 5)
    assert len(world.bucket.keys_below("frozen/")) == 1
    assert {json.loads(world.bucket[commit.key])["frozen"] for commit in exist(world.bucket)[-2:]} == {
        each.tag for each in keys.stored(world.bucket.keys_below("frozen/"))
    }
    machine.save()
    exist(world.bucket)


def frozen_arrays_that_were_swept_are_uploaded_again(world: World) -> None:
    machine = saved(world, 1)
    source = world.pool[2, 1]
    faults = Faults("error", 1)  # what comes after frozen.safetensors
    machine.remote.seam = faults
    with pytest.raises(SaveError, match=r"mirroring epoch-0002.* at memory://bucket/run failed: the answer"):
        machine.mirror.push(source)
    assert world.bucket.keys_below("frozen/")
    machine.prune()
    assert not world.bucket.keys_below("frozen/")
    assert machine.mirror.push(source) in exist(world.bucket)


def a_commit_that_comes_late_has_its_files(world: World) -> None:
    machine = saved(world, 1)
    names = _operations_of_a_push(world)
    faults = Faults("late", max(at for at, name in enumerate(names) if name == "create"))
    machine.remote.seam = faults
    with pytest.raises(SaveError, match="the answer was lost"):
        machine.mirror.push(world.pool[2, 1])
    machine.remote.seam = lambda operation, does: does()
    machine.prune()
    faults.land()
    assert [commit.name for commit in exist(world.bucket)] == [world.pool[1, 1].name, world.pool[2, 1].name]


def _operations_of_a_push(world: World) -> list[str]:
    names: list[str] = []
    other = World(world.scratch / "other", world.checkpoints)
    (world.scratch / "other").mkdir()
    machine = saved(other, 1)
    machine.remote.seam = lambda operation, does: (names.append(operation), does())[1]
    machine.mirror.push(other.pool[2, 1])
    return names


def what_was_read_back_is_compared(world: World) -> None:
    bucket, path = Bucket(), world.scratch / "file"
    path.write_bytes(b"whole")
    for there in (b"whol", b"wholf"):
        bucket["key"] = there
        with pytest.raises(DamagedError, match="key is not what was uploaded"):
            put(Memory(bucket), FILES, "key", path)
        with pytest.raises(FileExistsError):
            document.create(Memory(bucket), "key", b"whole")
    bucket["key"] = b"whole"
    put(Memory(bucket), FILES, "key", path)
    document.create(Memory(bucket), "key", b"whole")


def only_regular_files_are_uploaded(world: World) -> None:
    machine = saved(world, 1)
    place = world.scratch / "links"
    place.mkdir()
    for path in world.pool[2, 1].iterdir():
        (place / path.name).symlink_to(path)
    with pytest.raises(DamagedError, match="symbolic link"):
        machine.mirror.push(place, world.pool[2, 1].name)
    with pytest.raises(DamagedError, match=r"state\.json: not a regular file|symbolic link"):
        upload(machine.remote, place, place.name, machine.mirror.tag(), ["state.json"])


def a_local_checkpoint_that_is_damaged(world: World) -> None:
    """Nothing is acknowledged that could not be restored."""
    machine = saved(world, 1)
    for file, how, why in (
        ("state.json", lambda data: data[:-1], "instead of"),
        ("state.safetensors", lambda data: data[:-1] + b"\xff", "SHA-256"),
        ("manifest.json", lambda data: data.replace(b'"epoch":2', b'"epoch":3'), "SHA-256"),
        (
            "manifest.json",
            lambda data: (world.pool[3, 1] / "manifest.json").read_bytes(),
            "that of epoch-0003",
        ),
    ):
        place = world.scratch / f"rot-{file}-{len(list(world.scratch.iterdir()))}"
        place.mkdir()
        for path in world.pool[2, 1].iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        (place / file).write_bytes(how((place / file).read_bytes()))
        with pytest.raises(DamagedError, match=why):
            machine.mirror.push(place, world.pool[2, 1].name)
    assert len(exist(world.bucket)) == 1


def what_another_rank_has_not_uploaded(world: World) -> None:
    machine = saved(world, 1)
    tag = machine.mirror.tag()
    with pytest.raises(SaveError, match=r"another rank's state\.json is not there"):
        machine.mirror.push(world.pool[2, 1], tag=tag, elsewhere=["state.json"])
    assert len(exist(world.bucket)) == 1


def only_our_keys_are_touched(world: World) -> None:
    machine = saved(world, 2)
    name, tag = exist(world.bucket)[0]
    ours = set(world.bucket)
    foreign = [
        f"data/../{tag}/state.json", f"data/{name}/{tag}/../../x", f"data/{name}/{tag}/weights.bin", f"data/{name}/x/state.json",
        f"data/{name}/00000001-00000000000000000/state.json", f"commits/../{tag}.json", f"commits/{name}/../../{tag}.json",
        "frozen/../x", "runs/x.json", "runs/00000001-0000000x.json", "journal/../../x", "writers/1.json", "writers/٣٣٣٣٣٣٣٣.json", "pins/x",
    ]  # fmt: skip
    world.bucket.update(dict.fromkeys(foreign, b"theirs"))
    machine.save()
    machine.save()
    heir = world.machine().open()
    heir.save()
    assert {key for key, data in world.bucket.items() if data == b"theirs"} == set(foreign)
    assert len(loads(heir.directory)) == 3
    assert ours


def names_that_lead_elsewhere(world: World) -> None:
    """However well they are signed."""
    machine = saved(world, 2)
    commit = exist(world.bucket)[-1]
    evil = "../../../evil"
    kinds: list[tuple[str, Callable[[dict], object], str]] = [
        (keys.writer(1, "seen"), lambda body: body["seen"].append(f"{evil}/{commit.tag}"), "lists what is no checkpoint"),
        (world.bucket.keys_below("runs/")[0], lambda body: body["pinned"].append(evil), "pins what is no checkpoint"),
        (commit.key, lambda body: body.update(frozen=evil), "no checkpoint of the mirror is good|no place of frozen"),
        (commit.key, lambda body: body.update(frozen=None), "no place of frozen"),
        (world.bucket.keys_below("runs/")[0], lambda body: body["meta"].pop("writer"), "no run.json that tells"),
        (world.bucket.keys_below("runs/")[0], lambda body: body["meta"].update(format=9), "format 9"),
        (keys.writer(1), lambda body: body.update(pid="x"), "not as it should be: pid"),
    ]  # fmt: skip
    for key, change, why in kinds:
        trial = world.fork(world.scratch / f"names-{len(list(world.scratch.iterdir()))}")
        for other in exist(trial.bucket)[:-1]:
            del trial.bucket[other.key]
        body = json.loads(trial.bucket[key])
        body = {name: value for name, value in body.items() if name not in ("format", "sha256")}
        change(body)
        trial.bucket[key] = document.encode(body)
        heir = trial.machine()
        with pytest.raises(Exception, match=why):
            heir.open()
        assert not list(world.scratch.parent.rglob("*evil*"))
    assert machine.names()


def commits_that_are_all_gone(world: World) -> None:
    """Never a fresh start: claims tell of them, or the journal does, or a restore that was broken off."""
    first = saved(world, 2)
    emptied = world.fork(world.scratch / "emptied")
    for commit in exist(emptied.bucket):
        del emptied.bucket[commit.key]
    with pytest.raises(DamagedError, match="the mirror had checkpoints, but none is there any more"):
        emptied.machine().open()
    second = world.machine().open()
    for key in [*world.bucket.keys_below("commits/"), *world.bucket.keys_below("journal/")]:
        del world.bucket[key]
    with pytest.raises(DamagedError, match="the mirror had checkpoints"):
        world.machine().open()
    assert first.names()[-1] in second.names()


def a_claim_that_was_told_of_already(world: World) -> None:
    """Its answer was lost, and then an older writer deleted what it had seen."""
    first = saved(world, 3)
    heir = world.machine()
    look = heir.mirror.look()
    heir.remote.seam = Faults("lost", 5)
    with pytest.raises(
        SaveError, match="claiming the mirror at memory://bucket/run failed: the answer was lost"
    ):
        heir.mirror.claim(heir.directory, look, 1)
    assert keys.writer(2, "seen") in world.bucket
    del world.bucket[exist(world.bucket)[0].key]
    assert heir.mirror.claim(heir.directory, look, 1) == 2
    heir.persist(lambda: heir.mirror.restore(heir.directory, lambda infos: ()))
    assert heir.names() == first.names()[-1:]


def a_restore_that_is_broken_off(world: World) -> None:
    """What is there is not taken for a run; another restore begins anew."""
    saved(world, 4)
    heir = world.machine()
    heir.remote.seam = Faults("before", 34)
    with pytest.raises(Died):
        heir.open()
    assert any((heir.directory / "checkpoints").iterdir())
    meta = read_meta(QUICK, heir.directory)
    assert meta is not None
    assert not heir.mirror.look().is_followed_by(meta)
    stray = heir.directory / "checkpoints" / world.pool[9, 1].name
    stray.mkdir()
    again = world.machine(heir.directory).open()
    assert stray.name not in again.names()
    loads(again.directory)


def a_directory_that_lies_behind(world: World) -> None:
    """A disk that lost its newest saves, or a copy: what was mirrored since comes back."""
    machine = saved(world, 3)
    newest = machine.directory / "checkpoints" / machine.names()[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    again = world.machine(machine.directory).open()
    assert newest.name in again.names()
    loads(again.directory)


def a_claim_before_run_json_knows(world: World) -> None:
    """A death just after the claim does not make a stranger of the directory."""
    machine = saved(world, 2)
    for _ in range(2):
        again = world.machine(machine.directory)
        look = again.mirror.look()
        assert look.is_followed_by(read_meta(QUICK, machine.directory))
        again.mirror.claim(machine.directory, look, 2)
    stranger = world.machine()
    stranger.mirror.claim(stranger.directory, stranger.mirror.look(), 2)
    assert not stranger.mirror.look().is_followed_by(read_meta(QUICK, machine.directory))


def a_journal_whose_answers_are_lost(world: World) -> None:
    machine = saved(world, 1)
    for number in range(4):
        machine.line("note", text=number)
        machine.remote.seam = Faults("lost", 0)
        with pytest.raises(SaveError, match="mirroring the journal"):
            machine.mirror.journal()
        machine.line("note", text=-number)
        machine.mirror.journal()
    assert b"".join(segments.read_back(machine.remote)) == (machine.directory / "journal.jsonl").read_bytes()


def the_newest_writers_journal(world: World) -> None:
    """Though that of the one before is there still."""
    saved(world, 2)
    before = {key: world.bucket[key] for key in world.bucket.keys_below("journal/")}
    second = world.machine().open()
    second.save()
    world.bucket.update(before)
    assert b"".join(segments.read_back(second.remote)) == (second.directory / "journal.jsonl").read_bytes()


def a_journal_that_is_long(world: World) -> None:
    """Now and then it is written anew, in pieces; a torn last line is left for later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "CHAIN", 3)
        patch.setattr(segments, "SEGMENT", 100)
        machine = saved(world, 1)
        path = machine.directory / "journal.jsonl"
        for number in range(9):
            machine.line("note", text="x" * (40 * number))
            machine.mirror.journal()
        whole = path.read_bytes()
        assert b"".join(segments.read_back(machine.remote)) == whole
        assert len(world.bucket.keys_below("journal/")) < 30
        path.write_bytes(whole + b"{torn")
        machine.mirror.journal()
        assert b"".join(segments.read_back(machine.remote)).startswith(whole)
        path.write_bytes(whole[:50] + b"\n")  # a power cut took the rest
        machine.mirror.journal()
        assert b"".join(segments.read_back(machine.remote)) == whole[:50] + b"\n"


REFUSALS: dict[str, Callable[[World], None]] = {
    name: function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__annotations__", {}).get("world") == "World"
    if function.__module__ == __name__ and not name.startswith("_") and name != "saved"
}


def refused(scratch: Path, name: str) -> None:
    world = World(scratch, scratch.parent)
    REFUSALS[name](world)
