"""A damaged checkpoint is named, set aside, and the next older good one is used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError, SaveError, SettingError
from stopctl.store import CheckpointInfo, Reader, Store
from stopctl.store.files import Handle
from support.recorder import Recorder, failing
from support.trees import components, leaf, same

Save = Callable[..., CheckpointInfo]
FILES = ("state.safetensors", "state.json", "manifest.json")


def newest_good(store: Store) -> tuple[int, list[str]]:
    """What a driver does: the newest that loads, setting aside whatever does not; and what was wrong."""
    wrong = []
    listing = store.list()
    for damage in listing.damaged:
        wrong.append(f"{damage.name}: {damage.why}")
        store.set_aside(damage.name, damage.why)
    for info in reversed(listing.good):
        try:
            _, state = store.load(info)
        except DamagedError as error:
            wrong.append(str(error))
            store.set_aside(info.name, str(error))
        else:
            return state["number"], wrong
    raise DamagedError("; ".join(wrong))


@settings(max_examples=40)
@given(tree=components(), number=st.integers(0, 10**6))
def test_any_tree_comes_back_bitwise_from_the_disk(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], number: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    store = Store.lock(run, files=Recorder())
    store.begin({})
    told = store.commit(tree, state=[number], epoch=1, step=number, seconds=0, value=None)
    store.close()
    reader = Reader(run)
    (info,) = reader.list().good
    found, state = reader.load(info)
    shutil.rmtree(run)
    assert info == told
    assert state == [number]
    assert same(found, tree)


def test_large_arrays_come_back_bitwise(store: Store) -> None:
    data = os.urandom(9_000_001)
    info = store.commit(
        {"m": leaf(data), "n": leaf(data[:5])}, state=None, epoch=1, step=1, seconds=0, value=None
    )
    found = store.load(info)[0]
    assert found["m"].data == data
    assert found["n"].data == data[:5]


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_and_every_longer_file_is_noticed_in_the_listing(
    store: Store, save: Save, name: str
) -> None:
    info = save(store, 1)
    data = (info.path / name).read_bytes()
    for other in (b"", data[:1], data[:-1], data + b"\0", data * 2):
        (info.path / name).write_bytes(other)
        listing = store.list()
        assert listing.good == ()
        assert [damage.name for damage in listing.damaged] == [info.name]
        assert listing.damaged[0].why.startswith(name)
        with pytest.raises(DamagedError):
            store.load(info)


DAMAGES: dict[str, Callable[[Path, Path], Any]] = {
    "a flipped tensor": lambda new, old: flip(new / "state.safetensors"),
    "a flipped state": lambda new, old: flip(new / "state.json"),
    "a flipped manifest": lambda new, old: flip(new / "manifest.json"),
    "a missing tensor file": lambda new, old: (new / "state.safetensors").unlink(),
    "a missing state": lambda new, old: (new / "state.json").unlink(),
    "a missing manifest": lambda new, old: (new / "manifest.json").unlink(),
    "an empty directory": lambda new, old: (shutil.rmtree(new), new.mkdir()),
    "the tensors of another": lambda new, old: shutil.copy(old / "state.safetensors", new),
    "the state of another": lambda new, old: shutil.copy(old / "state.json", new),
    "the manifest of another": lambda new, old: shutil.copy(old / "manifest.json", new),
    "all of another": lambda new, old: (shutil.rmtree(new), shutil.copytree(old, new)),
    "files swapped": lambda new, old: (
        (new / "state.json").rename(new / "x"),
        (new / "state.safetensors").rename(new / "state.json"),
        (new / "x").rename(new / "state.safetensors"),
    ),
    "a directory for a file": lambda new, old: ((new / "state.json").unlink(), (new / "state.json").mkdir()),
    "a file for the directory": lambda new, old: (shutil.rmtree(new), new.write_text("x")),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_next_older_good_one_is_used_and_the_damaged_one_set_aside(
    store: Store, save: Save, check: Any, damage: Callable[[Path, Path], Any]
) -> None:
    old, new = save(store, 1), save(store, 2)
    damage(new.path, old.path)
    number, wrong = newest_good(store)
    assert number == 1
    assert len(wrong) == 1
    assert new.name in wrong[0]
    check(store, {1})
    assert (new.path.parent / f".damaged-{new.name}").exists()
    line = next(store.newest_lines())
    assert (line["event"], line["name"], line["to"]) == ("set_aside", new.name, f".damaged-{new.name}")
    assert line["why"]
    save(store, 2)
    check(store, {1, 2})


def test_when_none_is_good_the_error_names_every_one(store: Store, save: Save) -> None:
    infos = [save(store, number) for number in (1, 2)]
    for info in infos:
        flip(info.path / "state.safetensors")
    with pytest.raises(DamagedError) as caught:
        newest_good(store)
    assert all(info.name in str(caught.value) for info in infos)


def test_setting_aside_keeps_all_of_it_under_a_name_of_its_own(store: Store, save: Save) -> None:
    names = []
    for why in ("one", "two", "three"):
        info = save(store, 1)
        store.set_aside(info.name, why)
        names.append(next(store.newest_lines())["to"])
    assert names == [f".damaged-{info.name}", f".damaged-{info.name}-2", f".damaged-{info.name}-3"]
    for name in names:
        assert sorted(path.name for path in (info.path.parent / name).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", ["epoch-0009-step-000000009-w0001", "../run.json", ".tmp-x", ""])
def test_only_a_checkpoint_can_be_set_aside(store: Store, save: Save, name: str) -> None:
    save(store, 1)
    with pytest.raises(SettingError, match="there is no checkpoint "):
        store.set_aside(name, "why")
    assert len(store.list().good) == 1


def test_setting_aside_that_fails_is_told(run: Path, save: Save, check: Any) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    info = save(store, 1)
    files.clear()
    store.set_aside(info.name, "why")
    assert files.told(run) == [
        f"rename checkpoints/{info.name} checkpoints/.damaged-{info.name}",
        "sync_directory checkpoints",
        "write journal.jsonl",
    ]
    info = save(store, 1)
    files.clear()
    files.hook = lambda index, op: failing(index, 5)(index, op) if op.name == "rename" else None
    with pytest.raises(SaveError, match="setting a checkpoint aside failed: .*Input/output error"):
        store.set_aside(info.name, "why")
    files.hook = None
    check(store, {1})
    store.close()


def test_a_value_that_is_not_finite_is_a_number_again(store: Store, save: Save) -> None:
    for number, value in enumerate((float("nan"), float("inf"), -float("inf"), -0.0)):
        info = save(store, number, value=value)
        assert repr(store.list().good[-1].value) == repr(value)
        assert json.loads((info.path / "manifest.json").read_bytes())["value"] in (
            "NaN",
            "Infinity",
            "-Infinity",
            0,
        )


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_what_the_disk_did_not_take_is_noticed_before_it_counts(
    run: Path, save: Save, check: Any, name: str, harm: str
) -> None:
    """With verify_writes, the bytes are read back; here they change after their fsync."""

    class Lying(Recorder):
        on = False

        def sync(self, handle: Handle) -> None:
            super().sync(handle)
            if self.on and handle.path.name == name:
                data = bytearray(handle.path.read_bytes())
                data[5] ^= 64
                handle.path.write_bytes(data if harm == "flip" else data[:-1])

    files = Lying()
    store = Store.lock(run, files=files, verify_writes=True)
    store.begin({})
    save(store, 1)
    files.on = True
    with pytest.raises(SaveError, match=f"saving .* failed: .*{name}: what was read back is not what was wr"):
        save(store, 2)
    files.on = False
    check(store, {1})
    assert [path.name[:5] for path in (run / "checkpoints").iterdir()] == ["epoch"]
    save(store, 2)
    store.close()


def test_reading_back_asks_the_disk_and_survives_a_system_that_cannot(
    run: Path, save: Save, check: Any
) -> None:
    def hook(index: int, op: Any) -> None:
        if op.name == "uncache":
            raise OSError(22, "Invalid argument")

    for files in (Recorder(), Recorder(hook)):
        store = Store.lock(run, files=files, verify_writes=True)
        store.begin({})
        save(store, 1)
        assert [op.paths[0].name for op in files.ops if op.name == "uncache"] == [
            "state.safetensors", "state.json", "manifest.json",
        ]  # fmt: skip
        check(store, {1})
        store.close()
