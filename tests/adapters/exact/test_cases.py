"""docs/resume.md prints the list of cases, and every exact one of them has its proof."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.exact import cases
from adapters.exact.cases import EXACT, NOT_EXACT, TF, TORCH

PAGE = Path(__file__).parents[3] / "docs" / "resume.md"
HERE = Path(__file__).parent


def test_the_page_prints_the_matrix_of_the_cases():
    """Written by ``python tests/adapters/exact/write_matrix.py``."""
    printed = PAGE.read_text().partition(cases.BEGIN)[2].partition(cases.END)[0]
    assert printed.strip() == cases.table()


@pytest.mark.parametrize(("framework", "program"), [(TORCH, "torch"), (TF, "tf")])
def test_every_exact_row_has_a_loop_that_is_killed_and_twelve_are_there(framework, program):
    names = [case.name for case in EXACT if case.framework == framework]
    text = (HERE / f"exact_{program}_program.py").read_text().partition("CASES: dict")[2]
    assert re.findall(r'^    "(.+)": ', text, re.MULTILINE) == names
    assert len(names) == len(set(names)) >= 12


def test_a_row_is_exact_or_says_why_not():
    assert all(case.forgets and not case.why_not for case in EXACT)
    assert all(case.why_not and not case.forgets for case in NOT_EXACT)
    assert not any(
        "|" in text for case in (*EXACT, *NOT_EXACT) for text in (case.name, case.moves, case.why_not)
    )
