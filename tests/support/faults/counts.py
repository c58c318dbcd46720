"""What the fault suite has injected in this session, told at its end; tests/conftest.py takes the hooks in.

Where pytest-xdist spreads the tests over processes, each sends its counts to the one that tells them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

COUNTS: Counter[str] = Counter()

TOLD = (
    "crash states",
    "mutants caught",
    "kills",
    "injected errors",
    "real I/O errors",
    "flips",
    "other rot",
    "manifests fuzzed",
    "power cuts of a real ext4",
    "races",
    "steps of the model",
    "schedules of ranks, in memory",
    "schedules of ranks, on files",
    "ranks killed",
    "ranks stuck or late",
    "ranks held up",
    "messages lost",
    "signals to ranks",
    "errors and stops of ranks",
    "weights that drift apart",
    "disks of ranks full or failing",
    "operations of a mirror, each broken off",
    "faults of a mirror's operations",
    "schedules of two machines with a mirror",
    "hangs",
    "disagreements",
    "losses",
    "unnoticed",
)
"""The counts in the order in which they are told; the last four must be 0."""


def count(what: str, number: int = 1) -> None:
    """Add to one of the counts in `TOLD`."""
    assert what in TOLD
    COUNTS[what] += number


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["injected faults"] = dict(COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    COUNTS.update(getattr(node, "workeroutput", {}).get("injected faults", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if +COUNTS:
        terminalreporter.section("injected faults")
        for what in TOLD:
            if COUNTS[what] or what in TOLD[-4:]:
                terminalreporter.write_line(f"{COUNTS[what]:>8,}  {what}")


@pytest.fixture(autouse=True)
def nothing_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails where this is imported has found a loss, or something that went unnoticed."""
    failed = request.session.testsfailed
    yield
    COUNTS["losses"] += request.session.testsfailed - failed
