"""Every fsync, rename and check is there for a reason: without any one of them, something here notices."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from stopctl.store import lock
from support.faults.checks import cut_everywhere, fail_everywhere
from support.faults.chunked import small_chunks
from support.faults.counts import count
from support.faults.mutants import (
    CHUNKED_CUTS,
    CHUNKED_ERRORS,
    CHUNKED_ROT,
    DISK,
    ERRORS,
    MUTANTS,
    OVERTAKEN,
    REFUSALS,
    ROT,
    applied,
)
from support.faults.overtaking import outrun, overtaken, woken_late
from support.faults.promises import Loss, commit
from support.faults.refusals import refusals
from support.faults.rot import Specimen, damage_all, flip_all
from support.faults.stories import STORIES


def by_power_cuts(scratch: Path, name: str, limit: int = 64) -> None:
    cut_everywhere(scratch, name, "posix", limit=limit)


def by_errors(scratch: Path) -> None:
    for way in ("once", "short", "torn"):
        fail_everywhere(scratch, "saves", errno.EIO, way)


def by_rot(scratch: Path) -> None:
    specimen = Specimen(scratch)
    damage_all(specimen)
    for name in specimen.files:
        flip_all(specimen, name)


def by_overtaking(scratch: Path) -> None:
    (scratch / "outrun").mkdir()
    outrun(scratch / "outrun")
    for at in range(24):
        (scratch / str(at)).mkdir()
        overtaken(scratch / str(at), lambda store, names: commit(store, 4), at)
    for at in range(60):
        (scratch / f"late-{at}").mkdir()
        woken_late(scratch / f"late-{at}", at)


def chunked(check: Callable[[Path], object]) -> Callable[[Path], None]:
    def checked(scratch: Path) -> None:
        with small_chunks():
            check(scratch)

    return checked


CHECKS: dict[str, Callable[[Path], object]] = {
    **{name: partial(by_power_cuts, name=name) for name in STORIES},
    ERRORS: by_errors,
    ROT: by_rot,
    REFUSALS: refusals,
    OVERTAKEN: by_overtaking,
    CHUNKED_ERRORS: chunked(by_errors),
    CHUNKED_ROT: chunked(by_rot),
    CHUNKED_CUTS: chunked(partial(by_power_cuts, name="saves", limit=16)),
}


@pytest.fixture(autouse=True)
def nothing_held() -> object:
    """A mutant may leave a lock behind."""
    yield
    lock._held.clear()


LONG = [pytest.param(check, marks=pytest.mark.long) for check in (CHUNKED_ERRORS, CHUNKED_CUTS)]


@pytest.mark.parametrize("check", [ROT, REFUSALS, OVERTAKEN, CHUNKED_ROT, *LONG])
def test_the_store_as_it_is_passes_what_mutants_do_not(scratch: Path, check: str) -> None:
    CHECKS[check](scratch)


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(scratch: Path, name: str) -> None:
    with applied(name), pytest.raises(Loss):
        CHECKS[MUTANTS[name].by](scratch)
    count("mutants caught")


def test_there_are_mutants_of_every_sort() -> None:
    by = {mutant.by for mutant in MUTANTS.values()}
    assert {ERRORS, ROT, REFUSALS, OVERTAKEN, DISK, "deletes", "pins", "sets_aside", "sweeps"} <= by
    assert len(MUTANTS) > 40
