"""The state as strict JSON: what fits, what is noted, what is refused."""

from __future__ import annotations

import copy
import json
import math

import pytest

from stopctl import (
    Controller,
    Diverged,
    Every,
    Maximize,
    Minimize,
    NonFinite,
    OnBest,
    Patience,
    ReduceOnPlateau,
    StateError,
    StopctlError,
    StopPolicy,
    Target,
)  # fmt: skip
from stopctl.core.errors import DamagedStateError
from stopctl.rules import GeneralizationLoss, ProgressQuotient, RemainingGain, Smoothed, SuccessiveRises


def used():
    controller = Controller(stop=Patience(5) | NonFinite(), save=OnBest())
    for epoch, value in enumerate([0.5, 0.4, 0.45], start=1):
        decision = controller.report({"val_loss": value, "other": math.inf}, epoch=epoch, step=epoch * 10)
        if decision.save:
            controller.saved(decision.save, blocked=0.25, took=1.5)
    return controller


def test_the_state_is_strict_json():
    state = used().state_dict()
    assert state == json.loads(json.dumps(state, allow_nan=False))
    assert state == {
        "format": 1,
        "goal": {"metric": "val_loss", "mode": "min"},
        "reports": 3,
        "epoch": 3,
        "step": 30,
        "seconds": 0.0,
        "value": 0.45,
        "best": 0.4,
        "best_epoch": 2,
        "best_step": 20,
        "metrics": {"val_loss": 0.45, "other": "Infinity"},
        "averages": {},
        "planned": None,
        "inside": False,
        "inside_reports": 0,
        "lr_drop_pending": False,
        "lr_drops": [],
        "can_lower": True,
        "reported": True,
        "proposals": 2,
        "save_blocked": 0.25,
        "save_took": 1.5,
        "committed": {
            "reports": 2,
            "epoch": 2,
            "step": 20,
            "seconds": 0.0,
            "value": 0.4,
            "best": 0.4,
        },
        "memories": [
            {
                "policy": "Patience",
                "goal": "Minimize('val_loss')",
                "ordinal": 0,
                "rule": "Patience(5)",
                "memory": {"tuple": [0.4, 1]},
            }
        ],
    }


def test_a_state_inside_an_epoch_keeps_its_place_and_an_older_one_was_between_two():
    controller = used()
    controller.report({"val_loss": 0.3}, epoch=3, step=34, inside=True)
    again = Controller(stop=Patience(5) | NonFinite(), save=OnBest())
    again.load_state_dict(controller.state_dict())
    assert (again.progress.inside, again.progress.inside_reports, again.progress.pace) == (True, 1, (3, 3))
    older = used().state_dict()
    del older["inside"], older["inside_reports"]
    again.load_state_dict(older)
    assert (again.progress.inside, again.progress.pace) == (False, (3, 3))


def test_larger_parameters_keep_the_memory():
    controller = Controller(stop=NonFinite() | Patience(7, min_delta=0.1), save=OnBest())
    assert controller.load_state_dict(used().state_dict()) == (
        "Patience(7, min_delta=0.1) goes on with the memory of Patience(5)",
    )
    assert controller.state_dict()["memories"][0]["memory"] == {"tuple": [0.4, 1]}


def two():
    """Patience(3) has waited for 2 reports by then, Patience(6, min_delta=0.1) for 4."""
    controller = Controller(stop=Patience(3) | Patience(6, min_delta=0.1), save=None)
    for value in (1.0, 0.95, 0.94, 0.96, 0.97):
        controller.report({"val_loss": value})
    return controller.state_dict()


def waits(controller):
    return [one["memory"]["tuple"][1] for one in controller.state_dict()["memories"]]


def test_equal_rules_keep_their_memories_wherever_they_stand():
    swapped = Controller(stop=Patience(6, min_delta=0.1) | Patience(3), save=None)
    assert swapped.load_state_dict(two()) == (
        "Patience(6, min_delta=0.1) keeps its memory: it was number 2 of its kind, now 1",
        "Patience(3) keeps its memory: it was number 1 of its kind, now 2",
    )
    assert waits(swapped) == [4, 2]
    before = Controller(stop=Patience(2, min_delta=0.5) | Patience(3) | Patience(6, min_delta=0.1), save=None)
    assert before.load_state_dict(two())[0] == (
        "Patience(2, min_delta=0.5) joins without a memory: it starts with the next report"
    )
    assert waits(before) == [0, 2, 4]


def test_the_rest_goes_by_class_and_place():
    changed = Controller(stop=Patience(6, min_delta=0.1) | Patience(4), save=None)
    assert changed.load_state_dict(two())[1] == "Patience(4) goes on with the memory of Patience(3)"
    assert waits(changed) == [4, 2]
    fewer = Controller(stop=Patience(9), save=None)
    assert fewer.load_state_dict(two()) == (
        "Patience(9) goes on with the memory of Patience(3)",
        "the memory of Patience(6, min_delta=0.1) is dropped: no rule has it now",
    )


