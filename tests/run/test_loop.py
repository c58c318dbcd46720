"""run.batches(): what is counted, asked and saved between two batches, and that a broken-off epoch goes on exactly."""

from __future__ import annotations

import errno
import os
import random
import signal
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl import (
    After,
    Every,
    Indices,
    MismatchError,
    OnBest,
    OrderError,
    Patience,
    Preempted,
    ReportError,
    Run,
    SaveError,
    SettingError,
)
from stopctl.runs.history import reports
from stopctl.store import Reader
from stopctl.store.files import FILES


class Crash(Exception):
    """The process ends here."""


@dataclass
class Program:
    """A training program of which every process begins from nothing; what it did is told outside."""

    directory: Any
    source: Any
    epochs: int = 3
    steps: int | None = None
    evaluate_every: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[int, int, Any]] = field(default_factory=list)

    def process(self, crash_after: int = -1) -> dict[str, Any]:
        """Run until the end, or until so many batches were trained in this process."""
        random.seed(1)
        np.random.seed(2)
        state: dict[str, Any] = {"w": np.zeros(2), "log": []}
        source = self.source()
        left = crash_after
        with Run(self.directory, state=state, durability="process", **self.settings) as run:
            for epoch in run.epochs(self.epochs):
                random.random()  # what comes before the batches is done again, and must not matter
                for batch in run.batches(source, steps=self.steps):
                    if left == 0:
                        raise Crash
                    left -= 1
                    number = run.batch
                    self.seen.append((epoch, number, np.asarray(batch).tolist()))
                    noise = random.random() + np.random.random()
                    state["w"] = state["w"] * 0.9 + np.array([noise, float(np.sum(batch))])
                    state["log"].append(noise)
                    if self.evaluate_every and number % self.evaluate_every == 0:
                        run.report(val_loss=float(state["w"][0]) % 1)
                run.report(val_loss=float(state["w"][1]) % 7)
            told = {"w": state["w"].tolist(), "log": state["log"], "stopped": str(run.stopped)}
            told["rng"] = (random.random(), np.random.random())
            told["progress"] = (
                run.progress.epoch,
                run.progress.step,
                run.progress.reports,
                run.progress.best,
            )
        return told

    def decisions(self) -> list[Any]:
        """The reports that stand, in order."""
        kept = ("epoch", "step", "metrics", "new_best", "stop")
        return [{name: line[name] for name in kept} for line in reports(Reader(self.directory))]

    def standing(self) -> list[Any]:
        """The batches that stand: of those that were seen twice the last."""
        return sorted({(epoch, number): (epoch, number, rows) for epoch, number, rows in self.seen}.values())


def compared(tmp_path, crashes, **given):
    """An uninterrupted program, and one whose processes end after so many batches each."""
    straight = Program(tmp_path / "straight", **given)
    broken = Program(tmp_path / "broken", **given)
    expected = straight.process()
    for after in crashes:
        try:
            broken.process(after)
        except Crash:
            continue
        break
    assert broken.process() == expected
    assert broken.decisions() == straight.decisions()
    assert broken.standing() == straight.seen
    return straight, broken


@pytest.mark.parametrize("crash", range(13))
def test_a_run_that_ends_after_any_batch_goes_on_as_if_it_had_not(tmp_path, crash):
    straight, _ = compared(
        tmp_path,
        [crash],
        source=lambda: Indices(17, batch_size=5, seed=3),
        settings={"save": Every(steps=1), "stop": None},
    )
    for epoch in (1, 2, 3):
        rows = [row for e, _, batch in straight.seen if e == epoch for row in batch]
        assert sorted(rows) == list(range(17))


SOURCES = {
    "indices": lambda n: Indices(2 * n, batch_size=2, seed=5),
    "a list": lambda n: [[i, i + 1] for i in range(n)],
    "an array": lambda n: np.arange(2 * n).reshape(n, 2),
}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SOURCES)),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 7),
    st.lists(st.integers(0, 12), max_size=3),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([None, 3]),
    st.booleans(),
)
def test_any_epochs_batches_rhythms_and_crashes(
    tmp_path_factory, kind, epochs, batches, every, crashes, evaluate_every, steps, background
):
    compared(
        tmp_path_factory.mktemp("run"),
        crashes,
        source=lambda: SOURCES[kind](batches),
        epochs=epochs,
        steps=steps and min(steps, batches),
        evaluate_every=evaluate_every,
        settings={
            "save": Every(steps=every) | OnBest(),
            "stop": Patience(4) | After(steps=15),
            "async_save": background,
        },
    )


