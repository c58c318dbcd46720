"""`stopctl prune`: delete the checkpoints that a keep rule does not name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl.cli.output import AsJson, RunPath, console, echo, emit, put, table, tell_notes
from stopctl.core.words import figure, size

if TYPE_CHECKING:
    from stopctl.core.goal import Goal
    from stopctl.core.keep import KeepPolicy
    from stopctl.store import CheckpointInfo, Listing


def prune(
    run: RunPath,
    keep: Annotated[str, typer.Option(metavar="RULE", help="What to keep, as in Python: Last(2) | Best(1).")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, nothing is changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which checkpoints a keep rule would delete; with --yes, delete them.

    Whatever the rule says, the newest, the best, the newest with a finite value and pinned ones stay.
    Deleting takes the run's lock: it is refused while a process has the run open.

    Example: `stopctl prune runs/mnist --keep "Last(2) | Best(1)"`

    Exit codes: 0; 2 if it is no run, the rule cannot be read, or the run is in use.
    """
    from stopctl.runs.history import goal_of
    from stopctl.runs.ruletext import parse_keep
    from stopctl.store import Reader, Store

    rule = parse_keep(keep)
    reader = Reader(run)
    goal = goal_of(reader.meta)
    if not yes:
        listing = reader.list()
        gone = _doomed(rule, listing, goal)
    else:
        store = Store.lock(run)
        try:
            listing = store.list()
            gone = _doomed(rule, listing, goal)
            if gone:
                store.begin({})
                names = [info.name for info in gone]
                stay = [info.name for info in listing.good if info not in gone]
                stuck = store.delete(names, guarded=stay)
                gone = [info for info in gone if info.name not in stuck]
                store.append("pruned", keep=repr(rule), names=[info.name for info in gone])
                tell_notes([f"{name} cannot be renamed ({why}): it stays" for name, why in stuck.items()])
        finally:
            store.close()
    freed = sum(info.bytes for info in gone)
    if as_json:
        fields: dict[str, Any] = {"path": reader.path, "keep": repr(rule), "deleted": yes, "bytes": freed}
        kept = [info.name for info in listing.good if info not in gone]
        emit({**fields, "doomed": [info.name for info in gone], "kept": kept})
        return
    _show(listing, gone, goal.metric, yes=yes)
    count = f"{len(gone)} of {len(listing.good)} checkpoints"
    if not gone:
        echo("nothing is to be deleted")
    elif yes:
        echo(f"deleted {count}, {size(freed)}")
    else:
        echo(f"would delete {count}, {size(freed)}: nothing was changed; --yes deletes them")


def _doomed(rule: KeepPolicy, listing: Listing, goal: Goal) -> list[CheckpointInfo]:
    from stopctl.core.keep import doomed

    names = set(doomed(rule, listing.good, goal))
    return [info for info in listing.good if info.name in names]


def _show(listing: Listing, gone: list[CheckpointInfo], metric: str, *, yes: bool) -> None:
    rows = table("", "checkpoint", metric, "size", right=(metric, "size"))
    for info in listing.good:
        word, style = ("deleted" if yes else "delete", "red") if info in gone else ("keep", "green")
        value = "" if info.value is None else figure(info.value)
        pinned = " (pinned)" if info.pinned else ""
        rows.add_row(Text(word, style), Text(info.name + pinned), value, size(info.bytes))
    if listing.good:
        put(console(), rows)
    for one in listing.damaged:
        echo(f"damaged, left alone: {one.name}: {one.why}")
