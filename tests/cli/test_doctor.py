"""`stopctl doctor`: what the next start of a run would do, tried beside what it does."""

from __future__ import annotations

import json
import shutil

import pytest

from stopctl import DamagedError, LockedError, Patience, Run, SettingError
from stopctl.cli.doctor import prospect
from support.ran import VALUES, files_of, ran

LATEST, OLDER = "epoch-0006-step-000000060-w0001", "epoch-0004-step-000000040-w0001"


def started(path, **settings):
    """The epochs that a start trains, and what it has resumed from; or the error."""
    done = []
    try:
        with Run(path, state={"weight": 0.0}, stop=settings.pop("stop", Patience(3)), **settings) as run:
            for epoch in run.epochs(7):
                done.append(epoch)
                run.report(val_loss=0.1 * epoch)
            return done[:1], run.resumed and run.resumed.name
    except (DamagedError, LockedError) as error:
        return type(error), None


def make(path, kind):
    """A run in a state that a user may find it in."""
    if kind == "new":
        ran(path, [0.5], save=None)
    elif kind == "going on":
        ran(path, VALUES[:2])
    else:
        ran(path, VALUES[:3] if kind == "all done" else VALUES, planned=3 if kind == "all done" else 50)
    checkpoints = path / "checkpoints"
    if kind in ("newest damaged", "all damaged"):
        newest = path / "checkpoints" / LATEST / "state.json"
        newest.write_bytes(newest.read_bytes().replace(b"weight", b"weighs"))
    if kind == "all damaged":
        for each in checkpoints.glob("epoch-*/manifest.json"):
            each.write_text("{}")
    if kind == "all gone":
        shutil.rmtree(checkpoints)
        checkpoints.mkdir()


@pytest.mark.parametrize(
    ("kind", "next_", "text", "start"),
    [
        ("new", "begins", "begins anew: nothing was saved yet", ([1], None)),
        (
            "going on",
            "resumes",
            "resumes from epoch-0002-step-000000020-w0001, after epoch 2, step 20, of 50 planned",
            ([3], "epoch-0002-step-000000020-w0001"),
        ),
        (
            "stopped",
            "finished",
            "trains nothing: stopped at epoch 6, step 60, no improvement over",
            ([], LATEST),
        ),
        ("all done", "finished", "trains nothing: all 3 epochs are done; write more than 3 to go on", None),
        ("newest damaged", "resumes", f"resumes from {OLDER}, after epoch 4, step 40, of 50", ([5], OLDER)),
        ("all damaged", "error", "no checkpoint loads: a start raises DamagedError", (DamagedError, None)),
        ("all gone", "error", f"(the last is {LATEST}), but none is there", (DamagedError, None)),
    ],
)
def test_it_tells_what_the_start_then_does(tmp_path, stopctl, kind, next_, text, start):
    path = tmp_path / "run"
    make(path, kind)
    before = files_of(path)
    code, out, err = stopctl("doctor", path)
    assert (text in out, err, files_of(path)) == (True, "", before)
    found = prospect(path)
    assert found.next == next_
    assert code == (next_ == "error" or bool(found.damaged))
    assert sorted(found.damaged) == {"newest damaged": [LATEST], "all damaged": sorted(found.damaged)}.get(
        kind, []
    )
    if start is not None:
        assert started(path) == start


def test_a_run_that_is_open_is_locked(tmp_path, stopctl):
    with Run(tmp_path, state={"weight": 0.0}) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
            code, out, _ = stopctl("doctor", tmp_path)
            assert started(tmp_path) == (LockedError, None)
    assert code == 1
    assert "locked by process " in out
    assert "; then it trains nothing: all 1 epoch are done" in out.replace("\n", " ")


def test_what_an_opening_would_need_or_do_besides_is_noted(tmp_path, stopctl):
    path = ran(tmp_path / "run", VALUES[:2])
    draft = path / "checkpoints" / ".tmp-epoch-0003-step-000000030-w0001-0123abcd"
    draft.mkdir()
    (draft / "state.json").write_text("x" * 1500)
    (draft.parent / ".tmp-mine").mkdir()  # a folder of somebody else's, which stays
    meta = json.loads((path / "run.json").read_text())
    meta |= {"mirrored": "s3://bucket/run", "rules": meta["rules"] | {"stop": "Mine(3)"}}
    (path / "run.json").write_text(json.dumps(meta))
    with (path / "journal.jsonl").open("a") as journal:
        journal.write("garbled\n")
    code, out, _ = stopctl("doctor", path, "--json")
    told = json.loads(out)
    assert (code, told["next"], told["checkpoint"]) == (0, "resumes", "epoch-0002-step-000000020-w0001")
    assert told["notes"] == [
        "it restores rng.numpy, rng.python, weight: give all of them, or name those that lack in allow_missing=",
        "stop Mine(3): it has a rule of your own, which cannot be replayed here",
        "1 unfinished draft (1.5 kB) will be swept away",
        "1 line of the journal cannot be read: skipped, as a crash leaves them",
        "it was mirrored: write mirror='s3://bucket/run' to go on there",
    ]


def test_a_run_being_brought_back_says_so_and_a_url_is_refused(tmp_path):
    path = ran(tmp_path / "run", VALUES[:2])
    meta = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(meta | {"restoring": "x"}))
    assert prospect(path).next == "error"
    assert started(path) == (DamagedError, None)
    with pytest.raises(SettingError, match="is a URL"):
        prospect("s3://bucket/run")
