"""The reference of all commands: `python docs/cli_reference.py docs/reference/commands.md` makes it anew."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from typer.models import OptionInfo

BEGIN, END = "<!-- reference: made by python docs/cli_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """Every command with its help, arguments and options, in Markdown; what several take stands once."""
    from stopctl.cli.app import app

    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    functions = {
        f"{before}{one.callback.__name__}": one.callback
        for before, group in groups
        for one in group.registered_commands
        if one.callback
    }
    takes = {name: [Parameter.of(*named) for named in _hints(functions[name])] for name in sorted(functions)}
    count = Counter(one for parameters in takes.values() for one in parameters)
    often = {one.written: one for one, n in reversed(count.most_common()) if n > 1}
    common = sorted(often.values(), key=lambda one: (one.option, one.name))
    once = {one for one in common if 2 * count[one] > len(takes)}
    lines = ["## What several commands take", "", *_table(common)]
    for one in once:
        without = ", ".join(f"`{name}`" for name in takes if one not in takes[name])
        lines += [f"Every command but {without} takes `{one.name}` so.", ""]
    for name, parameters in takes.items():
        lines += _command(name, functions[name], parameters, set(common), once)
    return "\n".join(lines)


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


def _command(
    name: str,
    does: Callable[..., Any],
    takes: Sequence[Parameter],
    common: set[Parameter],
    once: set[Parameter],
) -> Iterator[str]:
    """A command's section: of what is `common` the name alone, of what stands `once` nothing."""
    usage = [one.written for one in takes if not one.option]
    yield f"## `{' '.join(['stopctl', name, *usage])}`"
    yield ""
    yield inspect.getdoc(does) or ""
    yield ""
    yield from _table([one for one in takes if one not in common])
    also = [f"`{one.name}`" for one in takes if one.option and one in common - once]
    if also:
        yield f"[As above](#what-several-commands-take): {', '.join(also)}."
        yield ""


def _table(parameters: Sequence[Parameter]) -> Iterator[str]:
    if parameters:
        yield "| | |"
        yield "|---|---|"
        for one in parameters:
            yield f"| `{_cell(one.written)}` | {_cell(one.help)}{one.default} |"
        yield ""


def _hints(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """Each parameter, its type, and what typer was told of it."""
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind, info = get_args(hints[parameter.name])
        yield parameter, kind, info


class Parameter(NamedTuple):
    """An argument or an option as the page shows it."""

    name: str
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
        return cls(names[0], written, info.help or "", _default(parameter.default, option), option)


def _metavar(kind: Any) -> str:
    """How typer shows a value of this type."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if inner:
        return _metavar(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT", Path: "PATH"}.get(kind, "")


def _default(value: Any, option: bool) -> str:
    if value is inspect.Parameter.empty:
        return " Required." if option else ""
    return "" if value in (None, False) else f" Default: `{value}`."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(put_into(file.read_text("utf-8")), "utf-8")
    if not sys.argv[1:]:
        print(reference())
