"""ReduceOnPlateau: its formula, its state, and how Patience waits for it."""

from __future__ import annotations

import math

import pytest

from stopctl import After, Controller, Maximize, NonFinite, Patience, Reason, ReduceOnPlateau, SettingError


def drops(values, rule, **settings):
    """The numbers of the reports that drop."""
    controller = Controller(stop=None, save=None, lr=rule, **settings)
    metric = controller.goal.metric
    return [
        i
        for i, v in enumerate(values, start=1)
        if controller.report({metric: v}, epoch=i).lr_factor is not None
    ]


def test_the_formula_by_hand():
    assert drops([1] * 9, ReduceOnPlateau(0.5, patience=3)) == [4, 7]
    assert drops([1] * 9, ReduceOnPlateau(0.5, patience=2, cooldown=2)) == [3, 7]
    assert drops([1] * 9, ReduceOnPlateau(0.5, patience=2, max_drops=1)) == [3]
    assert drops([math.nan] * 4, ReduceOnPlateau(0.5, patience=2)) == [2, 4]
    assert drops([0.5, 0.4, 0.6, 0.6], ReduceOnPlateau(0.5, patience=1), goal=Maximize("acc")) == [2, 4]


def test_a_drop_that_changes_no_rate_is_none():
    lr = ReduceOnPlateau(0.5, patience=2, max_drops=9)
    controller, dropped = Controller(stop=Patience(3), save=None, lr=lr), []
    for i in range(1, 20):
        decision = controller.report({"val_loss": 1.0}, epoch=i, planned=30, can_lower=i <= 5)
        dropped += [i] if decision.lr_factor else []
        if decision.stop:
            break
    assert (dropped, i) == ([3, 5], 6)  # held by what could still come, until nothing can fall
    assert controller.explain().splitlines()[-1].endswith("2 of 9 drops so far; no rate can fall any more")
    again = Controller(stop=None, save=None, lr=lr)
    again.load_state_dict(controller.state_dict())
    assert again.progress.can_lower is False
    assert again.report({"val_loss": 1.0}, epoch=7).lr_factor == 0.5  # a rate was raised by hand


TOO_LATE = [
    (Patience(3), ReduceOnPlateau(0.1, patience=10), True),
    (Patience(3) | NonFinite(), ReduceOnPlateau(0.1, patience=3), True),
    (Patience(3, hold_for_lr=False), ReduceOnPlateau(0.1, patience=9, max_drops=2), True),
    (Patience(3, min_delta=0.1), ReduceOnPlateau(0.1, patience=9, min_delta=0.1), True),
    (Patience(4), ReduceOnPlateau(0.1, patience=3), False),
    (Patience(3), ReduceOnPlateau(0.1, patience=9, max_drops=2), False),  # the stop waits
    (Patience(3) & After(epochs=40), ReduceOnPlateau(0.1, patience=9), False),
    (Patience(3, start_from=20), ReduceOnPlateau(0.1, patience=9), False),
    (Patience(3), ReduceOnPlateau(0.1, patience=9, min_delta=0.5), False),
    (Patience(3, goal=Maximize("acc")), ReduceOnPlateau(0.1, patience=9), False),
    (Patience(epochs=3), ReduceOnPlateau(0.1, patience=9), False),
    (None, ReduceOnPlateau(0.1, patience=9), False),
    (Patience(3), None, False),
]


@pytest.mark.parametrize(("stop", "lr", "late"), TOO_LATE)
def test_a_rule_that_can_never_act_is_told(stop, lr, late):
    doubts = Controller(stop=stop, lr=lr).doubts()
    assert len(doubts) == late
    if late:
        assert doubts[0].startswith(f"{lr!r} never acts: Patience(3")
        assert doubts[0].endswith(
            "give it a patience of less than 3, or max_drops=, so that the stop waits for its drops"
        )


def test_the_decision_tells_the_factor():
    controller = Controller(stop=None, save=None, lr=ReduceOnPlateau(0.2, patience=1))
    assert controller.report({"val_loss": 1.0}).lr_factor is None
    assert controller.report({"val_loss": 1.0}).lr_factor == 0.2


