from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError
from stopctl.store import CheckpointInfo, Files, Reader, Store, flatten, strict
from stopctl.store.files import Entry
from support.recorder import Op, Recorder
from support.trees import leaf

Save = Callable[..., CheckpointInfo]


def test_a_reader_needs_no_lock_and_writes_nothing(store: Store, save: Save, check: Any, run: Path) -> None:
    save(store, 1)
    files = Recorder()
    reader = Reader(run, files=files)
    check(reader, {1})
    assert list(reader.journal()) == []
    assert files.told(run) == []
    save(store, 2)
    check(reader, {1, 2})


def test_paths_are_absolute_from_the_start(
    store: Store, save: Save, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)
    monkeypatch.chdir(run.parent)
    reader = Reader(run.name)
    monkeypatch.chdir("/")
    assert reader.path == run
    assert reader.list().good[0].path == run / "checkpoints" / "epoch-0001-step-000000010-w0001"


def test_checkpoints_are_listed_oldest_first_by_step_epoch_and_writer(
    store: Store, save: Save, run: Path
) -> None:
    save(store, 5)
    save(store, 6, step=15)
    save(store, 10_000, step=40)
    save(store, 2, label="b")
    save(store, 2, label="a")
    save(store, 1, step=20)
    store.close()
    with_second = Store.lock(run)
    with_second.begin({})
    save(with_second, 2)
    names = [info.name for info in with_second.list().good]
    with_second.close()
    assert names == [
        "epoch-0006-step-000000015-w0001",
        "epoch-0001-step-000000020-w0001",
        "epoch-0002-step-000000020-w0001-a",
        "epoch-0002-step-000000020-w0001-b",
        "epoch-0002-step-000000020-w0002",
        "epoch-10000-step-000000040-w0001",
        "epoch-0005-step-000000050-w0001",
    ]


def test_the_listing_says_what_the_commit_said(store: Store, save: Save) -> None:
    told = save(store, 3, value=float("inf"), reasons=["every 10 epochs", "new best"], label="x", pinned=True)
    assert store.list().good == (told,)
    files = [path.stat().st_size for path in told.path.iterdir()]
    assert told.bytes == sum(files)
    assert (told.components, told.reasons) == (("model", "scheduler"), ("every 10 epochs", "new best"))
    assert (told.label, told.pinned, told.value, told.writer) == ("x", True, float("inf"), 1)


def test_components_too_many_for_the_manifest_are_listed_all_the_same(store: Store) -> None:
    many = {f"model.number.{i}": i for i in range(100)}
    told = store.commit(many, state=None, epoch=1, step=1, seconds=0.0, value=None)
    assert told.components == tuple(many)
    assert store.list().good == (told,)
    assert (told.path / "manifest.json").stat().st_size < 2048


def test_nothing_at_all_is_a_checkpoint_too(store: Store) -> None:
    told = store.commit({}, state=[1], epoch=0, step=0, seconds=0, value=None)
    assert store.list().good == (told,)
    assert store.load(told) == ({}, [1])


