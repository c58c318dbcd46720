"""Saves, failures, kills, power cuts, openings, deletes and pins in any order, against a model of three sets."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stopctl.core.errors import StopctlError
from support.faults.checks import CODES, Failing
from support.faults.counts import count
from support.faults.disk import Tree, read, write
from support.faults.models import MODELS
from support.faults.promises import NONE, Expected, Loss, best, is_save, survives
from support.faults.stories import Story
from support.recorder import Op


class Cut(BaseException):
    """The process ends here."""


class Machine(RuleBasedStateMachine):
    """`story.expected` is the model: what must be there, what may be, what is pinned."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.number = 0
        self.lives = 0
        self.story = self._life({}, Expected())

    @initialize()
    def begin(self) -> None:
        self.story.open()

    @rule(pinned=st.booleans())
    def save(self, pinned: bool) -> None:
        self.number += 1
        self.story.save(self.number, pinned=pinned)

    @rule(at=st.integers(0, 30), code=st.sampled_from(CODES), way=st.sampled_from(["once", "torn", "short"]))
    def save_that_fails(self, at: int, code: int, way: str) -> None:
        self.number += 1
        files = self.story.files
        failing = Failing(len(files.ops) + at, code, way)
        files.hook, files.write = failing._fail, _writing(files, failing)  # type: ignore[method-assign]
        try:
            self.story.save(self.number)
        except StopctlError:
            pass
        finally:
            files.hook = None
            del files.write

    @precondition(lambda self: self.story.expected.may)
    @rule()
    def prune(self) -> None:
        """Keep the newest, the best and the pinned, as Run does."""
        assert self.story.store is not None
        there = {info.epoch for info in self.story.store.list().good}
        pinned = {info.epoch for info in self.story.store.list().good if info.pinned}
        keep = pinned | {max(there, default=0), best(there)}
        self.story.delete(sorted(there - keep))

    @precondition(lambda self: self.story.expected.must)
    @rule(which=st.integers(0, 100), pinned=st.booleans())
    def pin(self, which: int, pinned: bool) -> None:
        number = sorted(self.story.expected.must)[which % len(self.story.expected.must)]
        (self.story.pin if pinned else self.story.unpin)(number)

    @precondition(lambda self: best(self.story.expected.must))
    @rule()
    def restore_the_best(self) -> None:
        assert self.story.store is not None
        number = best(info.epoch for info in self.story.store.list().good)
        info = next(info for info in self.story.store.list().good if info.epoch == number)
        assert is_save(info, self.story.store.load(info))

    @rule()
    def reopen(self) -> None:
        self.story.close()
        self.story.open()

    @rule()
    def kill(self) -> None:
        self._die(len(self.story.files.ops), None, 0)

    @rule(model=st.sampled_from(sorted(MODELS)), which=st.integers(0, 10**4))
    def power_cut(self, model: str, which: int) -> None:
        self._die(len(self.story.files.ops), model, which)

    @rule(
        act=st.sampled_from(["save", "prune", "reopen"]),
        at=st.integers(0, 40),
        model=st.sampled_from([None, *sorted(MODELS)]),
        which=st.integers(0, 10**4),
    )
    def die_in(self, act: str, at: int, model: str | None, which: int) -> None:
        """Killed, or the power cut, at operation `at` of what it does."""
        start = len(self.story.files.ops)

        def hook(index: int, op: Op) -> None:
            if index == start + at:
                raise Cut

        self.story.files.hook = hook
        try:
            if act == "save":
                self.save(pinned=False)
            elif act == "prune":
                self.prune()
            else:
                self.reopen()
        except Cut:
            pass
        finally:
            self.story.files.hook = None
        self._die(min(start + at, len(self.story.files.ops)), model, which)

    @invariant()
    def all_is_there(self) -> None:
        if self.story.store is None:
            return
        count("steps of the model")
        expected = self.story.expected
        listing = self.story.store.list()
        good = {info.epoch for info in listing.good}
        if listing.damaged or not expected.must <= good <= expected.may:
            raise Loss(f"{listing.damaged}, {sorted(good)} against {expected}")

    def teardown(self) -> None:
        self.story.files.hook = None
        self.story.close()
        shutil.rmtree(self.folder)

    def _life(self, tree: Tree, expected: Expected) -> Story:
        self.lives += 1
        root = self.folder / str(self.lives)
        write(tree, root)
        return Story(root, None, expected)

    def _die(self, count_: int, model: str | None, which: int) -> None:
        """After so many operations the process is killed, or (with a `model`) the power is cut."""
        old = self.story
        disk = MODELS[model or "posix"](old.root, old.before, seed=which)
        disk.do(old.files.ops[:count_])
        expected = old.at(count_)
        tree = disk.now()
        assert count_ < len(old.files.ops) or tree == read(old.root), (
            "the simulated disk is like the real one"
        )
        if model is not None:
            states = list(itertools.islice(disk.states(), 200))
            tree = states[which % len(states)]
            expected = replace(expected, told=NONE)
        old.close()
        shutil.rmtree(old.root)
        looked_at = self._life(tree, expected)
        survives(looked_at.run, expected)
        shutil.rmtree(looked_at.root)
        self.story = self._life(tree, expected)
        self.story.open()
        count("crash states")


def _writing(files: object, failing: Failing) -> Callable[..., int]:
    """A write that fails as `failing` says, recorded in `files`."""
    failing.ops = files.ops  # type: ignore[attr-defined]
    return failing.write


Machine.TestCase.settings = settings(max_examples=settings.default.max_examples // 5, stateful_step_count=20)
test_any_order_of_saves_faults_and_openings_keeps_every_promise = Machine.TestCase
