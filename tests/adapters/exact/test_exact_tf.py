"""TensorFlow: every exact row of the matrix, killed at random steps."""

from __future__ import annotations

import pytest

from adapters.exact.cases import EXACT, TF
from adapters.exact.proof import program, prove
from support.portion import mostly_long

CASES = [case for case in EXACT if case.framework == TF]


@pytest.fixture(scope="module")
def programs():
    with program("exact_tf_program") as opened:
        yield opened


@pytest.mark.parametrize("case", mostly_long(CASES, CASES[::3]), ids=lambda case: case.name)
def test_killed_at_random_steps_it_ends_bitwise_as_the_undisturbed_run(case, programs, tmp_path):
    prove(case, programs, tmp_path)
