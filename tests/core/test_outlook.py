"""How much is probably left: the formula by hand, and what is no share. The rest: tests/rules/test_remaining.py."""

from __future__ import annotations

import math

import pytest

from stopctl import SettingError
from stopctl.core.outlook import SHARES, Outlook


def test_the_formula_by_hand():
    # e = 0.007, u = 0.39, s = 0.1: z = 0.519 + 0.5113 + 2.4673 + 0.714 + 0.666 ln q = 4.2116 + 0.666 ln q
    outlook = Outlook(rate=0.007, to_go=0.39, since_best=0.1)
    assert outlook.probability(0.01) == pytest.approx(
        1 / (1 + math.exp(-(4.2116 - 0.666 * 4.60517))), rel=1e-3
    )
    assert outlook.at_most(0.8) == pytest.approx(math.exp((math.log(4) - 4.2116) / 0.666), rel=1e-3)
    assert tuple(outlook.table) == SHARES


def test_one_is_certain_and_nothing_is_left_at_the_end():
    outlook = Outlook(rate=5.0, to_go=1.0, since_best=0.0)
    assert (outlook.probability(1.0), outlook.at_most(0.99)) == (1.0, 1.0)
    assert outlook.probability(0.001) < 0.5
    assert Outlook(5.0, 0.0, 0.0).probability(0.001) == 1.0
    assert Outlook(math.inf, 0.5, 0.0).at_most(0.8) == 1.0


@pytest.mark.parametrize(
    "call", [lambda o: o.probability(0), lambda o: o.at_most(1.0), lambda o: o.at_most(0)]
)
def test_the_outlook_refuses_what_is_no_share(call):
    with pytest.raises(SettingError, match="write a "):
        call(Outlook(0.1, 0.5, 0.1))
