"""What a run's files say never steers the terminal, whichever command shows it."""

from __future__ import annotations

import json
import shutil

import pytest

from stopctl import Patience, Run, StopPolicy

EVIL = "\x1b[31mred\x07\x9b2J\n\rline"


class Evil(StopPolicy):
    """A rule whose reason is not for a terminal."""

    def met(self, memory, x, now):
        return x > 0.5

    def sentence(self, numbers):
        return EVIL


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A run with control characters in its name, metric, notes, reason, label and program."""
    path = tmp_path_factory.mktemp("evil") / f"run{EVIL}"
    goal = {"goal": __import__("stopctl").Minimize(EVIL)}
    with Run(
        path, state={}, stop=Evil() | Patience(9), notes={EVIL: EVIL}, durability="process", **goal
    ) as run:
        for epoch in run.epochs(9):
            run.report(**{EVIL: 0.6 if epoch == 4 else 0.4})
    meta = json.loads((path / "run.json").read_text())
    meta["program"] = {"argv": [EVIL], EVIL: EVIL}
    (path / "run.json").write_text(json.dumps(meta))
    damaged = min((path / "checkpoints").iterdir())
    state = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**state, EVIL: 1}))
    other = path.with_name("other")
    shutil.copytree(path, other)
    (other / "run.json").write_text(json.dumps({**meta, "notes": {}, "openings": []}))
    return path


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (["ls", "FOLDER", "--notes", EVIL, "--metrics", EVIL], 0),
        (["ls", "FOLDER", "--notes", "none"], 2),
        (["show", "RUN"], 0),
        (["diff", "RUN", "OTHER", "--all"], 0),
        (["explain", "RUN"], 0),
        (["explain", "RUN", "--epoch", "1"], 0),
        (["watch", "RUN", "--once"], 0),
        (["watch", "RUN"], 0),
        (["verify", "RUN"], 1),
        (["prune", "RUN", "--keep", "Last(1)"], 0),
        (["pin", "RUN", "none"], 2),
        (["pin", "RUN", "latest"], 0),
        (["unlock", "RUN"], 0),
        (["doctor", "RUN"], 1),
        (["replay", "RUN", "--stop", "Patience(1)"], 0),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_no_command_prints_a_control_character(arguments, ends, as_json, evil, stopctl):
    paths = {"RUN": evil, "OTHER": evil.with_name("other"), "FOLDER": evil.parent}
    told = [paths.get(word, word) for word in arguments]
    if as_json and arguments[0] != "watch":
        told.append("--json")
    code, out, err = stopctl(*told)
    assert code == ends
    assert [line for line in (out + err).split("\n") if not line.isprintable()] == []
    assert "\nline" not in out + err
