"""The loop boundary: rules that read counters, saves still owed, and what was asked for; never Patience."""

from __future__ import annotations

import pytest

from stopctl import After, Controller, Every, NonFinite, OnBest, Patience, Reason, ReportError, SettingError


def test_counters_rules_are_asked_between_passes_and_patience_is_not():
    controller = Controller(stop=Patience(1) | After(epochs=3), save=Every(epochs=2))
    controller.report({"val_loss": 1.0}, epoch=1)
    assert controller.boundary(epoch=1).stop is None
    decision = controller.boundary(epoch=2)
    assert decision.stop is None
    assert decision.save.reasons == (Reason.EVERY,)
    controller.saved(decision.save)
    decision = controller.boundary(epoch=3)
    assert decision.stop.reason is Reason.AFTER
    assert decision.save.reasons == (Reason.STOP,)


def test_a_conjunction_with_patience_is_not_met_between_passes():
    controller = Controller(stop=Patience(1) & After(epochs=1), save=None)
    controller.report({"val_loss": 1.0}, epoch=0)
    assert controller.boundary(epoch=1).stop is None
    assert controller.report({"val_loss": 1.0}, epoch=2).stop is not None


def test_a_conjunction_of_counters_is_met_between_passes():
    controller = Controller(
        stop=After(epochs=1) & (After(steps=5) | After(seconds=9) | NonFinite()), save=None
    )
    assert controller.boundary(epoch=1, step=4).stop is None
    assert [c.reason for c in controller.boundary(epoch=1, step=5).stop.causes] == [Reason.AFTER] * 2


def test_a_pass_without_a_report_has_no_value():
    controller = Controller(stop=None, save=Every(epochs=1) | OnBest())
    first = controller.report({"val_loss": 1.0}, epoch=1)
    controller.saved(first.save)
    assert controller.current_value == 1.0
    assert controller.boundary(epoch=1).save is None
    assert controller.current_value == 1.0
    second = controller.boundary(epoch=2)
    assert second.save.reasons == (Reason.EVERY,)
    assert controller.current_value is None
    controller.saved(second.save)
    third = controller.report({"val_loss": 1.0}, epoch=2)
    assert third.save is None  # the best saved value is still 1.0


def test_a_failed_every_is_due_again_at_the_boundary():
    controller = Controller(stop=None, save=Every(epochs=2))
    failed = controller.report({"val_loss": 1.0}, epoch=2).save
    controller.save_failed(failed)
    assert controller.boundary(epoch=2).save.reasons == (Reason.EVERY,)


def test_without_retry_only_what_is_owed_is_proposed():
    controller = Controller(stop=After(epochs=4), save=Every(epochs=2))
    controller.save_failed(controller.report({"val_loss": 1.0}, epoch=2).save)
    decision = controller.boundary(epoch=2, retry=False)
    assert (decision.stop, decision.save) == (None, None)
    assert controller.boundary(epoch=4, retry=False).save.reasons == (Reason.STOP,)


def test_the_last_pass_is_saved_even_when_it_reports_nothing():
    controller = Controller(stop=None, save=None)
    assert controller.boundary(epoch=1, planned=2).save is None
    last = controller.boundary(epoch=2, planned=2).save
    assert last.reasons == (Reason.END,)
    assert str(last) == "the last planned pass"
    controller.saved(last)
    assert controller.boundary(epoch=2, planned=2).save is None


def test_the_save_of_a_stop_stays_owed_until_it_is_committed():
    controller = Controller(stop=Patience(1), save=None)
    controller.report({"val_loss": 1.0}, epoch=1)
    decision = controller.report({"val_loss": 1.0}, epoch=2)
    controller.save_failed(decision.save)
    again = controller.boundary(epoch=2)
    assert again.stop is None
    assert again.save.reasons == (Reason.STOP,)
    controller.saved(again.save)
    assert controller.boundary(epoch=2).save is None
    assert controller.stopped == decision.stop


def test_a_requested_stop_takes_effect_at_the_next_report_or_boundary():
    controller = Controller(stop=Patience(9), save=None)
    controller.request_stop("enough seen")
    decision = controller.report({"val_loss": 1.0}, epoch=1)
    assert (decision.stop.reason, str(decision.stop)) == (Reason.REQUESTED, "requested: enough seen")
    assert decision.save.reasons == (Reason.STOP,)
    other = Controller(stop=None, save=None)
    other.request_stop("enough seen")
    assert other.boundary(epoch=1).stop.reason is Reason.REQUESTED
    with pytest.raises(SettingError, match="say why in words"):
        other.request_stop("")


def test_a_requested_stop_is_not_part_of_the_state():
    controller = Controller(stop=Patience(9), save=None)
    controller.request_stop("enough seen")
    controller.report({"val_loss": 1.0}, epoch=1)
    again = Controller(stop=Patience(9), save=None)
    again.load_state_dict(controller.state_dict())
    assert again.stopped is None


def test_preemption_saves_once_and_stops_nothing():
    controller = Controller(stop=Patience(9), save=None)
    decision = controller.report({"val_loss": 1.0}, epoch=1, preempted="SIGTERM")
    assert decision.stop is None
    assert (decision.save.reasons, str(decision.save)) == ((Reason.PREEMPTED,), "preempted by SIGTERM")
    controller.saved(decision.save)
    assert controller.boundary(epoch=1, preempted="SIGTERM").save is None
    assert controller.boundary(epoch=2, preempted="SIGTERM").save is not None


def test_counters_never_go_back_at_a_boundary():
    controller = Controller(save=None)
    controller.boundary(epoch=2, step=7)
    with pytest.raises(ReportError, match=r"step=6 came after step=7"):
        controller.boundary(epoch=2, step=6)
    with pytest.raises(ReportError, match=r"seconds=nan: give a finite number"):
        controller.boundary(seconds=float("nan"))
