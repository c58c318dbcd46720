"""What ranks check of how they talk."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed

from stopctl import TeamError
from stopctl_torch.team import GlooTeam, find_team

BRIEF = 2.0
"""Seconds: long enough that a rank on a busy machine is not late, short enough to be waited for."""


def every_rank_gets_all_messages_by_rank(rank: int, size: int, shared: Path) -> None:
    with closing(GlooTeam(60)) as gloo:
        assert (gloo.rank, gloo.size, gloo.timeout) == (rank, size, 60)
        for message in (
            b"",
            b"one",
            b"\0" * 17,
            bytes(range(256)) * 15,
            b"x" * 4088,
            b"y" * 4089,
            b"z" * 100_001,
        ):
            sent = [message + bytes([other]) * other for other in range(size)]
            assert gloo.share(sent[rank]) == sent


def one_long_message_makes_all_others_come_again(rank: int, size: int, shared: Path) -> None:
    with closing(GlooTeam(60)) as gloo:
        sent = [b"short"] * (size - 1) + [b"long" * 5000]
        assert gloo.share(sent[rank]) == sent
        assert gloo.share(b"next %d" % rank) == [b"next %d" % other for other in range(size)]


def short_messages_cost_one_collective(rank: int, size: int, shared: Path) -> None:
    with closing(GlooTeam(60)) as gloo:
        count = 0
        (group,) = gloo._groups
        gather = group._gather

        def counted(block: bytes) -> list[bytes]:
            nonlocal count
            count += 1
            return gather(block)

        group._gather = counted
        gloo.share(b"x" * 4088)
        assert count == 1
        gloo.share(b"x" * 4089)
        assert count == 3


def teams_one_after_another_and_side_by_side(rank: int, size: int, shared: Path) -> None:
    groups = len(distributed.distributed_c10d._world.pg_map)
    for i in range(5):
        with closing(GlooTeam(60)) as gloo:
            assert gloo.share(b"%d" % i) == [b"%d" % i] * size
    with closing(GlooTeam(60)) as one, closing(GlooTeam(60)) as two:
        assert one.share(b"a") == [b"a"] * size
        assert two.share(b"b") == [b"b"] * size
        assert one.share(b"c") == [b"c"] * size
    assert len(distributed.distributed_c10d._world.pg_map) == groups


def closing_waits_for_nobody(rank: int, size: int, shared: Path) -> None:
    gloo = GlooTeam(60)
    gloo.share(b"")
    if rank == 0:
        gloo.close()
        gloo.close()
        (shared / "closed").touch()
    else:  # had it to wait for us, it would never come
        wait_for(shared / "closed")
        gloo.close()
    with pytest.raises(TeamError, match=f"rank {rank} of {size}: its team is closed"):
        gloo.share(b"")


def a_team_is_found_where_there_are_several_ranks(rank: int, size: int, shared: Path) -> None:
    gloo = find_team(60)
    assert isinstance(gloo, GlooTeam)
    assert gloo.share(b"") == [b""] * size
    gloo.close()


def a_late_rank_is_named_as_that_and_finds_the_others_gone(rank: int, size: int, shared: Path) -> None:
    distributed.barrier()  # what is brief begins for all at once
    gloo = GlooTeam(BRIEF)
    gloo.share(b"")
    if rank == size - 1:
        for other in range(size - 1):
            wait_for(shared / f"gave-up-{other}")
    with pytest.raises(TeamError) as raised:
        gloo.share(b"")
        gloo.share(b"")  # before gloo itself gives up, the late one may still be brought what was sent
    if rank < size - 1:
        waited = re.match(rf"rank {rank} of {size} waited (\S+) s for the others", str(raised.value))
        assert waited is not None
        assert float(waited[1]) >= BRIEF
        assert "another rank is stuck, or slower" in str(raised.value)
        assert f"write timeout=... (seconds, now {BRIEF:g})" in str(raised.value)
        (shared / f"gave-up-{rank}").touch()
    else:
        assert "another rank has left the run: its own error, or its log, says why" in str(raised.value)
    gloo._groups = []  # they are not asked again
    with pytest.raises(TeamError) as again:
        gloo.share(b"")
    assert str(again.value) == str(raised.value)
    gloo.close()
    distributed.barrier()  # the program's own group is as good as before


def a_rank_that_gives_up_does_not_wait_for_what_still_runs(rank: int, size: int, shared: Path) -> None:
    """Each rank comes in time for its neighbours, and the last one too late for the first."""
    assert size == 4
    gloo = GlooTeam(2 * BRIEF)
    gloo.share(b"")
    distributed.barrier()
    time.sleep(2 * BRIEF * (0.0, 0.8, 1.6, 0.8)[rank])
    began = time.monotonic()
    if rank == 0:
        with pytest.raises(TeamError, match=r"rank 0 of 4 waited \S+ s for the others"):
            gloo.share(b"")
        gloo.close()
        assert time.monotonic() - began < 2.9 * BRIEF  # what still runs ends after 3.2
    else:  # by its note, or by its connections
        with pytest.raises(TeamError, match="another rank has left the run"):
            gloo.share(b"")
            gloo.share(b"")
        assert time.monotonic() - began < 2.9 * BRIEF
        gloo.close()
    distributed.barrier()


def a_rank_that_leaves_is_missed_at_once(rank: int, size: int, shared: Path) -> None:
    gloo = GlooTeam(60)
    gloo.share(b"")
    if rank == size - 1:
        gloo.close()
        return
    with pytest.raises(TeamError, match="another rank has left the run"):  # and not: waited for the timeout
        gloo.share(b"")
    gloo.close()


def a_rank_that_does_not_open_the_run_is_missed(rank: int, size: int, shared: Path) -> None:
    if rank == size - 1:
        for other in range(size - 1):
            wait_for(shared / f"gave-up-{other}")
        begin_anew(rank, size, shared)  # torch numbers groups, and the ranks have counted differently
        return
    with pytest.raises(TeamError) as raised:  # the one that is missed waits for that
        GlooTeam(BRIEF)
    assert f"rank {rank} of {size} opened the run, but not all others did within" in str(raised.value)
    assert "every rank opens it" in str(raised.value)
    assert f"write timeout=... (seconds, now {BRIEF:g})" in str(raised.value)
    (shared / f"gave-up-{rank}").touch()
    begin_anew(rank, size, shared)


def a_program_may_destroy_its_groups_before_the_run_closes(rank: int, size: int, shared: Path) -> None:
    gloo = GlooTeam(60)
    gloo.share(b"")
    begin_anew(rank, size, shared)
    assert gloo.share(b"still") == [b"still"] * size
    gloo.close()


def a_killed_rank_is_missed_at_once(rank: int, size: int, shared: Path) -> None:
    gloo = GlooTeam(60)
    gloo.share(b"")
    if rank == size - 1:
        os._exit(9)
    with pytest.raises(TeamError, match="another rank has left the run"):  # and not: waited for the timeout
        gloo.share(b"")
    gloo.close()


def begin_anew(rank: int, size: int, shared: Path) -> None:
    distributed.destroy_process_group()
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{shared}/ranks",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )


class closing:
    """contextlib's, for a team."""

    def __init__(self, gloo: GlooTeam) -> None:
        self._gloo = gloo

    def __enter__(self) -> GlooTeam:
        return self._gloo

    def __exit__(self, *_: object) -> None:
        self._gloo.close()


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


CHECKS = [
    every_rank_gets_all_messages_by_rank,
    one_long_message_makes_all_others_come_again,
    short_messages_cost_one_collective,
    teams_one_after_another_and_side_by_side,
    closing_waits_for_nobody,
    a_team_is_found_where_there_are_several_ranks,
    a_late_rank_is_named_as_that_and_finds_the_others_gone,
    a_rank_that_leaves_is_missed_at_once,
    a_program_may_destroy_its_groups_before_the_run_closes,
    a_rank_that_does_not_open_the_run_is_missed,
]

SLOW = [a_rank_that_gives_up_does_not_wait_for_what_still_runs]

LAST = a_killed_rank_is_missed_at_once
"""Ends the last rank."""
