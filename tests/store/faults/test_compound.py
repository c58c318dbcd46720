"""Two faults at once: an error and then a power cut, a full disk while deleting, and clocks that go back.

A crash during the recovery from a crash is in test_simulated_disk.py and in test_kills.py.
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from stopctl import Run
from stopctl.store import Reader, lock
from support.faults.checks import cut_everywhere, fail_and_cut, fail_everywhere
from support.faults.counts import count
from support.faults.promises import survives
from support.faults.stories import told


@pytest.mark.parametrize("model", ["posix", "ext4"])
def test_a_disk_that_fills_while_deleting_and_then_loses_power(scratch: Path, model: str) -> None:
    cuts = fail_and_cut(scratch, "deletes", errno.ENOSPC, model, every=3)
    assert cuts > 25
    count("crash states", cuts)


@pytest.mark.parametrize("model", ["posix", "ext4"])
def test_a_disk_that_breaks_while_saving_and_then_loses_power(scratch: Path, model: str) -> None:
    cuts = fail_and_cut(scratch, "saves", errno.EIO, model, every=3)
    assert cuts > 25
    count("crash states", cuts)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["saves", "deletes", "pins", "sets_aside", "sweeps", "takes_over"])
def test_any_error_and_then_a_power_cut(scratch: Path, name: str, code: int) -> None:
    for model in ("posix", "ext4"):
        count("crash states", fail_and_cut(scratch, name, code, model, every=1))


class GoingBack:
    """A clock that is an hour earlier whenever somebody looks at it."""

    hours = 0

    @classmethod
    def now(cls, zone: tzinfo) -> datetime:
        cls.hours += 1
        return datetime.fromtimestamp(1.7e9 - 3600 * cls.hours, zone)


@pytest.fixture
def clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "datetime", GoingBack)
    assert lock.now() > lock.now()


@pytest.mark.usefixtures("clock_goes_back")
def test_a_clock_that_goes_back_takes_nothing_in_a_power_cut_or_an_error(scratch: Path) -> None:
    count("crash states", cut_everywhere(scratch, "saves_and_deletes", "ext4", limit=16))
    count("injected errors", fail_everywhere(scratch, "saves_and_deletes", errno.EIO, "once", every=5))


@pytest.mark.usefixtures("clock_goes_back")
def test_the_newest_is_the_newest_whatever_the_clock_and_the_file_system_say_of_its_age(
    scratch: Path,
) -> None:
    story = told("saves", scratch / "told")
    infos = Reader(story.run).list().good
    assert [info.epoch for info in infos] == [1, 2, 3, 4, 5, 6, 7]
    assert infos[-1].created < infos[-2].created
    for age, path in enumerate(sorted(story.run.rglob("*"))):
        os.utime(path, (1e9 - age, 1e9 - age))
    survives(story.run, story.expected)


@pytest.mark.usefixtures("clock_goes_back")
def test_a_run_goes_on_where_it_was_after_the_clock_was_set_back(scratch: Path) -> None:
    trained = []
    for epochs in (2, 4):
        with Run(scratch / "run", state={"w": 0}, stop=None) as run:
            for epoch in run.epochs(epochs):
                trained.append(epoch)
                run.report(val_loss=1.0 / epoch)
    assert trained == [1, 2, 3, 4]
    lines = [line["seconds"] for line in Reader(scratch / "run").journal() if "seconds" in line]
    assert lines == sorted(lines)
    created = [info.created for info in Reader(scratch / "run").list().good]
    assert created == sorted(created, reverse=True)
    assert datetime.fromisoformat(created[0]).tzinfo == UTC
