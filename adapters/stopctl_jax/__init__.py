"""stopctl for JAX: Run stops, saves and resumes the training of any pytree; load reads it back."""

from __future__ import annotations

from stopctl_jax.load import load
from stopctl_jax.run import Run
from stopctl_jax.state import JaxState

__all__ = ["JaxState", "Run", "load"]
