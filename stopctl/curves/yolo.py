"""What args.yaml and opt.yaml beside the results of YOLO tell: planned epochs and patience."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from stopctl.curves.recording import Table

SETTINGS = ("args.yaml", "opt.yaml")
WHOLE = re.compile(r"^(epochs|patience):\s*(\d{1,9})\s*$", re.MULTILINE)


def add_settings(table: Table, folder: Path) -> None:
    """Put planned epochs and patience into the table, where the folder has YOLO's settings."""
    if table.epochs is not None or not any(name.startswith("metrics/") for name in table.columns()):
        return
    for name in SETTINGS:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            settings = dict(WHOLE.findall((folder / name).read_text("utf-8")))
            if "epochs" in settings:
                table.epochs = int(settings["epochs"])
                table.steps = table.epochs  # its event files count epochs as steps
                table.patience = int(settings.get("patience", 0)) or None
                table.notes.append(f"{name} beside it plans {settings['epochs']} epochs")
                return
