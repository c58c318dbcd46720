from __future__ import annotations

import itertools
from statistics import fmean

import pytest

from stopctl import NonFinite, Patience, SettingError
from stopctl.curves.recording import CurveError
from stopctl.curves.replay import replay
from stopctl.curves.suggest import GRID, choose, shorter, suggest, try_all
from stopctl.rules import GeneralizationLoss, RemainingGain
from support.made import losses, made

CURVES = [made(losses(seed)) for seed in range(16)]
SMALL = (*map(Patience, (2, 5, 10, 20)), RemainingGain(0.03))


def by_hand(curves, bound, grid=GRID):
    """The choice as the issue words it, slowly."""
    best = (1.0, None, 0.0)
    for rule in grid:
        try:
            done = [replay(curve, rule | NonFinite()) for curve in curves]
        except Exception:
            continue
        share, regret = fmean(one.share for one in done), fmean(one.regret for one in done)
        if regret <= bound and share < best[0] - 1e-9:
            best = (share, rule, regret)
    return best


@pytest.mark.parametrize("bound", [0.0, 0.003, 0.01, 0.05, 0.3])
def test_the_cheapest_rule_within_the_bound_is_chosen(bound):
    found = suggest(CURVES, max_regret=bound)
    share, rule, regret = by_hand(CURVES, bound)
    assert found.chosen.rule == rule
    assert (found.share, found.regret) == (pytest.approx(share), pytest.approx(regret))
    assert found.regret <= bound


def test_what_is_tried_is_what_is_recommended():
    found = suggest(CURVES, max_regret=0.01)
    done = [replay(curve, found.chosen.stop) for curve in CURVES]
    assert found.chosen.regrets == tuple(one.regret for one in done)
    assert repr(found.chosen.stop).endswith(" | NonFinite()")


def test_without_a_rule_within_the_bound_every_run_goes_to_its_end():
    found = suggest(CURVES, max_regret=0.0, grid=[Patience(1)])
    assert found.chosen.rule is None
    assert found.chosen.stop == NonFinite()
    assert (found.share, found.regret, found.within, found.again) == (1.0, 0.0, 1.0, 1.0)


def test_the_held_out_runs_are_not_seen_and_tell_what_it_really_cost():
    found = suggest(CURVES, max_regret=0.02, holdout=0.5, seed=3)
    aside = [curve for curve in CURVES if curve not in found.curves]
    assert len(aside) == len(found.curves) == 8
    done = [replay(curve, found.chosen.stop) for curve in aside]
    assert found.held_out == (
        8,
        pytest.approx(fmean(one.share for one in done)),
        pytest.approx(fmean(one.regret for one in done)),
    )
    alone = suggest(found.curves, max_regret=0.02)
    assert (alone.chosen, alone.share, alone.regret) == (found.chosen, found.share, found.regret)
    assert len(found.tried[0].shares) == 8


def test_the_same_seed_gives_the_same_and_another_draws_anew():
    one, same, other = (suggest(CURVES, holdout=0.3, seed=seed, grid=SMALL) for seed in (1, 1, 2))
    assert one == same
    assert one.curves != other.curves


def test_how_sure_is_between_never_and_always_and_contains_the_mean():
    found = suggest(CURVES, max_regret=0.01, grid=SMALL)
    assert 0 < found.within <= 1
    assert 0 < found.again <= 1
    assert found.low <= found.regret <= found.high


def test_runs_that_are_all_the_same_leave_no_doubt():
    found = suggest([CURVES[0]] * 12, max_regret=0.01, grid=SMALL)
    assert (found.within, found.again) == (1.0, 1.0)
    assert found.low == pytest.approx(found.high)
    assert found.unseen == (pytest.approx(found.share), pytest.approx(found.regret))


def test_the_choice_is_tried_on_runs_it_did_not_see():
    """Leave-one-out, worked by hand."""
    five = CURVES[:5]
    found = suggest(five, max_regret=0.005, grid=SMALL)
    shares, regrets, rules = [], [], []
    for i in range(5):
        _, rule, _ = by_hand(five[:i] + five[i + 1 :], 0.005, SMALL)
        one = replay(five[i], NonFinite() if rule is None else rule)
        shares.append(one.share)
        regrets.append(one.regret)
        rules.append(rule)
    assert rules.count(found.chosen.rule) == 1  # the others are chosen differently
    assert found.unseen == (pytest.approx(fmean(shares)), pytest.approx(fmean(regrets)))
    assert suggest(five[:1], grid=SMALL).unseen is None


def test_curves_that_were_cut_are_left_out_and_counted():
    cut = [made(losses(seed)[:20], cut="stopped by patience", told=True) for seed in range(3)]
    found = suggest([*cut, *CURVES], grid=SMALL)
    assert found.left_out == {"stopped by patience": 3}
    assert found.curves == tuple(CURVES)
    assert suggest([*cut, *CURVES], grid=SMALL, keep_cut=True).left_out == {}
    with pytest.raises(
        CurveError, match=r"every curve was cut \(stopped by patience\): .* with stop=None, or .* --keep-cut$"
    ):
        suggest(cut)


def test_a_rule_that_does_not_judge_every_curve_is_refused_with_its_reason():
    curves = [made([-value for value in losses(0)]), *CURVES]
    found = suggest(curves, grid=[GeneralizationLoss(5), Patience(5)])
    assert list(found.refused) == ["GeneralizationLoss(5)"]
    assert "is not positive" in found.refused["GeneralizationLoss(5)"]
    assert [one.rule for one in found.tried] == [None, Patience(5)]


def test_of_equally_cheap_rules_the_simpler_is_taken():
    tried, _ = try_all(CURVES, [Patience(5), Patience(5, min_delta=0.0, start_from=0)], lambda: None)
    assert choose(tried, range(16), 1.0) is tried[1]


def test_the_shorter_run_is_the_same_share_of_every_run():
    found = suggest(CURVES, max_regret=0.05)
    t = int(found.share * 60)
    part = found.share * 60 - t
    between = [(1 - part) * curve.regret(t) + part * curve.regret(t + 1) for curve in CURVES]
    assert found.shorter == pytest.approx(fmean(between))


def test_the_grid_has_each_rule_once():
    assert len({repr(rule) for rule in GRID}) == len(GRID)
    assert all(a != b for a, b in itertools.pairwise(GRID))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_regret": -0.1}, "max_regret=-0.1: write a share of the gain, >= 0"),
        ({"max_regret": float("nan")}, "max_regret=nan"),
        ({"holdout": 1.0}, "holdout=1.0: write the share of the runs to leave out"),
    ],
)
def test_a_bound_or_a_share_that_cannot_be_is_an_error(settings, message):
    with pytest.raises(SettingError, match=message):
        suggest(CURVES, **settings)


def test_one_run_cannot_be_held_out():
    with pytest.raises(CurveError, match="1 run is too few to hold out"):
        suggest(CURVES[:1], holdout=0.5)


def test_a_shorter_run_is_compared_between_two_lengths():
    one = made([1.0, 0.5, 0.25, 0.0])
    assert [shorter(one, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [
        one.regret(1), one.regret(1), one.regret(2), one.regret(3), 0.0
    ]  # fmt: skip
    assert shorter(one, 0.625) == pytest.approx((one.regret(2) + one.regret(3)) / 2)
