from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from stopctl.demo import train


def _only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: ModuleSpec(name, None) if name in names else None)


def test_installed_frameworks_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, "tensorflow", "torch")
    assert train.installed() == ("torch", "tensorflow")
    _only(monkeypatch, "tensorflow")
    assert train.installed() == ("tensorflow",)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train.missing() == ()
    _only(monkeypatch, "numpy", "sklearn")
    assert train.missing() == ("matplotlib", "pooch")


def test_quiet_holds_back_standard_error_of_c_code_too() -> None:
    script = """
import os, sys
from stopctl.demo.train import quiet
print("before", end=" ", file=sys.stderr)
with quiet():
    os.write(2, b"from C")
    print("from Python", file=sys.stderr)
print("afterwards", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "before afterwards\n"


def test_quiet_shows_it_after_all_if_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        with train.quiet():
            os.write(2, b"the reason\n")
            raise ImportError("broken library")

    with pytest.raises(ImportError, match="broken library"):
        fails()
    assert capfd.readouterr().err == "the reason\n"
