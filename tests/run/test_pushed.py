"""A run that is pushed: report() and boundary() with counters, in place of a loop of its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl import (
    After,
    Every,
    Indices,
    LockedError,
    OnBest,
    OrderError,
    Patience,
    Preempted,
    ReportError,
    Run,
    SaveError,
    SettingError,
)
from stopctl.ports import Watched
from stopctl.store.files import FILES

QUICK: dict[str, Any] = {"durability": "process", "stop": None, "quiet": True}


class Crash(Exception):
    """The process ends here."""


@dataclass
class Training:
    """The same training in both ways: by the loops of a run, and counted by somebody else who pushes."""

    directory: Path
    epochs: int
    length: int
    losses: list[float]
    reports_every: int
    unreported: int
    settings: dict[str, Any]
    left: int = 0
    told: list[Any] = field(default_factory=list)

    def train(self, state: dict[str, Any], step: int) -> None:
        if not self.left:
            raise Crash
        self.left -= 1
        state["w"] = (state["w"] * 31 + step) % 1009

    def metrics(self, step: int, state: dict[str, Any]) -> dict[str, Any]:
        return {"val_loss": self.losses[step % len(self.losses)], "w": state["w"]}

    def judged(self, decision: Any) -> bool:
        self.told.append(repr(decision))
        return decision.stop is not None

    def pulled(self, run: Run, state: dict[str, Any]) -> None:
        for epoch in run.epochs(self.epochs):
            for _ in run.batches(Indices(self.length, batch_size=1, shuffle=False)):
                step = (epoch - 1) * self.length + run.batch
                self.train(state, step)
                if self.reports_every and run.batch % self.reports_every == 0:
                    self.judged(run.report(**self.metrics(step, state)))
            if run.stopped is None and epoch % self.unreported:
                self.judged(run.report(**self.metrics(epoch, state)))

    def pushed(self, run: Run, state: dict[str, Any]) -> None:
        at = run.progress
        run.boundary(epoch=at.epoch, step=at.step, planned=self.epochs)
        for step in range(at.step + 1, self.epochs * self.length + 1):
            if run.stopped is not None:
                return
            self.train(state, step)
            epoch, batch = divmod(step, self.length)
            inside = {"epoch": epoch if batch else epoch - 1, "step": step, "inside": True}
            if self.reports_every and (batch or self.length) % self.reports_every == 0:
                self.judged(run.report(**inside, **self.metrics(step, state)))
            elif batch:
                run.boundary(**inside)
            if batch == 0 and run.stopped is None:
                if epoch % self.unreported:
                    self.judged(run.report(epoch=epoch, step=step, **self.metrics(epoch, state)))
                else:
                    run.boundary(epoch=epoch, step=step)

    def process(self, way: str, steps: int) -> tuple[int, Any]:
        """Train until the end, or for so many steps; the state, and how the run stands."""
        state, self.left = {"w": 7}, steps
        run = Run(self.directory, state=state, **QUICK | self.settings).open()
        try:
            getattr(self, way)(run, state)
        except Crash:
            pass
        finally:
            run.close()
        now = run.progress
        stands = (now.epoch, now.step, now.reports, now.best, now.inside, str(run.stopped))
        return state["w"], stands

    def journal(self) -> list[Any]:
        """The lines without times, sizes, and what a run is that was opened."""
        lines = [json.loads(line) for line in (self.directory / "journal.jsonl").read_text().splitlines()]
        volatile = {"at", "seconds", "took", "bytes", "time", "n", "pid", "host", "writer", "process", "sum"}
        lines = [{k: v for k, v in line.items() if k not in volatile} for line in lines]
        if self.settings["async_save"]:  # whose end is told when it is there
            lines.sort(key=lambda line: line["event"] == "saved")
        return lines

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "checkpoints").iterdir())


@settings(max_examples=60, deadline=None)
@given(
    epochs=st.integers(1, 4),
    length=st.integers(1, 5),
    losses=st.lists(st.sampled_from([0.5, 0.25, 0.75, float("nan")]), min_size=1, max_size=6),
    reports_every=st.integers(0, 3),
    unreported=st.sampled_from([2, 3, 99]),
    stop=st.sampled_from([None, Patience(2), Patience(1) & After(epochs=2), After(steps=7), After(epochs=2)]),
    save=st.sampled_from([None, Every(steps=3), Every(epochs=1) | OnBest(), Every(epochs=2), OnBest()]),
    async_save=st.booleans(),
    crashes=st.lists(st.integers(0, 9), max_size=3),
)
def test_pushed_and_pulled_are_the_same_run(crashes, stop, save, async_save, **given):
    with tempfile.TemporaryDirectory() as folder:
        rules = {"stop": stop, "save": save, "async_save": async_save}
        ways = ["pulled", "pushed"]
        both = [Training(Path(folder, way), **given, settings=rules) for way in ways]
        for steps in [*crashes, 99, 99]:
            ended = [each.process(way, steps) for each, way in zip(both, ways, strict=True)]
            assert ended[0] == ended[1]
            assert both[0].told == both[1].told
            assert both[0].checkpoints() == both[1].checkpoints()
        assert both[0].journal() == both[1].journal()


def opened(directory: Path, state: Any = None, **given: Any) -> Run:
    return Run(directory, state={"w": 0} if state is None else state, **QUICK | given).open()


def names(run: Run) -> list[str]:
    return [info.name.rpartition("-")[0] for info in run.checkpoints]


def test_counters_may_jump_and_names_come_out_right(tmp_path):
    run = opened(tmp_path, save=Every(epochs=2), keep=None)
    assert run.report(val_loss=0.5, epoch=1, step=500, planned=9).save is None
    assert run.report(val_loss=0.5, epoch=4, step=1200).save is not None
    assert run.boundary(epoch=4, step=1700, inside=True).stop is None
    assert (run.progress.epoch, run.progress.step, run.progress.inside) == (4, 1700, True)
    run.report(val_loss=0.5, epoch=9, step=2500)
    run.close()
    assert names(run) == ["epoch-0004-step-000001200", "epoch-0009-step-000002500"]


def test_steps_that_grow_alone_are_inside_the_next_epoch(tmp_path):
    run = opened(tmp_path, save=Every(steps=100), keep=None)
    run.report(val_loss=0.5, epoch=0, step=100, planned=2)
    assert (run.progress.inside, run.progress.passes) == (True, 0)
    run.report(val_loss=0.5, epoch=1, step=150)
    assert run.progress.inside is False
    run.close()
    assert names(run) == ["epoch-0000-step-000000100"]


def test_a_host_without_epochs_counts_steps(tmp_path, caplog):
    caplog.set_level("INFO", "stopctl")
    run = opened(tmp_path, save=None)
    run.boundary(step=0, planned=1000)
    run.report(val_loss=0.5, step=500)
    with pytest.raises(OrderError, match=r"boundary\(epoch=1\) of a run that counts steps alone"):
        run.boundary(epoch=1, step=600)
    with pytest.raises(OrderError, match="counts epochs: write epoch=, too"):
        run.boundary(step=600, inside=True)
    run.report(val_loss=0.25, step=1000)
    run.close()
    assert names(run) == ["epoch-0000-step-000001000"]
    assert "completed all 1000 steps; val_loss 0.25, best 0.25 (step 1000)" in caplog.messages[-2]
    run = opened(tmp_path, save=None)
    run.boundary(step=run.progress.step, planned=1000)
    assert "finished before: all 1000 steps are done; nothing was trained" in caplog.messages[-1]
    run.close()


def test_a_run_that_counts_epochs_is_told_them_each_time(tmp_path):
    run = opened(tmp_path)
    run.report(val_loss=0.5, epoch=1)
    with pytest.raises(OrderError, match=r"report\(step=9\) of a run that counts epochs: write epoch=, too"):
        run.report(val_loss=0.5, step=9)
    run.close()
    again = opened(tmp_path)
    with pytest.raises(OrderError, match="counts epochs"):
        again.boundary(step=9)
    again.close()


def test_what_a_user_reads_of_it(tmp_path, caplog):
    caplog.set_level("INFO", "stopctl")
    run = opened(tmp_path, stop=Patience(1), save=OnBest())
    run.boundary(epoch=0, step=0, planned=5)
    run.report(val_loss=0.5, epoch=1)
    run.close()
    run = opened(tmp_path, stop=Patience(1), save=OnBest())
    run.boundary(epoch=1, planned=5)
    stop = run.report(val_loss=0.75, epoch=2).stop
    run.close()
    run = opened(tmp_path, stop=Patience(1), save=OnBest())
    assert str(run.stopped) == str(stop) == "no improvement over 0.5 for 1 report"
    assert run.boundary(epoch=2, planned=5).stop == run.stopped
    run.close()
    told = [text.partition(": ")[2] for text in caplog.messages if text.startswith(str(tmp_path))]
    assert [text.partition(":")[0].partition(" (")[0] for text in told] == [
        "begins 5 epochs",
        "left after epoch 1 of 5",
        "resumed from epoch-0001-step-000000000-w0001, goes on after epoch 1 of 5",
        "stopped at epoch 2 of 5",
        "finished before",
    ]


@pytest.mark.parametrize("planned", [None, 3])
def test_passes_that_were_to_come_are_told_of_where_they_are_known(tmp_path, caplog, planned):
    run = opened(tmp_path)
    run.report(val_loss=0.5, epoch=2, planned=planned)
    run.close()
    left = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [": left after epoch 2 of 3:" in text for text in left] == ([] if planned is None else [True])


def after_a_pulled_loop(run: Run) -> None:
    for _ in run.epochs(2):
        run.report(val_loss=0.5, epoch=1)


def boundary_in_a_pulled_loop(run: Run) -> None:
    for _ in run.steps(2):
        run.boundary(step=1)


def pulled_after_pushed(run: Run) -> None:
    run.report(val_loss=0.5, epoch=1)
    for _ in run.epochs(2):
        pass


def counted_in_pushed(run: Run) -> None:
    run.report(val_loss=0.5, epoch=1)
    run.step()


def reported_after_a_boundary(run: Run) -> None:
    run.boundary(epoch=1, step=10)
    run.boundary(epoch=1, step=10)
    run.report(val_loss=0.5, epoch=1, step=10)


def push(**given: Any) -> Any:
    def pushed(run: Run) -> None:
        run.report(val_loss=0.5, epoch=3, step=30)
        run.report(val_loss=0.5, **given)

    return pushed


MISUSES = {
    "in a pulled loop": (after_a_pulled_loop, OrderError, r"report\(\) with epoch=.* leave them out"),
    "at its boundary": (boundary_in_a_pulled_loop, OrderError, r"boundary\(\) with .*counts itself"),
    "then pulled": (pulled_after_pushed, OrderError, r"run.epochs\(2\) in a run that is pushed"),
    "then counted": (counted_in_pushed, OrderError, r"run.step\(\) counts steps inside"),
    "without counters": (push(), OrderError, "say what is completed, by epoch=, step=, or both"),
    "planned alone": (push(planned=5), OrderError, "say what is completed"),
    "an epoch back": (push(epoch=2, step=40), OrderError, r"report\(epoch=2\) after epoch=3: completed work"),
    "a step back": (push(epoch=4, step=29), OrderError, r"report\(step=29\) after step=30: .*progress.step"),
    "twice": (push(epoch=3, step=30), OrderError, "called twice in epoch 3, step 30"),
    "after a boundary": (reported_after_a_boundary, OrderError, r"report\(\) after boundary\(\) in epoch 1"),
    "no number": (push(epoch=4.0), SettingError, r"epoch=4.0: write a whole number >= 0"),
    "a bad plan": (push(epoch=4, planned=0), SettingError, r"report\(planned=...\): planned=0"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_calls_at_the_wrong_moment(tmp_path, misuse):
    call, error, text = MISUSES[misuse]
    run = opened(tmp_path)
    with pytest.raises(error, match=text):
        call(run)
    run.close()


@pytest.mark.parametrize("begins", [False, True])
def test_what_was_reported_before_the_save_is_not_reported_again(tmp_path, begins):
    run = opened(tmp_path, save=Every(epochs=1) | OnBest())
    run.boundary(epoch=0)
    run.report(val_loss=0.5, epoch=0)  # before any training
    run.report(val_loss=0.4, epoch=1)
    run.close()
    again = opened(tmp_path)
    if begins:
        again.boundary(epoch=1)
    with pytest.raises(OrderError, match=r"report\(\) of epoch 1, whose report was made before this run was"):
        again.report(val_loss=0.3, epoch=1)
    assert again.progress.reports == 2
    again.report(val_loss=0.3, epoch=2)
    again.close()
    assert again.progress.reports == 3


def test_an_epoch_that_a_pulled_loop_trains_anew_is_told_once(tmp_path, caplog):
    run = opened(tmp_path, save=Every(steps=1))
    run.boundary(epoch=1, step=12, inside=True)
    run.close()
    for missing in ({"run.data"}, ()):
        caplog.clear()
        with Run(tmp_path, state={"w": 0}, **QUICK, save=None, allow_missing=missing) as run:
            for _ in range(2):
                for _ in run.epochs(3):
                    break
        told = [text for text in caplog.messages if "trains that epoch anew" in text]
        assert len(told) == (not missing)
        assert all("saved inside epoch 2 (step 12) by report() or boundary()" in text for text in told)


def test_without_counters_outside_a_loop_the_error_names_both_ways(tmp_path):
    run = opened(tmp_path)
    with pytest.raises(
        OrderError, match=r"call it inside run.epochs\(n\).*report\(\.\.\., epoch=3, step=1200\)"
    ):
        run.report(val_loss=0.5)
    run.close()


def test_a_refused_report_changes_nothing(tmp_path):
    run = opened(tmp_path)
    with pytest.raises(ReportError, match="'val_loss'"):
        run.report(loss=0.5, epoch=1, step=10)
    assert (run.progress.epoch, run.checkpoints) == (0, ())
    run.report(val_loss=0.5, epoch=1, step=10)
    assert run.progress.step == 10
    run.close()


class Marked:
    """A state of one number that is watched."""

    def __init__(self):
        self.w, self.passes, self.mine, self.steps = 0.0, [], None, 0

    def capture(self):
        return {"w": {"w": self.w}}

    def restore(self, components, *, allow_missing=()):
        self.w = components["w"]["w"]

    def version(self):
        return {"optimizer.step()": self.steps}

    def versions(self):
        return {}

    def close(self):
        pass

    def mark(self, *, epoch):
        self.mine = (self.w, epoch)
        return self.version()

    def moved(self):
        mine, self.mine = self.mine, None
        return "w" if mine is not None and mine[0] != self.w else None

    def passed(self, *, epoch):
        self.passes.append(epoch)


def test_what_moves_after_the_report_of_the_same_counters_is_an_error(tmp_path):
    state = Marked()
    assert isinstance(state, Watched)
    run = opened(tmp_path, state)
    run.report(val_loss=0.5, epoch=1, step=10, planned=3)
    assert state.mine == (0.0, True)
    run.boundary(epoch=1, step=10)
    state.w += 1  # training goes on, which nobody asks about
    run.boundary(epoch=1, step=11, inside=True)
    run.report(val_loss=0.5, epoch=1, step=12)
    assert state.mine == (1.0, False)
    assert state.passes == [True, False, False]
    state.steps += 1
    with pytest.raises(OrderError, match=r"optimizer.step\(\) moved after epoch 1, step 12 was told"):
        run.boundary(epoch=1, step=12)
    state.steps -= 1
    state.w += 1
    with pytest.raises(OrderError, match="^w moved after epoch 1, step 12 was told, and a resumed run"):
        run.boundary(epoch=1, step=12)
    run.close()


def test_a_named_save_wants_the_state_that_was_told(tmp_path):
    state = Marked()
    run = opened(tmp_path, state)
    run.report(val_loss=0.5, epoch=1, step=10)
    assert run.save("here").epoch == 1
    state.steps += 1
    with pytest.raises(OrderError, match=r"save\('there'\) in the middle of epoch 1, step 10"):
        run.save("there")
    run.close()


def test_a_stop_is_told_again_until_another_epoch_is_reported(tmp_path):
    run = opened(tmp_path, stop=After(steps=25), save=None)
    run.report(val_loss=0.5, epoch=2, step=20, planned=9)
    stop = run.boundary(epoch=2, step=25, inside=True).stop
    assert str(stop) == str(run.stopped)
    assert names(run) == ["epoch-0002-step-000000025"]
    assert run.boundary(epoch=2, step=26, inside=True).stop == stop
    assert run.report(val_loss=0.1, epoch=3, step=30).stop == stop
    assert run.progress.reports == 1
    with pytest.raises(OrderError, match="came after the stop"):
        run.report(val_loss=0.1, epoch=4, step=40)
    run.close()
    assert names(run) == ["epoch-0002-step-000000025"]


def test_what_was_asked_for_ends_the_run_at_the_next_call(tmp_path):
    run = opened(tmp_path)
    run.stop("enough")
    assert str(run.report(val_loss=0.5, epoch=1).stop) == "requested: enough"
    run.close()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("call", ["report", "boundary"])
def test_a_signal_saves_what_is_told_next(tmp_path, call, inside):
    run = opened(tmp_path, save=None)
    run.boundary(epoch=0, step=0, planned=5)
    os.kill(os.getpid(), signal.SIGTERM)
    metrics = {"val_loss": 0.5} if call == "report" else {}
    with pytest.raises(Preempted):
        getattr(run, call)(epoch=1, step=15, inside=inside, **metrics)
    run.close()
    assert [(i.epoch, i.step, i.reasons) for i in run.checkpoints] == [(1, 15, ("preempted",))]
    again = opened(tmp_path)
    assert (again.progress.epoch, again.progress.step, again.progress.inside) == (1, 15, inside)
    again.close()


def test_a_signal_before_the_first_call_is_saved_with_its_counters(tmp_path):
    state = {"w": 0}
    run = opened(tmp_path, state, save=None)
    os.kill(os.getpid(), signal.SIGTERM)
    state["w"] = 1
    with pytest.raises(Preempted):
        run.report(val_loss=0.5, epoch=1, planned=5)
    run.close()
    assert names(run) == ["epoch-0001-step-000000000"]


def test_a_signal_after_the_last_call_is_told_at_close(tmp_path):
    run = opened(tmp_path)
    run.report(val_loss=0.5, epoch=1, planned=1)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Preempted):
        run.close()


def test_a_failed_save_raises_and_is_due_again(tmp_path, monkeypatch):
    def full(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0]))

    run = opened(tmp_path, save=Every(epochs=2), durability="full")
    with monkeypatch.context() as patch:
        patch.setattr(FILES, "rename", full)
        with pytest.raises(SaveError, match="No space left on device"):
            run.report(val_loss=0.5, epoch=2)
    run.report(val_loss=0.5, epoch=3)
    run.close()
    assert names(run) == ["epoch-0003-step-000000000"]


def test_it_counts_as_in_its_loop_until_it_is_closed(tmp_path):
    run = opened(tmp_path)
    run.report(val_loss=0.5, epoch=1)
    with pytest.raises(LockedError):
        opened(tmp_path)
    run.close()
    opened(tmp_path).close()


def test_a_run_that_was_saved_inside_its_data_is_not_pushed_on(tmp_path):
    with Run(tmp_path, state={"w": 0}, save=Every(steps=1), **QUICK) as run:
        for _ in run.epochs(2):
            for _ in run.batches([1, 2, 3]):
                if run.batch == 3:
                    break
            break
    again = opened(tmp_path)
    with pytest.raises(OrderError, match="saved inside epoch 1, after batch 2"):
        again.boundary(epoch=0, step=2)
    again.close()
