"""Print the README's test command with its environment at the path given (the README says .venv)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text()
found = re.search(r"<!-- test command -->\n```\w*\n(.+?)\n```", readme, re.DOTALL)
if found is None:
    sys.exit("README.md has no block after <!-- test command -->")
print(found[1].replace(".venv", sys.argv[1]))
