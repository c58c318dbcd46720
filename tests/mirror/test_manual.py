"""A run brought to a mirror by hand, and back; broken off at every operation, and done again."""

from __future__ import annotations

import pytest

from stopctl import LockedError, NotARunError, Run, SaveError, SettingError
from stopctl.mirror import remote
from stopctl.mirror.manual import pull, push
from stopctl.runs.choose import choose
from stopctl.store import Reader, pin
from support.ran import ran

CHANGES = ("create", "upload", "delete")


class Broken:
    """A store whose n-th operation of some kinds, and all after it, fail; `done` counts them."""

    def __init__(self, store, kinds, at):
        self.url, self._store, self._kinds, self._at, self.done = store.url, store, kinds, at, 0

    def __getattr__(self, name):
        def operation(*arguments):
            if name in self._kinds:
                self.done += 1
                if self.done > self._at:
                    raise OSError("away")
            return getattr(self._store, name)(*arguments)

        return operation


@pytest.fixture
def run(scratch):
    """A run with two checkpoints, one of them pinned."""
    directory = ran(scratch / "run", (0.5, 0.4, 0.3), planned=3)
    pin(directory, Reader(directory).list().good[0].name)
    return directory


@pytest.fixture
def store(scratch):
    return remote(f"file://{scratch}/disk")


def contents(directory):
    """The bytes of every checkpoint's files, and what of them is pinned."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in (directory / "checkpoints").glob("epoch*/*")
    }
    return files, [info.pinned for info in Reader(directory).list().good]


def test_there_and_back_every_bit_is_the_same(run, store, scratch):
    before = contents(run)
    moved = push(run, store)
    assert len(moved.gone) == len(before[1])
    assert list(moved.gone) == sorted(moved.gone, reverse=True)
    assert push(run, store)[:2] == ((), moved.gone)
    assert choose(store.url)[0].name == choose(run)[0].name
    assert pull(scratch / "back", store).gone == moved.gone
    assert contents(scratch / "back") == contents(run) == before
    lines = [line["event"] for line in Reader(scratch / "back").journal()]
    assert lines == [line["event"] for line in Reader(run).journal()][: len(lines)]
    assert lines.count("mirrored") == len(moved.gone)
    with Run(scratch / "back", state={"weight": 0.0}, mirror=store.url) as again:  # it is followed on there
        assert again.resumed.name == moved.gone[0]
    with pytest.raises(SettingError, match="was written by process .* since this directory was"):
        push(run, store)


def test_a_push_broken_off_anywhere_goes_on(run, scratch):
    at = 0
    while True:
        store = remote(f"file://{scratch}/disk{at}")
        broken = Broken(store, CHANGES, at)
        try:
            push(run, broken)
            break
        except (SaveError, OSError):
            pass
        push(run, store)
        pull(scratch / f"back{at}", store)
        assert contents(scratch / f"back{at}") == contents(run)
        known = {key.split("/")[2] for key in store.list("data/")}
        assert known == {key.split("/")[2].removesuffix(".json") for key in store.list("commits/")}, "swept"
        at += 1
    assert at > 10


def test_a_pull_broken_off_anywhere_goes_on_and_brings_nothing_twice(run, store, scratch):
    push(run, store)
    whole = Broken(store, ("download",), 999)
    pull(scratch / "back", whole)
    for at in range(whole.done):
        back = scratch / f"back{at}"
        with pytest.raises(OSError, match="away"):
            pull(back, Broken(store, ("download",), at))
        again = Broken(store, ("download",), 999)
        pull(back, again)
        assert contents(back) == contents(run)
        assert again.done <= whole.done - at + 1, "but for the one that was half there"
        assert {path.name for path in back.iterdir()} == {path.name for path in (scratch / "back").iterdir()}


def test_what_a_pull_left_is_verified_before_it_is_kept(run, store, scratch):
    push(run, store)
    with pytest.raises(OSError, match="away"):
        pull(scratch / "back", Broken(store, ("download",), 2))
    (state,) = (scratch / "back" / "checkpoints").glob("epoch*/state.json")
    state.write_bytes(state.read_bytes()[:-1] + b" ")
    pull(scratch / "back", store)
    assert contents(scratch / "back") == contents(run)


def test_damaged_ones_are_left_out_and_told(store, scratch):
    run = ran(scratch / "run", (0.5, 0.4, 0.3), keep=None)
    names = [info.name for info in reversed(Reader(run).list().good)]
    state = run / "checkpoints" / names[0] / "state.json"
    state.write_bytes(state.read_bytes()[:-1] + b" ")
    moved = push(run, store)
    assert (moved.gone, moved.damaged.keys()) == (tuple(names[1:]), {names[0]})
    (data,) = (scratch / "disk" / "data" / names[1]).glob("*/state.json")
    data.write_bytes(data.read_bytes()[:-1])
    back = pull(scratch / "back", store)
    assert (back.gone, back.damaged.keys()) == (tuple(names[2:]), {names[1]})


def test_what_cannot_be_is_refused_and_nothing_changes(run, store, scratch):
    with pytest.raises(NotARunError):
        push(scratch / "none", store)
    with pytest.raises(NotARunError, match="no checkpoint is mirrored"):
        pull(scratch / "back", store)
    with Run(run, state={"weight": 0.0}), pytest.raises(LockedError):
        push(run, store)
    assert store.list("") == []
    push(run, store)
    with pytest.raises(SettingError, match="holds a run"):
        pull(run, store)
    (scratch / "mine").mkdir()
    (scratch / "mine" / "notes.txt").touch()
    with pytest.raises(NotARunError, match=r"notes\.txt"):
        pull(scratch / "mine", store)
