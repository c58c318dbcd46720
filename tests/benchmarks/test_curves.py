from __future__ import annotations

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curves import VALUE, Curve, CurveError, read, usable
from stopctl import Goal, Maximize, Minimize, Patience, ReportError, SettingError
from stopctl.rules import GeneralizationLoss, RemainingGain


def curve(*values: float, goal: Goal | None = None, train: tuple[float, ...] | None = None) -> Curve:
    return Curve("a/one", goal or Minimize(VALUE), values, train)


def regrets(given: Curve) -> list[float]:
    return [given.regret(t) for t in range(1, len(given.values) + 1)]


def test_cost_is_the_share_of_the_run():
    assert [curve(4.0, 2.0, 1.0, 3.0).cost(t) for t in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_regret_is_what_was_still_to_be_won_over_what_the_run_wins_from_the_median_of_three():
    assert regrets(curve(4.0, 2.0, 1.0, 3.0)) == [3.0, 1.0, 0.0, 0.0]
    assert regrets(curve(4.0, 2.0, 3.0, 5.0, 1.0)) == [1.5, 0.5, 0.5, 0.5, 0.0]


def test_regret_for_larger_is_better_is_that_of_the_negated_values():
    assert regrets(curve(-4.0, -2.0, -3.0, -5.0, -1.0, goal=Maximize(VALUE))) == [1.5, 0.5, 0.5, 0.5, 0.0]


def test_regret_of_a_constant_curve_is_0():
    assert regrets(curve(0.5, 0.5, 0.5)) == [0.0, 0.0, 0.0]


def test_where_the_median_is_the_best_the_first_value_takes_its_place():
    assert regrets(curve(5.0, 1.0, 1.0)) == [1.0, 0.0, 0.0]


def test_non_finite_values_are_never_best_and_nothing_is_won_before_the_first_finite_one():
    assert regrets(curve(math.nan, 4.0, -math.inf, 2.0, 1.0, 3.0)) == [1.0, 3.0, 3.0, 1.0, 0.0, 0.0]


def test_curves_with_fewer_than_three_finite_values_are_left_out_and_counted():
    fit = curve(3.0, 2.0, 1.0)
    left = [curve(2.0, 1.0), curve(1.0), curve(2.0, math.nan, 1.0)]
    found, why = usable([left[0], fit, *left[1:]])
    assert found == [fit]
    assert why == {"fewer than 3 values": 2, "fewer than 3 finite values": 1}


def test_truncation_is_rounded_up_and_never_empty():
    assert [curve(*range(7)).truncated(percent) for percent in (1, 50, 58, 90, 100)] == [1, 4, 5, 7, 7]


def test_the_oracle_stops_at_the_first_best_value():
    assert curve(3.0, 1.0, 2.0, 1.0).oracle() == 2


values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, math.nan, math.inf]), min_size=1, max_size=30)


@given(values, st.sampled_from([Minimize(VALUE), Maximize(VALUE)]))
def test_all_patiences_in_one_pass_are_those_of_the_rule(given_values, goal):
    given_curve = curve(*given_values, goal=goal)
    assert given_curve.patience_stops(8) == [given_curve.stop(Patience(n)) for n in range(1, 9)]


def test_a_rule_that_is_never_met_uses_the_whole_run():
    assert curve(3.0, 2.0, 1.0).stop(Patience(1)) == 3


def test_a_rule_knows_the_planned_length_and_the_training_losses():
    flat = [2.0, 1.5, 1.2, *(1.0 - 1e-6 * i for i in range(17))]
    assert curve(*flat).stop(RemainingGain(0.05)) < 20
    told = curve(3.0, 2.0, 1.0, train=(3.0, 4.0, 5.0))
    assert told.stop(Patience(1, goal=Minimize("loss"))) == 2


def test_a_rule_that_cannot_judge_a_curve_raises():
    with pytest.raises(ReportError, match="not positive"):
        curve(1.0, -1.0, 2.0).stop(GeneralizationLoss(5))
    with pytest.raises(SettingError, match="no error"):
        curve(1.0, 2.0, 3.0, goal=Maximize(VALUE)).stop(GeneralizationLoss(5))


def test_read_takes_plain_and_gzipped_files_and_null_for_nan(tmp_path):
    text = (
        '{"source": "a/one@0123:x/y.csv", "mode": "max", "values": [1, 2.5, null], "train": [3, 2, 1]}\n\n'
        '{"mode": "min", "values": [NaN, 1]}\n'
    )
    plain, zipped = tmp_path / "c.jsonl", tmp_path / "c.jsonl.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    for path in (plain, zipped):
        first, second = read(path)
        assert (first.repository, first.goal, first.train) == ("a/one", Maximize(VALUE), (3.0, 2.0, 1.0))
        assert first.values[:2] == (1.0, 2.5)
        assert math.isnan(first.values[2])
        assert (second.repository, second.goal) == (f"{path}, line 3", Minimize(VALUE))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", 'write an object with "mode"'),
        ('{"values": [1]}', 'write an object with "mode"'),
        ('{"mode": "auto", "values": [1]}', 'write an object with "mode"'),
        ('{"mode": "min"}', "values is no list of numbers"),
        ('{"mode": "min", "values": []}', "values is no list of numbers"),
        ('{"mode": "min", "values": [1, "2"]}', "'2' in values is no number"),
        ('{"mode": "min", "values": [true]}', "True in values is no number"),
        ('{"mode": "min", "values": [1, 2], "train": [1]}', "1 numbers in train, 2 in values"),
    ],
)
def test_read_says_what_is_wrong_and_where(tmp_path, line, told):
    path = tmp_path / "c.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(CurveError, match="line 1") as caught:
        read(path)
    assert told in str(caught.value)


def test_read_says_which_file_cannot_be_read(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_text("not gzipped")
    for name in ("c.jsonl.gz", "none.jsonl"):
        with pytest.raises(CurveError, match="cannot be read"):
            read(tmp_path / name)
