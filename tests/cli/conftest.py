from __future__ import annotations

import pytest

from support.ran import Command


@pytest.fixture
def stopctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, called in this process."""
    return Command(monkeypatch, capsys)
