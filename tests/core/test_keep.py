"""What is kept: the rules, and the guards that no rule overrules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Best, KeepEvery, KeepPolicy, Last, Maximize, Minimize, SettingError
from stopctl.core.keep import doomed, goals_of, guarded, ranked


@dataclass(frozen=True)
class Kept:
    name: str
    epoch: int
    value: float | None = None
    pinned: bool = False
    step: int = 0
    seconds: float = 0.0


def run(*values):
    return [Kept(f"c{i}", i, value) for i, value in enumerate(values, start=1)]


GOAL = Minimize("val_loss")


def test_keep_none_keeps_all():
    assert doomed(None, run(1.0, 2.0), GOAL) == []


def test_last_and_best_and_every():
    checkpoints = run(0.9, 0.1, 0.5, 0.4, 0.6, 0.7)
    assert Last(2).chosen(checkpoints, GOAL) == {"c5", "c6"}
    assert Best(2).chosen(checkpoints, GOAL) == {"c2", "c4"}
    assert Best(2).chosen(checkpoints, Maximize("val_loss")) == {"c1", "c6"}
    assert KeepEvery(epochs=2).chosen(checkpoints, GOAL) == {"c2", "c4", "c6"}
    assert KeepEvery(epochs=4).chosen([checkpoints[0], checkpoints[4], checkpoints[5]], GOAL) == {"c5"}
    assert doomed(Last(2) | Best(1), checkpoints, GOAL) == ["c1", "c3", "c4"]
    assert doomed(Last(3) & Best(3), checkpoints, GOAL) == ["c1", "c3", "c5"]


def test_the_older_wins_a_tie():
    assert [kept.name for kept in ranked(run(0.5, 0.4, 0.4), GOAL)] == ["c2", "c3", "c1"]


def test_nan_and_unreported_never_rank():
    checkpoints = run(math.nan, -math.inf, None, 0.5, math.inf)
    assert [kept.name for kept in ranked(checkpoints, GOAL)] == ["c4"]
    assert Best(3).chosen(checkpoints, GOAL) == {"c4"}


def test_the_newest_with_a_finite_value_is_never_deleted():
    assert guarded(run(0.1, 0.5, math.nan, None), GOAL) == {"c1", "c2", "c4"}


def test_pinned_ones_and_the_one_resumed_from_are_never_deleted():
    checkpoints = [Kept("a", 1, 0.9, pinned=True), *run(0.8, 0.7, 0.6)]
    assert doomed(Last(1), checkpoints, GOAL, also={"c1"}) == ["c2"]


def test_a_rule_that_chooses_what_is_not_there_is_refused():
    class Strange(KeepPolicy):
        def chosen(self, checkpoints, goal):
            return {"elsewhere"}

        def __repr__(self):
            return "Strange()"

    with pytest.raises(SettingError, match=r"Strange\(\) keeps \['elsewhere'\], which are not checkpoints"):
        doomed(Strange(), run(1.0), GOAL)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Last(0), "Last(...): n=0: write a whole number >= 1"),
        (lambda: Best(1.0), "Best(...): n=1.0: write a whole number >= 1"),
        (
            lambda: KeepEvery(),
            "KeepEvery(): give exactly one unit, such as KeepEvery(epochs=10) or KeepEvery(hours=2)",
        ),
    ],
)
def test_wrong_settings_say_what_to_write(make, text):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == text


rules = st.recursive(
    st.one_of(
        st.integers(1, 3).map(Last),
        st.integers(1, 3).map(Best),
        st.integers(1, 5).map(lambda n: KeepEvery(epochs=n)),
    ),
    lambda inner: st.tuples(inner, inner, st.booleans()).map(lambda t: t[0] | t[1] if t[2] else t[0] & t[1]),
    max_leaves=4,
)
outcomes = st.lists(
    st.tuples(
        st.sampled_from([0.1, 0.5, 0.5, 0.9, math.nan, -math.inf, None]),
        st.sampled_from(["saved", "saved", "failed", "pinned"]),
    ),
    max_size=30,
)


@given(rules, outcomes, st.sampled_from([Minimize("a"), Maximize("a")]))
def test_a_guarded_checkpoint_is_never_dropped_whatever_was_saved_and_failed(rule, outcomes, goal):
    """Saving and pruning in turn; the truth is kept in a list of all that was ever committed."""
    there, ever = [], []
    for i, (value, outcome) in enumerate(outcomes, start=1):
        if outcome == "failed":
            continue
        kept = Kept(f"c{i}", i, value, pinned=outcome == "pinned")
        there.append(kept)
        ever.append(kept)
        gone = doomed(rule, there, goal)
        there = [k for k in there if k.name not in gone]
        finite = [k for k in ever if k.value is not None and math.isfinite(k.value)]
        must = {k.name for k in ever if k.pinned} | {ever[-1].name}
        if finite:
            must.add(finite[-1].name)
            must.add(sorted(finite, key=lambda k: k.value if goal.mode == "min" else -k.value)[0].name)
        assert must <= {k.name for k in there}
        assert doomed(rule, there, goal) == []


def test_the_best_by_another_goal():
    f1 = Maximize("f1")
    infos = [
        SimpleNamespace(
            name=name, value=value, values={f1.key: score} if score is not None else {}, pinned=False
        )
        for name, value, score in (
            ("a", 0.3, 0.9),
            ("b", 0.2, None),
            ("c", 0.5, 0.95),
            ("d", 0.6, math.nan),
            ("e", 0.7, 0.1),
        )
    ]
    assert [kept.name for kept in ranked(infos, GOAL, f1)] == ["c", "a", "e"]
    assert [kept.name for kept in ranked(infos, GOAL, GOAL)] == ["b", "a", "c", "d", "e"]
    assert Best(1, goal=f1).chosen(infos, GOAL) == {"c"}
    assert doomed(Best(1, goal=f1), infos, GOAL) == ["a", "d"]  # the run's best and the newest are guarded
    rule = Last(1) | (Best(2, goal=f1) & Best(3))
    assert goals_of(rule) == (f1,)
    assert goals_of(None) == goals_of(Last(1)) == ()
    assert repr(Best(2, goal=f1)) == "Best(2, goal=Maximize('f1'))"
    with pytest.raises(SettingError, match="write goal="):
        Best(1, goal="f1")