class Telling:
    """Ten numbers an epoch, or an endless stream of them, that tell their position."""

    def __init__(self, n: int = 10, *, endless: bool = False) -> None:
        self.n, self.at, self.endless = n, 0, endless
        if endless:
            self.__class__ = Stream

    def __iter__(self) -> Any:
        while self.at < self.n:
            self.at += 1
            yield self.at
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "seen": np.arange(self.at)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Stream(Telling):
    """Goes on from one epoch to the next."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.at += 1
        return self.at


@pytest.mark.parametrize("crash", [1, 3, 4, 6])
@pytest.mark.parametrize("endless", [False, True])
def test_what_tells_its_own_position_goes_on_there(tmp_path, crash, endless):
    straight, _ = compared(
        tmp_path,
        [crash],
        source=lambda: Telling(4, endless=endless),
        steps=3 if endless else None,
        settings={"save": Every(steps=1), "stop": None},
    )
    assert [rows for *_, rows in straight.seen] == (list(range(1, 10)) if endless else [1, 2, 3, 4] * 3)


@pytest.mark.parametrize("crash", [1, 3, 4, 5, 8, 9])
def test_gradients_that_are_added_up_make_one_step(tmp_path, crash):
    def process(directory, crash=-1):
        """The gradient is no part of the state; it is used up after every second batch, and after the last."""
        state, gradient, seen = {"w": 0.0}, 0.0, []
        with Run(directory, state=state, save=Every(steps=1), stop=None, durability="process") as run:
            for _ in run.epochs(3):
                for i in run.batches([1, 2, 3, 4, 5], accumulate=2):
                    if crash == 0:
                        raise Crash
                    crash -= 1
                    gradient += i
                    if i % 2 == 0 or i == 5:
                        state["w"], gradient = 0.5 * state["w"] + gradient, 0.0
                        seen.append((run.batch, run.progress.step))
                    else:
                        with pytest.raises(
                            OrderError, match="the gradients of 2 batches are still being added"
                        ):
                            run.report(val_loss=1.0)
                run.report(val_loss=1.0)
        assert run.progress.step == 9
        return state["w"], seen

    straight, seen = process(tmp_path / "straight")
    assert seen == [(2, 0), (4, 1), (5, 2), (2, 3), (4, 4), (5, 5), (2, 6), (4, 7), (5, 8)]
    with pytest.raises(Crash):
        process(tmp_path / "broken", crash)
    assert process(tmp_path / "broken")[0] == straight


def names(run):
    return [info.name for info in run.checkpoints]


def opened(directory, **settings):
    given = {"stop": None, "save": None, "keep": None, "durability": "process", **settings}
    return Run(directory, state={"w": 0}, **given)


def test_steps_are_counted_and_saved_by_inside_the_epoch(tmp_path):
    with opened(tmp_path, save=Every(steps=2)) as run:
        for epoch in run.epochs(2):
            for i in run.batches([1, 2, 3]):
                assert (run.batch, run.progress.epoch) == (i, epoch - 1)
            assert run.batch == 0
            run.report(val_loss=1.0)
    assert names(run) == [
        "epoch-0000-step-000000002-w0001",
        "epoch-0001-step-000000004-w0001",
        "epoch-0002-step-000000006-w0001",
    ]
    assert [info.value for info in run.checkpoints] == [None, None, 1.0]


def test_nothing_is_asked_between_the_last_batch_and_the_report_where_the_last_is_known(tmp_path):
    for name, data, saved in (("known", [1, 2], [(1, 2)]), ("unknown", Telling(2), [(0, 2), (1, 2)])):
        with opened(tmp_path / name, save=Every(steps=2) | OnBest()) as run:
            for _ in run.epochs(1):
                for _ in run.batches(data):
                    pass
                run.report(val_loss=1.0)
        assert [(info.epoch, info.step) for info in run.checkpoints] == saved


def test_a_run_saved_after_the_last_batch_goes_on_behind_the_loop(tmp_path):
    for _ in range(2):
        seen = []
        with opened(tmp_path, save=Every(steps=2)) as run:
            for _ in run.epochs(1):
                seen += run.batches(Telling(2))
                if run.resumed is None:
                    break
                run.report(val_loss=1.0)
    assert (seen, run.progress.epoch, run.progress.step) == ([], 1, 2)


def one_epoch(run, data, n=2):
    """The loop that most programs have."""
    done = []
    for _ in run.epochs(n):
        for batch in run.batches(data):
            done.append(batch)
        decision = run.report(val_loss=1.0)
    return done, decision


def test_a_stop_inside_an_epoch_ends_it_there_and_larger_limits_go_on(tmp_path):
    with opened(tmp_path, stop=After(steps=4)) as run:
        done, decision = one_epoch(run, [1, 2, 3])
        assert run.save("end").step == 4
    assert (done, str(decision.stop)) == ([1, 2, 3, 1], "the limit of 4 steps is reached")
    assert (run.progress.epoch, run.progress.step, run.progress.reports) == (1, 4, 1)
    assert [(info.reasons, info.step) for info in run.checkpoints] == [(("stop",), 4), (("requested",), 4)]
    with opened(tmp_path, stop=After(steps=4)) as run:
        assert list(run.epochs(2)) == []
    with opened(tmp_path, stop=After(steps=9)) as run:
        assert one_epoch(run, [1, 2, 3])[0] == [2, 3]
    assert (run.progress.epoch, run.progress.step, run.progress.reports) == (2, 6, 2)


@pytest.mark.parametrize("leave", [True, False])
def test_a_report_in_the_body_may_stop_the_run(tmp_path, leave):
    with opened(tmp_path, stop=Patience(2)) as run:
        for _ in run.epochs(3):
            for _ in run.batches(range(9)):
                decision = run.report(val_loss=1.0)
                if leave and decision.stop:
                    break
            assert run.report(val_loss=0.0).stop == decision.stop
        assert run.restore_latest().step == 3
    assert [(info.epoch, info.step, info.value) for info in run.checkpoints] == [(0, 3, 1.0)]
    assert run.progress.best == 1.0


def test_a_stop_that_is_asked_for_is_heard_at_the_next_batch(tmp_path):
    with opened(tmp_path) as run:
        for _ in run.epochs(3):
            for i in run.batches(range(9)):
                if i == 4:
                    run.stop("seen enough")
    assert (run.progress.step, str(run.stopped)) == (5, "requested: seen enough")


@pytest.mark.parametrize(("at", "rest"), [(1, [2, 3]), (3, [])])
def test_a_signal_saves_at_the_next_batch_the_last_one_included(tmp_path, at, rest):
    with pytest.raises(Preempted), opened(tmp_path) as run:
        for _ in run.epochs(1):
            for i in run.batches([1, 2, 3]):
                if i == at:
                    os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("validation would take its time")
    assert [(info.epoch, info.step, info.reasons) for info in run.checkpoints] == [(0, at, ("preempted",))]
    with opened(tmp_path) as run:
        assert one_epoch(run, [1, 2, 3], 1)[0] == rest


class Dying(list):
    """Data that fails at one batch, as when its workers get a signal that this process gets as well, or alone."""

    def __init__(self, at, number):
        super().__init__([1, 2, 3])
        self.at, self.number = at, number

    def __getitem__(self, i):
        if i == self.at:
            if self.number is not None:
                os.kill(os.getpid(), self.number)
            raise RuntimeError("a worker is killed by signal: Terminated")
        return super().__getitem__(i)


@pytest.mark.parametrize(
    ("at", "number", "error", "saved"),
    [
        (1, signal.SIGTERM, Preempted, [1]),
        (2, signal.SIGUSR1, Preempted, [2]),
        (2, None, RuntimeError, []),
        (0, signal.SIGTERM, RuntimeError, []),  # the epoch's first: its generators have moved already
    ],
)
def test_data_that_dies_of_a_signal_ends_at_the_boundary_before(tmp_path, at, number, error, saved):
    with pytest.raises(error), opened(tmp_path) as run:
        one_epoch(run, Dying(at, number))
    assert [info.step for info in run.checkpoints] == saved
    with opened(tmp_path) as run:
        assert one_epoch(run, Dying(None, None), 1)[0] == [1, 2, 3][at if saved else 0 :]


def test_a_signal_before_the_loop_of_a_run_inside_an_epoch_saves_nothing_new(tmp_path):
    cut(tmp_path)
    with pytest.raises(Preempted), opened(tmp_path) as run:
        os.kill(os.getpid(), signal.SIGTERM)
        one_epoch(run, [1, 2, 3])
    assert [info.step for info in run.checkpoints] == [1, 2]
    with opened(tmp_path) as run:
        assert one_epoch(run, [1, 2, 3], 1)[0] == [3]


def cut(directory, data=(1, 2, 3), **settings):
    """A run whose newest checkpoint stands after batch 2 of epoch 1."""
    with pytest.raises(Crash), opened(directory, save=Every(steps=1), **settings) as run:
        for _ in run.epochs(1):
            for i in run.batches(list(data)):
                if i == 3:
                    raise Crash


def reports_without(run):
    for _ in run.epochs(1):
        run.report(val_loss=1.0)


def passes_without(run):
    list(run.epochs(1))


def steps_instead(run):
    next(iter(run.steps(9)))


def asked_for_but_not_used(run):
    for _ in run.epochs(1):
        run.batches([1, 2, 3])


@pytest.mark.parametrize("loop", [reports_without, passes_without, steps_instead, asked_for_but_not_used])
def test_a_run_inside_an_epoch_must_go_on_with_its_data(tmp_path, loop):
    cut(tmp_path)
    with opened(tmp_path) as run, pytest.raises(OrderError) as caught:
        loop(run)
    assert "saved inside epoch 1, after batch 2" in str(caught.value)
    assert "write `for batch in run.batches(data):`" in str(caught.value)


def test_the_generators_are_put_back_when_the_first_batch_is_asked_for(tmp_path):
    def draws(crash):
        random.seed(1)
        drawn = []
        with opened(tmp_path / str(crash), save=Every(steps=1)) as run:
            for _ in run.epochs(1):
                batches = run.batches([1, 2, 3])
                random.random()
                for i in batches:
                    if crash and i == 3 and run.resumed is None:
                        raise Crash
                    drawn.append(random.random())
        return drawn

    straight = draws(crash=False)
    with pytest.raises(Crash):
        draws(crash=True)
    assert draws(crash=True) == straight[2:]


def test_the_position_can_be_given_up(tmp_path):
    cut(tmp_path)
    with opened(tmp_path, allow_missing={"run.data"}) as run:
        assert one_epoch(run, [7, 8, 9], 1)[0] == [7, 8, 9]
    assert run.progress.step == 5


def test_a_save_before_the_data_is_opened_keeps_its_position(tmp_path):
    cut(tmp_path)
    with opened(tmp_path) as run:
        run.save("again")
    with opened(tmp_path) as run:
        assert one_epoch(run, [1, 2, 3], 1)[0] == [3]


def test_between_two_epochs_other_data_may_follow(tmp_path):
    for data, n in (([1, 2], 1), (Telling(2), 2), (Indices(3), 3)):
        with opened(tmp_path, save=Every(epochs=1)) as run:
            assert len(one_epoch(run, data, n)[0]) in (1, 2)
    with opened(tmp_path) as run:
        assert list(run.epochs(4)) == [4]  # or none at all


def test_an_epoch_may_do_without_the_data_of_the_one_before(tmp_path):
    def train(epochs):
        seen = []
        stream = Telling(endless=True)
        with opened(tmp_path, save=Every(epochs=1)) as run:
            for epoch in run.epochs(epochs):
                if epoch % 2:
                    seen += run.batches(stream, steps=2)
                run.report(val_loss=1.0)
        return seen

    assert [train(1), train(2), train(3), train(5)] == [[1, 2], [], [3, 4], [5, 6]]
    with opened(tmp_path, save=Every(steps=1)) as run:
        assert len([run.report(val_loss=1.0) for _ in run.epochs(6)]) == 1
        run.save("here")
        assert list(run.steps(12)) == [7, 8, 9, 10, 11, 12]
    with opened(tmp_path) as run:
        assert (run.resumed.epoch, run.resumed.step) == (6, 12)


class Refusing(Telling):
    """Does not take what it told."""

    def load_state_dict(self, state):
        raise KeyError("other")


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ([1, 2, 3], Telling(3), "with a list, run.batches() got Telling: pass the same data"),
        ([1, 2, 3], [1, 2], "with data of this many batches: 3, run.batches() got 2"),
        (
            Indices(3, batch_size=1),
            Indices(3, batch_size=1, seed=1),
            "inside an epoch of Indices(3, batch_size=1, seed=0, shuffle=True, drop_last=False), now it is",
        ),
        (
            Refusing(3),
            Refusing(3),
            "Refusing.load_state_dict() refused the saved position: KeyError('other')",
        ),
    ],
)
def test_other_data_inside_an_epoch_is_a_mismatch(tmp_path, before, after, text):
    with opened(tmp_path, save=Every(steps=1)) as run:
        for _ in run.epochs(1):
            for _ in run.batches(before):
                break_off = run.progress.step == 1
                if break_off:
                    break
            break
    with opened(tmp_path) as run, pytest.raises(MismatchError) as caught:
        one_epoch(run, after, 1)
    assert text in str(caught.value)


def in_body(call):
    def misuse(run):
        for _ in run.epochs(2):
            for _ in run.batches([1, 2]):
                call(run)

    return misuse


def after_report(call):
    def misuse(run):
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
            call(run)

    return misuse


def twice(run):
    run.report(val_loss=1.0)
    run.report(val_loss=1.0)


def reported_then(call):
    def misuse(run):
        run.report(val_loss=1.0)
        call(run)

    return misuse


def two_loops(run):
    for _ in run.epochs(1):
        list(run.batches([1]))
        run.batches([2])


def stale_from_the_start(run):
    passes = iter(run.epochs(2))
    next(passes)
    batches = run.batches([1, 2])
    run.report(val_loss=1.0)
    next(batches)


def stale(run):
    passes = iter(run.epochs(2))
    next(passes)
    batches = run.batches([1, 2])
    next(batches)
    next(passes)
    next(batches)


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (lambda run: next(run.batches([1])), "next(data) outside a loop: call it inside run.steps(n)"),
        (lambda run: [run.batches([1]) for _ in run.steps(1)], "once, before the loop, and `next(data)`"),
        (two_loops, "run.batches() a second time in epoch 1: give each data of an epoch a name"),
        (after_report(lambda run: run.batches([1])), "run.batches() after run.report()"),
        (in_body(lambda run: run.step()), "run.step() inside run.batches(): each of its batches is counted"),
        (in_body(lambda run: run.save("x")), "save('x') in the middle of batch 1 of epoch 1: call it after"),
        (in_body(twice), "report() was called twice in batch 1 of epoch 1: report all metrics at once"),
        (
            in_body(reported_then(lambda run: run.restore_latest())),
            "restore_latest() after report() in the same",
        ),
        (stale_from_the_start, "a batch of epoch 1 was asked for after that epoch's loop was left"),
        (stale, "a batch of epoch 1 was asked for after that epoch's loop was left"),
    ],
)
def test_calls_at_the_wrong_moment_of_an_epoch(tmp_path, misuse, text):
    with opened(tmp_path) as run, pytest.raises(OrderError) as caught:
        misuse(run)
    assert text in str(caught.value)


def test_a_named_save_after_a_report_in_the_body_goes_on_there(tmp_path):
    with opened(tmp_path) as run:
        for _ in run.epochs(1):
            for i in run.batches([1, 2, 3]):
                if i == 2:
                    run.report(val_loss=1.0)
                    assert (run.batch, run.save("here").step) == (2, 2)
            break
    with opened(tmp_path) as run:
        assert one_epoch(run, [1, 2, 3], 1)[0] == [3]


def test_an_epoch_that_was_left_while_its_batches_are_held_is_begun_anew(tmp_path):
    held = []
    with opened(tmp_path) as run:
        for _ in run.epochs(1):
            held.append(run.batches([1, 2, 3]))
            for _ in held[0]:
                run.report(val_loss=1.0)
                break
            break
        with pytest.raises(OrderError, match="in the middle of epoch 1"):
            run.save("left")
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    assert [(info.epoch, info.step) for info in run.checkpoints] == [(1, 1)]
    assert run.progress.inside is False


def test_the_journal_says_which_reports_stand_inside_an_epoch(tmp_path):
    with opened(tmp_path) as run:
        for _ in run.epochs(1):
            for _ in run.batches([1, 2]):
                run.report(val_loss=1.0)
            run.report(val_loss=1.0)
    told = [(line["epoch"], line["step"], line.get("inside", False)) for line in reports(Reader(tmp_path))]
    assert told == [(0, 1, True), (0, 2, True), (1, 2, False)]


def test_a_refused_report_counts_nothing(tmp_path):
    with opened(tmp_path) as run:
        for _ in run.epochs(1):
            for i in run.batches([1, 2]):
                with pytest.raises(ReportError):
                    run.report(loss=1.0)
                assert run.batch == i
            run.report(val_loss=1.0)
    assert run.progress.step == 2


def test_a_body_that_is_left_is_not_counted_unless_it_reported(tmp_path):
    with opened(tmp_path) as run:
        for epoch in run.epochs(2):
            for i in run.batches([1, 2, 3]):
                if epoch == 1:
                    run.report(val_loss=2.0)
                if i == 2:
                    break
            run.report(val_loss=1.0)
    assert (run.progress.epoch, run.progress.step, run.progress.reports) == (2, 3, 4)


def full(*paths):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0]))


@pytest.mark.parametrize(("wait", "tries", "saved"), [(3600.0, 2, 12), (0.0, 5, 7)])
def test_a_save_that_failed_inside_an_epoch_is_not_tried_at_every_batch(
    tmp_path, monkeypatch, wait, tries, saved
):
    monkeypatch.setattr("stopctl.run.session.RETRY", wait)
    with opened(tmp_path, save=Every(steps=1), save_errors="continue", durability="full") as run:
        for epoch in run.epochs(2):
            with monkeypatch.context() as patch:
                if epoch == 1:
                    patch.setattr(FILES, "rename", full)
                list(run.batches(range(6)))
                run.report(val_loss=1.0)
    lines = list(Reader(tmp_path).journal())
    assert sum(line["event"] == "save_failed" for line in lines) == tries
    assert next(line["step"] for line in lines if line["event"] == "saved") == saved


def test_a_failed_save_comes_out_of_the_loop(tmp_path, monkeypatch):
    with (
        opened(tmp_path, save=Every(steps=1), durability="full") as run,
        pytest.raises(SaveError, match="No space left"),
    ):
        monkeypatch.setattr(FILES, "rename", full)
        one_epoch(run, [1, 2])
    assert run.progress.step == 1


def test_the_best_inside_an_epoch_is_restored_and_begins_another_run(tmp_path):
    state = {"w": 0}
    with Run(tmp_path / "one", state=state, save=OnBest(), stop=None) as run:
        for _ in run.epochs(1):
            for i in run.batches([3, 1, 2]):
                state["w"] = i
                run.report(val_loss=float(i))
        assert (run.restore_best().step, state["w"]) == (2, 1)
        assert (run.progress.best_epoch, run.progress.best_step) == (0, 2)
    fresh = {"w": 9}
    with Run(tmp_path / "two", state=fresh, start_from_run=tmp_path / "one", stop=None) as run:
        assert fresh["w"] == 1
        assert one_epoch(run, [1, 2], 1)[0] == [1, 2]


@pytest.mark.parametrize(
    "source", [(i for i in range(3)), "text", {1: 2}, 7, object(), np.float32(1.0), list]
)
def test_what_has_no_position_is_refused_with_what_to_pass(tmp_path, source):
    with (
        opened(tmp_path) as run,
        pytest.raises(SettingError, match="whose position cannot be saved: pass a seq"),
    ):
        for _ in run.epochs(1):
            run.batches(source)


def test_a_stream_needs_its_number_of_steps(tmp_path):
    with opened(tmp_path) as run:
        for _ in run.epochs(1):
            with pytest.raises(SettingError, match=r"got a Stream, which goes on .* steps=100"):
                run.batches(Telling(endless=True))
            with pytest.raises(SettingError, match=r"steps=0: write a whole number >= 1"):
                run.batches([1], steps=0)
            break
