"""Python's and NumPy's global generators, captured and set."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stopctl.state.arrays import array_leaf, leaf_array
from stopctl.state.rng import NumpyRng, PythonRng, differing

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


def harmed(tree, **changes):
    return {**tree, **changes}


def test_a_state_that_no_generator_takes_is_told_before_anything_is_set():
    python, numpy = PythonRng().capture(), NumpyRng().capture()
    inner = numpy["state"]
    short = leaf_array(python["state"])[:5]
    before = (random.getstate(), str(np.random.get_state()))
    for rng, wrong in [
        (PythonRng(), harmed(python, state=None)),
        (PythonRng(), harmed(python, state=array_leaf(short, "x"))),
        (PythonRng(), harmed(python, gauss="x")),
        (PythonRng(), {"version": python["version"]}),
        (NumpyRng(), harmed(numpy, state=None)),
        (NumpyRng(), harmed(numpy, has_gauss=None)),
        (NumpyRng(), harmed(numpy, gauss=None)),
        (NumpyRng(), harmed(numpy, state=harmed(inner, key=array_leaf(short, "x")))),
        (NumpyRng(), harmed(numpy, state=harmed(inner, pos=625))),
        (NumpyRng(), harmed(numpy, state=harmed(inner, pos=-1))),
        (NumpyRng(), harmed(numpy, state=harmed(inner, pos="1"))),
    ]:
        (told,) = rng.check(wrong, "rng")
        assert told.startswith("rng: saved is not the state of this generator")
    assert (random.getstate(), str(np.random.get_state())) == before
