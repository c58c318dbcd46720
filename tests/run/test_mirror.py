"""Opening a run with a mirror: what is brought back, what is refused, and who is fenced."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stopctl import (
    Best,
    DamagedError,
    KeepEvery,
    Last,
    LockedError,
    Maximize,
    MismatchError,
    NotARunError,
    OrderError,
    Run,
    SaveError,
    SettingError,
    StateError,
    peek,
)
from stopctl.store import Reader, pin
from stopctl.store.rundir import RESTORING
from support.mirrors.gate import Gate, rests
from support.teams import together

URL = "memory://bucket/run"


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def opened(directory, **settings):
    settings = {"state": {"w": 0}, "stop": None, "durability": "process", "mirror": URL, **settings}
    return Run(directory, **settings)


def train(directory, last, **settings):
    with opened(directory, **settings) as run:
        for epoch in run.epochs(last):
            run.report(val_loss=abs(2.2 - epoch))
    return run


def crash(run):
    """What is left where a process has died."""
    run._session._store.close()
    run._session._watch.close()


def epochs(directory):
    return [info.epoch for info in Reader(directory).list().good]


def writer(directory):
    return Reader(directory).meta["writer"]


def test_an_empty_directory_gets_the_newest_the_best_the_pinned_and_the_journal(gate, tmp_path, caplog):
    with opened(tmp_path / "a") as run:
        for epoch in run.epochs(6):
            run.report(val_loss=abs(2.2 - epoch))
            if epoch == 3:
                pin(tmp_path / "a", run.checkpoints[-1].name)
                run.save("mine")
    caplog.set_level(logging.INFO)
    (tmp_path / "b").mkdir()
    with opened(tmp_path / "b") as run:
        assert (run.resumed.epoch, run.progress.epoch) == (6, 6)
        assert all(info.mirrored for info in run.checkpoints)
        assert run.restore_best().epoch == 2
    assert epochs(tmp_path / "b") == [2, 3, 3, 5, 6]
    assert (writer(tmp_path / "a"), writer(tmp_path / "b")) == (1, 2)
    before, after = (list(Reader(tmp_path / name).journal()) for name in "ab")
    assert after[: len(before)] == before
    assert {"noticed", "resume"} <= {line["event"] for line in after[len(before) :]}
    assert "brought back from memory://bucket/run" in caplog.text
    assert "has not closed" not in caplog.text


def test_all_that_the_rule_keeps_comes_back_and_stays_in_the_mirror(gate, tmp_path):
    keep = Last(1) | Best(1) | KeepEvery(epochs=3)
    train(tmp_path / "a", 7, keep=keep)
    train(tmp_path / "b", 8, keep=keep)
    assert epochs(tmp_path / "b") == gate.epochs() == [2, 3, 6, 7, 8]  # 7 is what it resumed from
    train(tmp_path / "c", 9, keep=None)
    assert epochs(tmp_path / "c") == [2, 3, 6, 7, 8, 9]


def test_the_same_directory_goes_on_and_a_crash_of_its_own_is_no_news(gate, tmp_path, caplog):
    run = opened(tmp_path).open()
    passes = iter(run.epochs(3))
    next(passes)
    run.report(val_loss=1.0)
    rests(run)
    crash(run)
    with opened(tmp_path) as again:
        assert again.resumed.epoch == 1
    assert "has not closed" not in caplog.text
    assert gate.look().newest.number == writer(tmp_path) == 2


def test_a_directory_that_is_older_than_its_mirror_is_refused_or_set_aside(gate, tmp_path, caplog):
    train(tmp_path / "a", 2)
    train(tmp_path / "b", 4)
    before = sorted((tmp_path / "a").rglob("*"))
    with pytest.raises(
        LockedError,
        match=r"older than memory://.* or another run: writer 2, process \d+ on .*take_over=True sets",
    ):
        opened(tmp_path / "a").open()
    assert sorted((tmp_path / "a").rglob("*")) == before
    assert gate.look().newest.number == 2
    run = train(tmp_path / "a", 5, take_over=True)
    assert run.resumed.epoch == 4
    assert epochs(tmp_path / "a" / ".aside-1") == [1, 2]
    assert f"set aside in {tmp_path / 'a' / '.aside-1'}" in caplog.text
    assert train(tmp_path / "a", 6).resumed.epoch == 5


def test_a_directory_set_aside_by_half_is_taken_over_again(gate, tmp_path, monkeypatch):
    train(tmp_path / "a", 2)
    train(tmp_path / "b", 4)
    real = os.rename

    def broken(source, target):
        if Path(target).parent.name == ".aside-1" and Path(target).name == "run.json":
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", broken)  # the last step
        with pytest.raises(SaveError, match="setting the run aside failed: .*No space left"):
            opened(tmp_path / "a", take_over=True).open()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".aside-1", "run.json", "run.lock"]
    assert train(tmp_path / "a", 5, take_over=True).resumed.epoch == 4


def test_one_that_has_mirrored_nothing_since_leaves_the_local_state_in_place(gate, tmp_path, caplog):
    with opened(tmp_path / "a", save=None) as run:
        pass
    crash(opened(tmp_path / "b").open())
    with pytest.raises(LockedError, match="nothing is mirrored since, and take_over=True goes on with it"):
        opened(tmp_path / "a").open()
    run = train(tmp_path / "a", 2, take_over=True)
    assert run.resumed is None
    assert writer(tmp_path / "a") == gate.look().newest.number == 3
    assert "writer 2 on " in caplog.text


def test_what_the_disk_has_lost_comes_from_the_mirror(gate, tmp_path):
    run = train(tmp_path, 4)
    shutil.rmtree(run.checkpoints[-1].path)
    assert train(tmp_path, 5).resumed.epoch == 4
    shutil.rmtree(tmp_path / "checkpoints")
    assert train(tmp_path, 6).resumed.epoch == 5


@pytest.mark.parametrize("file", ["state.json", "manifest.json", "state.safetensors"])
def test_what_is_damaged_here_comes_from_the_mirror(gate, tmp_path, caplog, file):
    name = train(tmp_path, 4, state={"w": np.arange(8.0)}).checkpoints[-1].name
    path = tmp_path / "checkpoints" / name / file
    before = path.read_bytes()
    path.write_bytes(before[:-3] + b"xyz")
    run = train(tmp_path, 5, state={"w": np.zeros(8)})
    assert run.resumed.name == name
    assert f"{name} is damaged and set aside: " in caplog.text
    assert "; brought back from memory://bucket/run" in caplog.text
    assert run._state._state["w"].tolist() == list(range(8))
    told = [line["text"] for line in Reader(tmp_path).journal() if line["event"] == "noticed"]
    assert [text.partition(" is damaged")[0] for text in told] == [name]
    aside = tmp_path / "checkpoints" / f".damaged-{name}" / file
    assert aside.read_bytes() == before[:-3] + b"xyz"
    assert name in {info.name for info in run.checkpoints}


def test_of_what_is_damaged_here_and_in_the_mirror_an_older_one_goes_on(gate, tmp_path, caplog):
    run = train(tmp_path, 4, keep=None)
    for info in run.checkpoints[-2:]:
        (info.path / "state.json").write_bytes(b"x")
    for key in [key for key in gate.bucket if key.endswith("state.json") and "epoch-0004" in key]:
        gate.bucket[key] = b"x" * len(gate.bucket[key])
    again = train(tmp_path, 5, keep=None)
    assert again.resumed.epoch == 3, "the newest of which one of the two is whole"
    assert "so is that of memory://bucket/run: epoch-0004" in caplog.text
    assert epochs(tmp_path) == [1, 2, 3, 4, 5]
    for info in again.checkpoints:
        (info.path / "state.json").write_bytes(b"x")
    assert train(tmp_path, 6, keep=None).resumed.epoch == 5, "none is whole here"


def test_without_a_mirror_what_is_damaged_is_passed_over_as_ever(gate, tmp_path):
    run = train(tmp_path, 4)
    (run.checkpoints[-1].path / "state.json").write_bytes(b"x")
    with opened(tmp_path, mirror=None) as again:
        assert again.resumed.epoch < 4


def ranks(directory, last, mirror=lambda rank: URL):
    """The program of several ranks: where each began, and what it has at the end."""

    def program(team):
        state = {"w": 0.0, "rank": np.full(3, float(team.rank))}
        with opened(directory, state=state, team=team, mirror=mirror(team.rank)) as run:
            began = None if run.resumed is None else run.resumed.epoch
            for epoch in run.epochs(last):
                state["w"] += epoch
                run.report(val_loss=1.0 / epoch)
        return began, state["w"], state["rank"].tolist(), len(run.checkpoints)

    return program


@pytest.mark.parametrize("on", ["all ranks", "rank 0 alone"])
def test_of_what_several_ranks_find_damaged_rank_0_brings_it_back(gate, tmp_path, on):
    def mirror(rank):
        return URL if rank == 0 or on == "all ranks" else None

    together(2, ranks(tmp_path, 3, mirror))
    newest = Reader(tmp_path).list().good[-1].path
    part = next(newest.glob("part-00001.safetensors"), newest / "state.json")
    data = part.read_bytes()
    part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ends = together(2, ranks(tmp_path, 4, mirror))
    assert [(end[0], end[1], end[3]) for end in ends] == [(3, 10.0, 2)] * 2


def test_damage_in_the_mirror_is_told_and_never_a_fresh_start(gate, tmp_path, caplog):
    train(tmp_path / "a", 3)
    (newest,) = [key for key in gate.bucket if key.endswith("state.safetensors") and "epoch-0003" in key]
    gate.bucket[newest] = b"x" + gate.bucket[newest][1:]
    assert train(tmp_path / "b", 2).resumed.epoch == 2
    assert "epoch-0003-step-000000000-w0001 of memory://bucket/run is damaged and left there" in caplog.text
    for key in [key for key in gate.bucket if key.startswith("data/")]:
        gate.bucket[key] = b"x"
    with pytest.raises(DamagedError, match="no checkpoint of the mirror is good"):
        opened(tmp_path / "c").open()
    assert gate.look().newest.closed  # its claim is given back
    with pytest.raises(DamagedError, match="was being brought back from a mirror when that was broken off"):
        opened(tmp_path / "c", mirror=None).open()
    for key in [key for key in gate.bucket if key.startswith("commits/")]:
        del gate.bucket[key]
    with pytest.raises(DamagedError, match="none is there any more"):
        opened(tmp_path / "d").open()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"resume": "never"}, OrderError, "holds a run .*use another mirror"),
        ({"goal": Maximize("acc")}, StateError, "was begun with goal=Minimize"),
        ({"state": {"other": 0}}, MismatchError, "other"),
    ],
)
def test_what_the_mirror_has_is_refused_as_what_a_directory_has(gate, tmp_path, settings, error, text):
    train(tmp_path / "a", 2)
    with pytest.raises(error, match=text):
        opened(tmp_path / "b", **settings).open()
    assert gate.look().newest.closed
    newest = gate.look().newest.number
    assert (newest == 1) == (error is not MismatchError)  # whose objects do not fit is found out last


def test_resume_require_finds_the_mirror(gate, tmp_path):
    with pytest.raises(OrderError, match="has no checkpoint yet"):
        opened(tmp_path / "a", resume="require").open()
    train(tmp_path / "b", 2)
    assert train(tmp_path / "c", 3, resume="require").resumed.epoch == 2


def test_a_mirror_that_does_not_answer_is_no_reason_to_guess(monkeypatch, tmp_path):
    def away(operation, does):
        raise OSError("no route to the store")

    gate = Gate(monkeypatch)
    gate._seam = away
    with pytest.raises(SaveError, match="does not answer, so nobody can say .*no route to the store"):
        opened(tmp_path).open()
    assert not (tmp_path / "run.json").exists()


def test_a_mirror_that_was_forgotten_is_told_once_and_gone_on_with_when_it_is_given(gate, tmp_path, caplog):
    train(tmp_path, 2)
    assert "mirror= was not given" not in caplog.text
    caplog.clear()
    train(tmp_path, 3, mirror=None)
    assert f"mirrored at {URL}, and mirror= was not given: nothing is mirrored from here on" in caplog.text
    assert f"write mirror='{URL}' to go on there" in caplog.text
    assert [line["event"] for line in Reader(tmp_path).journal()].count("noticed") == 1
    caplog.clear()
    train(tmp_path, 4, mirror=None)
    assert "mirror=" not in caplog.text
    assert all(info.mirrored for info in train(tmp_path, 5).checkpoints)


def test_a_restore_that_was_broken_off_begins_anew(gate, tmp_path, monkeypatch):
    train(tmp_path / "a", 3)
    with monkeypatch.context() as patch:
        patch.setattr("stopctl.mirror.restore._write_anew", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            opened(tmp_path / "b").open()
    assert RESTORING in Reader(tmp_path / "b").meta
    assert train(tmp_path / "b", 4).resumed.epoch == 3
    assert RESTORING not in Reader(tmp_path / "b").meta


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mirror": "runs/copy"}, "mirror='runs/copy': write a URL"),
        ({"mirror": Path("/mnt")}, "write a URL"),
        ({"mirror_options": [1]}, "mirror_options"),
        ({"mirror_max_age": 0}, "mirror_max_age=0: write seconds"),
        ({"mirror_max_age": True}, "mirror_max_age=True"),
        ({"mirror": None, "mirror_max_age": 5}, "go with mirror="),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, text):
    with pytest.raises(SettingError, match=text):
        opened(tmp_path, **settings)


@pytest.mark.parametrize("door", [lambda url: Run(url, state={}), Reader])
@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://bucket/run", "file:///tmp/run", Path("s3://b/run")])
def test_a_url_is_no_directory(door, url):
    with pytest.raises(SettingError, match="is a URL: a run lives in a local directory"):
        door(url)


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Run("~/runs/a", state={"w": 1}) as run:
        for epoch in run.epochs(1):
            run.report(val_loss=1.0 / epoch)
    assert run.directory == tmp_path / "runs" / "a"
    assert Reader("~/runs/a").list().good[0].path.is_relative_to(tmp_path)
    assert peek("~/runs/a").epoch == 1
    with pytest.raises(NotARunError):
        Reader("~/runs/b")


def test_of_several_ranks_rank_0_mirrors_all_and_brings_all_back(gate, tmp_path):
    assert together(2, ranks(tmp_path / "a", 3)) == [(None, 6.0, [float(rank)] * 3, 2) for rank in (0, 1)]
    assert [info.ranks for info in Reader(tmp_path / "a").list().good] == [2, 2]
    shutil.rmtree(tmp_path / "a")
    assert [result[:2] for result in together(2, ranks(tmp_path / "b", 4))] == [(3, 10.0)] * 2
    assert gate.epochs() == [3, 4]


TRAINING = """
import hashlib, json, os, random, signal, sys, threading
from stopctl import Run
from support.mirrors.gate import rests
from stopctl.mirror import folder

