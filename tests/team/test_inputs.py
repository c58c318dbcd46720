"""What ranks tell each other: the rhythm of the exchanges, and a run alone that tells nobody."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Controller
from stopctl.team.inputs import EVERY, Alone, Counters, Now, Rhythm, Sharing


def test_alone_the_own_clock_and_signal_count(monkeypatch):
    clock, watch = iter([10.0, 13.5, 14.0]), SimpleNamespace(came=None)
    monkeypatch.setattr("stopctl.team.inputs.time", SimpleNamespace(monotonic=lambda: next(clock)))
    controller = Controller()
    inputs = Alone(controller, "mean", 100.0, watch)
    assert (inputs.now(), inputs.due(7)) == (Now(None, 103.5), False)
    watch.came = "SIGTERM"
    assert inputs.now() == Now("SIGTERM", 104.0)
    at = Counters(epoch=1, step=7, unit="epoch", planned=9, inside=False)
    assert inputs.report(at, {"val_loss": 0.5, "count": 3}, None, False) == {"val_loss": 0.5}
    assert inputs.can_lower is False
    inputs.boundary("here", at)
    inputs.wish("enough")
    assert str(controller.boundary(epoch=1).stop) == "requested: enough"


class Two:
    """Two ranks, of which the first says that no rate can fall."""

    leads, over = False, False

    def exchange(self, call, where, same, told):
        return [{"fields": {**told, "can_lower": False, "metrics": {"val_loss": 0.5}}}, {"fields": told}]


def test_whether_a_rate_can_fall_is_what_rank_0_says():
    inputs = Sharing(Two(), Controller(), None, 0.0, SimpleNamespace(came=None))
    at = Counters(epoch=1, step=1, unit="epoch", planned=9, inside=False)
    assert inputs.report(at, {"val_loss": 0.6}, None, True) == {"val_loss": 0.5}
    assert inputs.can_lower is False


@given(took=st.lists(st.floats(1e-6, 30), min_size=1, max_size=200))
def test_slow_steps_are_all_shared_and_fast_ones_about_once_a_second(took):
    rhythm, seconds, last, gaps = Rhythm(), 0.0, 0.0, []
    for step, each in enumerate(took, 1):
        seconds += each
        if rhythm.due(step):
            rhythm.beat(step, seconds, 0.0)
            gaps.append((step, seconds - last))
            last = seconds
    assert gaps[0][0] == 1, "the first is shared"
    slowest = max(took)
    if min(took) >= EVERY:
        assert len(gaps) == len(took)
    assert all(gap <= 2 * len(took) * slowest for _, gap in gaps)


@pytest.mark.parametrize(("cost", "gap"), [(0.0, 1000), (0.01, 1000), (0.03, 3000)])
def test_steady_fast_steps_are_shared_once_a_second_or_as_rarely_as_costs_one_percent(cost, gap):
    rhythm, shared = Rhythm(), []
    for step in range(1, 40_001):
        if rhythm.due(step):
            rhythm.beat(step, step * 0.001, cost)
            shared.append(step)
    gaps = [b - a for a, b in itertools.pairwise(shared)]
    assert gaps[:4] == [1, 2, 4, 8], "the gap doubles at most"
    assert set(gaps[12:]) <= {gap - 1, gap, gap + 1}
    assert gaps[12:]


def test_a_clock_that_stands_still_and_steps_that_begin_anew_do_no_harm():
    rhythm = Rhythm()
    rhythm.beat(5, 1.0, 0.0)
    rhythm.beat(6, 1.0, 0.0)
    assert not rhythm.due(7)
    assert rhythm.due(8)
    assert rhythm.due(1)


def test_only_ranks_that_are_equally_far_are_complete():
    def told(call: str = "report", **fields: object) -> dict[str, object]:
        return {"call": call, "same": {"epoch": 2}, "fields": {"digest": "d", "versions": [6], **fields}}

    complete = Sharing(Two(), Controller(), None, 0.0, SimpleNamespace(came=None)).complete
    assert complete([told(), told("failed")])
    for other in (told("failed", versions=[5]), told("failed", digest="e"), told("save")):
        assert not complete([told(), other])
    assert not complete([told("failed"), told()])
