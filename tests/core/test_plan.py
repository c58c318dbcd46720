"""explain(): every rule, and how close it is to being met."""

from __future__ import annotations

from stopctl import (
    After,
    Controller,
    Diverged,
    Every,
    Maximize,
    NonFinite,
    OnBest,
    Patience,
    ReduceOnPlateau,
    StopPolicy,
    Target,
)
from stopctl.rules import GeneralizationLoss, ProgressQuotient, RemainingGain, Smoothed, SuccessiveRises


class Odd(StopPolicy):
    def met(self, memory, x, now):
        return False

    def __repr__(self):
        return "Odd()"


def everything():
    stop = (
        Patience(9, min_delta=0.01)
        | NonFinite()
        | Target(0.1)
        | Diverged(9.0)
        | After(hours=2)
        | RemainingGain(0.05)
        | GeneralizationLoss(50)
        | ProgressQuotient(5)
        | SuccessiveRises(3)
        | Smoothed(Patience(5), 0.5)
        | Odd()
    )
    rate = ReduceOnPlateau(0.1, patience=2, max_drops=2, cooldown=1)
    return Controller(
        stop=stop, save=Every(epochs=10) | Every(overhead=0.05) | OnBest(min_delta=0.5), lr=rate
    )


def test_before_the_first_report():
    lines = everything().explain().splitlines()
    assert lines[0] == "0 reports of val_loss, step 0; no finite value yet; goes on"
    assert lines[1] == "Patience(9, min_delta=0.01): waits for its first report"
    assert lines[5] == "After(hours=2): 0 of 2 hours"
    assert lines[13] == "Every(overhead=0.05): what a save costs is not known yet (met)"


def test_inside_the_first_epoch_the_plan_is_one_of_epochs():
    controller = Controller(stop=None, save=None)
    controller.report({"val_loss": 0.5}, epoch=0, step=40, planned=50, inside=True)
    assert controller.explain().startswith("1 report of val_loss, epoch 0 of 50, step 40; best 0.5")


def test_in_the_middle():
    controller = everything()
    for i, value in enumerate([0.5, 0.4, 0.5, 0.5], start=1):
        decision = controller.report(
            {"val_loss": value, "loss": value}, epoch=i, step=10 * i, seconds=60.0 * i, planned=50
        )
        if decision.save:
            controller.saved(decision.save, blocked=6.0)
    assert controller.explain().splitlines() == [
        "4 reports of val_loss, epoch 4 of 50, step 40; best 0.4 in epoch 2, step 20; goes on",
        "Patience(9, min_delta=0.01): 2 of 9 reports without improvement over 0.4 by 0.01; held while a drop of the "
        "learning rate is to come",
        "NonFinite(): the value is 0.5",
        "Target(0.1): the value is 0.5, the target 0.1",
        "Diverged(9.0): the value is 0.5, the limit 9",
        "After(hours=2): 0.0666667 of 2 hours",
        "RemainingGain(0.05): no verdict before more than 15 finite values are there (4 so far)",
        "GeneralizationLoss(50): 25 % above the best 0.4, the limit is 50 %",
        "ProgressQuotient(5): loss of generalization 25 %, progress of training 187.5 per mille, the limit of their "
        "ratio is 5; 4 of 5 reports of this strip",
        "SuccessiveRises(3): 0 of 3 rises in a row; 4 of 5 reports of this strip",
        "Smoothed(Patience(5), 0.5): 2 of 5 reports without improvement over 0.45; held while a drop of the learning "
        "rate is to come",
        "Odd(): no figures",
        "Every(epochs=10): due next at epoch 10",
        "Every(overhead=0.05): every 120 s: saves block 6 s, at most 5 % of the time; 60 s since the newest",
        "OnBest(min_delta=0.5): the value is 0.5, the best that is saved 0.5, to be beaten by 0.5",
        "ReduceOnPlateau(0.1, patience=2, cooldown=1, max_drops=2): 2 of 2 reports without improvement over 0.4; "
        "1 of 2 drops so far; cooling down for 1 report (met)",
    ]


def test_a_verdict_and_what_is_held():
    controller = Controller(stop=RemainingGain(0.05) | Patience(3), save=None)
    for i in range(1, 13):
        decision = controller.report({"val_loss": 2.0**-i}, epoch=i, planned=20, lr_drops=(15,))
    lines = controller.explain().splitlines()
    assert decision.stop is None
    assert lines[1] == (
        "RemainingGain(0.05): at the present rate 25 % would still be won, the limit is 5 %; 80 % sure that at most "
        "60 % of the gain is left"
    )
    assert lines[2] == "Patience(3): 0 of 3 reports without improvement over 0.000244141; held until epoch 15"


def test_after_the_stop_and_with_another_metric():
    controller = Controller(stop=Patience(1, goal=Maximize("acc")), save=None)
    for acc in (0.5, 0.5):
        controller.report({"val_loss": 1.0, "acc": acc})
    assert controller.explain().splitlines() == [
        "2 reports of val_loss, step 0; best 1 in epoch 0, step 0; stopped: acc: no improvement over 0.5 for 1 report",
        "Patience(1, goal=Maximize('acc')): acc: 1 of 1 report without improvement over 0.5 (met)",
    ]


def test_a_rule_whose_metric_has_not_come_yet():
    controller = Controller(stop=Patience(3), save=None)
    controller.report({"val_loss": float("nan")})
    other = Controller(stop=Patience(3) | Patience(2, goal=Maximize("acc")), save=None)
    other.load_state_dict(controller.state_dict())
    assert other.explain().splitlines()[1:] == [
        "Patience(3): 1 of 3 reports without a finite value",
        "Patience(2, goal=Maximize('acc')): waits for its first report",
    ]
