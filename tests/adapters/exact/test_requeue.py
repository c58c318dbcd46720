"""The two scripts of docs/slurm.md, preempted again and again, end as the undisturbed run."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from adapters.exact.proof import note_pair
from stopctl.runs.history import reports
from stopctl.store import Reader

PAGE = (Path(__file__).parents[3] / "docs" / "slurm.md").read_text()
PREEMPTIONS = 5

BESIDE = """
import pathlib, time
from stopctl.run import signals
pause, passed = int(pathlib.Path("pause").read_text()), 0

def reached():
    global passed
    passed += 1
    if passed == pause:  # the signal is sent while we are here, after this optimizer step
        pathlib.Path("ready").touch()
        while not any(watch.came for watch in signals._open_ones()):
            time.sleep(0.005)

import hashlib, json, random
import numpy

def tell(run, model, optimizer, torch):
    sha = hashlib.sha256()
    def fold(value):
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, numpy.ndarray):
            sha.update(value.tobytes())
        elif isinstance(value, (dict, list, tuple)):
            for part in (value.items() if isinstance(value, dict) else value):
                fold(part)
        else:
            sha.update(repr(value).encode())
    rngs = torch.get_rng_state(), random.getstate(), numpy.random.get_state(legacy=False)
    now = run.progress
    fold([model.state_dict(), optimizer.state_dict(), rngs, now.epoch, now.step, now.best, now.reports])
    pathlib.Path("result.json").write_text(json.dumps([sha.hexdigest(), str(run.stopped)]))
"""


def block(kind: str) -> str:
    """The page's first block of that language."""
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL).group(1)


def prepared(path: Path) -> Path:
    """A folder with both scripts; training tells each batch to the test, and what it has ended with."""
    path.mkdir()
    (path / "beside.py").write_text(BESIDE)
    seeds = "import random\nimport numpy\nrandom.seed(0)\nnumpy.random.seed(0)\nimport beside\n"
    text = block("python")
    assert text.count("            optimizer.step()\n") == 1
    text = text.replace(
        "            optimizer.step()\n", "            optimizer.step()\n            beside.reached()\n"
    )
    (path / "train.py").write_text(seeds + text + "    beside.tell(run, model, optimizer, torch)\n")
    (path / "job.sh").write_text(block("bash"))
    tools = path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    (tools / "scontrol").write_text('#!/bin/bash\necho "$@" >> asked\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return path


def job(path: Path, pause: int, number: int | None) -> int:
    """Run the job once; with a signal, send it when training has done so many batches."""
    (path / "ready").unlink(missing_ok=True)
    (path / "pause").write_text(str(pause))
    environment = {**os.environ, "PATH": f"{path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    started = subprocess.Popen(
        ["bash", "job.sh"],
        cwd=path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if number is not None:
        while not (path / "ready").exists():
            assert started.poll() is None, started.stdout.read()
            time.sleep(0.005)
        started.send_signal(number)  # the script passes it on
    told, _ = started.communicate(timeout=120)
    assert started.returncode in (0, 143), told
    return started.returncode


def ended(path: Path) -> list[object]:
    """The hash of everything, why it has stopped, and the decisions."""
    other = ("time", "seconds", "writer", "save")
    lines = reports(Reader(path / "runs" / "slurm"))
    told = [{name: value for name, value in line.items() if name not in other} for line in lines]
    return [*json.loads((path / "result.json").read_text()), told]


def test_five_preemptions_at_random_batches_end_with_the_undisturbed_result(tmp_path):
    straight, work = prepared(tmp_path / "straight"), prepared(tmp_path / "work")
    assert job(straight, 10**9, None) == 0
    rng = random.Random(5)
    numbers = [signal.SIGUSR1, signal.SIGTERM]
    for i in range(PREEMPTIONS):
        assert job(work, rng.randint(2, 20), numbers[i % 2]) == 143
        assert len((work / "asked").read_text().splitlines()) == i + 1
    assert (work / "asked").read_text().splitlines()[0] == "requeue 17"
    assert job(work, 10**9, None) == 0
    note_pair("docs/slurm.md", str(ended(straight)[0]), str(ended(work)[0]))
    assert ended(work) == ended(straight)
    events = [
        line["signal"] for line in Reader(work / "runs" / "slurm").journal() if line["event"] == "preempted"
    ]
    assert events == ["SIGUSR1"] * PREEMPTIONS  # the script passes both on as SIGUSR1
