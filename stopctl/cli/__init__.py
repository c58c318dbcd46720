"""The `stopctl` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the `stopctl` command; what goes wrong is one line on standard error, and exit code 2.

    If a library of the command line itself is missing, it says which extra to install.
    """
    try:
        from stopctl.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'stopctl needs {error.name} for its command line: pip install "stopctl[cli]"')
    from stopctl.core.errors import StopctlError
    from stopctl.core.words import on_one_line

    before = gc.get_threshold()
    gc.set_threshold(200_000)  # a journal of 100,000 lines is read in half the time
    try:
        app(list(map(_expanded, sys.argv[1:])), prog_name="stopctl")
    except (StopctlError, OSError) as error:
        print(f"stopctl: {on_one_line(message(error))}", file=sys.stderr)
        sys.exit(2)
    finally:
        gc.set_threshold(*before)


def _expanded(argument: str) -> str:
    """The argument with ``~`` expanded, also behind ``--run-dir=``, where few shells do it."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{os.path.expanduser(value)}"


def message(error: BaseException) -> str:
    """An error in one line; a file's name before what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
