"""Machines that train with a mirror, and what must hold of it whatever became of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stopctl.core.errors import SaveError
from stopctl.mirror import Mirror, keys
from stopctl.mirror.look import visible
from stopctl.store import CheckpointInfo, Leaf, Reader, Store, frozen
from stopctl.store.files import FILES, without_sync
from stopctl.store.manifest import NAME, order
from stopctl.store.pins import read_pins
from stopctl.store.rundir import RESTORING, read_meta, write_meta
from support.mirrors.bucket import Bucket, Memory, Seam

T = TypeVar("T")
QUICK = without_sync(FILES)
WRITERS, EPOCHS = 6, 14


class Stale(Exception):
    """The directory is older than the mirror."""


def tree(epoch: int, writer: int) -> dict[str, Any]:
    """What a checkpoint holds: an array that is never changed, and one that tells it from every other one."""
    return {
        "model": {"base": Leaf("U8", (400,), b"b" * 400), "head": Leaf("U8", (2,), bytes([epoch, writer]))}
    }


def value(epoch: int) -> float:
    """Best at epoch 3."""
    return abs(epoch - 3) + 0.1


@cache
def pool(folder: Path) -> dict[tuple[int, int], Path]:
    """Real checkpoints, made once: of every epoch by every writer; from the second on with frozen arrays."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "LEAF", 64)
        patch.setattr(frozen, "TOTAL", 128)
        for writer in range(1, WRITERS + 1):
            run = folder / f"pool-{writer}"
            run.mkdir()
            write_meta(QUICK, run, {"format": 1, "writer": writer - 1})
            store = Store.lock(run, durability="process")
            store.begin({})
            for epoch in range(1, EPOCHS + 1):
                fields = {"epoch": epoch, "step": epoch, "seconds": 0.0, "value": value(epoch)}
                info = store.commit(tree(epoch, writer), state={"epoch": epoch}, **fields)
                made[epoch, writer] = info.path
            store.close()
    return made


class World:
    """A bucket and the machines that have used it, with what they were told."""

    def __init__(self, scratch: Path, checkpoints: Path, bucket: Bucket | None = None) -> None:
        self.scratch, self.checkpoints, self.pool = scratch, checkpoints, pool(checkpoints)
        self.bucket = Bucket() if bucket is None else bucket
        self.acked: set[str] = set()
        self.released: set[str] = set()
        self.machines = 0

    @property
    def due(self) -> set[str]:
        """What was told to be mirrored, and no writer that has seen it has let go since."""
        return self.acked - self.released

    def fork(self, scratch: Path) -> World:
        """The same objects and promises, to try something with."""
        scratch.mkdir()
        world = World(scratch, self.checkpoints, Bucket(self.bucket))
        world.acked, world.released = set(self.acked), set(self.released)
        return world

    def machine(self, directory: Path | None = None, seam: Seam | None = None) -> Machine:
        """A new process; without `directory` on a new machine."""
        if directory is None:
            self.machines += 1
            directory = self.scratch / f"machine-{self.machines}"
            directory.mkdir()
        return Machine(self, directory, Memory(self.bucket, *([] if seam is None else [seam])))


class Machine:
    """A process that trains; it does what Run does, as far as the mirror is concerned."""

    def __init__(self, world: World, directory: Path, remote: Memory) -> None:
        self.world, self.directory, self.remote = world, directory, remote
        self.mirror = Mirror(remote, files=QUICK)
        self.known: set[str] = set()
        self.pinned: set[str] = set()

    def persist(self, does: Callable[[], T], tries: int = 8) -> T:
        """What the store did not answer is asked for again; who is fenced asks for nothing."""
        while True:
            try:
                return does()
            except (OSError, SaveError):
                tries -= 1
                if self.mirror.fenced or not tries:
                    raise

    def open(self, take_over: bool = False) -> Machine:
        look = self.persist(self.mirror.look)
        meta = read_meta(QUICK, self.directory)
        if meta is not None and RESTORING not in meta and not look.is_followed_by(meta):
            raise Stale
        writer = 1 + (0 if meta is None else meta["writer"])
        number = self.persist(lambda: self.mirror.claim(self.directory, look, writer))
        self.known = {entry.partition("/")[0] for entry in self.mirror._seen}
        due = {name for name in self.world.due if order(name)[2] < number}
        damaged = self.persist(lambda: self.mirror.restore(self.directory, best)).damaged
        assert not damaged
        self.pinned = set(read_pins(QUICK, self.directory).pinned)
        here = self.names()
        if self.known and (meta is None or RESTORING in meta):
            wanted = {max(self.known, key=order), min(self.known, key=_by_value), *self.pinned}
            assert set(here) == wanted
        assert max(map(order, here), default=()) >= max(map(order, due), default=()), (
            "an older one was restored"
        )
        meta = read_meta(QUICK, self.directory) or {}
        write_meta(QUICK, self.directory, {**meta, "format": 1, "writer": number, **self.mirror.mark})
        with contextlib.suppress(FileExistsError):
            (self.directory / "checkpoints").mkdir()
        self.line("start")
        return self

    def names(self) -> list[str]:
        folder = self.directory / "checkpoints"
        return sorted(filter(NAME.fullmatch, os.listdir(folder)), key=order) if folder.exists() else []

    def line(self, event: str, **fields: Any) -> None:
        path = self.directory / "journal.jsonl"
        number = path.read_bytes().count(b"\n") if path.exists() else 0
        with path.open("a") as file:
            file.write(json.dumps({"n": number, "event": event, **fields}, separators=(",", ":")) + "\n")

    def save(self, **more: Any) -> str:
        """The next epoch: saved here, pruned here, pushed, told, pruned there."""
        here = self.names()
        epoch = 1 + (order(here[-1])[1] if here else 0)
        source = self.world.pool[epoch, self.mirror.number]
        copy(source, self.directory / "checkpoints" / source.name)
        self.known.add(source.name)
        self.line("saved", name=source.name)
        self.retain()
        at = self.directory / "checkpoints" / source.name
        self.persist(lambda: self.mirror.push(at, **more))
        self.world.acked.add(source.name)
        self.line("mirrored", name=source.name)
        self.persist(self.mirror.journal)
        self.prune()
        return source.name

    def retain(self) -> None:
        """Keep the newest two, the best, and the pinned."""
        names = self.names()
        keep = {*names[-2:], min(names, key=_by_value), *self.pinned}
        for name in set(names) - keep:
            for path in (self.directory / "checkpoints" / name).iterdir():
                path.unlink()
            (self.directory / "checkpoints" / name).rmdir()

    def prune(self) -> None:
        kept = self.names()
        self.world.released |= self.known.difference(kept, self.pinned)
        missing = self.persist(lambda: self.mirror.prune(kept))
        assert not missing & self.world.due

    def pin(self, name: str, pinned: bool = True) -> None:
        (self.directory / "pins").mkdir(exist_ok=True)
        (self.directory / "pins" / f"{name}.{'pinned' if pinned else 'unpinned'}").touch()
        (self.directory / "pins" / f"{name}.{'unpinned' if pinned else 'pinned'}").unlink(missing_ok=True)
        (self.pinned.add if pinned else self.pinned.discard)(name)
        self.persist(self.mirror.describe)


