from __future__ import annotations

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write


@pytest.mark.parametrize(
    "lines",
    [
        [
            "[0]\ttrain-rmse:3.5\teval-rmse:3.25",
            "[1]\ttrain-rmse:2.5\teval-rmse:3",
            "[2]\ttrain-rmse:2\teval-rmse:3.5",
        ],
        [
            "[10:10:10] [0]\teval-rmse:3.25",
            "Stopping.",
            "[10:10:11] [1]\teval-rmse:3",
            "[10:10:12] [2]\teval-rmse:3.5",
        ],
        ["[1]\ttraining's rmse: 9\teval's rmse: 3.25", "[2]\teval's rmse: 3", "[3]\teval's rmse: 3.5"],
    ],
)
def test_what_is_printed_each_round(tmp_path, lines):
    (curve,) = read(write(tmp_path / "out.txt", "\n".join(lines))).curves
    assert (curve.goal.metric, curve.unit, points(curve)) == (
        "eval/rmse",
        "step",
        [(1, 3.25), (2, 3), (3, 3.5)],
    )


def test_another_log_is_none(tmp_path):
    with pytest.raises(CurveError, match="has no line such as"):
        read(write(tmp_path / "log.txt", "[0] hello\n"), format="xgboost")