directory, mirror, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = 0

def counted(method):
    def call(self, *args):
        global done
        if threading.current_thread().name == "stopctl-mirror":
            done += 1
            if done == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *args)
    return call

for name in ("create", "upload", "list", "read", "delete"):
    setattr(folder.Folder, name, counted(getattr(folder.Folder, name)))
chance, state = random.Random(7), {"weights": [0.0] * 8, "chance": None}
with Run(directory, state=state, mirror=mirror, stop=None, durability="process") as run:
    if state["chance"]:
        version, numbers, rest = json.loads(state["chance"])
        chance.setstate((version, tuple(numbers), rest))
    for epoch in run.epochs(6):
        state["weights"] = [w + chance.gauss(0.0, 1.0) for w in state["weights"]]
        state["chance"] = json.dumps(chance.getstate())
        run.report(val_loss=abs(sum(state["weights"])))
        rests(run)
    print(hashlib.sha256(json.dumps(state).encode()).hexdigest(), 0 if run.resumed is None else run.resumed.epoch)
"""


def trained(directory, mirror, die_at=0):
    command = [sys.executable, "-c", TRAINING, str(directory), f"file://{mirror}", str(die_at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode == -9) == (die_at > 0), done.stderr
    return done.stdout.split()


def test_a_process_killed_in_an_upload_whose_disk_is_lost_ends_as_undisturbed(tmp_path):
    undisturbed, _ = trained(tmp_path / "run", tmp_path / "mirror")
    began = []
    for die_at in (12, 25, 45):
        mirror = tmp_path / f"mirror-{die_at}"
        trained(tmp_path / "first", mirror, die_at)
        lines = (tmp_path / "first" / "journal.jsonl").read_text().splitlines()
        told = [json.loads(line)["name"][6:10] for line in lines if '"event":"mirrored"' in line]
        shutil.rmtree(tmp_path / "first")
        digest, resumed = trained(tmp_path / "second", mirror)
        shutil.rmtree(tmp_path / "second")
        assert digest == undisturbed
        assert int(resumed) >= int(max(told, default="0"))
        began.append(int(resumed))
    assert began[-1] > 1
