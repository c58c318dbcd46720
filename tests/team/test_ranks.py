"""Ranks: one exchange, the same error everywhere, work that all wait for, errors told from rank to rank."""

from __future__ import annotations

import inspect
import threading
import time
from pathlib import Path

import pytest

import stopctl
from stopctl import LockedError, MismatchError, SaveError, StopctlError, TeamError
from stopctl.core import errors
from stopctl.state.snapshot import Changed
from stopctl.team.ranks import BUSY, RankFailed, Ranks
from support.teams import LocalTeam, together


class Quick(LocalTeam):
    """Waits a tenth of a second."""

    timeout = 0.1 * BUSY


def test_alone_nothing_is_waited_for():
    ranks = Ranks()
    assert (ranks.rank, ranks.size, ranks.leads, ranks.several, ranks.over) == (0, 1, True, False, True)
    (message,) = ranks.exchange("report", "here", {"step": 3}, {"seconds": 1.0})
    assert message == {"call": "report", "where": "here", "same": {"step": 3}, "fields": {"seconds": 1.0}}
    assert ranks.work("here", lambda: 7) == (7, [])
    assert ranks.agree("here", lambda: 7) == (7, [])
    assert ranks.lead("here", lambda: 7, str) == (7, [])
    thread = threading.current_thread()
    assert ranks.work("here", threading.current_thread).mine is thread
    ranks.close()


def test_an_exchange_gives_every_rank_what_all_told():
    def program(team):
        told = Ranks(team).exchange("report", "here", fields={"rank": team.rank})
        return [message["fields"] for message in told]

    assert together(3, program) == [[{"rank": 0}, {"rank": 1}, {"rank": 2}]] * 3


@pytest.mark.parametrize(
    ("call", "same", "text"),
    [
        (lambda rank: "report", lambda rank: {"step": rank // 2}, "step is 0 on rank 0, 1 on rank 2"),
        (
            lambda rank: "report",
            lambda rank: {"step": 1} if rank else {},
            "step is None on rank 0, 1 on rank 1",
        ),
        (lambda rank: "report" if rank else "close", lambda rank: {}, "rank 0 is at here, rank 1 at here"),
    ],
)
def test_what_differs_is_named_alike_on_all_ranks(call, same, text):
    def program(team):
        ranks = Ranks(team)
        with pytest.raises(TeamError) as caught:
            ranks.exchange(call(team.rank), "here", same(team.rank))
        assert ranks.over
        with pytest.raises(TeamError, match="have parted"):
            ranks.exchange("close", "there")
        return str(caught.value)

    texts = together(3, program)
    assert len(set(texts)) == 1
    assert text in texts[0]


def test_ranks_that_fail_are_named_to_the_others():
    def program(team):
        ranks = Ranks(team)
        if team.rank:
            return ranks.exchange("failed", "here", fields={"error": f"ValueError: {team.rank}"})
        with pytest.raises(RankFailed) as caught:
            ranks.exchange("report", "here")
        return str(caught.value), caught.value.messages

    (text, messages), *others = together(3, program)
    assert text == "rank 1 has ended with ValueError: 1; rank 2 has ended with ValueError: 2"
    assert others == [messages, messages]


def test_work_of_one_rank_is_waited_for_however_long_it_takes():
    def program(team):
        ranks = Ranks(Quick(team._network, team.rank))
        return ranks.work("here", lambda: time.sleep(0.5 * team.rank) or team.rank, str)

    assert together(2, program) == [(0, ["0", "1"]), (1, ["0", "1"])]


def test_rank_0_does_what_it_leads_in():
    assert together(2, lambda team: Ranks(team).lead("here", lambda: team.rank, lambda rank: rank + 10)) == [
        (0, [10, None]),
        (None, [10, None]),
    ]


@pytest.mark.parametrize("how", ["work", "agree"])
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SaveError("the disk is full", "/a/b"), SaveError, "rank 1: the disk is full"),
        (MismatchError("does not fit"), MismatchError, "rank 1: does not fit"),
        (LockedError("in use", host="a", pid=3), LockedError, "rank 1: in use"),
        (SaveError(object()), TeamError, "rank 1 has failed: SaveError: <object"),
        (ZeroDivisionError("what"), TeamError, "rank 1 has failed: ZeroDivisionError: what"),
    ],
)
def test_an_error_in_the_work_of_a_rank_is_everybodys(how, error, kind, text):
    def fail():
        raise error

    def program(team):
        return getattr(Ranks(team), how)("here", fail if team.rank == 1 else lambda: None)

    first, second, third = together(3, program)
    assert second is error
    assert type(first) is type(third) is kind
    assert str(first) == str(third)
    assert str(first).startswith(text)


FIELDS = {
    "str": "a text",
    "str | None": "a\udce9 text",
    "int | None": 2**40,
    "Path | None": Path("runs/caf\udce9/checkpoints"),
}
"""A value of each kind of field that an error has; an error with another one needs its own here."""

PUBLIC = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def crossed(error):
    """What rank 0 raises for an error of rank 1."""

    def fail():
        raise error

    return together(2, lambda team: Ranks(team).work("here", fail if team.rank else lambda: None))[0]


@pytest.mark.parametrize("kind", [*PUBLIC, Changed], ids=lambda kind: kind.__name__)
def test_an_error_crosses_with_all_its_fields(kind):
    if "__init__" in vars(kind) or issubclass(kind, SaveError):
        given = {name: FIELDS[p.annotation] for name, p in inspect.signature(kind).parameters.items()}
        error = kind(**given)
        fields = {name: value for name, value in given.items() if name != "message"}
    else:
        error, fields = kind("a text"), {}
    assert vars(error) == fields
    error.add_note("while it was tried")
    error.__cause__ = PermissionError(13, "Permission denied", "runs/caf\udce9/run.json")
    there = crossed(error)
    assert type(there) is kind
    assert vars(there) == {**fields, "__notes__": ["while it was tried"]}
    if issubclass(kind, StopctlError):
        assert str(there) == "rank 1: a text"
    else:
        assert (str(there), there.code) == (str(error), error.code)
    assert type(there.__cause__) is PermissionError
    assert (there.__cause__.args, there.__cause__.filename) == (
        error.__cause__.args,
        "runs/caf\udce9/run.json",
    )


def test_every_public_error_is_among_those_that_cross():
    named = {getattr(stopctl, name) for name in stopctl.__all__}
    raised = {kind for kind in named if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert len(raised) > 10
    assert raised <= {*PUBLIC}


def test_what_json_cannot_say_of_an_error_crosses_as_its_text():
    error = SaveError("no space", path=object())
    there = crossed(error)
    assert (type(there), str(there)) == (TeamError, "rank 1 has failed: SaveError: no space")


def test_an_error_without_words_says_which_rank_it_comes_from():
    assert str(crossed(TeamError())) == "rank 1"


def test_of_two_errors_all_raise_that_of_the_lower_rank_unless_their_own_is_none_of_ours():
    def program(team):
        def fail():
            raise (SaveError, SaveError, KeyError)[team.rank](f"mine {team.rank}")

        return Ranks(team).work("here", fail)

    first, second, third = together(3, program)
    assert (str(first), str(second)) == ("mine 0", "rank 0: mine 0")
    assert isinstance(third, KeyError)


def test_work_that_was_begun_is_finished_though_a_rank_is_lost():
    finished = threading.Event()

    def write():
        time.sleep(0.3)
        finished.set()

    def program(team):
        if team.rank == 0:
            with pytest.raises(TeamError):
                Ranks(Quick(team._network, 0)).work("here", write)
            assert finished.is_set()

    assert together(2, program) == [None, None]
