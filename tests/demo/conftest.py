from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pytest

PACED = Path(__file__).with_name("paced.py")


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without MNIST: no folder, an empty cache, and a proxy that nobody answers at."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("STOPCTL_MNIST", "NO_PROXY")
    }
    return environment | {
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }


@pytest.fixture(scope="session")
def online() -> dict[str, str]:
    """An environment with real MNIST."""
    if not os.environ.get("STOPCTL_MNIST"):
        pytest.skip("STOPCTL_MNIST does not name a folder with MNIST")
    return os.environ | {"OMP_NUM_THREADS": "1"}


Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(offline: dict[str, str]) -> Iterator[Demo]:
    """Starts `stopctl demo` in a process of its own, which waits after each epoch and does not outlive the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", str(PACED), "demo", *map(str, arguments)],
            env=offline,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
