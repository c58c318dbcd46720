"""The facts: read only for rules and users."""

from __future__ import annotations

import pytest

from stopctl import Controller, Minimize, Progress, Report, ReportError
from stopctl.core.state import State


def test_progress_is_a_frozen_snapshot():
    controller = Controller(save=None)
    controller.report({"val_loss": 0.5}, epoch=1, step=10, seconds=2, planned=4, lr_drop_pending=True)
    before = controller.progress
    controller.report({"val_loss": 0.4}, epoch=2, step=20, seconds=4)
    assert (before.reports, before.epoch, before.step, before.seconds) == (1, 1, 10, 2.0)
    assert (before.value, before.best, before.best_epoch, before.best_step) == (0.5, 0.5, 1, 10)
    assert (before.planned, before.lr_drop_pending, before.metrics) == (4, True, {"val_loss": 0.5})
    assert (before.saved_epoch, before.saved_step, before.saved_seconds, before.saved_best) == (
        0,
        0,
        0.0,
        None,
    )
    with pytest.raises(AttributeError, match="Progress is read only: best cannot be set"):
        before.best = 0.0
    assert "best=0.5" in repr(before)


def test_passes_are_epochs_where_epochs_are_counted():
    controller = Controller(stop=None, save=None)
    controller.boundary(step=7)
    assert controller.progress.passes == 7
    controller.boundary(epoch=2, step=9)
    assert controller.progress.passes == 2


def test_a_copy_of_the_state_is_independent():
    state = State(Minimize("a"))
    state.memories = [1]
    twin = state.copy()
    state.memories.append(2)
    state.propose()
    state.reports = 4
    assert (twin.memories, twin.in_flight, twin.reports) == ([1], {}, 0)
    assert isinstance(twin, Progress)


def test_a_report_wants_metrics_by_name():
    with pytest.raises(ReportError, match=r"report got \[\]: give metrics by name, such as val_loss=0.3"):
        Report([])
    assert Report({"a": 1}, seconds=3).seconds == 3.0
