"""The save rules: propose, then be told."""

from __future__ import annotations

import json
import math

import pytest

from stopctl import (
    Controller,
    Every,
    Maximize,
    Minimize,
    OnBest,
    OrderError,
    Reason,
    ReportError,
    SettingError,
)


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


def by_cost(rule, costs, *, until=1000):
    """The seconds (tested at each one) at which a save was proposed; each costs the next (blocked, took)."""
    controller = Controller(stop=None, save=rule)
    proposed, costs = [], iter(costs)
    for second in range(1, until + 1):
        save = controller.boundary(step=second, seconds=second).save
        if save:
            proposed.append(second)
            blocked, took = next(costs)
            controller.saved(save, blocked=blocked, took=took)
    return proposed


def test_saves_keep_to_their_share_of_the_time_and_come_more_often_when_they_get_cheaper():
    costs = [(5.0, 5.0), (1.0, 1.0), (0.5, 0.5), (20.0, 20.0)]
    assert by_cost(Every(overhead=0.05), costs, until=150) == [1, 101, 121, 131]


def test_where_failures_are_known_young_s_interval_is_the_least():
    costs = [(0.5, 0.5)] * 99
    assert by_cost(Every(overhead=0.5, mtbf_hours=1), costs, until=200) == [1, 61, 121, 181]
    assert by_cost(Every(overhead=0.001, mtbf_hours=1), costs) == [1, 501]


def test_no_save_is_due_before_one_could_be_written():
    assert by_cost(Every(overhead=0.5), [(1.0, 50.0)] * 9, until=120) == [1, 51, 101]


def test_while_a_first_save_is_in_flight_no_other_is_due_by_its_cost():
    controller = Controller(stop=None, save=Every(overhead=0.05))
    save = controller.boundary(step=1, seconds=1).save
    assert str(save) == "a first save, to see what one costs"
    assert controller.progress.saves_in_flight == 1
    assert controller.boundary(step=2, seconds=2).save is None
    controller.save_failed(save)
    save = controller.boundary(step=3, seconds=3).save
    assert save is not None
    controller.saved(save, blocked=0.5)
    assert (controller.progress.save_blocked, controller.progress.save_took) == (0.5, 0.5)
    assert controller.progress.saves_in_flight == 0
    assert controller.boundary(step=4, seconds=12.9).save is None
    assert controller.boundary(step=5, seconds=13).save is not None
    assert controller.boundary(step=6, seconds=100).save is not None  # by the cost of the last that is known


def test_a_driver_that_tells_no_cost_saves_whenever_asked():
    controller = Controller(stop=None, save=Every(overhead=0.05))
    for step in (1, 2, 3):
        controller.saved(controller.boundary(step=step, seconds=step).save)
        assert controller.boundary(step=step, seconds=step + 0.5).save is None  # this state is saved
    assert controller.progress.save_blocked is None


def test_what_a_save_cost_is_known_after_a_resume():
    first = Controller(stop=None, save=Every(overhead=0.05))
    first.saved(first.boundary(step=1, seconds=1).save, blocked=1, took=2)
    later = Controller(stop=None, save=Every(overhead=0.05))
    later.load_state_dict(first.state_dict())
    assert (later.progress.save_blocked, later.progress.save_took) == (1.0, 2.0)
    assert later.boundary(step=2, seconds=20.9).save is None
    assert later.boundary(step=3, seconds=21).save is not None


def test_a_run_that_resumes_from_its_first_save_learns_the_cost_at_the_next_boundary():
    first = Controller(stop=None, save=Every(overhead=0.05))
    state = first.state_dict(counting=first.boundary(step=1, seconds=1).save)
    del state["save_blocked"], state["save_took"]  # as in states that were saved before there were costs
    later = Controller(stop=None, save=Every(overhead=0.05))
    later.load_state_dict(state)
    assert later.boundary(step=1, seconds=2).save is None  # this state is saved
    assert later.boundary(step=2, seconds=3).save is not None


def test_the_reason_tells_the_numbers():
    def told(rule, blocked, took):
        controller = Controller(stop=None, save=rule)
        controller.saved(controller.boundary(step=1, seconds=1).save, blocked=blocked, took=took)
        return str(controller.boundary(step=2, seconds=1e6).save)

    assert (
        told(Every(overhead=0.035), 2.9, 3.5) == "every 82.9 s: saves block 2.9 s, at most 3.5 % of the time"
    )
    assert (
        told(Every(overhead=0.5, mtbf_hours=24), 2.9, 3.5)
        == "every 708 s: saves block 2.9 s, one failure in 24 hours is expected"
    )
    assert told(Every(overhead=0.5), 1, 90) == "every 90 s: saves block 1 s, no sooner than one is written"


