"""How often to save: the bounds, their optimum, and the table of docs/choosing.md."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.core.save import Rhythm, lost_share, rhythm

ROOT = Path(__file__).parent.parent.parent
COSTS = {"0.1 s": 0.1, "1 s": 1.0, "10 s": 10.0, "1 min": 60.0, "10 min": 600.0}
FAILURES = {"1 hour": 3600.0, "1 day": 86400.0, "1 week": 7 * 86400.0, "1 month": 30 * 86400.0}
SECONDS = st.floats(1e-6, 1e6)


def test_the_largest_bound_rules():
    assert rhythm(2.0, 3.0, 0.01) == (200.0, "overhead")
    assert rhythm(2.0, 3.0, 0.01, 10_000.0) == (200.0, "overhead")  # both
    assert rhythm(2.0, 3.0, 0.01, 40_000.0) == (400.0, "mtbf")
    assert rhythm(2.0, 500.0, 0.01, 40_000.0) == (500.0, "took")
    assert rhythm(0.0, 0.0, 0.01) == (0.0, "overhead")


@given(SECONDS, SECONDS, st.floats(0.001, 0.999), SECONDS)
def test_saves_block_no_more_than_their_share(blocked, took, overhead, mtbf):
    for found in (rhythm(blocked, took, overhead), rhythm(blocked, took, overhead, mtbf)):
        assert isinstance(found, Rhythm)
        assert blocked / found.seconds <= overhead * (1 + 1e-12)
        assert found.seconds >= took


@pytest.mark.parametrize("blocked", COSTS.values())
@pytest.mark.parametrize("mtbf", FAILURES.values())
def test_no_other_interval_loses_much_less(blocked, mtbf):
    best = rhythm(blocked, 0.0, 0.999999, mtbf).seconds
    assert best == pytest.approx(math.sqrt(2 * blocked * mtbf))
    others = [
        lost_share(max(best * factor, blocked), blocked, mtbf) for factor in (0.25, 0.5, 0.8, 1.25, 2, 4)
    ]
    assert lost_share(best, blocked, mtbf) <= min(others) * 1.02  # Young's is the optimum to first order
    if blocked * 1000 < mtbf:
        assert lost_share(best, blocked, mtbf) == pytest.approx(math.sqrt(2 * blocked / mtbf), rel=0.05)


def test_the_share_that_is_lost_is_that_of_failures_at_random():
    """Against the renewal argument: a segment of T - C useful seconds is tried until T seconds go well."""
    interval, blocked, mtbf = 500.0, 20.0, 1000.0
    well = math.exp(-interval / mtbf)
    until_failure = mtbf - interval * well / (1 - well)  # the mean, given that it comes within the interval
    spent = interval + (1 - well) / well * until_failure
    assert lost_share(interval, blocked, mtbf) == pytest.approx(1 - (interval - blocked) / spent)


def told(seconds):
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def table():
    yield (
        "| a save blocks | 3.5 % of the time | "
        + " | ".join(f"a failure in {name}" for name in FAILURES)
        + " |"
    )
    yield "|---|" + "---:|" * (1 + len(FAILURES))
    for name, blocked in COSTS.items():
        cells = [told(rhythm(blocked, 0.0, 0.035).seconds)]
        for mtbf in FAILURES.values():
            seconds = rhythm(blocked, 0.0, 0.999999, mtbf).seconds
            cells.append(f"{told(seconds)}, {100 * lost_share(seconds, blocked, mtbf):.2g} %")
        yield f"| {name} | " + " | ".join(cells) + " |"


def test_the_table_in_the_docs_is_computed():
    assert "\n".join(table()) in (ROOT / "docs" / "choosing.md").read_text()


if __name__ == "__main__":
    print("\n".join(table()))
