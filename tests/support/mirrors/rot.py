"""Objects of a mirror that are not what was put there: noticed, and never taken for a checkpoint."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.mirror import document, keys
from stopctl.mirror.look import CLAIM, RUN, SEEN
from stopctl.mirror.restore import COMMIT
from support.mirrors.bucket import Bucket
from support.mirrors.machine import World, best, exist, loads

FIELDS = {".seen": SEEN, "writers": CLAIM, "runs": RUN, "commits": COMMIT}


def kinds(key: str, bucket: Bucket) -> Iterator[bytes | None]:
    """An object's other contents; None: it is gone."""
    data, rng = bucket[key], random.Random(key)
    others = [other for other in bucket if other != key and other.split("/")[0] == key.split("/")[0]]
    yield from (None, b"", data[:-1], data + b"\x00", data[: len(data) // 2])
    yield from (bucket[other] for other in others[:2] if bucket[other] != data)
    for _ in range(3):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def damage_all(scratch: Path) -> int:
    """Every object is damaged in each way; returns how many there were."""
    (scratch / "whole").mkdir()
    world = World(scratch / "whole", scratch.parent)
    machine = world.machine().open()
    for _ in range(4):
        machine.save()
    names = machine.names()
    count = 0
    for key in sorted(world.bucket):
        for data in kinds(key, world.bucket):
            count += 1
            shutil.rmtree(scratch / "trial", ignore_errors=True)
            trial = world.fork(scratch / "trial")
            if data is None:
                del trial.bucket[key]
            else:
                trial.bucket[key] = data
            _noticed(trial, key, names, gone=data is None)
    return count


def _noticed(trial: World, key: str, names: list[str], gone: bool) -> None:
    heir = trial.machine()
    try:
        heir.mirror.claim(heir.directory, heir.mirror.look(), 1)
        restored = heir.mirror.restore(heir.directory, best)
    except DamagedError:
        if key.startswith(("data/", "commits/", "journal/")):
            raise
        return
    infos = {info.name for info in loads(heir.directory)}
    assert infos == {info.name for info in restored.infos}
    hit = [name for name in names if f"/{name}/" in key]
    if key.startswith(("data/", "commits/")):
        assert infos.isdisjoint(hit), f"{key} is damaged, and was not noticed"
        if not (gone and key.startswith("commits/")):  # what does not exist is not damaged
            assert set(restored.damaged) <= set(hit)
            assert set(restored.damaged) or not set(hit) & {names[-1], *best([*restored.infos])}
    else:  # frozen arrays all checkpoints share
        assert key.startswith(("writers/", "journal/")), f"{key} is damaged, and was not noticed"
        assert gone or key.startswith("journal/"), f"{key} is damaged, and was not noticed"
        assert infos <= set(names)
        assert not restored.damaged


def flip_all(scratch: Path) -> int:
    """Every bit of what claims, commits and run.json are written as; returns how many there were."""
    (scratch / "flips").mkdir()
    world = World(scratch / "flips", scratch.parent)
    world.machine().open().save()
    world.machine().open()
    count = 0
    for key, data in world.bucket.items():
        fields = next((FIELDS[part] for part in FIELDS if part in key), None)
        if fields is None or not key.endswith(".json") or key.startswith("data/"):
            continue
        document.decode(data, key, fields)
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                document.decode(bytes(flipped), key, fields)
            except (DamagedError, NotARunError):
                count += 1
            else:
                raise AssertionError(f"bit {bit} of {key} is another, and was not noticed")
    assert exist(world.bucket)
    assert keys.writers(world.bucket).top == 2
    return count


ROT: dict[str, Callable[[Path], int]] = {"other rot": damage_all, "flips": flip_all}
