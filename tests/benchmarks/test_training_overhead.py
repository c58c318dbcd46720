from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import training_overhead
from training_overhead import MODES, Clock, hooks, raw_write

from stopctl.demo.data import Dataset


@pytest.fixture
def data():
    """A few images of noise."""
    rng = np.random.default_rng(0)
    parts = [(rng.random((n, 784)).astype("f4"), rng.integers(0, 10, n)) for n in (300, 50, 50)]
    return Dataset(*(array for part in parts for array in part), name="noise", source="noise")


def test_the_clock_counts_what_is_handed_to_it_also_when_it_fails():
    clock = Clock()
    assert clock.timed(max)(1, 2, key=lambda x: -x) == 1
    with pytest.raises(ZeroDivisionError):
        clock.timed(lambda: 1 / 0)()
    assert clock.calls == 2
    assert clock.inside > 0


def test_hooks_are_on_the_clock_and_are_themselves_again_afterwards():
    from stopctl_torch.marks import Marks
    from stopctl_torch.overlap import Hook
    from stopctl_torch.watch import Watch

    before = Marks._count, Hook.__call__, Watch.stepped
    clock = Clock()
    with hooks("torch", clock):
        Hook(lambda: None)()
        assert clock.calls == 1
    assert (Marks._count, Hook.__call__, Watch.stepped) == before


def test_a_training_is_measured_in_every_mode(data, tmp_path):
    told = training_overhead.measure_training("torch", data, 1, 1, tmp_path)
    assert len(told.bare) == 1
    for name in MODES:
        assert len(told.whole[name]) == len(told.inside[name]) == 1
        assert all(
            0 < inside < whole for inside, whole in zip(told.inside[name], told.whole[name], strict=True)
        )


def test_a_save_is_measured_in_every_mode_and_nothing_is_left_running(tmp_path):
    told = training_overhead.measure_blocked("torch", 1, 2, tmp_path)
    assert told.megabytes == pytest.approx(1, rel=0.05)
    for part in (told.blocked, told.took, told.beside):
        assert {name: len(values) for name, values in part.items()} == dict.fromkeys(MODES, 2)
    assert len(told.raw) == len(told.step) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "stopctl-save"]


def test_the_raw_file_has_all_bytes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(training_overhead, "BLOCK", 3)
    sizes = []
    real = training_overhead.os.fsync
    monkeypatch.setattr(
        training_overhead.os, "fsync", lambda fd: (sizes.append((tmp_path / "raw").stat().st_size), real(fd))
    )
    assert raw_write(tmp_path / "raw", [memoryview(b"12345678"), memoryview(b"9")]) > 0
    assert sizes == [9]
    assert list(tmp_path.iterdir()) == []


def test_one_command_measures_tensorflow_and_prints_every_round(tmp_path, monkeypatch, capsys):
    from stopctl.demo import tf_loop

    monkeypatch.setattr(tf_loop, "one_thread", lambda: None)  # TensorFlow may have begun in this process
    options = ["--frameworks", "tensorflow", "--tables", "blocked", "--rounds", "1", "--megabytes", "1"]
    assert training_overhead.main([*options, "--json", "--directory", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert list(data["saves"]) == ["tensorflow"]
    assert data["trainings"] == {}
    assert list(data["saves"]["tensorflow"]["blocked"]) == list(MODES)
    assert list(tmp_path.iterdir()) == []