@pytest.mark.parametrize("cost", [-1, math.nan, math.inf, True, "1", None])
def test_a_cost_is_a_number_of_seconds(cost):
    controller = Controller(stop=None, save=Every(overhead=0.05))
    save = controller.boundary(step=1, seconds=1).save
    for costs in ({"blocked": cost}, {"blocked": 1.0, "took": cost}):
        if cost is not None:
            with pytest.raises(ReportError, match="give the finite number of seconds it took, >= 0"):
                controller.saved(save, **costs)
    assert controller.progress.saves_in_flight == 1
    controller.saved(save)


def test_rules_by_cost_are_values_that_join_and_are_told_as_written():
    rule = Every(overhead=0.035, mtbf_hours=24) | OnBest()
    assert repr(rule) == "Every(overhead=0.035, mtbf_hours=24) | OnBest()"
    assert eval(repr(rule)) == rule
    assert Every(overhead=0.035) != Every(overhead=0.035, mtbf_hours=24)


def test_a_pass_that_its_report_has_saved_is_not_saved_again_at_the_boundary():
    controller = Controller(stop=None, save=Every(seconds=1))
    controller.saved(controller.report({"val_loss": 0.5}, epoch=1, seconds=1).save)
    assert controller.boundary(epoch=1, seconds=3).save is None
    assert controller.boundary(epoch=2, seconds=3).save is not None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Every(overhead=3.5),
            "Every(overhead=3.5): write a share of the time between 0 and 1, such as overhead=0.035",
        ),
        (
            lambda: Every(overhead=0),
            "Every(overhead=0): write a share of the time between 0 and 1, such as overhead=0.035",
        ),
        (lambda: Every(overhead="a"), "Every(overhead=...): overhead='a': write a finite number"),
        (
            lambda: Every(overhead=0.1, mtbf_hours=0),
            "Every(mtbf_hours=...): mtbf_hours=0: write a number > 0",
        ),
        (
            lambda: Every(mtbf_hours=24),
            "Every(mtbf_hours=24): it goes with overhead=, such as Every(overhead=0.035, mtbf_hours=24)",
        ),
        (
            lambda: Every(epochs=1, overhead=0.1),
            "Every(epochs=1, overhead=0.1): give one unit or overhead=, such as Every(overhead=0.035)",
        ),
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


def test_the_best_of_several_metrics_are_saved_each():
    f1 = Maximize("f1")
    make = lambda: Controller(stop=None, save=OnBest() | OnBest(goal=f1) | OnBest(goal=Minimize("val_loss")))  # noqa: E731
    controller, told = make(), []
    reports = [(0.5, 0.1), (0.4, 0.3), (0.6, 0.3), (0.6, math.nan), (0.6, 0.35), (0.3, 0.2)]
    for epoch, (loss, score) in enumerate(reports, start=1):
        decision = controller.report({"val_loss": loss, "f1": score}, epoch=epoch)
        told.append([] if decision.save is None else [str(cause) for cause in decision.save.causes])
        if decision.save:
            assert controller.current_values == {"Maximize('f1')": score}
            controller.saved(decision.save)
        state = json.loads(json.dumps(controller.state_dict(), allow_nan=False))
        controller = make()
        assert controller.load_state_dict(state) == ()
    assert told == [
        ["new best 0.5", "f1: new best 0.1", "new best 0.5"],
        ["new best 0.4", "f1: new best 0.3", "new best 0.4"],
        [],
        [],
        ["f1: new best 0.35"],
        ["new best 0.3", "new best 0.3"],
    ]
    assert controller.progress.saved_bests == {"Maximize('f1')": 0.35}
    assert controller.explain().splitlines()[2].endswith("f1: the value is 0.2, the best that is saved 0.35")
    controller.saved_best(0.3, {"Maximize('f1')": 0.15})  # the better ones are gone
    assert controller.report({"val_loss": 0.9, "f1": 0.2}, epoch=7).save is not None


def test_a_save_of_another_metric_that_failed_stays_due():
    controller = Controller(stop=None, save=OnBest(goal=Maximize("f1")))
    first = controller.report({"val_loss": 1.0, "f1": 0.5}, epoch=1).save
    assert controller.progress.saved_bests == {"Maximize('f1')": 0.5}
    controller.save_failed(first)
    assert controller.report({"val_loss": 1.0, "f1": 0.4}, epoch=2).save is not None


def test_a_goal_that_ranks_needs_its_metric_and_has_a_warm_up_of_its_own():
    controller = Controller(stop=None, save=None, ranked_by=[Maximize("f1", start_from=1)])
    with pytest.raises(ReportError, match="the report has no 'f1'"):
        controller.report({"val_loss": 1.0})
    controller.report({"val_loss": 1.0, "f1": 0.5}, epoch=1)
    assert controller.current_values == {}
    assert controller.others == (Maximize("f1", start_from=1),)
    controller.report({"val_loss": 1.0, "f1": 0.4}, epoch=2)
    assert controller.current_values == {"Maximize('f1')": 0.4}
    controller.boundary(epoch=3)
    assert controller.current_values == {}
