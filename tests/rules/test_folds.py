"""The number of epochs from the curves of k folds."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Maximize, Minimize, SettingError
from stopctl.rules import epochs_from_folds

FOLDS = [
    [0.90, 0.62, 0.55, 0.50, 0.51, 0.60],
    [0.80, 0.58, 0.51, 0.52, 0.55, 0.70],
    [0.95, 0.75, 0.64, 0.60, 0.58, 0.58, 0.57],
]


def test_by_hand():
    choice = epochs_from_folds(FOLDS)
    # means: 0.8833, 0.65, 0.5667, 0.54, 0.5467, 0.6267; at epoch 4 sd(0.50, 0.52, 0.60) = 0.0529, SE = 0.0306
    assert choice.epochs == 4
    assert choice.mean == pytest.approx(0.54)
    assert choice.standard_error == pytest.approx(0.030550504)
    assert choice.one_se_epochs == 3  # 0.5667 <= 0.54 + 0.0306
    assert choice.spread == (4, 3, 7)
    assert len(choice.means) == 6


curves = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]), min_size=1, max_size=8), min_size=2, max_size=5
)


@given(curves)
def test_it_is_what_the_definition_says(folds):
    choice = epochs_from_folds(folds)
    columns = list(zip(*folds, strict=False))
    means = [statistics.fmean(column) for column in columns]
    assert math.isclose(choice.mean, min(means))
    assert means[choice.epochs - 1] == pytest.approx(min(means))
    error = statistics.stdev(columns[choice.epochs - 1]) / math.sqrt(len(folds))
    assert choice.standard_error == pytest.approx(error)
    assert choice.one_se_epochs <= choice.epochs
    assert means[choice.one_se_epochs - 1] <= min(means) + error + 1e-12
    assert all(mean > min(means) + error - 1e-12 for mean in means[: choice.one_se_epochs - 1])
    assert choice.spread == tuple(fold.index(min(fold)) + 1 for fold in folds)


@given(curves)
def test_maximize_is_the_mirror(folds):
    mirrored = epochs_from_folds([[-v for v in fold] for fold in folds], Maximize("acc"))
    straight = epochs_from_folds(folds, Minimize("loss"))
    assert (mirrored.epochs, mirrored.one_se_epochs, mirrored.spread) == (
        straight.epochs,
        straight.one_se_epochs,
        straight.spread,
    )
    assert mirrored.mean == -straight.mean


@pytest.mark.parametrize(
    ("folds", "text"),
    [
        ([], "epochs_from_folds got 0 curves: give two or more, none of them empty"),
        ([[1.0]], "epochs_from_folds got 1 curves"),
        ([[1.0], []], "none of them empty"),
        ([[1.0, 2.0], [1.0, math.nan]], "fold 2 has nan after epoch 2: leave the fold out, or fix it"),
    ],
)
def test_wrong_curves_say_what_is_wrong(folds, text):
    with pytest.raises(SettingError) as caught:
        epochs_from_folds(folds)
    assert text in str(caught.value)


def test_wrong_values_are_named():
    with pytest.raises(TypeError, match=r"fold 1, epoch 2='x' is text"):
        epochs_from_folds([[1.0, "x"], [1.0]])
