"""DataLoader workers, and a SIGTERM that is meant for the run.

Schedulers, containers and ``timeout`` send SIGTERM to all processes of a job. The run notes it and saves at
its next boundary, for which it needs the next batch; its workers would have died. So a worker that was forked
while a run was open hears its parent alone, as `multiprocessing` ends it by SIGTERM, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from torch.utils.data._utils import signal_handling

SPAWNS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
"""What Python audits before another program begins, which inherits the signals that are blocked."""

_noted = [False]
"""In a forked child: whether a run of its parent's notes SIGTERM."""


def _before_fork() -> None:
    _noted[0] = getattr(signal.getsignal(signal.SIGTERM), "__module__", "") == "stopctl.run.signals"


def hear_parent_alone() -> None:
    """Have this process ignore a SIGTERM that its parent did not send, and end at once by one from it.

    torch handles SIGTERM itself, and no handler of Python's learns who has sent a signal: it is blocked here,
    and a thread takes it. Before this process begins another program it is let in again, and from then on
    torch has it as ever. Only while the parent lives, and not on macOS, which cannot wait so.
    """
    if not hasattr(signal, "sigwaitinfo"):  # pragma: no cover  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait, args=(os.getppid(),), name="stopctl-sigterm", daemon=True).start()
    sys.addaudithook(_before_program)


def _wait(parent: int) -> None:
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == parent or os.getppid() != parent:
            os._exit(0)


def _before_program(event: str, _: Any) -> None:
    if event in SPAWNS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _in_worker() -> None:
    _torchs()
    if _noted[0]:
        hear_parent_alone()


_torchs: Any = getattr(signal_handling, "_set_worker_signal_handlers", None)
if _torchs is not None and hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_before_fork)
    vars(signal_handling)["_set_worker_signal_handlers"] = _in_worker
