"""The `stopctl` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `stopctl` command; says which extra to install if its libraries are missing."""
    try:
        from stopctl.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'stopctl needs {error.name} for its command line: pip install "stopctl[cli]"')
    app(prog_name="stopctl")
