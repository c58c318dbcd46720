"""The golden traces through EarlyStopper and Controller; and the traces themselves against the oracle."""

from __future__ import annotations

import pytest

from stopctl import Controller, EarlyStopper
from support import traces
from support.oracle import build, make_goal

TRACES = traces.load()
each = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)


def test_there_are_traces():
    assert len(TRACES) >= 15
    assert sum(trace["by"] == "hand" for trace in TRACES.values()) >= 5


@each
def test_the_expected_decisions_are_the_oracles(trace):
    assert trace["expected"] == traces.expected(trace)


@each
def test_early_stopper(trace):
    stopper = EarlyStopper(**trace["stopper"])
    for value, expected in zip(trace["values"], trace["expected"], strict=False):
        shown = traces.shown(stopper.update(value))
        assert (shown["new_best"], shown["stop"]) == (expected["new_best"], expected["stop"])
    assert (stopper.stopped is not None) == bool(expected["stop"])


@each
def test_controller(trace):
    goal, stop, save = traces.rules(trace)
    controller = Controller(goal=make_goal(goal), stop=build(stop), save=build(save))
    decisions = []
    for epoch, value in enumerate(trace["values"], start=1):
        decision = controller.report({"val_loss": value}, epoch=epoch, planned=len(trace["values"]))
        decisions.append(traces.shown(decision))
        if decision.save:
            controller.saved(decision.save)
        if decision.stop:
            break
    assert decisions == trace["expected"]
