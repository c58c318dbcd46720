from __future__ import annotations

import json

from stopctl.runs.checkpoints import kept, planned
from stopctl.runs.standing import read_run
from stopctl.store import manual
from support.ran import ran


def test_each_checkpoint_is_told_with_its_reason_and_what_it_is(tmp_path):
    path = ran(tmp_path / "run")
    manual.pin(path, "epoch-0004-step-000000040-w0001")
    found = kept(read_run(path))
    assert [(one.info.epoch, one.tags) for one in found] == [
        (3, ("best",)), (4, ("pinned",)), (6, ("latest",)),
    ]  # fmt: skip
    assert found[0].why == "new best 0.3"


def test_without_a_line_in_the_journal_the_manifest_tells_the_reason(tmp_path):
    path = ran(tmp_path / "run")
    (path / "journal.jsonl").unlink()
    assert kept(read_run(path))[0].why == "best"


def test_the_planned_length_is_that_of_the_newest_checkpoint_that_can_be_read(tmp_path):
    path = ran(tmp_path / "run", planned=50)
    infos = read_run(path).listing.good
    assert planned(infos) == 50
    (infos[-1].path / "state.json").write_text("{")
    assert planned(infos) == 50
    for info in infos:
        (info.path / "state.json").write_text(json.dumps({"state": {"planned": "fifty"}}))
    assert planned(infos) is None
    assert planned(()) is None
