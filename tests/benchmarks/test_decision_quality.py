from __future__ import annotations

import json
import math

import numpy as np
import pytest
from decision_quality import (
    RULES,
    Line,
    Row,
    against,
    draws,
    judge,
    main,
    row,
    share_patiences,
    study,
    table,
    truncations,
)

from curves import VALUE, Curve, CurveError, read
from stopctl import Maximize, Minimize, Patience
from stopctl.rules import GeneralizationLoss, ProgressQuotient
from stopctl.runs.ruletext import parse_stop


def curve(*values: float, of: str = "a/one", train: tuple[float, ...] | None = None) -> Curve:
    return Curve(of, Minimize(VALUE), values, train)


SLOW = curve(4.0, 3.0, 2.0, 2.0, 1.0)  # m = 3, b = 1: regrets 1.5, 1, 0.5, 0.5, 0
FAST = curve(4.0, 1.0, 3.0, 3.0, 3.0, of="b/two")  # m = 3, b = 1: regrets 1.5, 0, 0, 0, 0


def test_a_row_has_mean_median_and_95th_percentile():
    told = row("a rule", [SLOW, FAST], [4, 3])
    assert (told.curves, told.cost, told.mean, told.median) == (2, pytest.approx(0.7), 0.25, 0.25)
    assert told.p95 == pytest.approx(0.475)


def test_a_line_is_measured_curve_by_curve():
    line = Line.of([SLOW, FAST], lambda given: given.patience_stops(2))
    assert line.costs.tolist() == [[0.8, 1.0], [0.6, 0.8]]
    assert line.regrets.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert line.mean() == [(pytest.approx(0.7), 0.25), (pytest.approx(0.9), 0.0)]


def test_truncations_and_share_patiences_go_by_percent_of_the_run():
    assert [truncations(SLOW)[percent - 1] for percent in (1, 20, 21, 80, 100)] == [1, 1, 2, 4, 5]
    assert [share_patiences(FAST)[percent - 1] for percent in (1, 20, 21, 60, 100)] == [3, 3, 4, 5, 5]


def lines(*, rule: tuple[list[float], list[float]]) -> tuple[Line, Line]:
    """A line from (cost 0.2, regret 1) to (0.8, 0.2) on every curve, and a rule's costs and regrets."""
    costs, regrets = rule
    line = Line(np.array([[0.2, 0.8]] * len(costs)), np.array([[1.0, 0.2]] * len(costs)))
    return line, Line(np.array(costs)[:, None], np.array(regrets)[:, None])


def test_the_ratio_is_taken_at_equal_cost():
    line, rule = lines(rule=([0.4, 0.6], [0.3, 0.3]))
    groups = np.array([0, 1])
    assert against(line, rule, groups, draws(groups, 100, 0)) == pytest.approx((0.5, 0.9 / 2.2, 0.9 / 1.4))


def test_the_interval_comes_from_drawing_repositories_not_curves():
    groups = np.array([0, 1, 1, 1])
    line, rule = lines(rule=([0.5] * 4, [0.3, 0.9, 0.9, 0.9]))
    weights = draws(groups, 400, 0)
    value, low, high = against(line, rule, groups, weights)
    assert (value, low, high) == pytest.approx((1.25, 0.5, 1.5))  # drawn alone: 0.3 / 0.6, 0.9 / 0.6
    drawn = (weights @ np.array([0.3, 2.7])) / (weights @ np.array([1, 3])) / 0.6
    assert set(np.round(drawn, 6)) == {0.5, 1.25, 1.5}


def test_draws_take_as_many_repositories_as_there_are_and_are_repeatable():
    groups = np.array([0, 2, 1, 1])
    weights = draws(groups, 50, 7)
    assert weights.shape == (51, 3)
    assert weights[0].tolist() == [1, 1, 1]
    assert set(weights.sum(axis=1)) == {3.0}
    assert (weights == draws(groups, 50, 7)).all()
    assert (weights != draws(groups, 50, 8)).any()


def test_no_ratio_where_nothing_costs_as_much_or_nothing_is_lost():
    groups = np.array([0, 1])
    weights = draws(groups, 50, 0)
    line, dear = lines(rule=([0.9, 0.9], [0.1, 0.1]))
    assert against(line, dear, groups, weights) is None
    free = Line(line.costs, np.zeros_like(line.regrets))
    _, rule = lines(rule=([0.5, 0.5], [0.0, 0.0]))
    assert against(free, rule, groups, weights) is None
    _, rule = lines(rule=([0.5, 0.5], [0.1, 0.1]))
    assert against(free, rule, groups, weights) == (math.inf, math.inf, math.inf)


def test_no_interval_with_one_repository_or_with_many_draws_that_cannot_be_compared():
    line, rule = lines(rule=([0.5, 0.9], [0.3, 0.1]))
    one, two = np.array([0, 0]), np.array([0, 1])
    for groups in (one, two):
        value, low, high = against(line, rule, groups, draws(groups, 200, 0))
        assert (value, low, high) == (pytest.approx(0.6), None, None)