def test_a_state_that_does_not_tell_the_rules_goes_by_class_and_place():
    state = two()
    for one in state["memories"]:
        del one["rule"]
    swapped = Controller(stop=Patience(6, min_delta=0.1) | Patience(3), save=None)
    assert swapped.load_state_dict(state) == ()
    assert waits(swapped) == [2, 4]
    alone = Controller(stop=NonFinite(), save=None)
    assert alone.load_state_dict(state)[0] == (
        "the memory of Patience (Minimize('val_loss')) is dropped: no rule has it now"
    )


def test_the_drops_of_the_learning_rate_are_saved_and_those_of_older_states_are_read():
    def loaded(**changed):
        controller = Controller(stop=Patience(2), save=None)
        controller.load_state_dict({**used().state_dict(), **changed})
        return controller

    for drops in ((3, 8), range(10, 50, 10), ()):
        controller = Controller(stop=Patience(2), save=None)
        controller.report({"val_loss": 1.0}, epoch=1, lr_drops=drops, can_lower=True)
        state = json.loads(json.dumps(controller.state_dict()))
        again = Controller(stop=Patience(2), save=None)
        again.load_state_dict(state)
        assert again.progress.lr_drops == drops
    older = {key: value for key, value in used().state_dict().items() if key not in ("lr_drops", "can_lower")}
    controller.load_state_dict({**older, "lr_drop_pending": 60})
    assert (controller.progress.lr_drops, controller.progress.lr_drop_pending) == ((60,), False)
    controller.load_state_dict({**older, "lr_drop_pending": 0})
    assert (controller.progress.lr_drops, controller.progress.lr_drop_pending) == ((), False)
    controller.load_state_dict({**older, "lr_drop_pending": True})
    assert controller.progress.lr_drop_pending is True
    for wrong in ([0], [3, 3], {"range": [9, 5, -1]}, {"range": "x"}, 7):
        with pytest.raises(StateError):
            loaded(lr_drops=wrong)


def test_smaller_parameters_are_judged_anew():
    controller = Controller(stop=Patience(1), save=OnBest())
    controller.load_state_dict(used().state_dict())
    assert str(controller.stopped) == "no improvement over 0.4 for 1 report"


def test_rules_that_join_or_leave_are_noted():
    controller = Controller(stop=Patience(2, goal=Maximize("acc")), save=None)
    assert controller.load_state_dict(used().state_dict()) == (
        "Patience(2, goal=Maximize('acc')) joins without a memory: it starts with the next report",
        "the memory of Patience(5) is dropped: no rule has it now",
    )
    assert controller.stopped is None


def test_equal_rules_keep_their_memories_apart_by_their_order():
    class Counting(StopPolicy):
        def __init__(self, stride):
            self.stride = stride

        def start(self, now):
            return 0

        def update(self, memory, x, now):
            return memory + self.stride

        def met(self, memory, x, now):
            return False

        def __repr__(self):
            return f"Counting({self.stride})"

    one = Controller(stop=Counting(1) | Counting(10), save=None)
    one.report({"val_loss": 1.0})
    two = Controller(stop=Counting(1) | Counting(10), save=None)
    two.load_state_dict(one.state_dict())
    two.report({"val_loss": 1.0})
    assert [entry["memory"] for entry in two.state_dict()["memories"]] == [2, 20]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.update(format=2), "the saved state has format 2; this version reads format 1"),
        (lambda s: s.pop("format"), "the saved state has format None"),
        (lambda s: s.update(goal={"metric": "acc", "mode": "max"}), "belongs to goal Maximize('acc')"),
        (
            lambda s: s.update(goal={"metric": "val_loss", "mode": "max"}),
            "goal=Minimize('val_loss') was given",
        ),
        (lambda s: s.update(goal=3), "damaged or not from stopctl: TypeError"),
        (lambda s: s.update(epoch=-1), "the saved epoch is -1: a whole number >= 0 was saved there"),
        (lambda s: s.update(reports=True), "the saved reports is True"),
        (lambda s: s.update(step=1.0), "the saved step is 1.0"),
        (lambda s: s.update(reported=1), "the saved reported is 1: true or false was saved there"),
        (lambda s: s.update(best="x"), "best is 'x': a number was saved there"),
        (lambda s: s.update(seconds=None), "seconds is None: a number was saved there"),
        (lambda s: s.update(save_took=-1.0), "the saved save_took is -1.0: a number of seconds >= 0 was"),
        (lambda s: s.update(save_blocked="NaN"), "the saved save_blocked is 'NaN': a number of seconds >= 0"),
        (lambda s: s.update(save_blocked="x"), "save_blocked is 'x': a number was saved there"),
        (
            lambda s: s.pop("committed"),
            "the saved state is damaged or not from stopctl: KeyError('committed')",
        ),
        (lambda s: s.update(memories=3), "damaged or not from stopctl"),
        (lambda s: s.update(planned=0), "the saved planned is 0"),
        (lambda s: s.update(metrics=3), "damaged or not from stopctl"),
        (lambda s: s["memories"][0].update(memory={"set": []}), "not a form that stopctl writes"),
        (lambda s: s["memories"][0].update(ordinal="0"), "the saved ordinal is '0'"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, text):
    state = copy.deepcopy(used().state_dict())
    change(state)
    controller = Controller(goal=Minimize("val_loss"), stop=Patience(5), save=OnBest())
    controller.report({"val_loss": 9.0}, epoch=1)
    before = controller.state_dict()
    with pytest.raises(StateError) as caught:
        controller.load_state_dict(state)
    assert text in str(caught.value)
    assert controller.state_dict() == before


