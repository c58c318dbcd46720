"""stopctl for PyTorch: Run stops, saves and resumes a training loop; load reads the weights back."""

from __future__ import annotations

from stopctl_torch import signals as _signals  # noqa: F401  # workers are forked later
from stopctl_torch.load import load
from stopctl_torch.resumable import ResumableLoader
from stopctl_torch.run import Run
from stopctl_torch.state import TorchState

__all__ = ["ResumableLoader", "Run", "TorchState", "load"]
