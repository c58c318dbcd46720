"""WandbSink: a run at Weights & Biases, online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.store.journal import metrics, sentence


class WandbSink:
    """Logs to Weights & Biases; needs ``stopctl[wandb]``.

    Every metric is drawn over ``step`` (``epoch`` where no steps are counted). Decisions are the keys
    ``stopctl/new_best``, ``stopctl/saved``, ``stopctl/stop`` at the first metric's value; the sentence of the
    stop, the best and the number of saves stand in the summary.

    Args:
        settings: those of ``wandb.init``: ``project``, ``name``, ``mode="offline"``, ``id`` with
            ``resume="allow"`` for a run that goes on, ...
    """

    def __init__(self, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise SettingError("WandbSink needs wandb: pip install 'stopctl[wandb]'") from error
        self._wandb = wandb
        self._settings = settings
        self._run: Any = None
        self._value = 0.0
        self._saves = 0

    def on_event(self, line: Mapping[str, Any]) -> None:
        """Take up a journal line."""
        if self._run is None:
            self._run = self._wandb.init(**self._settings)
        event, numbers = line["event"], metrics(line)
        logged: dict[str, Any] = dict(numbers)
        if numbers:
            self._run.define_metric("*", step_metric="step" if line["step"] else "epoch")
            self._value = next(iter(numbers.values()))
        if line.get("new_best"):
            logged["stopctl/new_best"] = self._value
        if line.get("stop"):
            logged["stopctl/stop"] = self._value
            self._run.summary["stopctl/stopped"] = line["stop"]["text"]
        if event == "saved":
            self._saves += 1
            logged["stopctl/saved"] = self._value
            self._run.summary["stopctl/saves"] = self._saves
        if text := sentence(line):
            logged["stopctl/decision"] = text
        if logged:
            self._run.log({"epoch": line["epoch"], "step": line["step"], **logged})

    def close(self) -> None:
        """Finish the run at Weights & Biases."""
        if self._run is not None:
            self._run.finish()
            self._run = None
