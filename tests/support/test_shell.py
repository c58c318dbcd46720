"""The tests, and all that they start, begin as from a terminal's foreground, whatever shell starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

FROM_A_SHELL = 'trap "" INT TERM USR1 USR2 ALRM; umask 077; exec "$@"'

TELL = """
import json, locale, os, signal, sys
ignored = [number.name for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM")
print(json.dumps([
    [name for name in names if name in ignored],
    os.umask(0),
    locale.getpreferredencoding(False).lower(),
    sorted(os.environ.keys() & set(sys.argv[1:])),
]))
"""

FORGET = """
import subprocess, sys
from support import shell
shell.forget()
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""

LEFT = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "SLURM_PROCID": "1",
    "TF_CONFIG": "{}",
    "COLUMNS": "40",
    "FORCE_COLOR": "1",
    "KERAS_BACKEND": "jax",
}


def told(*command: str) -> list[object]:
    left = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        ["sh", "-c", FROM_A_SHELL, "sh", sys.executable, "-c", *command, *LEFT],
        env=os.environ | LEFT | left,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


def test_what_a_shell_has_left_reaches_no_child_of_a_test():
    signals, mask, encoding, names = told(TELL)
    assert signals == ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM"]
    assert (mask, encoding == "utf-8", names) == (0o077, False, sorted(LEFT))
    assert told(FORGET, TELL) == [[], 0o022, "utf-8", []]
