"""What journal.index tells of a block is what its lines say, and it is never trusted over them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Every, Maximize, Minimize, Patience, Run
from stopctl.runs.closeness import closeness
from stopctl.runs.history import History, history
from stopctl.runs.moment import Place
from stopctl.runs.standing import read_run
from stopctl.runs.table import row
from stopctl.store import FILES, Files, Reader, index, strict
from stopctl.store.files import Handle
from stopctl.store.index import INDEX, Index, pieces
from support.ran import ran

JOURNAL = "journal.jsonl"
VALUE = st.sampled_from([0.5, 0.25, 0.5, -1.0, 3, "NaN", "Infinity", "-Infinity", None])
REPORT = st.fixed_dictionaries(
    {
        "metrics": st.fixed_dictionaries({"val_loss": VALUE}, optional={"acc": VALUE}),
        "new_best": st.booleans(),
        "stop": st.sampled_from([None, None, None, {"reason": "custom", "text": "enough"}]),
        "save": st.none(),
    },
    optional={"lr_factor": st.just(0.5), "value": VALUE, "note": st.sampled_from(["x" * 3000, "ü"])},
)
PLAIN = st.fixed_dictionaries(
    {"metrics": st.fixed_dictionaries({"val_loss": VALUE}), "new_best": st.just(False), "stop": st.none()}
).map(lambda fields: {**fields, "save": None})
FIELDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "report": PLAIN | PLAIN | REPORT,
    "saved": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "bytes": st.just(1),
            "took": st.just(0.5),
            "why": st.sampled_from(["every 2 epochs", "the last planned pass"]),
        }
    ),
    "boundary": st.fixed_dictionaries({"stop": st.none() | st.just({"text": "late"}), "save": st.none()}),
    "noticed": st.fixed_dictionaries({"text": st.sampled_from(["a", "b"]), "level": st.just("info")}),
    "preempted": st.just({"signal": "SIGTERM"}),
    "close": st.just({}) | st.just({"error": "ValueError: no"}),
    "save_failed": st.just({"why": "disk full"}),
}
EVENTS = st.sampled_from(["report"] * 6 + list(FIELDS))


@st.composite
def pasts(draw: st.DrawFn) -> list[bytes]:
    """What processes write one after another: each opens at a place, goes on from there, and may be killed."""
    parts: list[bytes] = []
    epoch = 0
    for opening in range(draw(st.integers(1, 4))):
        epoch = draw(st.integers(0, epoch))
        writer = draw(st.sampled_from([opening + 1] * 5 + [1]))
        at = {"time": "2026-01-01T00:00:00.000Z", "writer": writer, "step": 0, "seconds": 1.0}
        lines = [{"event": "resume" if parts else "start", "epoch": epoch, **at}]
        for event in draw(st.lists(EVENTS, max_size=25)):
            epoch += event == "report"
            lines.append(_ordered(event, epoch, at, draw(FIELDS[event])))
        text = b"".join(strict.dumps(line) + b"\n" for line in lines)
        parts.append(text[: len(text) - draw(st.sampled_from([0, 0, 0, 1, 9]))])
    return parts


def _ordered(event: str, epoch: int, at: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """As a run writes them, so that some have a shape."""
    counters = {"writer": at["writer"], "epoch": epoch, "step": 0, "seconds": 1.0}
    return {"time": at["time"], "event": event, **counters, **fields}


def asked(found: History) -> str:
    """Every answer that a block may give unparsed."""
    places = [Place(epoch, 0) for epoch in (0, 1, 3, 9)]
    goals = [Minimize("val_loss"), Maximize("val_loss", start_from=3), Minimize("acc"), Maximize("none")]
    one = [*map(found.best, goals), found.newest(), found.newest_report()]
    one += [next(found.newest_standing(), None)]
    return repr(
        [
            [each and (each.line, each.voided, each.text) for each in one],
            [found.count(), *map(found.count, places), found.reported_until()],
            [found.saved(), found.finished(), found.noticed(), found.stop(), found.skipped],
            [each.line for each in found.notable() if each.event == "report"],
            [(each.line, each.voided) for at in places for each in found.saves_at({at})],
            [each.line for at in places for each in found.standing_after(at)],
        ]
    )


def everything(found: History) -> str:
    return repr([asked(found), [(one.line, one.voided) for one in found.moments], found.values])


def told(path: Path) -> str:
    """What `ls`, `show` and `diff` tell of a run, but for the bytes on the disk."""
    run = read_run(path, datetime(2026, 1, 2, tzinfo=UTC))
    line = row(run)
    return repr([replace(run.standing, size=0), line.notes, line.metrics, closeness(run)])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("index") / "run")


@given(full=st.sampled_from([200, 1500]), parts=pasts())
def test_what_is_told_with_an_index_is_what_the_whole_journal_says(scratch, full, parts):
    journal = scratch / JOURNAL
    (scratch / INDEX).unlink(missing_ok=True)
    journal.write_bytes(b"")
    followed: History | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "FULL", full)
        for part in parts:
            data = journal.read_bytes()
            with journal.open("ab") as opened:
                opened.write(b"\n" * (data[-1:] not in (b"", b"\n")) + part)
            for _ in range(3):
                Index(FILES, journal).extend()
            followed = history(Reader(scratch), "val_loss", followed)
            asked(followed)
    quick, run = asked(history(Reader(scratch), "val_loss")), told(scratch)
    both = everything(history(Reader(scratch), "val_loss"))
    (scratch / INDEX).unlink(missing_ok=True)
    whole = history(Reader(scratch), "val_loss")
    assert (quick, both, run) == (asked(whole), everything(whole), told(scratch))
    assert followed is not None
    assert everything(followed) == everything(whole)


def long(path: Path, epochs: Sequence[int] = (60,)) -> Path:
    """A run that is opened for each number of epochs, and whose index has blocks of some ten lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stopctl.store.index.FULL", 2000)
        patch.setattr("stopctl.store.store.FULL", 2000)
        for planned in epochs:
            rules: dict[str, Any] = {"stop": Patience(100), "save": Every(epochs=7)}
            with Run(path, state={}, durability="process", **rules) as run:
                for epoch in run.epochs(planned):
                    run.report(val_loss=abs(25 - epoch) // 2 / 100)  # 24 to 26 are the best, and equal
    return path


def blocks(path: Path) -> int:
    return sum(piece.block is not None for piece in pieces(FILES, path / JOURNAL))


def test_a_run_writes_it_and_its_lines_are_not_parsed(tmp_path, monkeypatch):
    path = long(tmp_path / "run", (60, 80))
    assert blocks(path) >= 5
    parsed: list[bytes] = []
    read = index.Shapes.read
    monkeypatch.setattr(index.Shapes, "read", lambda self, text: parsed.append(text) or read(self, text))
    run = read_run(path)
    assert (run.standing.epoch, run.standing.best, run.standing.best_epoch) == (80, 0.0, 24)
    assert run.history.count() == 80
    assert len(parsed) < 50
    parsed.clear()
    assert closeness(run)[0] == [
        "Patience(100): 56 of 100 reports without improvement over 0",
        "Every(epochs=7): due next at epoch 84",
    ]
    assert len(parsed) < 50
    (path / INDEX).unlink()
    whole = read_run(path)
    assert len(parsed) > 80
    assert closeness(whole) == closeness(run)


def test_what_was_read_is_not_read_again_when_lines_are_added(tmp_path, monkeypatch):
    path = ran(tmp_path / "run")
    first = read_run(path)
    assert history(first.reader, "val_loss", first.history) is first.history
    parsed: list[bytes] = []
    read = index.Shapes.read
    line = (path / JOURNAL).read_bytes().splitlines(keepends=True)[-1]
    with (path / JOURNAL).open("ab") as journal:
        journal.write(line + line[:9])
    monkeypatch.setattr(index.Shapes, "read", lambda self, text: parsed.append(text) or read(self, text))
    second = read_run(path, before=first)
    assert parsed == [line[:-1], line[:9]]
    with (path / JOURNAL).open("ab") as journal:
        journal.write(line[9:])
    assert len(read_run(path, before=second).history.moments) == len(first.history.moments) + 2
    (path / JOURNAL).write_bytes(line)  # shorter: another one
    assert len(read_run(path, before=second).history.moments) == 1


def test_a_journal_that_was_changed_is_told_as_it_is(tmp_path):
    path = long(tmp_path / "run")
    text = (path / JOURNAL).read_bytes()
    (path / JOURNAL).write_bytes(text.replace(b'"val_loss":0.12', b'"val_loss":-9.2'))
    before = blocks(path)
    assert read_run(path).standing.best == -9.2
    (path / JOURNAL).write_bytes(text[1:])  # no line is where it was
    assert (blocks(path), read_run(path).standing.skipped) == (0, 1)
    (path / JOURNAL).write_bytes(text)
    assert 0 < before < blocks(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{",
        b'{"start":0}',
        b'{"start":0,"end":%d,"crc":0,"writer":1,"bottom":[0,0],"top":[9,0],"reports":1,"saves":0,'
        b'"reported":[9,0],"extremes":{"val_loss":[0,99999999]},"averages":null,"notable":[]}',
        b'{"start":0,"end":%d,"crc":0,"writer":1,"bottom":[0,0],"top":["9",0],"reports":1,"saves":0,'
        b'"reported":[9,0],"extremes":{},"averages":null,"notable":[]}',
        b'{"start":0,"end":%d,"crc":"0","writer":1,"bottom":[0,0],"top":[9,0],"reports":1,"saves":0,'
        b'"reported":[9,0],"extremes":{},"averages":null,"notable":[]}',
    ],
    ids=["list", "torn", "few", "offset", "place", "crc"],
)
def test_what_is_no_block_is_passed_over(tmp_path, line):
    path = ran(tmp_path / "run")
    (path / INDEX).write_bytes(line.replace(b"%d", b"%d" % (path / JOURNAL).stat().st_size) + b"\n")
    assert blocks(path) == 0
    assert read_run(path).standing.best == 0.3


class Full(Files):
    """A disk that has no room for the index."""

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        if handle.path.name == INDEX:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(handle, data)


def test_an_index_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    path = long(tmp_path / "run")
    (path / INDEX).unlink()
    monkeypatch.setattr(index, "FULL", 2000)
    Index(Full(), path / JOURNAL).extend()
    assert blocks(path) == 0
    (path / INDEX).unlink()
    (path / INDEX).symlink_to(tmp_path / "elsewhere")
    Index(FILES, path / JOURNAL).extend()
    assert not (tmp_path / "elsewhere").exists()
    assert read_run(path).standing.epoch == 60


def test_the_index_of_a_linked_backup_is_not_written_to(tmp_path, monkeypatch):
    path = long(tmp_path / "run")
    os.link(path / INDEX, tmp_path / "backup")
    before, count = (tmp_path / "backup").read_bytes(), blocks(path)
    long(path, (160,))
    assert (tmp_path / "backup").read_bytes() == before
    monkeypatch.setattr(index, "FULL", 2000)
    Index(FILES, path / JOURNAL).extend()
    assert blocks(path) > count


def test_a_line_without_end_waits_and_a_journal_that_is_not_there_has_no_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "FULL", 100)
    journal = tmp_path / JOURNAL
    assert list(pieces(FILES, journal)) == []
    Index(FILES, journal).extend()
    journal.write_bytes(b'{"event":"' + b"x" * 500)
    Index(FILES, journal).extend()
    assert not (tmp_path / INDEX).exists()
