"""A loop that was left is told from one that goes on, by where its function stands; in doubt it goes on."""

from __future__ import annotations

import itertools
import sys

import pytest

from stopctl.run.callsite import callsite, is_left


class Asked:
    """Gives numbers, and notes where it was asked for the last one."""

    def __iter__(self):
        for number in range(4):
            self.site = callsite(sys._getframe(1))
            yield number

    def left(self):
        return is_left(self.site, sys._getframe(1))


def plain(asked):
    seen = []
    held = iter(asked)
    for number in held:
        seen.append(asked.left())
        if number == 1:
            seen.append(asked.left())
            break
    seen.append(asked.left())
    return seen


def wrapped(asked):
    seen = []
    held = enumerate(itertools.chain(asked))
    for _, number in held:
        if number:
            try:
                raise ValueError
            except ValueError:
                seen.append(asked.left())
            for _ in range(2):
                seen.append(asked.left())
            break
        seen.append(next(asked.left() for _ in range(1)))
    for _ in range(1):
        seen.append(asked.left())
    return seen


def from_a_generator(asked):
    def batches():
        yield from held

    seen, held = [], iter(asked)
    for number in batches():
        seen.append((lambda: asked.left())())
        if number == 2:
            break
    else:
        pytest.fail("it was left")
    seen.append((lambda: asked.left())())
    return seen


def in_an_except_at_the_end(asked):
    seen, held = [], iter(asked)
    for _ in held:
        try:
            raise ValueError
        except ValueError:
            seen.append(asked.left())
            break
    return seen


def in_an_outer_except(asked):
    seen, held = [], iter(asked)
    try:
        raise ValueError
    except ValueError:
        for _ in held:
            break
        seen.append(asked.left())  # nobody can tell
    return seen


def by_next(asked):
    held = iter(asked)
    next(held)
    return [asked.left()]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, [False, False, False, True]),
        (wrapped, [False, False, False, False, True]),
        (from_a_generator, [False, False, False, True]),
        (in_an_except_at_the_end, [False]),
        (in_an_outer_except, [False]),
        (by_next, [False]),
    ],
)
def test_a_loop_is_left_behind_its_last_line(function, expected):
    assert function(Asked()) == expected


def test_what_stands_elsewhere_tells_nothing():
    assert not is_left((), sys._getframe())
    assert not is_left(callsite(None), None)
