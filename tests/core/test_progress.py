"""The facts: read only for rules and users."""

from __future__ import annotations

import pytest

from stopctl import Controller, Minimize, Progress, Reason, Report, ReportError
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


def test_inside_the_first_epoch_no_pass_is_completed_whatever_the_step():
    controller = Controller(stop=None, save=None)
    decision = controller.boundary(epoch=0, step=40, planned=5, inside=True)
    assert (decision.save, controller.progress.passes, controller.progress.inside) == (None, 0, True)
    assert controller.report({"val_loss": 1.0}, epoch=0, step=50, planned=5, inside=True).save is None
    assert controller.boundary(epoch=5, step=60, planned=5).save.reasons == (Reason.END,)
    assert (controller.progress.passes, controller.progress.inside) == (5, False)


def test_the_pace_is_the_same_inside_a_pass_and_at_its_end():
    controller = Controller(stop=None, save=None)
    paces = []
    for epoch in range(3):
        for quarter in range(1, 4):
            controller.report({"val_loss": 1.0}, epoch=epoch, step=4 * epoch + quarter, inside=True)
            paces.append(controller.progress.pace)
        controller.report({"val_loss": 1.0}, epoch=epoch + 1, step=4 * epoch + 4)
        paces.append(controller.progress.pace)
    assert paces[:4] == [(0, 0), (0, 0), (0, 0), (4, 1)]
    assert {reports / passes for reports, passes in paces[3:]} == {4.0}


def test_the_pace_of_reports_that_began_in_this_pass_is_at_least_theirs():
    controller = Controller(stop=None, save=None)
    controller.boundary(epoch=2, step=20)
    for i in range(1, 4):
        controller.report({"val_loss": 1.0}, epoch=2, step=20 + i, inside=True)
    assert controller.progress.pace == (3, 3)
    assert controller.progress.inside_reports == 3
    controller.boundary(epoch=3, step=24, inside=True)  # an epoch later, without a call at its end
    assert (controller.progress.inside_reports, controller.progress.pace) == (0, (3, 3))


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


@pytest.mark.parametrize(
    "drops", [(0,), (3, 3), (5, 2), (1.5,), (True,), range(0, 9, 3), range(9, 0, -3), "3", 3]
)
def test_drops_are_passes_ascending(drops):
    with pytest.raises(ReportError, match="write the passes after which the rate drops"):
        Report({"val_loss": 1.0}, lr_drops=drops)


def test_drops_are_a_tuple_or_a_range():
    assert Report({"val_loss": 1.0}, lr_drops=[30, 60]).lr_drops == (30, 60)
    assert Report({"val_loss": 1.0}, lr_drops=range(30, 90, 30)).lr_drops == range(30, 90, 30)
    assert Report({"val_loss": 1.0}, lr_drops=range(9, 9)).lr_drops == ()
    with pytest.raises(ReportError, match=r"write True or False, and passes as lr_drops=\(30, 60\)"):
        Report({"val_loss": 1.0}, lr_drop_pending=60)
