"""Python's and NumPy's global generators, captured and set."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stopctl.generators import NumpyRng, PythonRng, differing

DRAWS = {
    PythonRng: lambda: [random.random(), random.gauss(0, 1), random.randrange(10**30)],
    NumpyRng: lambda: [np.random.rand(), np.random.normal(), int(np.random.randint(10**9))],
}


@pytest.mark.parametrize("kind", DRAWS)
def test_the_stream_goes_on_where_it_was(kind):
    draw = DRAWS[kind]
    draw()  # half a pair of normal numbers waits in the state
    saved = kind().capture()
    expected = [draw() for _ in range(3)]
    random.seed(9)
    np.random.seed(9)
    assert kind().check(saved, "rng") == []
    kind().load(saved)
    assert [draw() for _ in range(3)] == expected


def test_another_kind_does_not_fit():
    assert PythonRng().check({"version": 2}, "rng.python") == ["rng.python: saved version 2, given 3"]
    assert NumpyRng().check([], "rng.numpy") == ["rng.numpy: saved is not the state of this generator"]
    assert differing({"kind": 1}, "kind", None, "x") == []
