"""Holding the background back: a save that has begun stands still until it is let go."""

from __future__ import annotations

import threading
from typing import Any

from stopctl.run.checkpoints import Checkpoints
from stopctl.state import snapshot

PATIENCE = 60.0
"""Seconds after which a test that waits for ever is broken off."""


class Brake:
    """Stops the thread of a save, while it is on: before it commits, or before it copies (``at="copy"``).

    However small the state, what may be copied late is.
    """

    def __init__(self, monkeypatch: Any, at: str = "commit") -> None:
        self._go = threading.Event()
        self._begun = threading.Event()
        target, name = (Checkpoints, "commit") if at == "commit" else (snapshot, "_copy")
        real = getattr(target, name)
        monkeypatch.setattr(snapshot, "LATE", 0)

        def stopped(*args: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                self._begun.set()
                assert self._go.wait(PATIENCE)
            return real(*args)

        monkeypatch.setattr(target, name, stopped)

    def reached(self) -> bool:
        """Wait until a save stands still."""
        return self._begun.wait(PATIENCE)

    def release(self) -> None:
        """Let it go on, and all later ones."""
        self._go.set()


def threads() -> list[threading.Thread]:
    """Those of saves."""
    return [thread for thread in threading.enumerate() if thread.name == "stopctl-save"]


def finished() -> None:
    """Wait for saves in the background, without anybody being told."""
    for thread in threads():
        thread.join(PATIENCE)
        assert not thread.is_alive()
