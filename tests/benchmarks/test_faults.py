"""The harness of faults puts what a library resumes with into the right class; the libraries here are planted."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import faults
import numpy as np
import pytest
from faults import CLASSES, LIBRARIES, Library, Row, calls, look, measured, number_of, spread, state, table

TRACES = (sys.platform, platform.machine()) == ("linux", "x86_64")


def plain(folder, number):
    """A file with the numbers, in place."""
    with open(folder / "state", "wb", buffering=0) as file:
        for array in state(number).values():
            file.write(array.tobytes())


def replaced(folder, number):
    """The same, by a rename, with the one before kept."""
    new = folder / "new"
    new.mkdir(exist_ok=True)
    plain(new, number)
    os.replace(new / "state", folder / "state")


def read(folder):
    path = folder / "state"
    if not path.exists():
        return None
    data = np.frombuffer(path.read_bytes(), np.float32)
    return {f"w{i}": data[i * 4096 : (i + 1) * 4096].reshape(64, 64) for i in range(4)}


def torn(folder):
    """Whatever is there, filled up with zeros."""
    path = folder / "state"
    path.write_bytes(path.read_bytes().ljust(4 * 4096 * 4, b"\0"))
    return read(folder)


def fails(folder):
    raise ValueError("damaged")


@pytest.mark.parametrize(
    ("resume", "found"),
    [
        (lambda _: state(3), "right"),
        (lambda _: state(2), "right"),
        (lambda _: state(1), "older"),
        (lambda _: state(0), "nothing"),
        (lambda _: None, "nothing"),
        (lambda _: {**state(3), "w0": state(2)["w0"]}, "WRONG"),
        (lambda _: {"w0": state(3)["w0"]}, "WRONG"),
        (fails, "refused"),
        (lambda _: os._exit(3), "refused"),
    ],
)
def test_a_planted_outcome_is_put_into_its_class(tmp_path, resume, found):
    assert look(Library(plain, resume), tmp_path, [2, 3]) == found
    assert found in CLASSES


def test_the_states_are_told_apart():
    assert [number_of(state(number)) for number in range(4)] == [0, 1, 2, 3]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(100, 4) == [0, 25, 50, 75]


@pytest.mark.skipif(not TRACES, reason="needs Linux on x86_64")
@pytest.mark.parametrize(
    ("save", "resume", "outcomes", "total"),
    [
        (plain, read, {"right": 1, "refused": 4}, 5),  # before open; then a file of 0, 1, 2 and 3 arrays
        (plain, torn, {"right": 1, "WRONG": 4}, 5),
        (replaced, read, {"right": 7}, 7),
    ],
)
def test_every_call_that_changes_a_file_is_a_kill(save, resume, outcomes, total):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # nobody waits for it
    with other:
        row = measured(Library(save, resume), "kill", 99)
    assert (row.skipped, dict(row.outcomes)) == ("", outcomes)
    assert dict(row.notes) == {f"of {total}": total}


@pytest.mark.skipif(not TRACES, reason="needs Linux on x86_64")
def test_only_what_is_below_the_folder_counts_and_an_error_is_seen(tmp_path):
    (tmp_path / "before").mkdir()

    def save(folder, number):
        plain(tmp_path, number)
        if number == 4:
            raise OSError("full")

    library = Library(save, read)
    assert calls(library, tmp_path / "before", tmp_path / "at", lambda _: False) == (0, True)
    assert calls(library, tmp_path / "before", tmp_path / "at", lambda _: False, 4) == (0, False)


def test_flips_are_noticed_or_not():
    assert measured(Library(plain, read), "flip", 4).outcomes == {"WRONG": 4}
    row = measured(Library(plain, fails), "flip", 3)
    assert row.outcomes == {"refused": 3}
    again = Row(row.outcomes, row.notes + row.notes.__class__(silent=2))
    rows = {
        "a": {"flip": row, "kill": Row(*(type(row.outcomes)() for _ in "ab"), skipped="no root")},
        "b": {"flip": again},
    }
    assert table({"a": rows["a"]}, ["flip", "kill"], markdown=True).splitlines()[-1] == (
        "| a | 3: refused 3 | skipped: no root |"
    )
    assert (
        table({"b": rows["b"]}, ["flip"], markdown=False).splitlines()[-1]
        == "b        3: refused 3, silent 2"
    )


def test_what_is_not_installed_is_skipped_and_told(monkeypatch):
    def lacking():
        raise ImportError("No module named 'orbax'")

    monkeypatch.setitem(LIBRARIES, "orbax CheckpointManager", lacking)
    assert faults.work("orbax CheckpointManager", ["flip"], 1) == {
        "flip": {"skipped": "No module named 'orbax'"}
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["stopctl", "torch.save", "safetensors"])
def test_a_library_goes_through_kills_and_flips(name):
    rows = faults.work(name, ["kill", "flip"], 4)
    assert all(row["skipped"] == "" and sum(row["outcomes"].values()) >= 4 for row in rows.values())
    assert name != "stopctl" or rows["kill"]["outcomes"].keys() == {"right"}
    assert "WRONG" not in rows["flip"]["outcomes"] or name != "stopctl"
