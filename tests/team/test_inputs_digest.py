"""Whether ranks have decided alike, and where not."""

from __future__ import annotations

import pytest

from stopctl import Controller, Patience
from stopctl.team.inputs import digest, disagreement, state_of


def reported(*values, stop=None):
    controller = Controller(stop=stop or Patience(2))
    for epoch, value in enumerate(values, 1):
        controller.report({"val_loss": value}, epoch=epoch)
    return controller


def test_equal_states_have_equal_digests_and_others_not():
    same = [digest(state_of(reported(0.5, 0.6))) for _ in range(2)]
    assert same[0] == same[1]
    assert len(same[0]) == 32
    assert digest(state_of(reported(0.5, 0.7))) != same[0]


def test_a_stop_is_part_of_it():
    stopped, other = reported(0.5, 0.6), reported(0.5, 0.6)
    stopped.request_stop("enough")
    for controller in (stopped, other):
        controller.boundary(epoch=2)
    assert digest(state_of(stopped)) != digest(state_of(other))
    assert "stopped is requested: enough on rank 0, None on rank 1" in str(
        disagreement("report() in epoch 3", [state_of(stopped), state_of(other)])
    )


def test_a_rule_is_part_of_it():
    two, three = reported(0.5, 0.6), reported(0.5, 0.6, stop=Patience(3))
    assert digest(state_of(two)) != digest(state_of(three))
    assert "Patience(2) on rank 0, Patience(3) on rank 1" in str(
        disagreement("report() in epoch 3", [state_of(two), state_of(three)])
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        ({"a": 1}, {"a": 2}, "a is 1 on rank 0, 2 on rank 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is nothing on rank 0, 2 on rank 2"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 3}]}, "a/0/b is 1 on rank 0, 3 on rank 2"),
        ({"a": [1]}, {"a": [1, 2]}, r"a is [1] on rank 0, [1, 2] on rank 2"),
        ({"a": 1}, {"a": 1}, "no longer when asked how"),
    ],
)
def test_the_first_difference_is_named(ours, theirs, text):
    assert text in str(disagreement("here", [ours, ours, theirs]))
