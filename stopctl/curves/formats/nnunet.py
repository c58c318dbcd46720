"""nnU-Net's training_log_*.txt."""

from __future__ import annotations

import math
import re

from stopctl.curves.formats import Format
from stopctl.curves.formats.csv import cell_of
from stopctl.curves.recording import Cell, CurveError, Line, Table
from stopctl.curves.source import Source

STAMP = r"^(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?:?\s+)?"
EPOCH = re.compile(STAMP + r"(?:epoch:\s*|Epoch )(\d+)\s*$")
LOSS = re.compile(STAMP + r"(train[_ ]loss|val(?:idation)?[_ ]loss)\s*:?\s+([-+\w.]+)\s*$")
DICE = re.compile(STAMP + r"(Pseudo dice|Average global foreground Dice:)\s*\[(.*)\]\s*$")
NUMBER = re.compile(r"(?:np\.float\d+\()?([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))\)?")


def sure(source: Source) -> int:
    """By its lines of epochs and losses."""
    epoch = any(EPOCH.match(line) for line in source.lines)
    return 3 if epoch and any(LOSS.match(line) for line in source.lines) else 0


def read(source: Source) -> list[Table]:
    """A row an epoch, counted from 0: train_loss, val_loss, and pseudo_dice, the mean over the classes."""
    table = Table(source.name, "nnU-Net")
    cells: dict[str, Cell] | None = None
    for number, line in enumerate(source.lines, start=1):
        if match := EPOCH.match(line):
            cells = {"epoch": float(match.group(1))}
            table.lines.append(Line(cells, number))
        elif cells is None:
            continue
        elif match := LOSS.match(line):
            name = "train_loss" if match.group(1).startswith("train") else "val_loss"
            cells[name] = cell_of(match.group(2))
        elif match := DICE.match(line):
            numbers = map(cell_of, NUMBER.findall(match.group(2)))
            classes = [one for one in numbers if isinstance(one, float)]
            if classes:
                cells["pseudo_dice"] = math.fsum(classes) / len(classes)
    if not table.lines:
        raise CurveError(f"{source.name} is no log of nnU-Net: it has no line such as 'Epoch 0'")
    return [table]


FORMAT = Format("nnunet", "nnU-Net's training log", sure, read)
