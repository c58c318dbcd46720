"""Every step of the protocol is there for a reason: without any one of them, something here notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults.counts import count
from support.mirrors.mutants import MUTANTS
from support.schedules_mutants import NoLongerApplies, applied


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_step_that_is_left_out_is_noticed(scratch: Path, name: str):
    mutant = MUTANTS[name]
    with applied(mutant.change):
        try:
            mutant.by(scratch)
        except NoLongerApplies:
            raise
        except (Exception, pytest.fail.Exception):
            count("mutants caught")
            return
    pytest.fail(f"{name}: nothing has noticed")
