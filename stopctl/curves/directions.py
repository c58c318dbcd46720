"""Which number of a log is the curve, and whether smaller is better, by well-known names alone."""

from __future__ import annotations

import re

from stopctl.curves.counters import is_counter
from stopctl.curves.recording import CurveError, Table

SMALLER = frozenset(
    ("loss", "losses", "error", "err", "perplexity", "ppl", "mse", "mae", "rmse", "nll", "wer", "cer", "fid")
)
LARGER = frozenset(
    ("acc", "accuracy", "precision", "recall", "map", "iou", "miou", "dice", "auc", "auroc", "f1", "r2")
) | {"bleu", "rouge", "psnr", "ssim", "ndcg", "mrr"}

FIRST = (
    "val_loss", "valid_loss", "validation_loss", "eval_loss", "dev_loss",
    "val/loss", "valid/loss", "validation/loss", "eval/loss", "dev/loss",
    "metrics/mAP50-95(B)", "metrics/mAP_0.5:0.95", "test_loss", "test/loss",
    "validation/epoch_loss", "val/epoch_loss",
)  # fmt: skip
"""The columns that are taken without being asked for, the first that is there."""

TRAINING = frozenset(("train", "training", "learn", "fit"))
VALIDATION = frozenset(("val", "valid", "validation", "eval", "dev", "test"))
"""Words of the names of what is measured on seen and on unseen data."""

ASIDE = frozenset(("lr", "lr0", "rate", "grad", "norm", "time", "seconds", "runtime", "second", "memory"))
"""Words of what is neither a metric of the training nor of the validation."""


def words(name: str) -> set[str]:
    """The words of a name, casefolded: "valLoss" and "val/loss" are val and loss.

    >>> sorted(words("metrics/valLoss_1")), sorted(words("devices_error"))
    (['1', 'loss', 'metrics', 'val'], ['devices', 'error'])
    """
    return set(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).casefold()))


def direction(name: str) -> str | None:
    """``"min"`` or ``"max"`` where the metric's name leaves no doubt, else None.

    >>> direction("val_loss"), direction("metrics/mAP50-95(B)"), direction("reward")
    ('min', 'max', None)
    """
    parts = set(re.findall(r"[a-z0-9]+", name.lower()))
    parts |= {word.rstrip("0123456789") for word in parts}
    smaller = bool(parts & SMALLER) or any(word.endswith("loss") for word in parts)
    larger = bool(parts & LARGER) or any(word.endswith("accuracy") for word in parts)
    if smaller == larger:
        return None
    return "min" if smaller else "max"


def choose_column(table: Table, asked: str | None) -> tuple[str, bool]:
    """The column, and whether it was guessed.

    It is the one asked for, or the log's own metric. Else it is guessed by whole words of the names: a
    well-known one, the only one of a validation (its only loss, where there are several), or the only one
    that is not of the training.

    Raises:
        CurveError: it is not there, or nobody can know which one is meant.
    """
    columns = [name for name in table.columns() if name in (asked, table.metric) or not is_counter(name)]
    listed = ", ".join(columns)
    if asked is not None:
        if asked not in columns:
            raise CurveError(f"{table.name} has no column {asked!r}; it has: {listed}")
        return asked, False
    if table.metric is not None:
        if table.metric not in columns:
            raise CurveError(
                f"{table.name} has no report of its own metric {table.metric!r}; it has: {listed}"
            )
        return table.metric, False
    if known := [name for name in FIRST if name in columns]:
        return known[0], True
    validation = [name for name in columns if words(name) & VALIDATION and direction(name)]
    losses = [name for name in validation if any(word.endswith("loss") for word in words(name))]
    others = [name for name in columns if not words(name) & (TRAINING | ASIDE)]
    for choice in (validation, losses, others, columns):
        if len(choice) == 1:
            return choice[0], True
    if not columns:
        raise CurveError(f"{table.name} has counters alone and no metric: {', '.join(table.columns())}")
    raise CurveError(f"{table.name} has several columns: choose one with --column: {listed}")


def choose_mode(table: Table, column: str, asked: str | None) -> tuple[str, bool]:
    """``"min"`` or ``"max"``, and whether it was guessed: as the log says, as asked, or by the name.

    Raises:
        CurveError: the log says something else than asked, or nobody says it.
    """
    recorded = table.mode if column == table.metric else None
    if recorded and asked and recorded != asked:
        raise CurveError(f"{table.name} says {recorded!r} of {column!r}: leave out --mode {asked}")
    if known := recorded or asked:
        return known, False
    mode = direction(column)
    if mode is None:
        raise CurveError(f"{table.name}: is {column!r} better small or large? write --mode min or --mode max")
    return mode, True
