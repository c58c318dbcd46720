"""What a rank that does not write has in place of the store."""

from __future__ import annotations

import math

import pytest

from stopctl import Run, TeamError
from stopctl.store import Reader
from stopctl.team.follower import Follower, info_from_json, info_to_json


def test_it_finds_the_run_that_was_begun_and_writes_nothing(tmp_path):
    with Run(tmp_path, state={"w": 0}, notes={"a": 1}):
        follower = Follower(tmp_path)
        follower.join(1, 3, 0.0)
        assert follower.meta["notes"] == {"a": 1}
        before = sorted(tmp_path.rglob("*"))
        assert follower.append("report", epoch=1) is None
        assert list(follower.newest_lines()) == []
        assert not follower.lost
        follower.close()
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("what", ["nothing", "another writer", "rubbish"])
def test_a_directory_that_is_not_the_one_of_rank_0_is_told(tmp_path, what):
    if what != "nothing":
        with Run(tmp_path, state={"w": 0}):
            pass
    if what == "rubbish":
        (tmp_path / "run.json").write_text("{")
    with pytest.raises(TeamError, match=r"rank 3 does not find in .* on a file system that they share"):
        Follower(tmp_path).join(2, 3, 0.1)


def test_a_checkpoint_is_told_and_heard_as_it_is(tmp_path):
    with Run(tmp_path, state={"w": 0}, keep=None) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=[0.5, math.nan, math.inf][epoch - 1])
        run.save("mine")
    for info in Reader(tmp_path).list().good:
        heard = info_from_json(info_to_json(info), tmp_path)
        assert repr(heard) == repr(info)  # NaN is not equal to itself
