"""A long run keeps its extremes, its marks and its odd values in the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.report.sample import sampled

VALUES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just("NaN"), st.none()), min_size=1, max_size=300)


def run(values, **marks):
    counters = list(range(1, len(values) + 1))
    columns = {"epoch": counters, "step": counters, "seconds": counters, "at": counters}
    empty = {"kept": [], "pruned": [], "drops": [], "resumes": [], "best": None, "stop": None}
    texts = {i: f"decision {i}" for i in range(len(values))}
    return {**columns, "values": {"x": values}, "decisions": texts, "voided": [], **empty, **marks}


@given(VALUES, st.integers(8, 64), st.data())
def test_extremes_marks_and_the_first_odd_value_stay(values, most, data):
    number = st.integers(0, len(values) - 1)
    best, stop, resume, outcome = (data.draw(number) for _ in range(4))
    whole = run(values, best=best, stop=stop, resumes=[resume])
    left, outcomes = sampled(whole, [(outcome, "would"), (-1, "never")], most)
    at = [epoch - 1 for epoch in left["epoch"]]
    assert at == sorted(set(at))
    assert left["values"]["x"] == [values[i] for i in at]
    assert left["decisions"] == {n: f"decision {i}" for n, i in enumerate(at)}
    assert (at[left["best"]], at[left["stop"]], [at[i] for i in left["resumes"]]) == (best, stop, [resume])
    assert [(i if i < 0 else at[i], text) for i, text in outcomes] == [(outcome, "would"), (-1, "never")]
    assert len(at) <= max(most * 3 // 2, 8) + 6
    finite = [value for value in values if isinstance(value, float)]
    if finite:
        kept = [value for value in left["values"]["x"] if isinstance(value, float)]
        assert (min(kept), max(kept)) == (min(finite), max(finite))
    assert ("NaN" in left["values"]["x"]) == ("NaN" in values)


@pytest.mark.parametrize("most", [100, 1000])
def test_marks_without_end_do_not_keep_every_report(most):
    values = [float(i % 7) for i in range(1000)]
    whole = run(values, pruned=list(range(1000)), kept=[3, 999])
    whole["voided"] = [{**run(values), "values": {"x": values}}]
    left, _ = sampled(whole, [], most)
    assert most // 2 <= len(left["epoch"]) <= most + 4
    assert len(left["voided"][0]["epoch"]) <= most + 4
    assert [left["epoch"][i] for i in left["kept"]] == [4, 1000]
    assert len(left["pruned"]) == len(left["epoch"])
