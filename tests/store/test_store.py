"""What the promises' own tests do not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import stopctl.store
from stopctl.core.errors import SaveError, SettingError, TreeError
from stopctl.store import CheckpointInfo, Leaf, Store

Save = Callable[..., CheckpointInfo]


def test_all_is_sorted_and_there() -> None:
    names = stopctl.store.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(stopctl.store, name) for name in names)


def test_the_directory_of_a_commit_has_its_three_files(store: Store, save: Save) -> None:
    info = save(store, 10, step=4690, label="warm")
    assert info.name == "epoch-0010-step-000004690-w0001-warm"
    assert info.path == store.path / "checkpoints" / info.name
    assert sorted(path.name for path in info.path.iterdir()) == [
        "manifest.json",
        "state.json",
        "state.safetensors",
    ]


def test_the_state_of_the_controller_is_strict_json(store: Store, save: Save) -> None:
    state = {"best": float("nan"), "window": (1.0, float("inf")), "n": 3}
    info = save(store, 1, state=state)
    assert store.load(info)[1] == {"best": "NaN", "window": [1.0, "Infinity"], "n": 3}
    with pytest.raises(TreeError, match=r"^state/rule: builtins\.object is no plain JSON value"):
        save(store, 2, state={"rule": object()})


def test_the_array_is_read_during_the_call_only(store: Store) -> None:
    data = bytearray(b"abcd")
    info = store.commit({"w": Leaf("U8", (4,), data)}, state=None, epoch=1, step=1, seconds=0, value=None)
    data += b"e"  # would be a BufferError while a view of it lives
    assert bytes(store.load(info)[0]["w"].data) == b"abcd"


@pytest.mark.parametrize("name", ["time", "event"])
def test_two_fields_of_a_line_are_the_stores(store: Store, name: str) -> None:
    fields: dict[str, Any] = {name: 1}
    with pytest.raises(SettingError, match="time and event of a journal line are the store's"):
        store.append("report", **fields)


def test_the_path_of_a_save_error_is_optional() -> None:
    assert SaveError("no").path is None
