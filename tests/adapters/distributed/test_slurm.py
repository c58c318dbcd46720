"""The job scripts of docs/slurm.md for several ranks, without Slurm: preempted twice, they end as the undisturbed job."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stopctl.runs.history import reports
from stopctl.store import Reader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOCS = Path(__file__).parents[3] / "docs"

SRUN = """
import os, signal, subprocess, sys
count = int(os.environ["SLURM_NTASKS"])
tasks = [
    subprocess.Popen(sys.argv[1:], env={**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}, start_new_session=True)
    for i in range(count)
]
def passed_on(number, frame):
    for task in tasks:
        task.send_signal(number)
signal.signal(signal.SIGUSR1, passed_on)
codes = [task.wait() for task in tasks]
sys.exit(max(128 - code if code < 0 else code for code in codes))
"""

BESIDE = """
import os, pathlib, time
from stopctl.run import signals
passed = 0

def reached():
    global passed
    passed += 1
    if passed == 15 and pathlib.Path("hold").exists():  # the signal is sent while all ranks are here
        pathlib.Path("ready-" + os.environ["RANK"]).touch()
        while not any(watch.came for watch in signals._open_ones()):
            time.sleep(0.005)
"""


def block(page: str, kind: str, number: int = 0) -> str:
    """A block of a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)[number]


def prepared(path: Path, script: int) -> Path:
    """A folder with the program of one page and the job script of the other; training tells the test how far it is."""
    path.mkdir()
    text = block("distributed.md", "python")
    step = "            optimizer.step()\n"
    assert text.count(step) == 1
    (path / "beside.py").write_text(BESIDE)
    told = step + "            beside.reached()\n"
    (path / "train.py").write_text("import beside\n" + text.replace(step, told))
    (path / "job.sh").write_text(block("slurm.md", "bash", script))
    tools = path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    (tools / "torchrun").write_text(f'#!/bin/bash\nexec "{sys.executable}" -m torch.distributed.run "$@"\n')
    (tools / "srun.py").write_text(SRUN)
    (tools / "srun").write_text(f'#!/bin/bash\nexec "{sys.executable}" "{tools}/srun.py" "$@"\n')
    (tools / "scontrol").write_text(
        '#!/bin/bash\nif [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> asked; fi\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return path


def free_job() -> int:
    """The number of a job whose port is free."""
    for number in random.sample(range(1, 20000), 50):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 20000 + number)):
            return number
    raise AssertionError("no port is free")


def job(path: Path, *, preempt: bool) -> int:
    """Run the job once, and send it the signal when both ranks wait for it, in the middle of an epoch."""
    ready = [path / f"ready-{rank}" for rank in range(2)]
    for each in ready:
        each.unlink(missing_ok=True)
    if preempt:
        (path / "hold").touch()
    else:
        (path / "hold").unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{path / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "SLURM_JOB_ID": str(free_job()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "2",
        "GPUS": "1",
    }
    with open(path / "output", "a") as output:
        started = subprocess.Popen(
            ["bash", "job.sh"], cwd=path, env=environment, stdout=output, stderr=output
        )
        if preempt:
            while not all(each.exists() for each in ready):
                assert started.poll() is None, (path / "output").read_text()[-3000:]
                time.sleep(0.01)
            started.send_signal(signal.SIGUSR1)
        return started.wait(timeout=300)


def ended(path: Path) -> list[object]:
    """The decisions, and what the last checkpoint holds."""
    reader = Reader(path / "runs" / "ddp")
    other = ("time", "seconds", "writer", "save")
    decisions = [
        {name: value for name, value in line.items() if name not in other} for line in reports(reader)
    ]
    components, _ = reader.load(reader.list().good[-1])
    leaves = {name: bytes(leaf.data) for name, leaf in components["model"].items() if name != "_metadata"}
    return [json.dumps(decisions), leaves]


@pytest.mark.parametrize(("script", "code"), [(1, 143), (2, 1)])
def test_a_job_of_two_ranks_that_is_preempted_twice_ends_with_the_undisturbed_result(tmp_path, script, code):
    straight, work = prepared(tmp_path / "straight", script), prepared(tmp_path / "work", script)
    assert job(straight, preempt=False) == 0, (straight / "output").read_text()[-3000:]
    for number in (1, 2):
        assert job(work, preempt=True) == code, (work / "output").read_text()[-5000:]
        assert len((work / "asked").read_text().splitlines()) == number
    assert job(work, preempt=False) == 0, (work / "output").read_text()[-3000:]
    assert len((work / "asked").read_text().splitlines()) == 2
    events = [
        line["signal"] for line in Reader(work / "runs" / "ddp").journal() if line["event"] == "preempted"
    ]
    assert events == ["SIGUSR1"] * 2
    assert ended(work) == ended(straight)
