"""Whether a loop of yours resumes exactly: `verify_resume` breaks it off and compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopctl.testing.interrupt import Interrupted
    from stopctl.testing.verify import Verified, verify_resume

__all__ = ["Interrupted", "Verified", "verify_resume"]


def __getattr__(name: str) -> Any:
    """Load on first use, so that ``python -m`` runs an interrupt module nobody has imported."""
    if name not in __all__:
        raise AttributeError(f"module 'stopctl.testing' has no attribute {name!r}")
    from stopctl.testing import interrupt, verify

    return getattr(verify if hasattr(verify, name) else interrupt, name)
