"""Hypothesis strategies: values, rules as plain data (see oracle), and histories."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from support.oracle import Told

# Few distinct values make ties, plateaus and exact thresholds likely.
grid = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.00000001, 2.0, 1e300])
awkward = st.sampled_from([math.nan, math.inf, -math.inf])
values = st.one_of(grid, st.floats(allow_nan=False, allow_infinity=False, width=64), awkward)
mostly_finite = st.one_of(grid, grid, grid, values)

own_goals = st.sampled_from([None, None, ("min", "loss"), ("max", "loss"), ("max", "acc"), ("min", "acc")])
deltas = st.sampled_from([0.0, 0.0, 0.25, 0.1, 1e-9, 2.0])
limits = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])

patience = st.builds(
    lambda length, d, mode, start, base, goal, hold: (
        "patience",
        {
            **length,
            "min_delta": d,
            "min_delta_mode": mode,
            "start_from": start,
            "baseline": base,
            "goal": goal,
            "hold_for_lr": hold,
        },
    ),
    st.integers(1, 6).map(lambda n: {"patience": n})
    | st.tuples(st.sampled_from(["epochs", "steps"]), st.integers(1, 12)).map(lambda one: {one[0]: one[1]})
    | st.tuples(st.sampled_from(["minutes", "hours"]), st.sampled_from([0.01, 1.0, 7.5])).map(
        lambda one: {one[0]: one[1]}
    ),
    deltas,
    st.sampled_from(["abs", "rel"]),
    st.integers(0, 4),
    st.none() | limits,
    own_goals,
    st.booleans(),
)
options = own_goals.map(lambda goal: {"goal": goal})
lengths = st.one_of(
    st.tuples(st.sampled_from(["epochs", "steps"]), st.integers(1, 12)),
    st.tuples(st.sampled_from(["seconds", "minutes", "hours"]), st.sampled_from([0.01, 0.5, 1.0, 7.5])),
)
stop_leaves = st.one_of(
    patience,
    patience,
    options.map(lambda o: ("nonfinite", o)),
    st.tuples(st.just("target"), limits, options),
    st.tuples(st.just("target"), limits, options.map(lambda o: {**o, "times": 2})),
    st.tuples(st.just("diverged"), limits, options),
    st.tuples(st.just("diverged"), st.none(), options.map(lambda o: {**o, "by": 0.25})),
    lengths.map(lambda length: ("after", *length)),
)
loss_goals = st.sampled_from([None, ("min", "loss"), ("min", "acc")]).map(lambda goal: {"goal": goal})
alphas = st.sampled_from([0.5, 5.0, 40.0])
rule_leaves = st.one_of(
    st.tuples(st.just("remaining"), st.sampled_from([0.01, 0.05, 0.5]), options),
    st.tuples(st.just("up"), st.integers(1, 3), st.integers(1, 4), options),
)
loss_leaves = st.one_of(
    st.tuples(st.just("gl"), alphas, loss_goals),
    st.tuples(st.just("pq"), st.sampled_from([0.01, 0.5]), st.integers(1, 4), loss_goals),
)
smoothed = st.tuples(st.just("smoothed"), stop_leaves | rule_leaves, st.sampled_from([0.25, 0.9]))
all_leaves = stop_leaves | rule_leaves | smoothed
save_leaves = st.one_of(lengths.map(lambda length: ("every", *length)), deltas.map(lambda d: ("best", d)))


def trees(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.tuples(st.sampled_from(["any", "all"]), st.lists(inner, min_size=2, max_size=3)),
        max_leaves=5,
    )


stop_rules = st.none() | trees(stop_leaves)
save_rules = st.none() | trees(save_leaves)
goals = st.tuples(st.sampled_from(["min", "max"]), st.sampled_from(["loss", "acc"]))


drop_passes = st.one_of(
    st.just(()),
    st.sets(st.integers(1, 30), max_size=4).map(lambda passes: tuple(sorted(passes))),
    st.tuples(st.integers(1, 9), st.integers(2, 40)).map(lambda one: range(one[0], one[1], one[0])),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda one: range(one[0], 31, one[1])),
)


@st.composite
def histories(draw, max_size=25, *, positive=False):
    """Reports with counters that never go back; ``positive`` ones are regular, planned, and of positive losses."""
    told, epoch, step, seconds = [], 0, 0, 0.0
    drops = draw(drop_passes)
    stride = draw(st.integers(1, 2))
    planned = draw(st.integers(10, 60) if positive else st.none() | st.integers(1, 30))
    values = st.sampled_from([0.25, 0.5, 0.5, 0.75, 1.0, 1.5, 2.0, math.nan]) if positive else mostly_finite
    for _ in range(draw(st.integers(1, max_size))):
        inside = draw(st.sampled_from([False, False, True]))
        epoch += (0 if inside else stride) if positive else draw(st.integers(0, 3))
        step += draw(st.integers(0, 9))
        seconds += draw(st.sampled_from([0.0, 0.3, 1.0, 60.0, 4000.0]))
        metrics = {"loss": draw(values), "acc": draw(values)}
        told.append(
            Told(
                metrics,
                epoch,
                step,
                seconds,
                planned,
                draw(st.sampled_from([False, False, True])),
                inside,
                drops,
            )
        )
    return told
