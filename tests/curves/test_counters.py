from __future__ import annotations

import pytest

from stopctl.curves.counters import Counters, counters_of, is_counter
from stopctl.curves.recording import Line


def lines(**columns):
    return [Line(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    "name",
    ["Epoch", "step", "global_step", "iter", "Iteration", "training_iteration", "trainer/global_step", "_step", "round",
     "total timesteps", "time", "lr", ""],
)  # fmt: skip
def test_names_of_counters_are_no_metrics_whatever_their_case(name):
    assert is_counter(name)
    assert not is_counter(f"{name}_loss")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"Epoch": [1.0, 2.0], "STEP": [10.0, 20.0]}, Counters("Epoch", "STEP")),
        ({"epoch": [0.5, 1.0], "step": [5.0, 10.0]}, Counters(None, "step")),
        ({"epoch": [0.5, 1.0]}, Counters(fraction="epoch")),
        ({"epoch": [3.0, 3.0], "step": [5.0, 10.0]}, Counters(None, "step")),
        ({"epoch": [1.0, -2.0]}, Counters(fraction="epoch")),
        ({"epoch": ["a", "b"]}, Counters()),
        ({"epoch": [1.0, None, 2.0]}, Counters("epoch")),
        ({"epoch": [1.0, None, None]}, Counters()),
        ({"epoch": [1.0, None, 2.0], "epochs": [1.0, 2.0, 3.0]}, Counters("epochs")),
        ({"step": [1.0, 2.0, 1.0], "iter": [1.0, 2.0, 3.0]}, Counters(None, "iter")),
        ({"step": [1.0, 2.0], "time": [1.5, 3.0]}, Counters(None, "step", "time")),
        ({"step": [1.0, 2.0], "time": ["04:39", "04:36"]}, Counters(None, "step")),
    ],
)
def test_a_counter_is_whole_moves_and_is_there(columns, found):
    assert counters_of(lines(**columns)) == found


def test_a_clock_rises_and_may_begin_anew():
    assert counters_of(lines(time=[1.0, 2.0, 0.5, 3.0])).seconds == "time"
    still = counters_of(lines(time=[0.3, 0.2, 0.3, 0.2]))
    assert (still.seconds, still.clock) == (None, "'time' does not rise from row to row, so it is no clock")
    both = counters_of(lines(time=[0.3, 0.2, 0.3], total_time=[1.0, 2.0, 3.0]))
    assert (both.seconds, both.clock) == ("total_time", "")
