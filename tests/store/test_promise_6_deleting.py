"""Deleting is rename to trash, fsync, unlink; the newest, the pinned and the guarded stay, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError, OrderError, SettingError
from stopctl.store import CheckpointInfo, Store
from support.recorder import Recorder

Save = Callable[..., CheckpointInfo]


@pytest.fixture
def names(store: Store, save: Save) -> list[str]:
    return [save(store, number, pinned=number == 2).name for number in (1, 2, 3, 4)]


def test_what_is_not_kept_goes_and_leaves_nothing(
    store: Store, names: list[str], check: Any, run: Path
) -> None:
    store.delete([names[0], names[2], names[0]], guarded=[names[1], names[3]])
    check(store, {2, 4})
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [names[1], names[3]]


@pytest.mark.parametrize(("index", "why"), [(0, "guarded"), (1, "pinned"), (3, "the newest")])
def test_what_is_to_stay_is_refused_and_nothing_is_deleted(
    store: Store, names: list[str], check: Any, index: int, why: str
) -> None:
    with pytest.raises(OrderError, match=f"^{names[index]} is {why}: it is not deleted$"):
        store.delete([names[2], names[index]], guarded={names[0]})
    check(store, {1, 2, 3, 4})


@pytest.mark.parametrize("name", ["epoch-0009-step-000000009-w0001", "../run.json", "/etc", ".tmp-x", ""])
def test_what_is_no_checkpoint_is_refused_and_nothing_is_deleted(
    store: Store, names: list[str], check: Any, name: str
) -> None:
    with pytest.raises(SettingError, match="there is no checkpoint "):
        store.delete([names[0], name], guarded=())
    check(store, {1, 2, 3, 4})


def test_what_is_damaged_may_be_pinned_and_is_not_deleted(store: Store, names: list[str]) -> None:
    (store.path / "checkpoints" / names[0] / "manifest.json").unlink()
    with pytest.raises(DamagedError, match=rf"^{names[0]} is damaged: manifest\.json: No such file"):
        store.delete([names[2], names[0]], guarded=())
    assert (store.path / "checkpoints" / names[2]).exists()


def test_the_newest_is_that_of_the_most_steps(store: Store, save: Save) -> None:
    most = save(store, 1, step=500)
    other = save(store, 2)
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([most.name], guarded=())
    store.delete([other.name], guarded=())


def test_of_two_newest_one_may_go(store: Store, save: Save, check: Any) -> None:
    plain, named = save(store, 1), save(store, 1, label="named")
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([plain.name, named.name], guarded=())
    store.delete([plain.name], guarded=())
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([named.name], guarded=())
    assert [info.label for info in store.list().good] == ["named"]


def test_all_are_renamed_and_synced_before_any_is_emptied(run: Path, save: Save) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    names = [save(store, number).name for number in (1, 2, 3)]
    files.clear()
    store.delete(names[:2], guarded=())
    told = [line.split()[0] for line in files.told(run)]
    assert told == ["rename", "rename", "sync_directory", *(["unlink"] * 3 + ["rmdir"]) * 2]
    files.clear()
    store.delete([], guarded=())
    assert files.told(run) == []
    store.close()


def test_the_manifest_goes_first(run: Path, save: Save) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    names = [save(store, number).name for number in (1, 2)]
    files.clear()
    store.delete(names[:1], guarded=())
    assert [line.rpartition("/")[2] for line in files.told(run) if line.startswith("unlink")] == [
        "manifest.json", "state.json", "state.safetensors",
    ]  # fmt: skip
    store.close()
