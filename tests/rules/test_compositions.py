"""All rules in random compositions: equal to the oracle, and unchanged by saving and loading at any point."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_machine import report, shown
from stopctl import Controller, ReportError
from support.oracle import Oracle, build, make_goal
from support.strategies import all_leaves, goals, histories, loss_leaves, save_rules, trees

any_goal = st.tuples(goals, trees(all_leaves))
losses = st.tuples(
    st.sampled_from([("min", "loss"), ("min", "acc")]), trees(all_leaves | loss_leaves | loss_leaves)
)
positive = histories(max_size=40, positive=True)


@given(any_goal | losses, save_rules, positive | histories(), st.sets(st.integers(0, 30), max_size=4))
def test_any_composition_equals_the_oracle_and_survives_its_state(rules, save, history, points):
    goal, stop = rules

    def make():
        return Controller(goal=make_goal(goal), stop=build(stop), save=build(save))

    controller, oracle = make(), Oracle(goal, stop, save)
    for i, told in enumerate(history):
        if i in points:
            text = json.dumps(controller.state_dict(), allow_nan=False)
            controller = make()
            assert controller.load_state_dict(json.loads(text)) == ()
        if oracle.refuses(told):
            before = controller.state_dict()
            with pytest.raises(ReportError):
                report(controller, told)
            assert controller.state_dict() == before
            continue
        decision = report(controller, told)
        oracle.history.append(told)
        expected = oracle.expect()
        assert shown(decision) == (expected.new_best, expected.stop, expected.save)
        if decision.save:
            controller.saved(decision.save)
            oracle.saves.append([len(oracle.history) - 1, "ok"])
        if decision.stop:
            again = make()
            again.load_state_dict(controller.state_dict())
            assert repr(again.stopped) == repr(decision.stop)
            break
