from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stopctl.store import CheckpointInfo, Store
from support.trees import leaf


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where a test's run lives; nothing there yet."""
    return tmp_path / "run"


@pytest.fixture
def store(run: Path) -> Iterator[Store]:
    """A store that has begun."""
    opened = Store.lock(run)
    opened.begin({})
    yield opened
    opened.close()


@pytest.fixture
def save() -> Callable[..., CheckpointInfo]:
    """``save(store, 3)``: a commit whose content and counters are those of the number."""

    def commit(store: Store, number: int, **more: Any) -> CheckpointInfo:
        fields = {"state": {"number": number}, "epoch": number, "step": 10 * number, "seconds": 1.5}
        return store.commit(content(number), **(fields | {"value": float(number)} | more))

    return commit


def content(number: int) -> dict[str, Any]:
    weights = leaf(number.to_bytes(8, "little") * 16, key="w")
    return {
        "model": {"weight": weights, "tied": weights},
        "scheduler": {"last_epoch": number, "by": (1.5, None)},
    }


@pytest.fixture
def check() -> Callable[..., None]:
    """``check(reader, {1, 2})``: just these numbers are there, each loads bitwise; nothing is damaged."""
    from support.trees import same

    def all_load(reader: Any, numbers: set[int]) -> None:
        listing = reader.list()
        assert listing.damaged == ()
        assert {info.epoch for info in listing.good} == numbers
        for info in listing.good:
            components, state = reader.load(info)
            assert same(components, content(info.epoch))
            assert state == {"number": info.epoch}

    return all_load


@pytest.fixture
def process(run: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """``process(code)``: another process that has the run open as ``store``, has saved 1, and goes on with `code`."""
    children = []

    def start(code: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER + code, str(run)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


HOLDER = """
import sys
from stopctl.store import SaveError, Store
store = Store.lock(sys.argv[1])
store.begin({})
save = lambda n: store.commit({"a": n}, state=None, epoch=n, step=n, seconds=0, value=None)
save(1)
print("held", flush=True)
"""
