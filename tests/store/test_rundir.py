from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError, NotARunError, SaveError
from stopctl.store import FILES, Reader, Store
from stopctl.store.rundir import check_writer, make_directory, read_meta
from support.recorder import Op, Recorder


def test_missing_directories_are_made_each_synced_before_the_next(tmp_path: Path) -> None:
    files = Recorder()
    make_directory(files, tmp_path / "a/b/c")
    assert files.told(tmp_path) == [
        "mkdir a", "sync_directory .", "mkdir a/b", "sync_directory a", "mkdir a/b/c", "sync_directory a/b",
    ]  # fmt: skip
    files.clear()
    make_directory(files, tmp_path / "a/b/c")
    assert files.told(tmp_path) == []


def test_a_directory_that_another_process_has_just_made_is_synced_too(tmp_path: Path) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == "mkdir":
            op.paths[0].mkdir()

    files = Recorder(hook)
    make_directory(files, tmp_path / "a")
    assert files.told(tmp_path) == ["mkdir a", "sync_directory ."]


def test_run_json_keeps_unknown_fields_and_counts_writers(run: Path) -> None:
    store = Store.lock(run)
    assert store.meta is None
    assert store.begin({"notes": {"lr": 1e-3, "best": float("inf")}, "rules": "Patience(5)"}) == 1
    store.close()
    meta = json.loads((run / "run.json").read_bytes())
    assert meta == {
        "durability": "full",
        "format": 1,
        "notes": {"best": "Infinity", "lr": 1e-3},
        "rules": "Patience(5)",
        "writer": 1,
    }
    (run / "run.json").write_text(json.dumps(meta | {"theirs": [1, None]}))
    store = Store.lock(run)
    assert store.meta == meta | {"theirs": [1, None]}
    assert store.begin({"rules": "Patience(9)", "writer": 77, "format": 5}) == 2
    store.close()
    assert Reader(run).meta == meta | {"theirs": [1, None], "rules": "Patience(9)", "writer": 2}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b'{"format":1}', b'{"format":1,"writer":"1"}', b'{"format":1,"writer":NaN}', b"\xff",
     b'{"format":1,"writer":1,"writer":2}', b'{"format":true,"writer":1}'],
)  # fmt: skip
def test_a_garbled_run_json_is_damage_that_stops_everybody(run: Path, text: bytes) -> None:
    run.mkdir()
    (run / "run.json").write_bytes(text)
    for opening in (Reader, Store.lock, Store.lock):  # the second time: the first one has given the lock back
        with pytest.raises(DamagedError, match=r"run\.json: "):
            opening(run)
    assert (run / "run.json").read_bytes() == text


def test_a_newer_format_is_not_read(run: Path) -> None:
    run.mkdir()
    (run / "run.json").write_bytes(b'{"format":2,"writer":1}')
    for opening in (Reader, Store.lock):
        with pytest.raises(NotARunError, match="has format 2, this stopctl reads 1: update it"):
            opening(run)


def test_a_directory_with_files_is_no_run_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for opening in (Reader, Store.lock):
        with pytest.raises(NotARunError, match=rf"{tmp_path} is no run: it has no run\.json, but notes\.txt"):
            opening(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_no_directory_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(NotARunError, match="f is no run: it is a file"):
        Reader(tmp_path / "f")
    with pytest.raises(NotARunError, match="f is no directory"):
        Store.lock(tmp_path / "f")
    with pytest.raises(NotARunError, match="there is no such directory"):
        Reader(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(SaveError, match="opening the run failed: .*f/a: Not a directory"):
        Store.lock(tmp_path / "f" / "a")


def test_an_empty_directory_is_no_run_to_read_and_a_new_one_to_write(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match=r"it has no run\.json; it is empty"):
        Reader(tmp_path)
    store = Store.lock(tmp_path)
    assert store.meta is None
    store.close()
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(NotARunError, match=r"but a, b, c, \.\.\."):
        Reader(tmp_path)


HALF = {
    "lock": ["run.lock"],
    "checkpoints": ["run.lock", "checkpoints/"],
    "unfinished run.json": ["run.lock", "checkpoints/", ".tmp-run.json"],
    "unfinished checkpoint": [
        "run.lock",
        "checkpoints/",
        "checkpoints/.tmp-epoch-0009-step-000000090-w0001-0a1b2c3d/",
        "checkpoints/.trash-epoch-0008-step-000000080-w0001-0a1b2c3d/",
    ],
}


def lay(root: Path, names: list[str]) -> None:
    root.mkdir()
    for name in names:
        (root / name).mkdir() if name.endswith("/") else (root / name).write_text("torn")


@pytest.mark.parametrize("names", HALF.values(), ids=HALF)
def test_a_run_killed_at_its_very_start_opens_as_a_new_one(run: Path, names: list[str]) -> None:
    lay(run, names)
    with pytest.raises(NotARunError):
        Reader(run)
    store = Store.lock(run)
    assert store.meta is None
    assert store.list().good == ()
    assert store.begin({}) == 1
    store.close()
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "journal.jsonl",
        "run.json",
        "run.lock",
    ]
    assert list((run / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [
        ["run.lock", "checkpoints/", "checkpoints/mine.txt"],
        ["run.lock", "checkpoints/", "checkpoints/epoch-0001-step-000000001-w0001/"],
        ["run.lock", "checkpoints"],
        ["run.lock/"],
        ["journal.jsonl"],
    ],
    ids=str,
)
def test_anything_more_without_run_json_is_no_run(run: Path, names: list[str]) -> None:
    lay(run, names)
    with pytest.raises(NotARunError, match=r"it has no run\.json, but .*; use an empty or a new directory"):
        Store.lock(run)


def test_a_writer_that_was_overtaken_is_told(run: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    store.close()
    check_writer(FILES, run, 1)
    with pytest.raises(SaveError, match="has been opened by writer 1: this one, 7, saves no more"):
        check_writer(FILES, run, 7)
    (run / "run.json").write_text("{")
    with pytest.raises(SaveError, match=r"run\.json: "):
        check_writer(FILES, run, 1)
    (run / "run.json").unlink()
    with pytest.raises(SaveError, match=r"has no run\.json any more") as caught:
        check_writer(FILES, run, 1)
    assert caught.value.path == run / "run.json"
    assert read_meta(FILES, run) is None


def test_a_parent_that_may_not_be_read_is_none_of_ours(run: Path) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == "sync_directory" and op.paths[0] == run.parent:
            raise PermissionError(13, "Permission denied")

    run.mkdir()
    store = Store.lock(run, files=Recorder(hook))
    assert store.begin({}) == 1
    store.close()


def test_run_json_may_hold_plain_json_only(run: Path) -> None:
    from stopctl.core.errors import TreeError

    store = Store.lock(run)
    bad: dict[str, Any] = {"notes": {"device": object()}}
    with pytest.raises(TreeError, match=r"^run\.json/notes/device: builtins\.object is no plain JSON"):
        store.begin(bad)
    assert not (run / "run.json").exists()
    assert store.begin({}) == 1
    store.close()
