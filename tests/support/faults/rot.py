"""Damage of every sort to a checkpoint, and whether it is noticed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.store import Reader
from support.faults.promises import OF_A_CHECKPOINT, Expected, Loss, Undriven, begun, commit, survives


class Specimen:
    """A run of two checkpoints; the newest, `info`, is the one that is damaged.

    Its seconds are written with an exponent, of which a flipped bit makes another spelling of the same.
    """

    def __init__(self, root: Path) -> None:
        store = begun(root / "run", Undriven())
        self.older = commit(store, 1)
        self.info = store.commit(
            {"model": {"weight": b"0123456789"}},
            state={"number": 2},
            epoch=2,
            step=20,
            seconds=1e-07,
            value=0.5,
        )
        for info in (self.older, self.info):
            store.append("saved", name=info.name)
        store.close()
        self.reader = Reader(root / "run", files=Undriven())
        self.files = {path.name: path.read_bytes() for path in sorted(self.info.path.iterdir())}

    def flip(self, name: str, at: int, bit: int) -> None:
        """Turn one bit of a file over, and back once it has been noticed."""
        byte = self.files[name][at]
        fd = os.open(self.info.path / name, os.O_WRONLY)
        try:
            os.pwrite(fd, bytes([byte ^ 1 << bit]), at)
            self.must_notice(f"{name}: bit {bit} of byte {at}")
            os.pwrite(fd, bytes([byte]), at)
        finally:
            os.close(fd)

    def must_notice(self, what: str, *, listed: bool = False) -> None:
        """DamagedError, which names the checkpoint, in loading; `listed`: in the listing already."""
        if listed and self.info in self.reader.list().good:
            raise Loss(f"unnoticed in the listing: {what}")
        try:
            self.reader.load(self.info)
        except DamagedError as error:
            if self.info.name not in str(error):
                raise Loss(f"{what}: the error does not name the checkpoint: {error}") from error
        except Exception as error:
            raise Loss(f"{what}: an error that is not ours: {error!r}") from error
        else:
            raise Loss(f"unnoticed: {what}")

    def mend(self) -> None:
        """Make the checkpoint what it was."""
        if self.info.path.is_dir():
            shutil.rmtree(self.info.path)
        else:
            self.info.path.unlink(missing_ok=True)
        self.info.path.mkdir()
        for name, data in self.files.items():
            (self.info.path / name).write_bytes(data)

    def places(self) -> list[tuple[str, int]]:
        """Every byte of the checkpoint."""
        return [(name, at) for name, data in self.files.items() for at in range(len(data))]


def flips(specimen: Specimen, number: int, seed: int) -> int:
    """That many bits, drawn over the whole checkpoint; each must be noticed."""
    rng = random.Random(seed)
    places = specimen.places()
    for _ in range(number):
        specimen.flip(*rng.choice(places), rng.randrange(8))
    return number


def flip_all(specimen: Specimen, name: str) -> int:
    """Every bit of a file."""
    for at in range(len(specimen.files[name])):
        for bit in range(8):
            specimen.flip(name, at, bit)
    return 8 * len(specimen.files[name])


def flip_beside(specimen: Specimen, name: str) -> int:
    """Every bit of a file beside the checkpoints, none of which it can harm; returns how many.

    Such a file has no hash. Either an error of ours tells of it, or all checkpoints load, and the run goes on.
    """
    run = specimen.reader.path
    whole = (run / name).read_bytes()
    copy = run.with_name("copy")
    for at in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        (run / name).write_bytes(changed)
        try:
            _reads(run)
            if at % 29 == 0:
                shutil.copytree(run, copy)
                begun(copy, Undriven()).close()
                _reads(copy)
        except (DamagedError, NotARunError) as error:
            if name not in str(error) and "has format" not in str(error):
                raise Loss(f"bit {at} of {name}: {error}") from error
        except Exception as error:
            raise Loss(f"bit {at} of {name}: {error!r}") from error
        finally:
            shutil.rmtree(copy, ignore_errors=True)
    (run / name).write_bytes(whole)
    return 8 * len(whole)


def _reads(run: Path) -> None:
    reader = Reader(run, files=Undriven())
    good = reader.list().good
    if [info.epoch for info in good] != [1, 2]:
        raise Loss(f"{len(good)} checkpoints instead of 2")
    for info in good:
        reader.load(info)
    list(reader.journal())


Damage = Callable[[Path, Path], object]


def damages() -> Iterator[tuple[str, bool, Damage]]:
    """Its name, whether the listing must notice, and what it does to (newest, older)."""
    for name in OF_A_CHECKPOINT:
        yield f"{name} is empty", True, lambda new, old, name=name: (new / name).write_bytes(b"")
        yield f"{name} is gone", True, lambda new, old, name=name: (new / name).unlink()
        yield f"{name} is a directory", True, lambda new, old, name=name: _directory(new / name)
        yield f"{name} is a link to what it was", True, lambda new, old, name=name: _link(new / name)
        yield f"{name} is that of another", True, lambda new, old, name=name: shutil.copy(old / name, new)
        yield (
            f"{name} is longer by a zero",
            True,
            lambda new, old, name=name: _change(new / name, lambda d: d + b"\0"),
        )
        yield (
            f"{name} is zeros",
            False,
            lambda new, old, name=name: _change(new / name, lambda d: bytes(len(d))),
        )
        for cut in (1, 8, 64):
            yield (
                f"{name} lacks its last {cut} bytes",
                True,
                lambda new, old, name=name, cut=cut: _change(new / name, lambda d: d[:-cut]),
            )
            yield (
                f"{name} begins with {cut} zeros",
                False,
                lambda new, old, name=name, cut=cut: _change(new / name, lambda d: bytes(cut) + d[cut:]),
            )
            yield (
                f"{name} ends with {cut} bytes of 0xff",
                False,
                lambda new, old, name=name, cut=cut: _change(new / name, lambda d: d[:-cut] + b"\xff" * cut),
            )
    for one, other in (OF_A_CHECKPOINT[:2], OF_A_CHECKPOINT[1:], OF_A_CHECKPOINT[::2]):
        yield f"{one} and {other} are swapped", True, lambda new, old, pair=(one, other): _swap(new, *pair)
    yield "all of another", True, lambda new, old: (shutil.rmtree(new), shutil.copytree(old, new))
    yield "a file in its place", True, lambda new, old: (shutil.rmtree(new), new.write_bytes(b""))
    yield "nothing in it", True, lambda new, old: (shutil.rmtree(new), new.mkdir())
    yield (
        "its name is that of another step",
        True,
        lambda new, old: new.rename(new.with_name(new.name.replace("20-", "21-"))),
    )


def damage_all(specimen: Specimen) -> int:
    """Each of `damages`, noticed, and then survived as every other fault; returns how many."""
    number = 0
    for what, listed, damage in damages():
        damage(specimen.info.path, specimen.older.path)
        try:
            specimen.must_notice(what, listed=listed)
            _survived(specimen, what)
        finally:
            for path in specimen.older.path.parent.glob("*000000021*"):
                shutil.rmtree(path)
            specimen.mend()
        number += 1
    return number


def _survived(specimen: Specimen, what: str) -> None:
    """The older one is there whatever has become of the newest; on a copy, as that goes on with the run."""
    copy = specimen.reader.path.with_name("copy")
    shutil.copytree(specimen.reader.path, copy, symlinks=True)
    try:
        survives(copy, Expected(must=frozenset({1}), may=frozenset({1, 2}), rotten=frozenset({2})))
    except Loss as loss:
        raise Loss(f"{what}: {loss}") from loss
    finally:
        shutil.rmtree(copy)


def _change(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    elsewhere = path.parents[3] / f"moved-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "x")
    (folder / other).rename(folder / one)
    (folder / "x").rename(folder / other)
