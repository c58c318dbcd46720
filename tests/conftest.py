"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from support import shell
from support.faults.counts import (  # noqa: F401  # hooks of pytest's
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

shell.forget()  # before any framework is imported; also in the workers of pytest-xdist

settings.register_profile(
    "stopctl",
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "long", parent=settings.get_profile("stopctl"), derandomize=False, max_examples=5000
)
settings.load_profile(os.environ.get("STOPCTL_HYPOTHESIS", "stopctl"))
