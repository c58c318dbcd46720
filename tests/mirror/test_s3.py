"""Machines that are lost while they mirror to a real server: killed at a request, their disks removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from stopctl import Run, SettingError
from stopctl.mirror import Mirror, remote
from support import objectstore
from support.objectstore import DROPPED, EXPIRED, KEYS, LOST, SLOW_DOWN, options

TRAINING = """
import hashlib, json, random, sys
from stopctl import Best, Last, Run

directory, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
class Told:
    def on_event(self, line):
        if line["event"] == "mirrored":
            print(line["name"], flush=True)
    def close(self):
        pass

state = {"weights": [0.0] * 8}
with Run(directory, state=state, mirror=url, mirror_options=options, stop=None, keep=Last(2) | Best(1),
         observers=[Told()]) as run:
    for epoch in run.epochs(5):
        state["weights"] = [w + random.gauss(0.0, 1.0) for w in state["weights"]]
        run.report(val_loss=abs(sum(state["weights"])))
        while not run.checkpoints[-1].mirrored:
            run._session._checkpoints.uploader._thread.join(0.005)
digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
print("end", digest, run.progress.best, run.progress.best_epoch, flush=True)
"""


class Machine:
    """A process that trains on a disk of its own, seen by a proxy; `told` is what it was told to be mirrored."""

    def __init__(self, directory, url, address, seed):
        code = f"import random; random.seed({seed})\n{TRAINING}"
        command = [sys.executable, "-c", code, str(directory), url, json.dumps(options(address))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def ended(self):
        """Its exit code, the names that it was told, and its last words."""
        out, err = self.process.communicate(timeout=120)
        told = [line for line in out.splitlines() if line.startswith("epoch-")]
        ends = [line for line in out.splitlines() if line.startswith("end ")]
        assert self.process.returncode in (0, -signal.SIGKILL), err
        return self.process.returncode, told, ends


MOMENTS = [
    ("PUT", "/data/", 3, False),
    ("PUT", "/commits/", 2, True),
    ("DELETE", "/commits/", 1, False),
    ("GET", "/data/", 2, True),
]
"""The n-th request of a kind, and whether it was done when the machine died; the last one is of a restore."""


def test_lost_machines_end_as_one_that_was_not(s3_server, tmp_path):
    url, acknowledged, machines, dead = "s3://runs/lost", set(), [], []
    with objectstore.proxy(s3_server) as proxy:
        code, _, undisturbed = Machine(tmp_path / "whole", "s3://runs/whole", proxy.address, 7).ended()
        assert code == 0

        def look(verb, path, done):
            method, part, nth, after = MOMENTS[len(machines) - 1]
            if (verb, done) == (method, after) and f"/lost{part}" in path:
                dead.append(path)
                if len(dead) == nth:
                    os.kill(machines[-1].process.pid, signal.SIGKILL)

        for number in range(len(MOMENTS)):
            directory = tmp_path / f"disk-{number}"
            dead.clear()
            machines.append(Machine(directory, url, proxy.address, 99 if number else 7))
            proxy.look = look
            code, told, _ = machines[-1].ended()
            proxy.reset()
            assert code == -signal.SIGKILL
            acknowledged |= set(told)
            shutil.rmtree(directory)
            there = Mirror(remote(url, options(s3_server), shared=True)).look().commits
            assert max((commit.name for commit in there), default="") >= max(acknowledged, default="")
        code, _, ended = Machine(tmp_path / "last", url, proxy.address, 99).ended()
        assert (code, ended) == (0, undisturbed)
        assert acknowledged


def test_a_run_goes_on_through_what_a_server_does(s3_server, tmp_path):

    with objectstore.proxy(s3_server) as proxy:
        url, state = "s3://runs/stormy", {"w": 0.0}
        with Run(
            tmp_path / "run", state=state, stop=None, mirror=url, mirror_options=options(proxy.address)
        ) as run:
            for epoch in run.epochs(3):
                proxy.faults.extend([SLOW_DOWN, LOST, EXPIRED if epoch == 2 else DROPPED, LOST])
                state["w"] = float(epoch)
                run.report(val_loss=1 / epoch)
        assert not proxy.faults
        lines = (tmp_path / "run" / "journal.jsonl").read_text()
        assert not any(
            secret in lines + (tmp_path / "run" / "run.json").read_text() for secret in KEYS.values()
        )
    shutil.rmtree(tmp_path / "run")
    with Run(tmp_path / "run", state=state, stop=None, mirror=url, mirror_options=options(s3_server)) as run:
        assert (run.resumed.epoch, state["w"]) == (3, 3.0)


def test_a_store_that_takes_a_key_twice_is_refused_at_opening(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": real(self, path, value)
    )
    with pytest.raises(SettingError, match="takes a second object of the same key"):
        Run(tmp_path / "run", state={}, mirror="memory://careless/run").__enter__()
    assert not (tmp_path / "run" / "run.json").exists()
