"""The reference of all commands in docs/cli.md: `python docs/cli_reference.py docs/cli.md` makes it anew."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from typer.models import OptionInfo

BEGIN, END = "<!-- reference: made by python docs/cli_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """Every command with its help, arguments and options, in Markdown."""
    from stopctl.cli.app import app

    functions = {one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
    return "\n".join(line for name in sorted(functions) for line in _command(name, functions[name]))


def put_into(page: str) -> str:
    """The page with the reference between its two marks as it is now.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _command(name: str, function: Callable[..., Any]) -> Iterator[str]:
    parameters = [Parameter.of(*named) for named in _hints(function)]
    usage = [one.written for one in parameters if not one.option]
    yield f"### `{' '.join(['stopctl', name, *usage])}`"
    yield ""
    yield inspect.getdoc(function) or ""
    yield ""
    if parameters:
        yield "| | | default |"
        yield "|---|---|---|"
        for one in parameters:
            yield f"| `{_cell(one.written)}` | {_cell(one.help)} | {one.default} |"
        yield ""


def _hints(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """Each parameter, its type, and what typer was told of it."""
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind, info = get_args(hints[parameter.name])
        yield parameter, kind, info


class Parameter(NamedTuple):
    """An argument or an option as the page shows it."""

    written: str
    help: str
    default: str
    option: bool

    @classmethod
    def of(cls, parameter: inspect.Parameter, kind: Any, info: Any) -> Parameter:
        """What a function's parameter is on the command line."""
        option = isinstance(info, OptionInfo)
        decided = (info.default, *(info.param_decls or ()))
        names = [name for name in decided if isinstance(name, str) and name.startswith("-")]
        names = names or [f"--{parameter.name.replace('_', '-')}"]
        metavar = info.metavar or (_metavar(kind) if option else "") or parameter.name.upper()
        value = "" if kind is bool else f" {metavar}"
        written = f"{', '.join(names)}{value}" if option else metavar
        return cls(written, info.help or "", _default(parameter.default), option)


def _metavar(kind: Any) -> str:
    """How typer shows a value of this type."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if inner:
        return _metavar(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT", Path: "PATH"}.get(kind, "")


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "to be given"
    return "" if value in (None, False) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(put_into(file.read_text("utf-8")), "utf-8")
    if not sys.argv[1:]:
        print(reference())
