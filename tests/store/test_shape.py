from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stopctl import Maximize, Minimize, Patience, Run
from stopctl.runs.history import History, best_of, history
from stopctl.runs.moment import Shaped
from stopctl.store import Reader, shape, strict
from stopctl.store.journal import parse
from stopctl.store.shape import Shapes
from support.ran import ran

NAMES = ("val_loss", 'a"\\b', "ü", "{x}")
VALUES = st.one_of(
    st.floats(width=64).map(lambda x: strict.plain(x, "")), st.integers(-(10**20), 10**20), st.none()
)


def report(**more):
    counters = {"writer": 1, "epoch": 1, "step": 0, "seconds": 0.5}
    entry = {"time": "2026-01-01T00:00:00.000Z", "event": "report", **counters}
    inside = {"inside": True} if more.pop("inside", False) else {}
    rest = {"metrics": {"val_loss": 0.5}, "new_best": False, "stop": None, "save": None}
    return {**entry, **inside, **rest, **more}


REPORTS = st.builds(
    report,
    writer=st.sampled_from([1, 1, 1, 2, 0]),
    epoch=st.integers(0, 9),
    step=st.integers(0, 9),
    seconds=st.floats(0, 1e9),
    inside=st.booleans(),
    metrics=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
    | st.builds(lambda value: {"val_loss": value}, VALUES),
    new_best=st.booleans(),
    stop=st.sampled_from([None, None, None, {"reason": "custom", "text": "enough"}]),
    save=st.sampled_from([None, ["best"], ["every", "end"]]),
)
OTHERS = st.builds(
    lambda event, epoch, more: {"event": event, "epoch": epoch, "step": 0, **more},
    st.sampled_from(["start", "resume", "saved", "boundary", "close", "report"]),
    st.integers(0, 9),
    st.fixed_dictionaries({}, optional={"metrics": st.just({"val_loss": 1}), "lr_factor": st.just(0.5)}),
)
GARBLED = st.sampled_from([b"{", b'{"a":1,"a":2}', b"", b"[1]", b"\xff"])


@st.composite
def journals(draw: st.DrawFn) -> bytes:
    """Lines as a writer writes them, some damaged in a byte, the last one torn."""
    lines = draw(st.lists(st.one_of(REPORTS, REPORTS, OTHERS).map(strict.dumps) | GARBLED, max_size=20))
    data = bytearray(b"".join(line + b"\n" for line in lines))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(b'0-,"}\nx9'))
    return bytes(data[: len(data) - draw(st.sampled_from([0, 0, 1, 7]))])


def everything(found: History, goal: Minimize | Maximize) -> object:
    """All that is asked of a history, in a form that tells NaN from none."""
    best = found.best(goal)
    moments = [
        (m.event, m.place, m.line, m.text, m.voided, m.seconds, m.fact("inside"), m.fact("lr_factor"))
        for m in found.moments
    ]
    told = [(m.metrics, m.value("val_loss"), m.value("none")) for m in found.reported]
    ends = (best and found.moments.index(best), found.skipped, found.stop(), found.finished(), found.values)
    return repr((moments, told, ends))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("shape") / "run")


@given(journals(), st.sampled_from([Minimize("val_loss"), Maximize("val_loss", start_from=2)]))
@example(
    strict.dumps(report()) + b"\n" + strict.dumps(report()).replace(b"0.5}", b"1e400}"), Minimize("val_loss")
)
def test_a_line_of_a_known_shape_says_what_it_says_when_it_is_parsed(scratch, data, goal):
    (scratch / "journal.jsonl").write_bytes(data)
    short = history(Reader(scratch), "val_loss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shapes, "read", lambda self, text: parse(text))
        full = history(Reader(scratch), "val_loss")
    assert everything(short, goal) == everything(full, goal)
    best = best_of(full.reports(), goal)
    assert (None if best is None else full.reported[best]) is full.best(goal)


def test_the_lines_that_a_run_writes_have_shapes(tmp_path):
    with Run(tmp_path / "run", state={}, stop=Patience(30), save=None) as run:
        for epoch in run.epochs(20):
            run.report(val_loss=1.0 if epoch % 3 else 1.0 / epoch, accuracy=float("nan"))
    reported = history(Reader(tmp_path / "run"), "val_loss").reported
    assert [type(moment) for moment in reported].count(Shaped) >= 17  # not the first, the last, the stop


def test_more_shapes_than_are_kept_are_parsed():
    shapes = Shapes()
    lines = [strict.dumps(report(metrics={f"m{i}": 1.0})) for i in range(shape.MOST + 2)] * 2
    read = [shapes.read(line) for line in lines]
    assert [isinstance(one, tuple) for one in read[shape.MOST + 2 :]] == [True] * shape.MOST + [False] * 2
    assert read[-1] == json.loads(lines[-1])
