"""`stopctl mirror push` and `pull`."""

from __future__ import annotations

import json

from stopctl.store import Reader
from support.ran import Command, ran


def test_a_run_goes_there_and_comes_back(tmp_path, stopctl: Command):
    run, url = ran(tmp_path / "run"), f"file://{tmp_path}/disk"
    names = [info.name for info in reversed(Reader(run).list().good)]
    code, out, _ = stopctl("mirror", "push", run, url)
    assert code == 0
    assert out.splitlines() == [
        *(f"sent to {url}: {name}" for name in names),
        f"{len(names)} checkpoints sent to {url}",
    ]
    again = json.loads(stopctl("mirror", "push", run, url, "--json")[1])
    assert again == {"path": str(run), "url": url, "moved": [], "there": names, "damaged": []}
    assert (
        f"0 checkpoints sent to {url}, {len(names)} had been there" in stopctl("mirror", "push", run, url)[1]
    )
    assert (
        f"{len(names)} checkpoints brought back from" in stopctl("mirror", "pull", tmp_path / "back", url)[1]
    )
    assert [info.name for info in reversed(Reader(tmp_path / "back").list().good)] == names


def test_damage_is_told_and_what_cannot_be_is_refused(tmp_path, stopctl: Command):
    run, url = ran(tmp_path / "run"), f"file://{tmp_path}/disk"
    state = Reader(run).list().good[-1].path / "state.json"
    state.write_bytes(state.read_bytes()[:-1] + b" ")
    code, out, _ = stopctl("mirror", "push", run, url)
    assert code == 1
    assert "damaged, left out: epoch-" in out
    assert "no such scheme" in stopctl.refused("mirror", "push", run, "ftp://host/run")
    assert "s3://..." in stopctl.refused("mirror", "pull", run, "s3://key:hidden@bucket/run")
    assert "no checkpoint is mirrored" in stopctl.refused("mirror", "pull", tmp_path / "new", f"{url}/none")
    assert not (tmp_path / "new").exists()
    assert "goes on from there" in stopctl("mirror", "--help")[1]
