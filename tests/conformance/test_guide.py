"""docs/migrating.md and the tests of this folder say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from conformance import guide
from stopctl import Controller, ReduceOnPlateau

HERE = Path(__file__).parent
HEADINGS = [line[3:] for line in guide.GUIDE.read_text().splitlines() if line.startswith("## ")]
PEERS = [heading for heading in HEADINGS if "Before:" in guide.part(heading)]
DIFFERENCES = guide.rows("Where stopctl differs on purpose")


def named_in(path: Path) -> list[str]:
    """The names of a module's tests, without importing it: its peer may not be installed."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if function.name.startswith("test_")]


TESTS = {f"{path.name}::{name}" for path in HERE.glob("test_*.py") for name in named_in(path)}


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row[-1].strip("`"))
def test_every_row_of_the_differences_names_a_test(row):
    peer, theirs, ours, test = row
    assert peer
    assert theirs
    assert ours
    assert test.strip("`") in TESTS


def test_every_difference_that_is_tested_has_one_row():
    named = [row[-1].strip("`") for row in DIFFERENCES]
    assert sorted(named) == sorted(test for test in TESTS if "::test_differs" in test)


@pytest.mark.parametrize("heading", PEERS)
def test_the_code_to_move_from_is_python(heading):
    found = guide.blocks(heading)
    assert found
    for code in found:
        ast.parse(code)


def test_the_scheduler_to_move_from_drops_where_ours_does():
    torch = pytest.importorskip("torch")
    [code] = guide.blocks("ReduceLROnPlateau")
    rates: list[float] = []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    def train_one_epoch(model: None, optimizer: torch.optim.Optimizer) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    guide.run(
        code,
        torch=torch,
        model=None,
        optimizer=optimizer,
        train_one_epoch=train_one_epoch,
        validate=lambda _: 0.5,
    )
    printed = re.search(r"^lr = (.+)$", guide.part("ReduceLROnPlateau"), re.MULTILINE)
    rule = eval(printed[1], {"ReduceOnPlateau": ReduceOnPlateau})
    controller, rate, ours = Controller(stop=None, save=None, lr=rule), 1.0, [1.0]
    for epoch in range(1, 20):
        rate *= controller.report({"val_loss": 0.5}, epoch=epoch).lr_factor or 1.0
        ours.append(rate)
    assert rates == ours
