"""Which number of a log is the curve, and whether smaller is better, by well-known names alone."""

from __future__ import annotations

import re

from stopctl.curves.recording import CurveError, Recording

SMALLER = frozenset(
    ("loss", "losses", "error", "err", "perplexity", "ppl", "mse", "mae", "rmse", "nll", "wer", "cer", "fid")
)
LARGER = frozenset(
    ("acc", "accuracy", "precision", "recall", "map", "iou", "miou", "dice", "auc", "auroc", "f1", "r2")
) | {"bleu", "rouge", "psnr", "ssim", "ndcg", "mrr"}

FIRST = (
    "val_loss", "valid_loss", "validation_loss", "eval_loss", "dev_loss",
    "val/loss", "valid/loss", "validation/loss", "eval/loss", "dev/loss",
    "metrics/mAP50-95(B)", "metrics/mAP_0.5:0.95", "test_loss", "test/loss", "epoch_loss",
)  # fmt: skip
"""The columns that are taken without being asked for, the first that is there."""

VALIDATION = ("val", "eval", "dev", "test")
"""How the names of what is measured on unseen data begin."""


def direction(name: str) -> str | None:
    """``"min"`` or ``"max"`` where the metric's name leaves no doubt, else None.

    >>> direction("val_loss"), direction("metrics/mAP50-95(B)"), direction("reward")
    ('min', 'max', None)
    """
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    words |= {word.rstrip("0123456789") for word in words}
    smaller = bool(words & SMALLER) or any(word.endswith("loss") for word in words)
    larger = bool(words & LARGER) or any(word.endswith("accuracy") for word in words)
    if smaller == larger:
        return None
    return "min" if smaller else "max"


def choose_column(recording: Recording, asked: str | None) -> str:
    """The column asked for; else the log's own metric, a well-known one, or the only one there is.

    Raises:
        CurveError: it is not there, or nobody can know which one is meant.
    """
    columns = recording.columns()
    listed = ", ".join(columns)
    if asked is not None:
        if asked not in columns:
            raise CurveError(f"{recording.name} has no column {asked!r}; it has: {listed}")
        return asked
    if recording.metric is not None:
        if recording.metric not in columns:
            raise CurveError(
                f"{recording.name} has no report of its own metric {recording.metric!r}; it has: {listed}"
            )
        return recording.metric
    if known := [name for name in FIRST if name in columns]:
        return known[0]
    told = [name for name in columns if direction(name) and name != "loss" and "train" not in name.lower()]
    validation = [name for name in told if name.lower().startswith(VALIDATION)]
    for choice in (validation, told, columns):
        if len(choice) == 1:
            return choice[0]
    raise CurveError(f"{recording.name} has several columns: choose one with --column: {listed}")


def choose_mode(recording: Recording, column: str, asked: str | None) -> str:
    """``"min"`` or ``"max"``: as the log says, as asked, or by the name.

    Raises:
        CurveError: the log says something else than asked, or nobody says it.
    """
    own = recording.mode if column == recording.metric else None
    if own and asked and own != asked:
        raise CurveError(f"{recording.name} says {own!r} of {column!r}: leave out --mode {asked}")
    mode = own or asked or direction(column)
    if mode is None:
        raise CurveError(
            f"{recording.name}: is {column!r} better small or large? write --mode min or --mode max"
        )
    return mode
