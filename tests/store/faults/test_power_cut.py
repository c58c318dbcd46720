"""A real ext4 in a loop device, copied while it is mounted, as a power cut would leave it; its journal replayed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faults.chunked import small_chunks
from support.faults.counts import count
from support.faults.promises import Expected, losses

ROOT = Path(__file__).parents[3]
SIZE = 24 << 20

WRITER = """
import sys
from pathlib import Path
from stopctl.store import Store
from support.faults.chunked import small_chunks
from support.faults.promises import commit
with small_chunks():
    store = Store.lock(Path(sys.argv[1]), durability=sys.argv[2])
    store.begin({})
    for number in range(1, 8):
        info = commit(store, number, size=20_000, pinned=number == 1)
        store.append("saved", name=info.name)
    names = [info.name for info in store.list().good]
    store.delete(names[2:5], guarded=())
    print("saved", flush=True)
    sys.stdin.read()
"""


def why_not() -> str | None:
    """Why no image can be mounted here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if shutil.which("mkfs.ext4") is None or shutil.which("mount") is None:
        return "needs mkfs.ext4 and mount"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(_image(Path(folder)), Path(folder) / "at"):
                return None
        except subprocess.CalledProcessError as error:
            return f"no loop device can be mounted: {error.stderr.strip()}"


def _image(folder: Path) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    _run("mkfs.ext4", "-q", str(image))
    return image


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir()
    _run("mount", "-o", "loop", str(image), str(at))
    try:
        yield at
    finally:
        _run("umount", str(at))
        at.rmdir()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def cut_after(folder: Path, seconds: float, durability: str) -> str | None:
    """What a power cut so long after "saved" has lost, if anything."""
    image, copy = _image(folder), folder / "copy.img"
    with mounted(image, folder / "disk") as disk:
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(disk / "run"), durability],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "saved\n"
        time.sleep(seconds)
        shutil.copyfile(image, copy)
        child.communicate("")
    must = frozenset({1, 2, 6, 7})
    with small_chunks(), mounted(copy, folder / "after") as after:  # the kernel replays the journal
        expected = Expected(must=must, may=must, pinned=frozenset({1}))
        return losses(after / "run", expected, size=20_000)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return tmp_path


def test_what_was_saved_outlives_a_power_cut_at_once(image_folder: Path) -> None:
    assert cut_after(image_folder, 0, "full") is None
    count("power cuts of a real ext4")


def test_without_fsync_it_would_not(image_folder: Path) -> None:
    """The control: the same test finds the loss that durability="process" allows."""
    assert cut_after(image_folder, 0, "process") is not None
    count("power cuts of a real ext4")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1, 2, 3, 4, 5, 5.5, 6, 6.5, 7])
def test_what_was_saved_outlives_a_power_cut_up_to_seven_seconds_later(
    image_folder: Path, seconds: float
) -> None:
    assert cut_after(image_folder, seconds, "full") is None
    count("power cuts of a real ext4")