def test_what_is_no_state_is_refused():
    with pytest.raises(StateError, match="format 'text'"):
        Controller().load_state_dict("text")


def everything():
    """Every rule of ours that has a memory, twenty reports on."""
    stop = Patience(5) | Patience(epochs=9) | Target(0.01, times=2) | Diverged(by=3.0) | RemainingGain(0.001)
    stop |= Smoothed(Patience(9), 0.5) | GeneralizationLoss(50) | ProgressQuotient(90, strip=3)
    stop |= SuccessiveRises(3) | Patience(4, goal=Maximize("acc", alpha=0.3))
    save = OnBest() | OnBest(goal=Maximize("acc")) | Every(overhead=0.1) | Every(epochs=3)
    lr = ReduceOnPlateau(0.1, patience=3, max_drops=2)
    return Controller(stop=stop, save=save, lr=lr)


def told(controller, epoch):
    metrics = {
        "val_loss": 1.0 / epoch + 0.01 * (epoch % 3 > 0),
        "acc": 0.3 + epoch / 100,
        "loss": 1.0 / epoch,
    }
    more = {"seconds": float(epoch), "planned": 40, "lr_drops": range(20, 40, 10)}
    return controller.report(metrics, epoch=epoch, step=10 * epoch, **more)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else list(enumerate(value))
        for key, inner in items if len(items) < 12 or path[:1] != ("memories",) else items[:1]:
            yield from places(inner, (*path, key))


def test_wrong_values_in_every_place_are_refused_or_gone_on_with():
    controller = everything()
    for epoch in range(1, 21):
        if save := told(controller, epoch).save:
            controller.saved(save, blocked=0.1, took=0.2)
    assert controller.stopped is None
    text = json.dumps(controller.state_dict())
    wrongs = [
        None,
        True,
        -1,
        2**53,
        2**63,
        10**400,
        1e-320,
        "NaN",
        [],
        {"tuple": []},
        {"range": [1, 10**30, 1]},
    ]
    refused = 0
    for path in list(places(json.loads(text)))[1:]:
        for wrong in wrongs:
            state = inner = json.loads(text)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = wrong
            try:
                controller.load_state_dict(state)
                controller.explain()
                controller.state_dict(counting=controller.propose("by hand"))
                if controller.stopped is None:
                    told(controller, 21)
            except StopctlError as error:
                refused += isinstance(error, DamagedStateError)
    assert refused > 1000


@pytest.mark.parametrize(
    ("rule", "memory"),
    [
        (Patience(5), [0.4, 1]),
        (Patience(5), {"tuple": [[], 1]}),
        (Patience(epochs=5), {"tuple": [0.4, 1, {"str": "epoch"}, True]}),
        (Smoothed(Patience(5), 0.5), {"tuple": [0.4]}),
        (GeneralizationLoss(5), {"tuple": [0.0]}),
        (ProgressQuotient(5), {"tuple": [0.4, 0, 0.0, 0.4]}),
        (RemainingGain(0.05), [None, 0, 0, 0, 0]),
        (RemainingGain(0.05), {"tuple": []}),
        (RemainingGain(0.05), [10**9, [0.5, 0.4, 0.3], 0.3, 1, 0, 0, [], [], None]),
    ],
)
def test_a_memory_that_its_rule_does_not_save_is_damage(rule, memory):
    controller = Controller(stop=rule)
    controller.report({"val_loss": 0.5, "loss": 0.5}, epoch=1, step=1, planned=20)
    state = controller.state_dict()
    state["memories"][0]["memory"] = memory
    before = controller.state_dict()
    with pytest.raises(DamagedStateError, match="the rule saves no such one"):
        controller.load_state_dict(state)
    assert controller.state_dict() == before
