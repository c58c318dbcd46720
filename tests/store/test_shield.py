"""Ctrl-C that comes within a shielded block is handled at its end, by whoever handled it before."""

from __future__ import annotations

import signal
import threading

import pytest

from stopctl.store.shield import Shield, from_handler


def test_ctrl_c_is_handled_at_the_end_of_the_outermost_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with Shield():
            with Shield():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_stands_behind_it():
    with pytest.raises(KeyboardInterrupt) as caught, Shield():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(ValueError, match="^alone$"), Shield():
        raise ValueError("alone")


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL])
def test_other_actions_than_functions_stay_as_they_are(action):
    before = signal.signal(signal.SIGINT, action)
    try:
        with Shield():
            assert signal.getsignal(signal.SIGINT) is action
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_nothing_to_shield():
    seen = []

    def work():
        with Shield():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


class Handler:
    def ring(self, number, frame):
        raise ValueError("rung")


def test_what_a_handler_raised_is_known_by_its_frames():
    before = signal.signal(signal.SIGUSR2, Handler().ring)
    try:
        with pytest.raises(ValueError, match="rung") as caught:
            signal.raise_signal(signal.SIGUSR2)
        assert from_handler(caught.value)
        with pytest.raises(ValueError, match="invalid literal") as caught:
            int("one")
        assert not from_handler(caught.value)
    finally:
        signal.signal(signal.SIGUSR2, before)
