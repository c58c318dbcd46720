"""Settings that all tests share."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest
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


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """No coverage of this test: measuring would take longer than it does, and others run the same code."""
    here, threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    yield
    threading.settrace(threads)  # type: ignore[arg-type]
    sys.settrace(here)
