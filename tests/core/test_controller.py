"""Controller: defaults, counters, and the order of calls."""

from __future__ import annotations

import pytest

from stopctl import Controller, Minimize, OrderError, Patience, Reason


def test_the_defaults_are_those_of_the_documents():
    controller = Controller()
    assert (controller.goal, controller.metrics) == (Minimize("val_loss"), ("val_loss",))
    first = controller.report({"val_loss": 0.5}, epoch=1)
    assert (first.new_best, first.stop, first.save.reasons) == (True, None, (Reason.EVERY, Reason.BEST))
    for epoch in range(2, 12):
        decision = controller.report({"val_loss": 0.5}, epoch=epoch)
    assert decision.stop.reason is Reason.PATIENCE
    assert controller.stopped is decision.stop


def test_none_means_no_rule():
    controller = Controller(stop=None, save=None)
    for epoch in range(1, 100):
        decision = controller.report({"val_loss": float("nan")}, epoch=epoch)
        assert (decision.stop, decision.save, decision.new_best) == (None, None, False)


def test_counters_that_are_not_given_stay():
    controller = Controller(save=None)
    controller.report({"val_loss": 1.0}, epoch=2, step=20, seconds=3.0)
    controller.report({"val_loss": 1.0})
    controller.boundary()
    progress = controller.progress
    assert (progress.reports, progress.epoch, progress.step, progress.seconds) == (2, 2, 20, 3.0)


def test_it_stands_at_a_report_until_the_counters_go_on():
    controller = Controller(save=None)
    assert not controller.at_report
    controller.report({"val_loss": 1.0}, epoch=2, step=20)
    controller.boundary(epoch=2, step=20)
    assert controller.at_report
    again = Controller(save=None)
    again.load_state_dict(controller.state_dict())
    assert again.at_report
    controller.boundary(epoch=2, step=21, inside=True)
    assert not controller.at_report


def test_ids_of_proposals_are_never_used_twice():
    controller = Controller(stop=None)
    saves = [controller.report({"val_loss": 1.0}, epoch=epoch).save for epoch in (1, 2)]
    named = controller.propose("before-unfreezing")
    assert [save.id for save in (*saves, named)] == [1, 2, 3]
    assert str(named) == "requested: before-unfreezing"
    again = Controller(stop=None)
    again.load_state_dict(controller.state_dict())
    assert again.propose("later").id == 4


def test_a_save_from_before_loading_is_not_in_flight_any_more():
    controller = Controller(stop=None)
    save = controller.report({"val_loss": 1.0}, epoch=1).save
    controller.load_state_dict(controller.state_dict())
    with pytest.raises(OrderError, match="not in flight"):
        controller.saved(save)


def test_a_report_after_the_stop_names_report_and_reason():
    controller = Controller(stop=Patience(1), save=None)
    controller.report({"val_loss": 1.0})
    controller.report({"val_loss": 1.0})
    with pytest.raises(OrderError) as caught:
        controller.report({"val_loss": 0.5, "acc": 1})
    assert str(caught.value).startswith(
        "report 3 (val_loss=0.5, acc=1) came after the stop (no improvement over 1 for 1 report): leave the loop"
    )
