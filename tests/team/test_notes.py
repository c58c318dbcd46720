"""Notes: why a rank has left, read by the others when it no longer answers."""

from __future__ import annotations

import os
import threading

import pytest

from stopctl import Run, TeamError
from stopctl.state.dictstate import DictState
from stopctl.team.notes import Notes, ended, told
from support.teams import together


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("bad sample"), "ValueError: bad sample"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_a_note_in_the_directory_is_read_by_the_others_of_its_opening_until_the_next(tmp_path, error, text):
    one, two, later = (Notes(None, rank) for rank in (0, 1, 0))
    for notes, opening in ((one, 7), (two, 7), (later, 8)):
        notes.join(tmp_path, opening)
    two.leave(error)
    (tmp_path / "left-00002.json").write_text("{")
    assert one.read() == {1: text}
    assert ended(one.read()) == f"rank 1 has ended with {text}"
    assert two.read() == later.read() == {}
    later.clear()
    assert [*tmp_path.iterdir()] == []


def test_where_nothing_can_be_written_or_read_nothing_is_said(tmp_path):
    notes = Notes(None, 0)
    notes.leave(ValueError())
    notes.join(tmp_path / "none", 1)
    notes.leave(ValueError())
    notes.clear()
    assert notes.read() == {}
    assert not notes.lost(ConnectionError())


def test_a_pipe_a_link_or_a_huge_file_in_the_place_of_a_note_is_none(tmp_path):
    (tmp_path / "elsewhere.json").write_text('{"opening": 7, "why": "ValueError"}')
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / "left-00001.json")
    (run / "left-00002.json").symlink_to(tmp_path / "elsewhere.json")
    with (run / "left-00003.json").open("w") as file:
        file.write('{"opening": 7, "why": "ValueError"}')
        file.truncate(1 << 40)
    notes = Notes(None, 0)
    notes.join(run, 7)
    assert notes.read() == {}
    notes.clear()
    assert [*run.iterdir()] == []
    assert (tmp_path / "elsewhere.json").exists()


def test_a_rank_that_only_waited_for_others_is_no_reason():
    def program(team):
        Notes(team, team.rank).leave((TeamError if team.rank else ValueError)("x"))
        team.share(b"")
        return Notes(team, team.rank).read()

    assert together(2, program) == [{}, {0: "ValueError: x"}]
    assert told(ValueError("x" * 5000)) == "ValueError: " + "x" * 988


@pytest.mark.parametrize("caught", [ConnectionError, IndexError])
def test_the_error_of_a_collective_is_explained_and_a_ranks_own_is_not(tmp_path, caught):
    """Rank 1 fails, and rank 0 as well: by a collective that lacks it, or by a fault of its own."""
    failed = threading.Event()

    def program(team):
        note = team.note
        team.note = lambda text: (note(text), failed.set())
        with Run(tmp_path, state=DictState({"x": 1}), team=team) as run:
            for _ in run.epochs(1):
                if team.rank:
                    raise ValueError("bad sample")
                assert failed.wait(60)
                raise caught("closed")

    zero, one = together(2, program)
    assert (type(one), str(one)) == (ValueError, "bad sample")
    if caught is IndexError:
        assert isinstance(zero, IndexError)
    else:
        assert type(zero) is TeamError
        assert str(zero) == "rank 1 has ended with ValueError: bad sample"
        assert isinstance(zero.__cause__, ConnectionError)
