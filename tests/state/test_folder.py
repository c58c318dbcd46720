"""A folder of files as the state: whole, verified, put back as it was, and nothing beside it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import (
    DamagedError,
    Every,
    FolderState,
    Last,
    MismatchError,
    Run,
    SaveError,
    SettingError,
    TreeError,
)
from stopctl.ports import Leaf
from stopctl.state.folder import FILES, MAPPED
from stopctl.store.tree import flatten, unflatten

TREE = {
    "config.json": b"{}",
    "weights/part-1.bin": bytes(range(256)) * 9,
    "weights/deep/er/empty": b"",
    "nothing": None,
    "of\udcff bytes": b"\0",
}


def write(folder: Path, files) -> Path:
    for name, data in files.items():
        path = folder / name
        (path if data is None else path.parent).mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
    return folder


def read(folder: Path):
    found = {}
    for at, folders, names in os.walk(folder):
        where = os.path.relpath(at, folder)
        if where != "." and not folders and not names:
            found[where] = None
        for name in names:
            found[os.path.normpath(os.path.join(where, name))] = Path(at, name).read_bytes()
    return found


def carried(state: FolderState):
    return unflatten(*flatten(state.capture()))


def test_every_file_comes_back_and_what_else_lay_there_goes(tmp_path):
    saved = carried(FolderState(write(tmp_path / "out", TREE)))
    write(tmp_path / "back", {"older": b"x", "weights/older": b"y"})
    state = FolderState(tmp_path / "out", into=tmp_path / "back")
    assert state.restored is None
    state.restore(saved)
    assert state.restored == tmp_path / "back"
    assert read(tmp_path / "back") == read(tmp_path / "out") == TREE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "out"]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(
    st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=20), max_size=5)
)
def test_any_name_that_a_file_may_have_comes_back(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    saved = carried(
        FolderState(write(folder / "out", {"in": None, **{f"in/{name}": files[name] for name in files}}))
    )
    FolderState(folder / "back").restore(saved)
    assert read(folder / "back") == read(folder / "out")


def test_a_large_file_is_mapped_and_not_read(tmp_path):
    write(tmp_path, {"large": b"ab" * (MAPPED // 2), "small": b"c"})
    leaves = FolderState(tmp_path).capture()[FILES]
    assert type(leaves["large"].data.obj) is mmap.mmap
    assert type(leaves["small"].data.obj) is bytes
    (tmp_path / "large").unlink()  # the host may delete it meanwhile
    assert bytes(leaves["large"].data) == b"ab" * (MAPPED // 2)


def host(folder: Path, epoch: int) -> Path:
    """What writes its files into a folder of its own every time."""
    return write(folder / f"checkpoint-{epoch}", {"epoch": b"%d" % epoch, "w/x": bytes([epoch]) * 70_000})


def test_a_run_keeps_prunes_and_puts_back_the_files_of_a_host(tmp_path):
    at = [0]

    def opened():
        files = FolderState(lambda: tmp_path / f"checkpoint-{at[0]}", into=tmp_path / "back")
        return files, Run(tmp_path / "run", state=files, save=Every(epochs=1), keep=Last(2))

    _, run = opened()
    with run:
        for at[0] in run.epochs(4):
            host(tmp_path, at[0])
            run.report(val_loss=1.0 / at[0])
        assert [info.epoch for info in run.checkpoints] == [3, 4]
    files, run = opened()
    with run:
        assert files.restored == tmp_path / "back"
        assert read(files.restored) == read(tmp_path / "checkpoint-4")

    newest = run.directory / "checkpoints" / sorted(os.listdir(run.directory / "checkpoints"))[-1]
    tensors = newest / "state.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    files, run = opened()
    with run:
        assert run.resumed.epoch == 3
        assert read(files.restored) == read(tmp_path / "checkpoint-3")


def test_a_run_whose_only_files_are_damaged_is_not_begun_anew(tmp_path):
    with Run(tmp_path / "run", state=FolderState(tmp_path / "out")) as run:
        for _ in run.epochs(1):
            write(tmp_path / "out", TREE)
            run.report(val_loss=1.0)
    (only,) = (tmp_path / "run" / "checkpoints").iterdir()
    (only / "state.safetensors").unlink()
    before = read(tmp_path / "out")
    with pytest.raises(DamagedError, match=r"state\.safetensors"):
        Run(tmp_path / "run", state=FolderState(tmp_path / "out")).open()
    assert read(tmp_path / "out") == before


def test_what_is_no_file_is_refused_by_its_path(tmp_path):
    out = write(tmp_path / "out", {"a/b": b"x"})
    (out / "a" / "link").symlink_to("b")
    with pytest.raises(TreeError, match=r"out/a/link is a link: only files are saved"):
        FolderState(out).capture()
    (out / "a" / "link").unlink()
    os.mkfifo(out / "pipe")
    with pytest.raises(TreeError, match=r"out/pipe is neither a file nor a folder"):
        FolderState(out).capture()
    (out / "pipe").unlink()
    write(out, {"run/run.lock": b""})
    with pytest.raises(
        TreeError, match=r"out/run is a run of stopctl's.*let it lie beside .*/out, not in it"
    ):
        FolderState(out).capture()


def test_a_folder_that_is_not_there_is_an_error_of_the_save_not_of_the_opening(tmp_path):
    with Run(tmp_path / "run", state=FolderState(tmp_path / "none")) as run:
        for _ in run.epochs(1):
            with pytest.raises(SaveError, match=r"taking in the files failed: .*none: No such file"):
                run.report(val_loss=1.0)
            write(tmp_path / "none", TREE)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "", ".", "a//b", "a/./b", "a\0b", 3])
def test_a_name_that_leaves_the_folder_is_refused_and_nothing_changes(tmp_path, name):
    back = write(tmp_path / "back", {"mine": b"x"})
    leaf = Leaf("U8", (1,), b"y")
    with pytest.raises(MismatchError, match="a file of that name would not lie below the folder"):
        FolderState(back).restore({FILES: {"good": leaf, name: leaf}})
    assert read(tmp_path) == {"back/mine": b"x"}


def test_what_another_state_has_saved_is_refused(tmp_path):
    state = FolderState(tmp_path / "back")
    with pytest.raises(MismatchError, match=r"model: saved, but not given\n  files: given, but not saved"):
        state.restore({"model": {}})
    with pytest.raises(MismatchError, match=r"files: saved as list"):
        state.restore({FILES: []})
    wrong = {"a": Leaf("F32", (1,), b"abcd"), "b": 3, "c": Leaf("U8", (1,), b"x"), "c/d": None}
    with pytest.raises(
        MismatchError, match=r"files/a: no file.*\n.*files/b: no file.*\n.*files/c/d: lies in a"
    ):
        state.restore({FILES: wrong})
    state.restore({"more": 1}, allow_missing={"more", FILES})
    assert state.restored is None
    assert read(tmp_path) == {}


def test_nothing_of_the_users_is_replaced(tmp_path, monkeypatch):
    saved = {FILES: {"a": Leaf("U8", (1,), b"x")}}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MismatchError, match="file is no folder: move it away"):
        FolderState(tmp_path / "file").restore(saved)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MismatchError, match="link is no folder"):
        FolderState(tmp_path / "link").restore(saved)
    write(tmp_path / "runs", {"one/run.lock": b""})
    with pytest.raises(MismatchError, match=r"runs/one is a run of stopctl's"):
        FolderState(tmp_path / "runs").restore(saved)
    write(tmp_path, {"here/below/x": b""})
    monkeypatch.chdir(tmp_path / "here" / "below")
    for above in (".", "..", tmp_path):
        with pytest.raises(SettingError, match="holds the working directory"):
            FolderState(above)
    with pytest.raises(SettingError, match="write into="):
        FolderState(lambda: "out")


def test_killed_while_it_puts_files_back_it_does_so_again(tmp_path):
    out = write(tmp_path / "out", TREE)
    with Run(tmp_path / "run", state=FolderState(out)) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    write(out, {"older": b"x"})
    program = (
        "import os, signal, sys; from pathlib import Path; from stopctl import FolderState, Run\n"
        "real = Path.rename\n"
        "def rename(self, to):\n"
        "    if self.name == '.out.new': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self, to)\n"
        "Path.rename = rename\n"
        "Run(sys.argv[1], state=FolderState(sys.argv[2])).open()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run"), str(out)]
    killed = subprocess.run(command, check=False, cwd=tmp_path)  # where no git is asked
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    with Run(tmp_path / "run", state=FolderState(out)):
        assert read(out) == TREE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
