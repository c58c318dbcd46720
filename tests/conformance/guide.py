"""The parts of docs/migrating.md: its tables, and the code to move from, which runs against the real peers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parent.parent.parent / "docs" / "migrating.md"


def part(heading: str) -> str:
    """The text from the heading of level 2 to the next one."""
    pattern = rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def blocks(heading: str) -> list[str]:
    """The blocks of a part that are marked py: code that needs the peer."""
    return re.findall(r"^```py\n(.*?)^```$", part(heading), re.DOTALL | re.MULTILINE)


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a block; the names it has afterwards."""
    exec(compile(code, GUIDE.name, "exec"), names)
    return names


def rows(heading: str) -> list[list[str]]:
    """The cells of a part's only table, without its head."""
    lines = [line for line in part(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
