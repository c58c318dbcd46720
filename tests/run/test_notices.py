"""What a State tells of the program: once in the log, once in the journal, and in whatever reads it."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest

from stopctl import Every, Preempted, Run, SettingError
from stopctl.ports import Notice
from stopctl.report.data import page_run
from stopctl.runs.standing import read_run
from stopctl.store import Reader
from support.given import Given, leaf
from support.ran import Command
from support.teams import together


class Teller(Given):
    """A State that has something to tell."""

    def __init__(self):
        super().__init__({"w": leaf([0.0])})
        self.notices = []


def train(directory, epochs, tell=None, **settings):
    """Every pass tells ``tell``'s notices of its number; returns the epochs that were done."""
    state, done = Teller(), []
    state.notices += (tell or {}).get("opening", [])
    with Run(directory, state=state, stop=None, **settings) as run:
        for epoch in run.epochs(epochs):
            done.append(epoch)
            run.report(val_loss=1.0)
            state.notices += (tell or {}).get(epoch, [])
        run.restore_latest()
        state.notices += (tell or {}).get("closing", [])
    assert state.notices == []
    return done


def noticed(directory):
    """The journal's lines of that kind: epoch, level, text."""
    lines = [line for line in Reader(directory).journal() if line["event"] == "noticed"]
    return [(line["epoch"], line["level"], line["text"]) for line in lines]


def test_each_is_told_once_an_opening_where_it_was_seen(tmp_path, caplog, monkeypatch, capsys):
    caplog.set_level("INFO", "stopctl")
    told = {
        "opening": [Notice("a key", logging.INFO)],
        2: [Notice("an <Adam>")] * 2,
        3: [Notice("an <Adam>")],
    }
    train(tmp_path, 3, {**told, "closing": [Notice("late")]})
    assert noticed(tmp_path) == [(0, "info", "a key"), (2, "warning", "an <Adam>"), (3, "warning", "late")]
    lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.levelno > logging.INFO]
    assert lines == [("WARNING", f"{tmp_path}: an <Adam>"), ("WARNING", f"{tmp_path}: late")]
    assert f"{tmp_path}: a key" in caplog.messages

    train(tmp_path, 4, {4: [Notice("an <Adam>")]})  # another opening tells it again, readers tell it once
    assert noticed(tmp_path)[3:] == [(4, "warning", "an <Adam>")]
    run = read_run(tmp_path)
    assert (run.standing.state, list(run.history.noticed())) == ("finished", ["a key", "an <Adam>", "late"])
    stopctl = Command(monkeypatch, capsys)
    _, shown, _ = stopctl("show", tmp_path)
    assert "\nnoticed\n  an <Adam>\n  late\n" in shown
    assert json.loads(stopctl("show", tmp_path, "--json")[1])["noticed"][0] == {
        "text": "a key",
        "level": "info",
    }
    assert "epoch 2: noticed: an <Adam>\n" in stopctl("explain", tmp_path)[1]
    assert any("noticed: an <Adam>" in row.text for row in page_run(tmp_path).reasons)


@pytest.mark.parametrize(("every", "saved"), [(1, True), (10, False)])
def test_an_error_ends_the_run_at_the_boundary_and_loses_nothing(tmp_path, every, saved):
    wrong = {2: [Notice("one", logging.ERROR), Notice("another", logging.ERROR)]}
    with pytest.raises(SettingError, match="^one; another$"):
        train(tmp_path, 5, wrong, save=Every(epochs=every))
    assert [level for _, level, _ in noticed(tmp_path)] == ["error", "error"]
    newest = read_run(tmp_path).listing.good[-1]
    assert (newest.epoch, "requested" in newest.reasons) == (2, not saved)
    assert train(tmp_path, 4) == [3, 4]


def test_an_error_between_two_batches_ends_it_there(tmp_path):
    state = Teller()
    with Run(tmp_path, state=state, stop=None) as run, pytest.raises(SettingError, match="one"):
        for _ in run.epochs(2):
            for batch in run.batches([1, 2, 3]):
                if batch == 2:
                    state.notices.append(Notice("one", logging.ERROR))
    with Run(tmp_path, state=Teller(), stop=None) as run:
        for _ in run.epochs(1):
            assert list(run.batches([1, 2, 3])) == [3]


def test_what_a_preempted_run_notices_does_not_hide_why_it_ended(tmp_path):
    state = Teller()
    with pytest.raises(Preempted), Run(tmp_path, state=state) as run:
        for _ in run.epochs(3):
            state.notices.append(Notice("at the end"))
            os.kill(os.getpid(), signal.SIGTERM)
            run.report(val_loss=1.0)
    assert noticed(tmp_path) == [(1, "warning", "at the end")]
    assert read_run(tmp_path).standing.state == "preempted"


def test_of_several_ranks_the_first_tells_and_nobody_waits(tmp_path, caplog):
    caplog.set_level("DEBUG", "stopctl")

    def program(team):
        state = Teller()
        with Run(tmp_path, state=state, stop=None, team=team) as run:
            for epoch in run.epochs(2):
                run.report(val_loss=1.0)
                if epoch == 1:
                    state.notices.append(Notice(f"seen by rank {team.rank}"))
        return state.notices

    assert together(2, program) == [[], []]
    assert noticed(tmp_path) == [(1, "warning", "seen by rank 0")]
    levels = {
        r.getMessage().partition(": ")[2]: r.levelname for r in caplog.records if "seen" in r.getMessage()
    }
    assert levels == {"seen by rank 0": "WARNING", "seen by rank 1": "DEBUG"}


def test_of_several_ranks_one_that_has_an_error_leaves_and_the_others_learn_it(tmp_path):
    def program(team):
        state = Teller()
        with Run(tmp_path, state=state, stop=None, team=team, save=Every(epochs=10)) as run:
            for _ in run.epochs(3):
                run.report(val_loss=1.0)
                if team.rank == 1:
                    state.notices.append(Notice("wrong", logging.ERROR))

    first, second = together(2, program)
    assert (type(second), str(second)) == (SettingError, "wrong")
    assert "rank 1 has ended with SettingError: wrong" in str(first)
