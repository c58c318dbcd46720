from __future__ import annotations

import pytest

from stopctl import Minimize
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve
from stopctl.curves.saves import advise_saves


def run(saves, seconds=10.0, unit="epoch"):
    reports = (
        Report({"v": 1.0}, t if unit == "epoch" else 0, 100 * t, seconds * t, planned=400)
        for t in range(1, 5)
    )
    return Curve("run", Minimize("v"), tuple(reports), saves=tuple(saves))


def test_a_save_may_take_its_share_of_the_time():
    found = advise_saves([run([(0.6, 100), (0.7, 100), (5.0, 300)])])
    assert (found.saves, found.took, found.bytes, found.bound) == (3, 0.7, 100, "overhead")
    assert found.seconds == pytest.approx(0.7 / 0.035)
    assert (found.every, found.unit, found.pass_seconds) == (2, "epoch", 10.0)
    assert found.code == "Every(epochs=2) | OnBest()"


def test_youngs_interval_makes_saves_rarer_where_failures_are():
    found = advise_saves([run([(0.5, 1)])], mtbf_hours=1)
    assert found.seconds == pytest.approx((2 * 0.5 * 3600) ** 0.5)
    assert (found.bound, found.every) == ("mtbf", 6)
    assert found.code == "OnBest()"  # the run has 4 epochs, and is saved at its end


def test_loops_that_count_steps_get_steps():
    found = advise_saves([run([(0.7, 1)], unit="step")])
    assert found.code == "Every(steps=200) | OnBest()"
    assert found.pass_seconds == pytest.approx(0.1)


def test_cheap_saves_are_made_every_epoch():
    assert advise_saves([run([(0.01, 1)])]).every == 1


def test_logs_that_tell_nothing_of_saves_give_no_advice():
    assert advise_saves([run([])]) is None