def test_a_fixed_patience_is_exactly_its_own_frontier():
    rng = np.random.default_rng(0)
    curves = [
        Curve(f"a/{i % 4}", Minimize(VALUE), tuple((1 / np.arange(1, 40) + rng.normal(0, 0.05, 39)).tolist()))
        for i in range(12)
    ]
    told = study(curves, [Patience(1), Patience(3), Patience(7)], bootstrap=200)
    assert [row.patience for row in told.rules] == [1.0, 3.0, 7.0]
    for each in told.rules:
        assert each.versus["patience"] == pytest.approx((1.0, 1.0, 1.0))
    assert told.lines["patience"][2] == pytest.approx((told.rules[1].cost, told.rules[1].mean))


def test_references_are_the_whole_run_truncations_and_the_oracle():
    told = {row.name: row for row in study([SLOW, FAST], []).references}
    assert (told["the whole run"].cost, told["the whole run"].mean) == (1.0, 0.0)
    assert (told["80 % of the run"].cost, told["80 % of the run"].mean) == (pytest.approx(0.8), 0.25)
    oracle = told["oracle: at the best value"]
    assert (oracle.cost, oracle.mean) == (pytest.approx(0.7), 0.0)


def test_a_rule_is_compared_on_the_curves_that_it_can_judge():
    rising = Curve("c/three", Maximize(VALUE), (1.0, 2.0, 3.0, 2.0))
    negative = curve(1.0, -1.0, -2.0)
    logged = curve(4.0, 3.0, 2.0, 2.0, 1.0, train=(4.0, 3.0, 2.0, 1.0, 0.5))
    stops, why = judge(GeneralizationLoss(5), [SLOW, rising, negative, FAST])
    assert stops == [5, None, None, 3]
    assert sorted(why.values()) == [1, 1]
    told = study(
        [SLOW, rising, logged], [ProgressQuotient(0.5, strip=2), GeneralizationLoss(5)], bootstrap=10
    )
    assert [(row.name, row.curves) for row in told.rules] == [
        ("ProgressQuotient(0.5, strip=2)", 1),
        ("GeneralizationLoss(5)", 2),
    ]
    assert sum(told.refused["ProgressQuotient(0.5, strip=2)"].values()) == 2


def test_a_rule_that_can_judge_no_curve_has_no_row_and_is_told():
    told = study([SLOW], [ProgressQuotient(0.5)], bootstrap=10)
    assert told.rules == []
    assert sum(told.refused["ProgressQuotient(0.5)"].values()) == 1


def test_tables():
    rows = [
        Row("the whole run", 10, 1.0, 0.0, 0.0, 0.0),
        Row("A(1) | B()", 9, 0.5, 0.25, 0.125, 0.75, 4.25, {"patience": (0.5, 0.25, math.inf), "truncation": (2.0, None, None)}),
    ]  # fmt: skip
    markdown = table(rows, markdown=True).splitlines()
    assert markdown[2].startswith("| the whole run | 10 | 1.000 | 0.0000 |")
    assert markdown[3] == (
        "| `A(1) \\| B()` | 9 | 0.500 | 0.2500 | 0.1250 | 0.7500 | 4.2 | 0.50 [0.25, inf] | - | 2.00 |"
    )
    text = table(rows, markdown=False).splitlines()
    assert len(set(map(len, text))) == 1
    assert text[2].startswith("A(1) | B()   ")


def test_the_usual_rules_can_be_read():
    assert [repr(parse_stop(text)) for text in RULES if "Progress" not in text] == [
        text for text in RULES if "Progress" not in text
    ]


def test_one_command_prints_the_table_and_draws_the_picture(script, curve_file, tmp_path):
    told = script("decision_quality.py", curve_file, "--bootstrap", 50, "--png", tmp_path / "a.png")
    lines = told.splitlines()
    assert lines[0].split()[:3] == ["rule", "curves", "cost"]
    assert any(line.startswith("RemainingGain(0.05)") for line in lines)
    assert "6 curves of 3 repositories; training losses with 2 of them." in lines
    assert "Left out: 1 with fewer than 3 values." in lines
    assert "Left out: 1 with fewer than 3 finite values." in lines
    assert any(
        line.startswith("GeneralizationLoss(5) does not apply to 1 curves: the value is not")
        for line in lines
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_curves_may_carry_the_drops_of_their_rate(tmp_path, capsys):
    path = tmp_path / "steps.jsonl"
    flat = {"source": "a/one", "mode": "min", "values": [1.0, *[0.9] * 19, 0.5], "lr_drops": [12]}
    path.write_text(json.dumps(flat) + "\n" + json.dumps({**flat, "lr_drops": []}) + "\n")
    one, other = read(path)
    assert (one.lr_drops, one.stop(Patience(3)), other.stop(Patience(3))) == ((12,), 15, 5)
    assert main([str(path), "--stop", "Patience(3)", "--bootstrap", "1"]) == 0
    assert "On the 1 curves whose learning rate drops by steps" in capsys.readouterr().out
    for wrong in ([3, 3], [0], ["a"], 5):
        path.write_text(json.dumps({**flat, "lr_drops": wrong}) + "\n")
        with pytest.raises(CurveError, match="lr_drops are epochs from 1, ascending"):
            read(path)
