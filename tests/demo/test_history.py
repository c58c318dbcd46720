from __future__ import annotations

import math
from typing import Any

import pytest

from stopctl.demo.history import History, history


def _report(epoch: int, train: object, valid: object) -> dict[str, Any]:
    return {"event": "report", "epoch": epoch, "metrics": {"train_loss": train, "val_loss": valid}}


def test_curves_and_saves_in_the_order_of_the_epochs() -> None:
    lines = [
        {"event": "start", "epoch": 0},
        _report(1, 0.5, 0.4),
        {"event": "saved", "epoch": 1},
        _report(2, 0.3, 0.35),
        _report(3, 0.2, 0.36),
        {"event": "saved", "epoch": 3},
    ]
    assert history(lines) == History((1, 2, 3), (0.5, 0.3, 0.2), (0.4, 0.35, 0.36), (1, 3))


def test_resume_voids_what_was_trained_beyond_it_until_it_is_trained_again() -> None:
    lines = [
        _report(1, 0.5, 0.4),
        {"event": "saved", "epoch": 1},
        _report(2, 0.3, 0.35),
        {"event": "saved", "epoch": 2},
        _report(3, 9.0, 9.0),
        {"event": "resume", "epoch": 1},
    ]
    assert history(lines) == History((1,), (0.5,), (0.4,), (1,))
    assert history([*lines, _report(2, 0.29, 0.34)]) == History((1, 2), (0.5, 0.29), (0.4, 0.34), (1,))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_values_that_are_not_finite_are_read(word: str) -> None:
    (value,) = history([_report(1, 0.5, word)]).val_loss
    assert str(value) == {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}[word]
    assert not math.isfinite(value)


def test_an_empty_journal_is_an_empty_history() -> None:
    assert history([]) == History((), (), (), ())
