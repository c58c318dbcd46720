"""Arrays over several devices of one process come back on another number of devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

PROGRAM = Path(__file__).parent / "sharded_program.py"


def test_sharded_arrays_come_back_on_another_number_of_devices(tmp_path):
    printed = []
    for seed, devices in enumerate((4, 2), 1):
        flags = f"--xla_force_host_platform_device_count={devices}"
        env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        words = [sys.executable, str(PROGRAM), str(tmp_path / "run"), str(seed)]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (f"jax devices 4 cpu before, {devices} cpu now" in done.stderr) == (devices == 2)
        printed.append(done.stdout.split())
    assert len({digest for digests in printed for digest in digests}) == 1
