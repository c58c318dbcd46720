"""A pin that is set after the save is an empty file beside the checkpoints."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import NotARunError, OrderError, SaveError, SettingError
from stopctl.store import FILES, CheckpointInfo, Reader, Store, pin, unpin
from stopctl.store.pins import Pins, read_pins
from support.recorder import Op, Recorder, failing

Save = Callable[..., CheckpointInfo]


def pinned(run: Path) -> list[int]:
    return [info.epoch for info in Reader(run).list().good if info.pinned]


@pytest.mark.parametrize("by", ["label", "name"])
@pytest.mark.parametrize("saved", [True, False])
def test_pinned_and_unpinned_beside_the_writer(
    run: Path, store: Store, save: Save, by: str, saved: bool
) -> None:
    info = save(store, 1, label="x", pinned=saved)
    save(store, 2)
    name = getattr(info, by)
    assert pinned(run) == [1] * saved
    for _ in range(2):
        assert pin(run, name) == Reader(run).list().good[0]
        assert pinned(run) == [1]
        with pytest.raises(OrderError, match="guarded"):
            store.delete([info.name], guarded=[info.name])
        with pytest.raises(OrderError, match="is pinned") if saved else nullcontext():
            store.delete([info.name], guarded=())  # stays, in any case
        assert pinned(run) == [1]
        assert unpin(run, name) == Reader(run).list().good[0]
        assert pinned(run) == []
    store.delete([info.name], guarded=())
    assert [info.epoch for info in Reader(run).list().good] == [2]
    assert list((run / "pins").iterdir()) == []


def test_the_newest_of_a_label_is_meant(run: Path, store: Store, save: Save) -> None:
    for number in (1, 3, 2):
        save(store, number, label="x")
    save(store, 4)
    assert pin(run, "x").epoch == 3
    assert pinned(run) == [3]


def test_what_is_not_there_is_not_pinned(run: Path, store: Store, save: Save) -> None:
    save(store, 1, label="x")
    for name in ("y", "../x", ""):
        with pytest.raises(SettingError, match="has no checkpoint .*; its newest are: x"):
            pin(run, name)
    with pytest.raises(NotARunError):
        pin(run / "none", "x")
    assert not (run / "pins").exists()


def test_a_pin_at_any_moment_of_a_delete_holds_or_is_refused(tmp_path: Path, save: Save, check: Any) -> None:
    held = set()
    for place in range(40):
        run = tmp_path / str(place)
        files = Recorder()
        store = Store.lock(run, files=files)
        store.begin({})
        names = [save(store, number).name for number in (1, 2)]
        start, told = len(files.ops), []

        def hook(index: int, op: Op, start: int = start, place: int = place, run: Path = run, told: Any = told, names: Any = names) -> None:  # fmt: skip
            if index == start + place:
                try:
                    told.append(pin(run, names[0]))
                except SettingError:
                    told.append(None)

        files.hook = hook
        store.delete([names[0]], guarded=())
        files.hook = None
        there = told != [] and told[0] is not None
        check(store, {1, 2} if there else {2})
        assert pinned(run) == [1] * there
        held.add(there)
        store.close()
    assert held == {True, False}


def test_a_delete_at_any_moment_of_a_pin_is_noticed_or_leaves_it(
    tmp_path: Path, save: Save, check: Any
) -> None:
    kept = set()
    for place in range(60):
        run = tmp_path / str(place)
        store = Store.lock(run)
        store.begin({})
        names = [save(store, number).name for number in (1, 2)]
        files = Recorder(lambda index, op, place=place, store=store, names=names: store.delete([names[0]], guarded=()) if index == place else None)  # type: ignore[misc]  # fmt: skip
        try:
            pin(run, names[0], files=files)
        except SettingError:
            check(store, {2})
            assert list(run.glob("pins/*")) == []
        else:
            store.delete([names[0]], guarded=()) if (run / "checkpoints" / names[0]).exists() else None
            check(store, {1, 2})
        kept.add((run / "checkpoints" / names[0]).exists())
        store.close()
    assert kept == {True, False}


def test_a_pin_that_cannot_be_written_is_told(run: Path, store: Store, save: Save) -> None:
    save(store, 1, label="x")
    files = Recorder()
    pin(run, "x", files=files)
    unpin(run, "x")
    places = [i for i, op in enumerate(files.ops) if Recorder.changes(op)]
    assert len(places) >= 6
    for place in places:
        files = Recorder(failing(place, errno.EIO))
        with pytest.raises(SaveError, match="pinning a checkpoint failed: .*Input/output error"):
            pin(run, "x", files=files)
        assert pinned(run) in ([], [1])
        unpin(run, "x")


def test_a_pin_is_synced_before_it_is_said(run: Path, store: Store, save: Save) -> None:
    name = save(store, 1).name
    files = Recorder()
    pin(run, name, files=files)
    assert files.told(run) == [
        "mkdir pins",
        "sync_directory .",
        f"create pins/{name}.pinned",
        "sync_directory pins",
        f"unlink pins/{name}.unpinned",
        "sync_directory pins",
    ]


def test_what_says_both_is_pinned_and_what_is_no_file_says_nothing(
    tmp_path: Path, store: Store, save: Save
) -> None:
    assert read_pins(FILES, tmp_path) == Pins(frozenset(), frozenset())
    folder = tmp_path / "pins"
    folder.mkdir()
    (folder / "a.pinned").touch()
    (folder / "a.unpinned").touch()
    (folder / "b.unpinned").touch()
    (folder / "c.pinned").mkdir()
    os.symlink("a.pinned", folder / "d.pinned")
    pins = read_pins(FILES, tmp_path)
    assert pins == Pins(frozenset({"a"}), frozenset({"a", "b"}))
    said = {}
    for info in (save(store, 1), save(store, 2, pinned=True)):
        for name in "abce":
            seen = pins.as_pinned(replace(info, name=name))
            assert replace(seen, name=info.name, pinned=info.pinned) == info
            said[name, info.pinned] = seen.pinned
    assert {key for key, pinned_ in said.items() if pinned_} == {
        ("a", False), ("a", True), ("c", True), ("e", True),
    }  # fmt: skip