def _by_value(name: str) -> tuple[float, str]:
    return value(order(name)[1]), name


def best(infos: Sequence[CheckpointInfo]) -> list[str]:
    return [min(infos, key=lambda info: (info.value, info.name)).name] if infos else []


def copy(source: Path, target: Path) -> None:
    """A second name for every file."""
    target.mkdir()
    for path in source.iterdir():
        os.link(path, target / path.name)


def exist(bucket: Bucket) -> list[keys.Commit]:
    """The commits that exist, oldest first; each is whole, and was made before any later writer had looked."""
    seen = {
        int(key[8:16]): set(json.loads(data)["seen"])
        for key, data in bucket.items()
        if key.endswith(".seen.json")
    }
    top = max(seen, default=0)
    there, _ = visible(Memory(bucket), seen, seen.get(top, set()))
    for commit in there:
        body = json.loads(bucket[commit.key])
        for file, fact in json.loads(body["manifest"])["files"].items():
            shared = file == "frozen.safetensors"
            key = keys.frozen(fact["sha256"], body["frozen"]) if shared else keys.data(*commit, file)
            assert key in bucket, f"{commit.name} exists without {file}"
            assert hashlib.sha256(bucket[key]).hexdigest() == fact["sha256"]
        for number in seen:
            if number > commit.number:
                assert bucket.made[commit.key] < bucket.made[keys.writer(number, "seen")], "a zombie's exists"
    return there


def loads(directory: Path) -> list[CheckpointInfo]:
    """What a run's directory has, every one of which is to the last bit what was saved."""
    reader = Reader(directory, files=QUICK)
    listing = reader.list()
    assert listing.damaged == ()
    for info in listing.good:
        components, state = reader.load(info)
        expected = tree(info.epoch, info.writer)["model"]
        assert state == {"epoch": info.epoch}
        assert {name: bytes(leaf.data) for name, leaf in components["model"].items()} == {
            name: leaf.data for name, leaf in expected.items()
        }
    return list(listing.good)


def survives(world: World) -> None:
    """Nothing that was told is lost and nothing else is visible; another machine goes on from it, and sweeps."""
    there = {commit.name for commit in exist(world.bucket)}
    assert world.due <= there, f"lost: {sorted(world.due - there)}"
    heir = world.machine().open()
    infos = loads(heir.directory) if there else []
    assert {info.name for info in infos} <= there
    lines = [json.loads(line) for line in (heir.directory / "journal.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(len(lines))), "the journal has a gap"
    heir.save()
    swept(world.bucket, heir)


def swept(bucket: Bucket, owner: Machine, *, journal: bool = True) -> None:
    """No object is left that is nobody's."""
    commits = keys.commits(bucket.keys_below("commits/"))
    kept = {*owner.names(), *owner.pinned}
    assert {commit.name for commit in commits} == kept
    assert len(commits) == len(kept)
    tags = {commit.tag for commit in commits}
    assert {each.tag for each in keys.stored(bucket.keys_below("data/"))} == tags
    shared = {json.loads(bucket[commit.key])["frozen"] for commit in commits}
    assert {each.tag for each in keys.stored(bucket.keys_below("frozen/"))} == shared - {None}
    assert len(bucket.keys_below("runs/")) == 1
    if journal:
        assert {each.number for each in keys.segments(bucket.keys_below("journal/"))} == {owner.mirror.number}
