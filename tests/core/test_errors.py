"""What errors carry beside their sentence."""

from __future__ import annotations

from pathlib import Path

from stopctl import LockedError, Preempted, SaveError


def test_a_failed_save_names_its_file_where_there_is_one():
    assert SaveError("disk full", Path("runs/a")).path == Path("runs/a")
    assert SaveError("disk full").path is None


def test_a_lock_names_its_holder_as_far_as_it_is_known():
    held = LockedError("locked", host="node1", pid=7, started="2026-01-01T00:00:00Z")
    assert (held.host, held.pid, held.started) == ("node1", 7, "2026-01-01T00:00:00Z")
    unknown = LockedError("locked")
    assert (unknown.host, unknown.pid, unknown.started) == (None, None, None)


def test_preemption_ends_the_process_with_143():
    error = Preempted("SIGUSR1")
    assert (error.code, error.signal) == (143, "SIGUSR1")
    assert str(error) == "preempted by SIGUSR1; the run is saved and resumes when it is opened again"
