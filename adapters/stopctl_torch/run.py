"""Run: stopctl.Run around a PyTorch model and all that trains it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Unpack

import torch

import stopctl
from stopctl import RunSettings, SettingError
from stopctl_torch.state import TorchState
from stopctl_torch.watch import How


class Run(stopctl.Run):
    """Stops, saves, prunes and resumes a PyTorch training loop; use it in a ``with`` block.

    Args:
        directory: where the run lives; made if need be.
        model: the module to train, or a dict of several by name.
        optimizer: what trains it, one or a dict of several by name.
        scheduler: of its learning rate, one or a dict.
        scaler: of its gradients, one or a dict.
        extra: whatever else moves while training, by name (see TorchState).
        watch: what the program trains with and has not given is told once ("warn"), ends the run at the next
            boundary, where nothing is lost ("raise"), or is not looked for ("off").
        per_rank: of several ranks, which arrays each has for itself though they are saved once otherwise:
            globs of names, such as ``{"model/*.running_*"}``, or True for all.
        settings: when to stop and save, what to keep, and the rest; see `stopctl.RunSettings`.

    Raises:
        SettingError: arguments that do not belong together. Opening raises what stopctl.Run raises, and
            MismatchError when a checkpoint does not fit the objects given.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        model: torch.nn.Module | Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None = None,
        scheduler: Any = None,
        scaler: Any = None,
        extra: Mapping[str, Any] | None = None,
        watch: How = "warn",
        per_rank: bool | Collection[str] = (),
        **settings: Unpack[RunSettings],
    ) -> None:
        if "state" in settings:
            raise SettingError(
                "stopctl_torch.Run has no state=: write model=..., and extra={...} for the rest"
            )
        if per_rank and settings.get("team", "auto") not in ("auto", None):
            raise SettingError(
                "per_rank= with a team= of your own: it needs the ranks of torch.distributed; leave team= out"
            )
        state = TorchState(
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=scaler,
            extra=extra,
            watch=watch,
            per_rank=per_rank,
        )
        try:
            super().__init__(directory, state=state, **settings)
        except BaseException:
            state.close()
            raise
