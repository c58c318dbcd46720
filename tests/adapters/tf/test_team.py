"""The team of workers, over a table of keys that is made late, stuck or gone; test_workers.py has the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow as tf

from stopctl import TeamError
from stopctl_tf import team
from stopctl_tf.team import ServiceTeam, find_team


class Table:
    """What TensorFlow's coordination service does with keys, in one process."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.stuck = threading.Event()  # a stuck service keeps whoever writes
        self.gone: str | None = None
        self._changed = threading.Condition()

    def set_config_key_value(self, key: str, value: str) -> None:
        self._answer()
        with self._changed:
            if key in self.values:
                raise tf.errors.AlreadyExistsError(None, None, key)
            self.values[key] = value
            self._changed.notify_all()

    def get_config_key_value(self, key: str, timeout_in_ms: int) -> str:
        assert timeout_in_ms > 0  # 0 waits for ever
        if self.gone is not None:
            raise tf.errors.UnavailableError(None, None, self.gone)
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise tf.errors.DeadlineExceededError(None, None, f"timed out with key: {key}")
            return self.values[key]

    def delete_config_key_value(self, key: str) -> None:
        self._answer()
        with self._changed:
            self.values.pop(key, None)

    def _answer(self) -> None:
        if self.stuck.is_set():
            threading.Event().wait(30)
        if self.gone is not None:
            raise tf.errors.UnavailableError(None, None, self.gone)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """A table for all teams of the test, and short farewells."""
    made = Table()
    monkeypatch.setattr(team, "_table", lambda: made)
    monkeypatch.setattr(team, "SLICE", 0.05)
    monkeypatch.setattr(team, "LINGER", 0.05)
    yield made
    made.stuck.clear()


def members(size: int, timeout: float = 0.3) -> list[ServiceTeam]:
    """One team, as its processes would make it."""
    made = [ServiceTeam(rank, size, timeout) for rank in range(size)]
    for each in made:
        each._prefix = made[0]._prefix
    return made


def together(teams: list[ServiceTeam], messages: list[bytes]) -> list[Any]:
    """What each has heard, or the error it met."""
    heard: list[Any] = [None] * len(teams)

    def share(i: int) -> None:
        try:
            heard[i] = teams[i].share(messages[i])
        except TeamError as error:
            heard[i] = str(error)

    threads = [threading.Thread(target=share, args=(i,)) for i in range(len(teams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return heard


def test_every_rank_hears_all_messages_whatever_bytes_they_have(table: Table) -> None:
    teams = members(3, timeout=20)
    for length in (0, 1, 70_000):
        messages = [bytes([rank, 0, 10, 255]) * length for rank in range(3)]
        assert together(teams, messages) == [messages] * 3


def test_a_round_leaves_no_more_than_two_messages_of_each_rank_behind(table: Table) -> None:
    teams = members(2, timeout=20)
    for number in range(10):
        together(teams, [bytes([number])] * 2)
    assert len(table.values) == 4


def test_a_rank_that_does_not_come_is_named_and_the_team_is_over(table: Table) -> None:
    first = members(2)[0]
    with pytest.raises(TeamError, match=r"rank 0 of 2 has waited 0\.3 s for rank 1, .*write timeout="):
        first.share(b"")
    table.gone = "nobody asks any more"
    with pytest.raises(TeamError, match="has waited"):
        first.share(b"")


def test_who_comes_after_others_have_given_up_is_told_why(table: Table) -> None:
    first, second = members(2)
    with pytest.raises(TeamError):
        first.share(b"")
    second.timeout = 20
    with pytest.raises(TeamError, match="rank 1 of 2: rank 0 has left: rank 0 of 2 has waited"):
        second.share(b"")


def test_who_has_read_the_round_before_others_gave_up_is_told_in_the_next(table: Table) -> None:
    first, second, third = members(3)
    for each in (second, third):  # they have heard all of round 0
        each._send("", time.monotonic() + 20)
        each._round += 1
    first._send("", time.monotonic() + 20)
    first._farewell("it has a bug", anew=True)
    with pytest.raises(TeamError, match="rank 0 has left: it has a bug"):
        second._read(0, time.monotonic() + 20)


def test_notes_are_found_of_whichever_ranks_have_left_them(table: Table) -> None:
    teams = members(300)
    assert teams[0].notes() == {}
    teams[299].note("ValueError: bad sample")
    teams[7].note("KeyboardInterrupt")
    teams[299].note("a second one")
    assert teams[0].notes() == {299: "ValueError: bad sample", 7: "KeyboardInterrupt"}
    table.gone = "the host is gone"
    teams[8].note("ValueError")
    assert teams[0].notes() == {}


def test_who_waits_for_a_rank_that_has_closed_is_told_at_once(table: Table) -> None:
    teams = members(2, timeout=20)
    together(teams, [b"", b""])
    teams[1].close()
    teams[1].close()
    with pytest.raises(TeamError, match="rank 1 has left: it has closed the run"):
        teams[0].share(b"")
    with pytest.raises(TeamError, match="rank 1 of 2: its team is closed"):
        teams[1].share(b"")


def test_the_rank_that_has_the_table_lets_the_others_read_before_it_goes(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "LINGER", 20.0)
    first, second = members(2, timeout=20)
    ended: list[str] = []
    closing = threading.Thread(target=lambda: (first.close(), ended.append("first")))
    closing.start()
    closing.join(0.1)
    ended.append("second")
    second.close()
    closing.join(10)
    assert ended == ["second", "first"]


def test_a_stuck_service_keeps_nobody_for_ever(table: Table) -> None:
    table.stuck.set()
    second = members(2)[1]
    with pytest.raises(TeamError, match="rank 1 of 2 has waited .* for rank 0"):
        second.share(b"")
    second.close()


def test_a_service_that_is_gone_is_an_error_of_the_team(table: Table) -> None:
    table.gone = "Connection refused\nand more"
    with pytest.raises(TeamError, match=r"rank 0, which hosts .* does not answer: Connection refused$"):
        members(2)[1].share(b"")


def test_without_several_workers_there_is_no_team() -> None:
    assert find_team(None, 1.0) is None
    assert find_team(tf.distribute.MirroredStrategy(["CPU:0"]), 1.0) is None
