"""Writes the matrix of the cases into docs/resume.md: ``python tests/adapters/exact/write_matrix.py``."""

from __future__ import annotations

from pathlib import Path

from cases import BEGIN, END, table

page = Path(__file__).parents[3] / "docs" / "resume.md"
text = page.read_text()
before, _, rest = text.partition(BEGIN)
page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
