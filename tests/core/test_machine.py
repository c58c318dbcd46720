"""advance(): the fold equals the oracle; saving, loading, mirroring and stopping keep their promises."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Controller, Every, Minimize, OnBest, OrderError, Patience, ReportError, StopPolicy
from stopctl.core.machine import TABLE, Phase, advance, begin, refuse_after_stop
from stopctl.core.plan import Plan
from stopctl.core.progress import Report
from support.oracle import Oracle, build, make_goal
from support.strategies import goals, histories, mostly_finite, save_rules, stop_rules

answers = st.lists(st.sampled_from(["ok", "failed", "late ok", "late failed", "flight"]), max_size=30)


def report(controller, told):
    return controller.report(
        told.metrics,
        epoch=told.epoch,
        step=told.step,
        seconds=told.seconds,
        planned=told.planned,
        lr_drop_pending=told.lr,
        lr_drops=told.drops,
        inside=told.inside,
    )


def shown(decision):
    stop = [] if decision.stop is None else [cause.reason.value for cause in decision.stop.causes]
    save = [] if decision.save is None else [reason.value for reason in decision.save.reasons]
    return decision.new_best, stop, save


class Driver:
    """Feeds a controller and the oracle side by side, answering proposals now or one report later."""

    def __init__(self, goal, stop, save, answers):
        self.make = lambda: Controller(goal=make_goal(goal), stop=build(stop), save=build(save))
        self.controller = self.make()
        self.oracle = Oracle(goal, stop, save)
        self.answers = iter(answers)
        self.late = []

    def settle(self, save, entry, how):
        if how == "ok":
            self.controller.saved(save)
        else:
            self.controller.save_failed(save)
        entry[1] = how

    def feed(self, told):
        for save, entry, how in self.late:
            self.settle(save, entry, how)
        self.late = []
        decision = report(self.controller, told)
        self.oracle.history.append(told)
        expected = self.oracle.expect()
        if decision.save is not None:
            entry = [len(self.oracle.history) - 1, "flight"]
            self.oracle.saves.append(entry)
            how = next(self.answers, "ok")
            if how.startswith("late "):
                self.late.append((decision.save, entry, how[5:]))
            elif how != "flight":
                self.settle(decision.save, entry, how)
        return decision, expected


@given(goals, stop_rules, save_rules, histories(), answers)
def test_the_fold_equals_the_oracle(goal, stop, save, history, answers):
    driver = Driver(goal, stop, save, answers)
    for told in history:
        decision, expected = driver.feed(told)
        assert shown(decision) == (expected.new_best, expected.stop, expected.save)
        if decision.stop is not None:
            assert driver.controller.stopped == decision.stop
            break
    finite = [x for x in driver.oracle.series(None) if math.isfinite(x)]
    sign = 1.0 if goal[0] == "min" else -1.0
    assert driver.controller.progress.best == (sign * min(finite) if finite else None)


@given(goals, stop_rules, save_rules, histories(), answers, st.sets(st.integers(0, 25), max_size=4))
def test_saving_and_loading_the_state_at_any_point_changes_no_later_decision(
    goal, stop, save, history, answers, points
):
    undisturbed = Driver(goal, stop, save, [a.removeprefix("late ") for a in answers if a != "flight"])
    resumed = Driver(goal, stop, save, [a.removeprefix("late ") for a in answers if a != "flight"])
    for i, told in enumerate(history):
        if i in points:
            text = json.dumps(resumed.controller.state_dict(), allow_nan=False)
            resumed.controller = resumed.make()
            assert resumed.controller.load_state_dict(json.loads(text)) == ()
            assert resumed.controller.stopped is None
            assert json.dumps(resumed.controller.state_dict(), allow_nan=False) == text
        a, _ = undisturbed.feed(told)
        b, _ = resumed.feed(told)
        assert repr(a) == repr(b)  # repr: NaN is not equal to itself
        if a.stop is not None:
            again = resumed.make()
            again.load_state_dict(resumed.controller.state_dict())
            assert repr(again.stopped) == repr(a.stop)
            break


@given(goals, stop_rules, save_rules, histories(), answers)
def test_the_state_written_into_a_checkpoint_counts_that_checkpoint(goal, stop, save, history, answers):
    one = Driver(goal, stop, save, [])
    for told in history:
        decision = report(one.controller, told)
        if decision.save is not None:
            counted = one.controller.state_dict(counting=decision.save)
            one.controller.saved(decision.save)
            assert counted == one.controller.state_dict()
        if decision.stop is not None:
            break


def mirrored_goal(goal):
    return ("max" if goal[0] == "min" else "min", goal[1])


def mirrored(rule):
    if rule is None:
        return None
    kind, *args = rule
    if kind in ("any", "all"):
        return (kind, [mirrored(part) for part in args[0]])
    if kind in ("after", "every", "best"):
        return rule
    options = dict(args[-1])
    if options.get("goal"):
        options["goal"] = mirrored_goal(options["goal"])
    if options.get("baseline") is not None:
        options["baseline"] = -options["baseline"]
    return (kind, *(None if x is None else -x for x in args[:-1]), options)


@given(goals, stop_rules, save_rules, histories())
def test_maximize_is_exactly_minimize_of_the_negated_values(goal, stop, save, history):
    one = Driver(goal, stop, save, [])
    other = Driver(mirrored_goal(goal), mirrored(stop), mirrored(save), [])
    for told in history:
        flipped = type(told)(
            {name: -value for name, value in told.metrics.items()},
            *(told.epoch, told.step, told.seconds, told.planned, told.lr, told.inside),
        )
        a, _ = one.feed(told)
        b, _ = other.feed(flipped)
        assert shown(a) == shown(b)
        if a.stop is not None:
            break


@given(st.lists(mostly_finite, min_size=1, max_size=30), st.integers(1, 4))
def test_the_stop_is_absorbing(values, patience):
    controller = Controller(goal=Minimize("loss"), stop=Patience(patience), save=None)
    for i, value in enumerate(values, start=1):
        decision = controller.report({"loss": value}, epoch=i)
        if decision.stop is not None:
            before = controller.state_dict()
            with pytest.raises(OrderError, match=rf"report {i + 1} \(loss=0.0\) came after the stop"):
                controller.report({"loss": 0.0}, epoch=i + 1)
            assert controller.state_dict() == before
            break


@given(st.lists(st.integers(0, 4), max_size=40), st.lists(st.booleans(), max_size=40), st.integers(1, 7))
def test_every_never_misses_a_multiple(strides, oks, n):
    controller = Controller(stop=None, save=Every(steps=n))
    step, last_ok, oks = 0, 0, iter(oks)
    for stride in strides:
        step += stride
        decision = controller.report({"val_loss": 1.0}, step=step)
        assert (decision.save is not None) == (step // n > last_ok // n)
        if decision.save is not None:
            if next(oks, True):
                controller.saved(decision.save)
                last_ok = step
            else:
                controller.save_failed(decision.save)


def test_nothing_to_say_is_one_shared_constant():
    controller = Controller(stop=Patience(5), save=None)
    controller.report({"val_loss": 1.0})
    assert controller.report({"val_loss": 2.0}) is controller.report({"val_loss": 2.0})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"metrics": {"loss": 1.0, "acc": 0.5}},
            "the report has no 'val_loss', which a rule watches; it has: acc, loss: "
            'write goal=Minimize("loss")',
        ),
        ({"metrics": {"f1": 1.0, "x": 2.0}}, 'it has: f1, x: write goal=Maximize("f1")'),
        ({"metrics": {"x": 1.0}}, 'it has: x: write goal=Minimize("x")'),
        ({"metrics": {}}, "report got {}: give metrics by name, such as val_loss=0.3"),
        ({"epoch": 2}, "epoch=2 came after epoch=3: counters of completed work never go back"),
        ({"step": 9}, "step=9 came after step=10"),
        ({"seconds": 1.0}, "seconds=1.0 came after seconds=2.0"),
        ({"epoch": -1}, "epoch=-1: counters are whole numbers >= 0 of what is completed"),
        ({"epoch": True}, "epoch=True: counters"),
        ({"step": 1.5}, "step=1.5: counters"),
        ({"planned": 0}, "planned=0: counters are whole numbers >= 1"),
        ({"seconds": math.nan}, "seconds=nan: give the finite number of seconds"),
        ({"seconds": "1"}, "seconds='1': give"),
    ],
)
def test_a_refused_report_changes_nothing(fields, text):
    controller = Controller(save=None)
    controller.report({"val_loss": 1.0}, epoch=3, step=10, seconds=2.0)
    before = controller.state_dict()
    with pytest.raises(ReportError) as caught:
        controller.report(**{"metrics": {"val_loss": 0.5}, **fields})
    assert text in str(caught.value)
    assert controller.state_dict() == before


class Refusing(StopPolicy):
    """Refuses values above one, after it has counted them."""

    def start(self, now):
        return [0]

    def update(self, memory, x, now):
        if x > 1:
            raise ValueError(f"{x} is above one")
        return [memory[0] + 1]

    def met(self, memory, x, now):
        return False


def test_a_report_that_a_users_rule_refuses_changes_nothing():
    plan = Plan(Minimize("loss"), Patience(3) | Refusing(), OnBest())
    state = begin(plan)
    advance(plan, state, Report({"loss": 1.0}))
    before = state.copy()
    with pytest.raises(ValueError, match="2.0 is above one"):
        advance(plan, state, Report({"loss": 2.0}))
    assert repr(state) == repr(before)
    assert state.memories == before.memories == [(1.0, 0), [1], None]


def test_the_lifecycle_table_names_every_call_and_phase():
    calls = {"report", "boundary", "request_stop", "propose", "saved", "save_failed"}
    assert set(TABLE) == calls | {"state_dict", "load_state_dict"}
    assert all(set(row) == set(Phase) for row in TABLE.values())
    assert all(callable(getattr(Controller, call)) for call in TABLE)


def test_the_lifecycle_table_is_what_the_controller_does():
    def call(controller, save, name):
        arguments = {
            "report": ({"val_loss": 2.0},),
            "boundary": (),
            "request_stop": ("enough",),
            "propose": ("now",),
            "saved": (save,),
            "save_failed": (save,),
            "state_dict": (),
            "load_state_dict": (controller.state_dict(),),
        }[name]
        getattr(controller, name)(*arguments)

    for name, row in TABLE.items():
        for phase, accepted in row.items():
            controller = Controller(stop=Patience(1), save=Every(epochs=1))
            save = controller.report({"val_loss": 1.0}, epoch=1).save
            if phase is Phase.STOPPED:
                assert controller.report({"val_loss": 1.0}, epoch=1).stop is not None
            if accepted:
                refuse_after_stop(name, controller.stopped, "a call")
                call(controller, save, name)
            else:
                with pytest.raises(OrderError):
                    call(controller, save, name)
