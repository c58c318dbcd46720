"""The documents say what the code does."""

from __future__ import annotations

from pathlib import Path

from stopctl.core.machine import TABLE, Phase

DOCS = Path(__file__).parent.parent / "docs"


def test_semantics_prints_the_lifecycle_table():
    text = (DOCS / "semantics.md").read_text()
    table = text.partition("## Lifecycle\n\n")[2].partition("\n\n")[0].splitlines()
    assert table[0] == "| call | " + " | ".join(phase.value for phase in Phase) + " |"
    printed = {}
    for row in table[2:]:
        call, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        printed[call] = {phase: cell.startswith("yes") for phase, cell in zip(Phase, cells, strict=True)}
    assert printed == {call: dict(row) for call, row in TABLE.items()}
