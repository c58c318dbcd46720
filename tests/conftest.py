"""Settings that all tests share."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from support import shell
from support.faults.counts import (  # noqa: F401  # hooks of pytest's
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from support.objectstore import s3_server  # noqa: F401  # one server for all tests

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


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed to the workers as they lie: those of the adapters, which take long, are the first."""
    config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was imported and collected: a million objects, at every run."""
    gc.collect()
    gc.freeze()
