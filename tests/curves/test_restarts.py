"""Any log that goes back is read as the run that it tells of."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stopctl.curves.counters import Counters
from stopctl.curves.recording import Line
from stopctl.curves.restarts import gap_of, parted, standing
from support.logs import points, read

NUMBERS = st.integers(-(10**6), 10**6).map(float)
OUTSIDE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EPOCHS, STEPS = Counters(epoch="epoch"), Counters(step="step")


def placed(*counts, found=EPOCHS):
    """Rows at these counts, and where they stand."""
    lines = [Line({found.epoch or found.step: float(n)}, i) for i, n in enumerate(counts, start=2)]
    return lines, [(float(n), 0.0) if found.epoch else (0.0, float(n)) for n in counts]


def counts(part, found=EPOCHS):
    return [int(place[0 if found.epoch else 1]) for _, place in part]


@pytest.mark.parametrize(
    ("restart", "expected"),
    [
        (None, [[1, 2, 3], [1, 2], [1, 2, 3]]),
        ("new-run", [[1, 2, 3], [1, 2], [1, 2, 3]]),
        ("resume", [[1, 2, 3, 1, 2, 1, 2, 3]]),
        ("goes-on", [[1, 2, 3, 4, 5, 6, 7, 8]]),
    ],
)
def test_back_to_the_first_place_is_what_is_said(restart, expected):
    notes = []
    parts = parted(*placed(1, 2, 3, 1, 2, 1, 2, 3), EPOCHS, restart, notes)
    assert [counts(part) for part in parts] == expected
    (note,) = notes
    assert note.startswith("goes back to its first epoch in line 5: ")
    assert ("--restart" in note) == (restart is None)


def test_a_step_that_comes_twice_is_a_resume_and_the_first_one_another_run():
    parts = parted(*placed(9, 9, 19, 29, 29, 39, found=STEPS), STEPS, None, [])
    notes = []
    assert [counts(part, STEPS) for part in parts] == [[9], [9, 19, 29, 29, 39]]
    assert counts(standing(parts[1], STEPS, notes), STEPS) == [9, 19, 29, 39]
    assert notes == ["1 value left out: reported again after a resume"]


def test_without_counters_nothing_goes_back():
    lines, _ = placed(3, 1, 2)
    assert len(parted(lines, [(0.0, 0.0)] * 3, Counters(), None, [])[0]) == 3
    assert parted([], [], EPOCHS, None, []) == [[]]


def test_the_gap_is_the_usual_one():
    assert (gap_of([0, 100, 200, 250]), gap_of([5]), gap_of([3, 1])) == (100, 1, 1)


@given(
    values=st.lists(NUMBERS, min_size=6, max_size=30),
    data=st.data(),
    zero=st.booleans(),
    name=st.sampled_from(["csv", "jsonl"]),
)
@OUTSIDE
def test_a_resume_anywhere_leaves_every_pass_once(values, data, zero, name, tmp_path):
    """A log that goes back, but not to its first epoch, is that of the run that was never killed."""
    killed = data.draw(st.integers(4, len(values)))
    back = data.draw(st.integers(2, killed - 1))
    epochs = [*range(1, killed + 1), *range(back, len(values) + 1)]
    rows = [(epoch - zero, values[epoch - 1] if i >= killed else 7e6) for i, epoch in enumerate(epochs)]
    for i in range(back - 1):
        rows[i] = (rows[i][0], values[i])
    path = tmp_path / f"a.{name}"
    if name == "csv":
        path.write_text("\n".join(["epoch,val_loss", *(f"{epoch},{value!r}" for epoch, value in rows)]))
    else:
        path.write_text("\n".join(json.dumps({"epoch": epoch, "val_loss": value}) for epoch, value in rows))
    (curve,) = read(path).curves
    assert points(curve) == list(enumerate(values, start=1))