def test_the_memory_is_saved_and_resumed():
    def make():
        return Controller(stop=None, save=None, lr=ReduceOnPlateau(0.5, patience=3, cooldown=2, max_drops=2))

    straight, resumed, seen = make(), make(), []
    for i in range(1, 20):
        a = straight.report({"val_loss": 1.0}, epoch=i)
        b = resumed.report({"val_loss": 1.0}, epoch=i)
        assert a == b
        seen.append(a.lr_factor)
        state = resumed.state_dict()
        resumed = make()
        assert resumed.load_state_dict(state) == ()
    assert sum(factor is not None for factor in seen) == 2


def test_patience_holds_while_a_permitted_drop_could_come():
    controller = Controller(stop=Patience(3), save=None, lr=ReduceOnPlateau(0.5, patience=2, max_drops=2))
    ends = []
    for i in range(1, 30):
        decision = controller.report({"val_loss": 1.0}, epoch=i, planned=30)
        ends.append((decision.lr_factor is not None, decision.stop is not None))
        if decision.stop:
            break
    assert [i for i, (drop, _) in enumerate(ends, start=1) if drop] == [3, 5]
    assert len(ends) == 5  # held at report 4; both drops are spent at report 5


def test_inside_the_first_pass_a_permitted_drop_could_come_and_later_the_pace_tells():
    lr = ReduceOnPlateau(0.5, patience=4, max_drops=9)
    controller = Controller(stop=Patience(1), save=None, lr=lr)
    held = []
    for i in range(1, 12):
        epoch, inside = i // 4, i % 4 != 0
        decision = controller.report({"val_loss": 1.0}, epoch=epoch, planned=3, inside=inside)
        held.append(decision.stop is None)
        if decision.stop:
            break
    # at report i at most 12 - i are left, and a drop takes 4 from the last one: at 5, and at 9 no more
    assert held == [True] * 8 + [False]


def test_patience_does_not_hold_without_a_limit_a_plan_or_time():
    def stop(rule, planned):
        controller = Controller(stop=Patience(3), save=None, lr=rule)
        for i in range(1, 30):
            if controller.report({"val_loss": 1.0}, epoch=i, planned=planned).stop:
                return i
        return None

    assert stop(ReduceOnPlateau(0.5, patience=9), 30) == 4
    assert stop(ReduceOnPlateau(0.5, patience=9, max_drops=5), None) == 4
    assert stop(ReduceOnPlateau(0.5, patience=9, max_drops=5), 5) == 4


def test_a_drop_and_a_stop_at_one_report():
    controller = Controller(stop=Patience(2), save=None, lr=ReduceOnPlateau(0.5, patience=2))
    for _ in range(3):
        decision = controller.report({"val_loss": 1.0})
    assert (decision.stop.reason, decision.lr_factor) == (Reason.PATIENCE, 0.5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ReduceOnPlateau(1.0), "ReduceOnPlateau(...): factor=1.0: write a number > 0 and < 1"),
        (lambda: ReduceOnPlateau(0.1, patience=0), "patience=0: write a whole number >= 1"),
        (lambda: ReduceOnPlateau(0.1, cooldown=-1), "cooldown=-1: write a whole number >= 0"),
        (lambda: ReduceOnPlateau(0.1, min_delta=-1), "ReduceOnPlateau(min_delta=-1): write the gain"),
        (lambda: ReduceOnPlateau(0.1, min_delta_mode="x"), "ReduceOnPlateau(min_delta_mode='x')"),
        (lambda: ReduceOnPlateau(0.1, min_lr=-1), "ReduceOnPlateau(min_lr=-1): write a number >= 0"),
        (lambda: ReduceOnPlateau(0.1, max_drops=0), "max_drops=0: write a whole number >= 1"),
        (lambda: ReduceOnPlateau(0.1, goal="x"), "ReduceOnPlateau(goal='x'): write goal="),
        (
            lambda: Controller(lr=0.1),
            "lr=0.1: write a lr rule, such as lr=ReduceOnPlateau(0.1, patience=3), or None",
        ),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert text in str(caught.value)
