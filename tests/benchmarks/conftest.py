"""The benchmarks' modules are importable as they are for one who runs them; and a file of curves to run them on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def falling(floor: float, speed: float, length: int) -> list[float]:
    return [floor + speed ** -(t + 1) + 0.01 * (t % 3) for t in range(length)]


@pytest.fixture
def curve_file(tmp_path):
    """Six curves of three repositories on which something can be said, and two on which nothing can."""
    lines = [
        {
            "source": "a/one@0:x",
            "mode": "min",
            "values": falling(0.2, 1.3, 30),
            "train": falling(0.1, 1.2, 30),
        },
        {"source": "a/one@0:y", "mode": "max", "values": [-v for v in falling(0.2, 1.1, 40)]},
        {
            "source": "b/two@0:x",
            "mode": "min",
            "values": falling(-0.5, 2.0, 20),
            "train": falling(0.1, 1.2, 20),
        },
        {"source": "b/two@0:y", "mode": "min", "values": [0.5] * 20},
        {"source": "c/three@0:x", "mode": "min", "values": [None, *falling(0.3, 1.2, 24)]},
        {"source": "c/three@0:y", "mode": "min", "values": falling(0.3, 1.05, 60)},
        {"source": "c/three@0:z", "mode": "min", "values": [0.5, 0.4]},
        {"source": "c/three@0:w", "mode": "min", "values": [0.5, None, None, 0.4]},
    ]
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def script(tmp_path):
    """Run a benchmark as one does from the shell; what it prints."""

    def run(name: str, *arguments: object, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, BENCHMARKS / name, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run
