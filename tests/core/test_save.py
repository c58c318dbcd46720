"""The save rules: propose, then be told."""

from __future__ import annotations

import math

import pytest

from stopctl import Controller, Every, Maximize, OnBest, OrderError, Reason, SettingError


def run(save, values, answers=(), goal=None, **counters):
    """The epochs (from 1) at which a save was proposed."""
    controller = Controller(**({"goal": goal} if goal else {}), stop=None, save=save)
    proposed, answers = [], iter(answers)
    for epoch, value in enumerate(values, start=1):
        decision = controller.report({controller.goal.metric: value}, epoch=epoch)
        if decision.save:
            proposed.append(epoch)
            (controller.saved if next(answers, True) else controller.save_failed)(decision.save)
    return proposed


def test_every_saves_at_its_multiples():
    assert run(Every(epochs=3), [1.0] * 10) == [3, 6, 9]


def test_a_failed_save_stays_due():
    assert run(Every(epochs=3), [1.0] * 10, [False, False, True]) == [3, 4, 5, 6, 9]


def test_a_save_by_any_rule_counts():
    assert run(Every(epochs=3) | OnBest(), [1.0, 0.9, 0.8, 0.8, 0.7, 0.8]) == [1, 2, 3, 5, 6]


def test_on_best_beats_the_best_saved_value():
    assert run(OnBest(), [1.0, 1.0, 0.9, math.nan, 0.95, -math.inf, 0.8]) == [1, 3, 7]
    assert run(OnBest(min_delta=0.25), [1.0, 0.8, 0.75, 0.7]) == [1, 4]
    assert run(OnBest(), [0.5, 0.6, 0.6], goal=Maximize("acc")) == [1, 2]


def test_the_best_that_failed_is_replaced_by_the_next_best():
    assert run(OnBest(), [1.0, 0.5, 0.8, 0.7], [True, False]) == [1, 2, 3, 4]


def test_a_conjunction_saves_a_new_best_at_most_every_n_epochs():
    assert run(OnBest() & Every(epochs=3), [9, 8, 7, 6, 7, 7, 5, 4]) == [3, 7]


def test_a_save_in_flight_counts_as_done():
    controller = Controller(stop=None, save=Every(epochs=1) | OnBest())
    first = controller.report({"val_loss": 0.5}, epoch=1).save
    assert controller.progress.saved_best == 0.5
    second = controller.report({"val_loss": 0.6}, epoch=2).save
    assert second.reasons == (Reason.EVERY,)
    controller.saved(second)
    controller.save_failed(first)
    assert controller.progress.saved_best == 0.6
    assert controller.progress.saved_epoch == 2
    assert controller.report({"val_loss": 0.55}, epoch=2).save.reasons == (Reason.BEST,)


def test_each_save_is_answered_once():
    controller = Controller(stop=None, save=Every(epochs=1))
    save = controller.report({"val_loss": 0.5}, epoch=1).save
    controller.saved(save)
    for answer in (controller.saved, controller.save_failed):
        with pytest.raises(OrderError, match="is not in flight: answer each decision.save once"):
            answer(save)
    with pytest.raises(OrderError, match=r"state_dict\(counting=save 1\): that save is not in flight"):
        controller.state_dict(counting=save)
    with pytest.raises(OrderError, match="None is not in flight"):
        controller.saved(None)


def test_late_answers_do_not_move_the_newest_save_back():
    controller = Controller(stop=None, save=Every(epochs=1))
    first = controller.report({"val_loss": 0.5}, epoch=1).save
    second = controller.report({"val_loss": 0.6}, epoch=2).save
    controller.saved(second)
    controller.saved(first)
    assert controller.progress.saved_epoch == 2
    assert controller.progress.saved_best == 0.5


def test_seconds_are_units_too():
    controller = Controller(stop=None, save=Every(minutes=1))
    assert controller.report({"val_loss": 0.5}, seconds=59.9).save is None
    save = controller.report({"val_loss": 0.5}, seconds=60).save
    assert str(save) == "every minute"
    controller.saved(save)
    assert controller.report({"val_loss": 0.5}, seconds=119.9).save is None
    assert controller.report({"val_loss": 0.5}, seconds=130).save is not None


def test_what_the_store_found_replaces_what_the_state_believed():
    controller = Controller(stop=None, save=OnBest())
    controller.saved(controller.report({"val_loss": 0.5}, epoch=1).save)
    controller.saved_best(0.7)
    assert controller.report({"val_loss": 0.6}, epoch=2).save is not None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Every(), "Every(): give exactly one unit, such as Every(epochs=10) or Every(hours=2)"),
        (lambda: Every(epochs=0), "Every(epochs=...): epochs=0: write a whole number >= 1"),
        (lambda: Every(minutes=-1), "Every(minutes=...): minutes=-1: write a number > 0"),
        (lambda: OnBest(min_delta=-1), "OnBest(min_delta=-1): write the gain as a number >= 0"),
        (
            lambda: Controller(save=Every),
            "save=the class Every: write a save rule, such as save=Every(epochs=10), or None",
        ),
        (lambda: Controller(save=10), "save=10: write a save rule, such as save=Every(epochs=10), or None"),
        (
            lambda: Controller(stop=OnBest()),
            "stop=OnBest(): write a stop rule, such as stop=Patience(10), or None",
        ),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == text
