"""What the shell that starts the tests leaves behind, put right: for this process and all that it starts."""

from __future__ import annotations

import contextlib
import locale
import os
import re
import signal
import threading
import time

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD")
"""Those that tests send or wait by. SIGHUP is none of them: who starts the tests under nohup means it."""

LEFT = re.compile(
    # the place among the ranks of a job that the tests are started in
    r"(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)|TF_CONFIG"
    r"|(SLURM|SLURMD|SRUN|SBATCH|TORCHELASTIC|OMPI|PMI|PMIX|ACCELERATE|FSDP|WANDB)_\w+"
    # how a terminal looks
    r"|(JUPYTER_)?(COLUMNS|LINES)|TERMINAL_WIDTH|NO_COLOR|FORCE_COLOR|PY_COLORS|CLICOLOR(_FORCE)?"
    r"|TTY_(COMPATIBLE|INTERACTIVE)|_TYPER_\w+|GITHUB_ACTIONS"  # there typer takes a pipe for a terminal
    # settings of Python and of libraries
    r"|PYTHON(WARNINGS|UTF8|COERCECLOCALE|IOENCODING|UNBUFFERED|SAFEPATH|DEVMODE)"
    r"|KERAS_(BACKEND|HOME)|MPL(BACKEND|CONFIGDIR)|MATPLOTLIBRC|SOURCE_DATE_EPOCH|TF_DETERMINISTIC_OPS"
    # languages
    r"|LANG|LANGUAGE|LC_\w+"
)
"""Variables of the environment that no test may meet."""

GIVEN = {
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "TZ": "UTC",
    "MPLBACKEND": "Agg",
    "MATPLOTLIBRC": os.devnull,
    "CUDA_VISIBLE_DEVICES": "-1",
}
"""What stands in their place."""

ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def forget() -> None:
    """Have the signals do what they do in a terminal's foreground, and the environment hold nothing of the shell's.

    A child inherits signals that are ignored, whatever program it becomes; a shell that starts the tests in the
    background has SIGINT ignored.
    """
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(
                    number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                )
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    os.umask(0o022)
    for name in [name for name in os.environ if LEFT.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(GIVEN)
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    time.tzset()
    with contextlib.suppress(locale.Error):  # without one of that name Python reads files as UTF-8
        locale.setlocale(locale.LC_CTYPE, GIVEN["LC_ALL"])
