"""What run.json keeps of the program: masked, asked of git in safety, and not for observers."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stopctl import Run
from stopctl.runs import program
from stopctl.store import Reader
from support.ran import Command

WHO = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


def git(folder, *arguments):
    environment = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", **WHO}
    command = ["git", "-c", "init.defaultBranch=main", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A folder with a committed file, and its commit."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text("pass\n")
    git(folder, "init", "-q")
    git(folder, "add", "train.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder, git(folder, "rev-parse", "HEAD")


@pytest.fixture
def in_repository(repository, monkeypatch):
    """This process trains with the script of that repository; nothing of git is known yet."""
    folder, commit = repository
    monkeypatch.setattr(program, "_asked", {})
    monkeypatch.setattr(program, "PATIENCE", 60.0)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(folder / "train.py")))
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", "--token", "abc"])
    return folder, commit


class Listener:
    def __init__(self):
        self.lines = []

    def on_event(self, line):
        self.lines.append(line)

    def close(self):
        pass


def test_argv_and_git_are_in_run_json_and_no_observer_gets_them(in_repository, tmp_path, monkeypatch, capsys):
    _, commit = in_repository
    listener = Listener()
    with Run(tmp_path / "run", state={"w": 0.0}, observers=[listener]) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    told = json.loads((tmp_path / "run" / "run.json").read_text())["program"]
    assert told["argv"] == ["train.py", "--lr", "0.1", "--token", "(masked)"]
    assert told["git"] == {"commit": commit, "dirty": False}
    (start,) = [line for line in Reader(tmp_path / "run").journal() if line["event"] == "start"]
    assert start["program"] == {name: told[name] for name in told if name not in ("argv", "git")}
    assert (start["program"]["script"], start["program"]["python"]) == ("train.py", sys.version.split()[0])
    assert "abc" not in json.dumps(listener.lines)
    assert not any(name in json.dumps(listener.lines) for name in ("argv", commit))
    shown = Command(monkeypatch, capsys)("show", tmp_path / "run")[1]
    assert "train.py --lr 0.1 --token (masked)" in shown
    assert f"git {commit[:12]}\n" in shown


def test_a_changed_file_is_told_and_a_new_one_is_not(in_repository):
    folder, commit = in_repository
    (folder / "new.py").write_text("pass\n")
    assert program.ask().wait(60) == {"commit": commit, "dirty": False}
    assert program.ask() is program.ask(), "once a process"
    program._asked.clear()
    (folder / "train.py").write_text("changed\n")
    assert program.ask().wait(60) == {"commit": commit, "dirty": True}


@pytest.mark.parametrize("how", ["detached", "packed", "work tree"])
def test_the_commit_is_read_from_the_files(repository, tmp_path, how):
    folder, commit = repository
    if how == "detached":
        git(folder, "checkout", "-q", "--detach")
    elif how == "packed":
        git(folder, "pack-refs", "--all")
    else:
        git(folder, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
        folder = tmp_path / "tree"
    assert program.commit_of(folder) == commit
    (folder / "below").mkdir()
    assert program.commit_of(folder / "below") == commit


def test_what_is_no_commit_is_none(repository):
    folder, _ = repository
    for text in ("ref: ../train.py\n", "no commit\n", "ref: refs/heads/none\n"):
        (folder / ".git" / "HEAD").write_text(text)
        assert program.commit_of(folder) is None


def test_nothing_that_a_repository_names_is_run_and_nothing_is_written(in_repository, tmp_path):
    folder, commit = in_repository
    mark = tmp_path / "ran"
    evil = tmp_path / "evil.sh"
    evil.write_text(f'#!/bin/sh\necho "$0 $@" >> {mark}\ncat\n')
    evil.chmod(0o755)
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout"):
        (hooks / name).write_bytes(evil.read_bytes())
        (hooks / name).chmod(0o755)
    for name, value in {
        "core.fsmonitor": evil, "core.hooksPath": hooks, "core.pager": evil, "pager.status": evil,
        "filter.evil=x.clean": evil, "filter.evil=x.process": evil, "filter.evil=x.required": "true",
        "filter.plain.clean": evil, "filter.plain.required": "true",
        "core.sshCommand": evil, "diff.external": evil, "core.editor": evil, "status.submoduleSummary": "true",
        "remote.origin.url": f"ext::{evil}", "remote.origin.promisor": "true", "extensions.partialClone": "origin",
        "protocol.ext.allow": "always", "alias.status": f"!{evil}", "alias.rev-parse": f"!{evil}",
    }.items():  # fmt: skip
        git(folder, "config", name, str(value))
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "attributes").write_text("*.py filter=plain diff=evil\n*.txt filter=evil=x\n")
    (folder / ".gitattributes").write_text("* filter=plain\n")
    (folder / "train.py").write_text("pass!\n")  # of another time: its content must be compared
    (folder / "train.py").write_text("pass\n")
    before = {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")}
    assert program.ask().wait(60) == {"commit": commit, "dirty": False}
    assert not mark.exists()
    assert {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")} == before
    subprocess.run(["git", "-C", str(folder), "status"], capture_output=True, check=False)
    assert mark.exists(), "the repository is not hostile"


@pytest.mark.parametrize("how", ["none", "empty", "no git", "slow"])
def test_no_answer_of_git_is_no_error(in_repository, tmp_path, monkeypatch, how):
    folder, commit = in_repository
    if how == "none":
        outside = tmp_path / "outside"
        outside.mkdir()
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
        monkeypatch.chdir(outside)
        assert program.ask() is None
        return
    told = {"commit": commit, "dirty": None}
    if how == "empty":
        git(folder, "update-ref", "-d", "HEAD")
        told = {}
    elif how == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(program, "LIMIT", 1e-9)
    assert program.ask().wait(60) == told
    assert program.facts(program.ask())[0].get("git", {}) == told


def test_the_driver_names_the_graphics_processors(tmp_path):
    for i, name in enumerate(["NVIDIA H200", "NVIDIA H200", "NVIDIA T4"]):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    assert program.gpu(tmp_path) == "2 x NVIDIA H200, NVIDIA T4"
    assert program.gpu(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        (None, []),
        ("no object", []),
        ({"argv": "no list", "git": [], "libraries": 3}, []),
        (
            {"git": {"commit": "a" * 40, "dirty": None}},
            ["git aaaaaaaaaaaa, which was not compared with the files"],
        ),
        (
            {"host": "h", "python": "3.12", "libraries": {"numpy": "2"}, "gpu": "G"},
            ["h, python 3.12, numpy 2, G"],
        ),
    ],
)
def test_whatever_stands_in_run_json_is_read(told, lines):
    assert [line[: len(lines[0])] for line in program.described({"program": told})] == lines
