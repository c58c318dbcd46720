"""Copies of a captured state: bitwise, detached, tied leaves once, buffers used again."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given

from stopctl.core.errors import SaveError
from stopctl.ports import Leaf, array_leaf
from stopctl.state import snapshot as snapshot_module
from stopctl.state.protocols import Held
from stopctl.state.snapshot import SMALL, Buffers, Changed
from support.trees import components, same

BIG = 3 * SMALL


@pytest.fixture(autouse=True)
def nothing_is_too_little(monkeypatch):
    monkeypatch.setattr(snapshot_module, "LATE", 0)


def array(size=BIG, fill=1):
    return np.full(size, fill, np.uint8)


@given(components())
def test_any_state_is_copied_to_the_last_bit(tree):
    copied = Buffers().take(tree).whole()
    assert same(copied, tree)


@pytest.mark.parametrize("size", [1, SMALL - 1, SMALL, BIG])
def test_what_was_copied_stays_what_it_was(size):
    live, numbers = array(size), [1, 2]
    tree = {"model": {"w": array_leaf(live, "w"), "deep": ({"n": numbers},)}}
    snapshot = Buffers().take(tree)
    live[:] = 9
    numbers.append(3)
    tree["model"]["new"] = 1
    copied = snapshot.whole()
    assert bytes(copied["model"]["w"].data) == bytes([1]) * size
    assert copied["model"]["deep"] == ({"n": [1, 2]},)
    assert "new" not in copied["model"]


def test_buffers_are_used_again_where_the_size_is_the_same():
    buffers = Buffers()
    where = []
    for fill, sizes in enumerate([(BIG, BIG), (BIG, BIG), (BIG, 2 * BIG)]):
        tree = {name: array_leaf(array(size, fill), name) for name, size in zip("ab", sizes, strict=True)}
        copied = buffers.take(tree).whole()
        assert [bytes(copied[name].data[:2]) for name in "ab"] == [bytes([fill] * 2)] * 2
        where.append([np.frombuffer(copied[name].data, np.uint8).ctypes.data for name in "ab"])
    assert where[0] == where[1]
    assert (where[2][0] == where[1][0], where[2][1] == where[1][1]) == (True, False)


def test_buffers_that_nothing_needs_any_more_are_let_go():
    import weakref

    buffers = Buffers()
    first = buffers.take({"a": array_leaf(array(), "a")}).whole()
    there = weakref.ref(first["a"].data.obj)
    del first
    assert there() is not None
    buffers.take({"b": 1})
    assert there() is None


def test_two_leaves_of_one_path_have_two_buffers():
    one, other = array(fill=1), array(fill=2)
    tree = {"m": {"a/b": array_leaf(one, ""), "a": {"b": array_leaf(other, "")}}}
    copied = Buffers().take(tree).whole()["m"]
    assert (copied["a/b"].data[0], copied["a"]["b"].data[0]) == (1, 2)


def test_tied_leaves_are_copied_once_and_stay_tied():
    data = memoryview(array())
    tree = {"m": [Leaf("U8", (BIG,), data, key="tie"), Leaf("U8", (BIG,), data, key="tie")]}
    one, other = Buffers().take(tree).whole()["m"]
    assert one.data is other.data
    assert one.key == other.key == "tie"


def test_notes_shapes_and_kinds_of_dicts_stay():
    tree = {
        "o": OrderedDict(b=1, a=array_leaf(np.ones((2, 3), order="F"), "a")),
        "c": Counter({3: 2, 1: 5}),
    }
    copied = Buffers().take(tree).whole()
    assert same(copied, tree)
    assert copied["o"]["a"].note == "fortran"


def test_what_the_store_refuses_is_left_for_it_to_refuse():
    class Odd:
        pass

    odd, unhashable = Odd(), Leaf("U8", (1,), b"1", key=[1])
    no_bytes = Leaf("U8", (1,), None)
    loop: list[object] = []
    loop.append(loop)
    copied = Buffers().take({"a": odd, "b": unhashable, "c": no_bytes, "d": loop}).whole()
    assert (copied["a"], copied["b"], copied["c"]) == (odd, unhashable, no_bytes)


def test_what_may_be_copied_later_is_copied_by_whoever_asks_for_the_whole():
    live, own, at_once = array(), array(), array()
    leaves = {name: array_leaf(a, name) for name, a in (("live", live), ("own", own), ("now", at_once))}
    snapshot = Buffers().take(leaves, Held(own={leaves["own"]}, later={leaves["live"]}))
    at_once[:] = 9
    live[:] = 2  # not yet copied: Held.changed would have to tell
    waiting = threading.Thread(target=snapshot.wait)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    whole = snapshot.whole()
    waiting.join(60)
    assert not waiting.is_alive()
    assert [whole[name].data[0] for name in ("live", "own", "now")] == [2, 1, 1]
    assert whole["own"] is leaves["own"]


def test_small_leaves_are_never_left_for_later():
    live = array(SMALL - 1)
    leaf = array_leaf(live, "")
    snapshot = Buffers().take({"a": leaf}, Held(later={leaf}))
    snapshot.wait()
    live[:] = 9
    assert snapshot.whole()["a"].data[0] == 1


def test_little_is_copied_at_once_as_a_whole(monkeypatch):
    monkeypatch.setattr(snapshot_module, "LATE", 2 * BIG + 1)
    live = [array(), array(), array()]
    leaves = [array_leaf(a, "") for a in live]
    for late in (leaves[:2], leaves):
        snapshot = Buffers().take({"a": leaves}, Held(later=set(late), changed=lambda: "too late"))
        if len(late) == 2:
            snapshot.wait()
            for a in live:
                a[:] = 9
            assert [leaf.data[0] for leaf in snapshot.whole()["a"]] == [1, 1, 1]
        else:
            with pytest.raises(Changed):
                snapshot.whole()


def test_a_change_before_the_copy_is_an_error_and_nobody_waits_for_ever():
    leaf = array_leaf(array(), "")
    snapshot = Buffers().take({"a": leaf}, Held(later={leaf}, changed=lambda: "model/w"))
    with pytest.raises(Changed, match="model/w has changed since the report, before it was copied"):
        snapshot.whole()
    snapshot.wait()
    assert issubclass(Changed, SaveError)


def test_nobody_waits_for_ever_for_a_copy_that_failed():
    def fail():
        raise MemoryError

    leaf = array_leaf(array(), "")
    snapshot = Buffers().take({"a": leaf}, Held(later={leaf}, changed=fail))
    with pytest.raises(MemoryError):
        snapshot.whole()
    snapshot.wait()


@pytest.mark.parametrize("sizes", [[SMALL], [SMALL, SMALL * 3, SMALL * 2], [SMALL] * 7])
def test_a_large_state_is_copied_by_two_threads(monkeypatch, sizes):
    threads = set()
    copy = snapshot_module._copy

    def watched(buffer, data):
        threads.add(threading.current_thread().name.partition("-")[0])
        copy(buffer, data)

    monkeypatch.setattr(snapshot_module, "PARALLEL", SMALL)
    monkeypatch.setattr(snapshot_module, "_copy", watched)
    rng = np.random.default_rng(0)
    arrays = {f"a{i}": rng.integers(0, 255, size, dtype=np.uint8) for i, size in enumerate(sizes)}
    before = {name: array.tobytes() for name, array in arrays.items()}
    taken = Buffers().take({"state": {name: array_leaf(array, name) for name, array in arrays.items()}})
    for array in arrays.values():
        array[:] = 0
    assert {name: bytes(leaf.data) for name, leaf in taken.whole()["state"].items()} == before
    assert threads == ({"MainThread"} if len(sizes) == 1 else {"MainThread", "stopctl"})