def test_only_the_wanted_components_are_built_and_everything_is_verified(store: Store, save: Save) -> None:
    info = save(store, 1)
    assert store.load(info, only={"scheduler", "none"})[0] == {
        "scheduler": {"last_epoch": 1, "by": (1.5, None)}
    }
    assert list(store.load(info, ["model"])[0]) == ["model"]
    with (info.path / "state.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(DamagedError, match="SHA-256"):
        store.load(info, only={"scheduler"})


def test_what_is_no_checkpoint_is_passed_over(store: Store, save: Save, check: Any) -> None:
    info = save(store, 1)
    folder = info.path.parent
    for name in (".tmp-x", ".trash-x", ".damaged-x", "old", f"{info.name} (copy)", ".DS_Store"):
        shutil.copytree(info.path, folder / name)
    (folder / "notes.txt").write_text("mine")
    check(store, {1})


def test_what_only_has_a_checkpoints_name_is_damaged(store: Store, save: Save) -> None:
    info = save(store, 1)
    folder = info.path.parent
    shutil.copytree(info.path, folder / "epoch-0002-step-000000020-w0001")
    (folder / "epoch-0003-step-000000030-w0001").symlink_to(info.path)
    (folder / "epoch-0004-step-000000040-w0001").write_text("a file")
    (folder / "epoch-0005-step-000000050-w0001").mkdir()
    listing = store.list()
    assert [good.name for good in listing.good] == [info.name]
    assert [(damage.name[:10], damage.why) for damage in listing.damaged] == [
        ("epoch-0002", f"manifest.json: it is that of {info.name}"),
        ("epoch-0003", "not a directory"),
        ("epoch-0004", "not a directory"),
        ("epoch-0005", "manifest.json: No such file or directory"),
    ]


def test_a_checkpoint_deleted_while_it_is_listed_is_not_called_damaged(
    store: Store, save: Save, check: Any
) -> None:
    gone = save(store, 1)
    save(store, 2)

    class Deleting(Files):
        def entries(self, path: Path) -> list[Entry]:
            found = super().entries(path)
            if gone.path.exists():
                store.delete([gone.name], guarded=())
            return found

    check(Reader(store.path, files=Deleting()), {2})


def test_errors_of_this_process_are_not_taken_for_damage(store: Store, save: Save) -> None:
    info = save(store, 1)

    def hook(index: int, op: Op) -> None:
        if op.name == "open" and op.paths[0].name == "manifest.json":
            raise OSError(errno.EMFILE, "Too many open files", str(op.paths[0]))

    reader = Reader(store.path, files=Recorder(hook))
    with pytest.raises(OSError, match="Too many open files"):
        reader.list()
    with pytest.raises(OSError, match="Too many open files"):
        reader.load(info)


def test_errors_of_the_disk_are_damage(store: Store, save: Save) -> None:
    save(store, 1)

    def hook(index: int, op: Op) -> None:
        if op.name == "read" and op.paths[0].name == "manifest.json":
            raise OSError(errno.EIO, "Input/output error")

    listing = Reader(store.path, files=Recorder(hook)).list()
    assert [damage.why for damage in listing.damaged] == ["manifest.json: Input/output error"]


def test_a_listing_reads_manifests_alone(store: Store, save: Save, run: Path) -> None:
    for number in range(3):
        save(store, number)
    files = Recorder()
    Reader(run, files=files).list()
    read = [op.paths[0].name for op in files.ops if op.name == "read"]
    assert read == ["run.json", *["manifest.json"] * 3]


def test_loading_reads_each_file_once_into_one_buffer(store: Store, run: Path) -> None:
    data = bytes(range(256)) * 40_000
    info = store.commit(
        {"m": {"a": leaf(data), "b": leaf(data)}}, state=None, epoch=1, step=1, seconds=0, value=None
    )
    files = Recorder()
    reader = Reader(run, files=files)
    files.clear()
    found = reader.load(info)[0]["m"]
    assert [op.paths[0].name for op in files.ops if op.name == "open"] == [
        "manifest.json", "state.json", "state.safetensors", "chunks.bin",
    ]  # fmt: skip
    assert found["a"].data.obj is found["b"].data.obj
    assert not found["a"].data.readonly
    assert bytes(found["b"].data) == data


STATES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", r"state\.json: Expecting"),
    "no object": (b"[]", "no object of format, components and state"),
    "a field missing": (b'{"format":1,"components":{}}', "no object of format"),
    "another format": (b'{"format":2,"components":{},"state":1}', r"state\.json: not of format 1"),
    "components": (b'{"format":1,"components":[],"state":1}', r"state\.json: not of format 1"),
    "a skeleton": (b'{"format":1,"components":{"m":{"x":1}},"state":1}', "m: an object that is not one tag"),
    "a tensor": (b'{"format":1,"components":{"m":{"leaf":"x"}},"state":1}', "m: no tensor 'x'"),
}


@pytest.mark.parametrize(("text", "said"), STATES.values(), ids=STATES)
def test_a_hostile_state_is_damaged_however_well_signed(
    store: Store, save: Save, monkeypatch: pytest.MonkeyPatch, text: bytes, said: str
) -> None:
    real = strict.dumps
    monkeypatch.setattr(
        strict, "dumps", lambda v, **k: text if "components" in v and "state" in v else real(v, **k)
    )
    info = save(store, 1)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match=f"^{info.name} is damaged: .*{said}"):
        store.load(info)


def test_flatten_is_what_the_state_holds(store: Store, save: Save) -> None:
    info = save(store, 1)
    state = strict.loads((info.path / "state.json").read_bytes())
    assert state["components"] == flatten(store.load(info)[0])[0]
    assert state["state"] == {"number": 1}


def test_the_journal_is_read_both_ways(store: Store) -> None:
    store.append("report", value=float("nan"))
    store.append("saved", name="x")
    forwards = store.journal()
    lines = list(forwards)
    assert [line["event"] for line in lines] == ["report", "saved"]
    assert forwards.skipped == 0
    assert lines[0]["value"] == "NaN"
    assert lines[0]["time"].endswith("Z")
    assert next(store.newest_lines()) == lines[-1]
