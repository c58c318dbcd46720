"""SIGTERM: a flag for every open run, the default action the second time, and the old handler afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from stopctl.signals import Watch


def test_all_watches_see_the_signal_and_the_handler_is_put_back():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("ours"))
    try:
        one, two = Watch(), Watch()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (one.came, two.came, seen) == ("SIGTERM", "SIGTERM", [])
        one.close()
        one.close()
        two.close()
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["ours"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_no_handler_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        watch = Watch()
        seen.append((watch.came, signal.getsignal(signal.SIGTERM) is before))
        watch.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, True)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # other tests' threads
def test_a_forked_child_dies_at_once():
    watch = Watch()
    try:
        ready, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"x")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)
        os.close(ready)
        os.close(write)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert watch.came is None
    finally:
        watch.close()


def test_a_second_signal_has_the_default_action():
    code = (
        "import os, signal\n"
        "from stopctl.signals import Watch\n"
        "Watch()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('first', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('second', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("first\n", -signal.SIGTERM)
