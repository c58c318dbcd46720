"""Whatever unsynced effects a power cut takes, at any operation: the old or the new, and what was reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults.checks import cut_everywhere, cut_in_recovery
from support.faults.counts import count
from support.faults.disk import read
from support.faults.models import MODELS
from support.faults.promises import Loss
from support.faults.stories import STORIES, cuts, saves_for_the_process, told
from support.portion import mostly_long

LARGE = {"saves_and_deletes", "saves_together"}
"""Stories of very many states, of which some are drawn."""


@pytest.mark.parametrize("model", mostly_long(MODELS, ["ext4"]))
@pytest.mark.parametrize("name", STORIES)
def test_every_power_cut_leaves_what_was_promised(scratch: Path, name: str, model: str) -> None:
    states = cut_everywhere(scratch, name, model, limit=16 if name in LARGE else 64)
    assert states > 20
    count("crash states", states)


def test_without_fsync_a_power_cut_takes_what_was_saved(scratch: Path) -> None:
    """The control: durability="process" promises nothing here, and the simulated disk shows why."""
    with pytest.raises(Loss):
        cut_everywhere(scratch, saves_for_the_process.__name__, "ext4")


@pytest.mark.parametrize("name", mostly_long(STORIES, STORIES.keys() - LARGE))
def test_a_power_cut_during_the_recovery_from_a_power_cut_changes_nothing(scratch: Path, name: str) -> None:
    states = cut_in_recovery(scratch, name, "posix", every=60)
    assert states > 10
    count("crash states", states)


@pytest.mark.parametrize("model", MODELS)
def test_the_states_of_one_save_are_all_of_them(scratch: Path, model: str) -> None:
    """64 a crash point are enough for a save: nothing is left to chance but the journal's and lock's bytes."""
    story = told("saves", scratch / "told")
    disk = MODELS[model](story.root, story.before, limit=64)
    for op in story.files.ops:
        disk.do([op])
        list(disk.states())
    assert disk.exhaustive


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", STORIES)
def test_the_simulated_disk_holds_what_the_real_one_does(scratch: Path, name: str, model: str) -> None:
    story = told(name, scratch / "told")
    disk = MODELS[model](story.root, story.before)
    disk.do(story.files.ops)
    assert disk.now() == read(story.root)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", STORIES)
def test_every_power_cut_and_every_one_after_it(scratch: Path, name: str, model: str) -> None:
    count("crash states", cut_everywhere(scratch, name, model, limit=512))
    count("crash states", cut_in_recovery(scratch, name, model, every=4, limit=16))


def test_a_story_has_a_state_for_every_operation(scratch: Path) -> None:
    story = told("saves", scratch / "told")
    places = {where for where, _, _ in cuts(story, "posix", limit=64)}
    assert len(places) >= 30
