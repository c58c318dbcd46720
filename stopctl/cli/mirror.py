"""`stopctl mirror push` and `pull`: a run to an object store or a second disk by hand, and back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stopctl.cli.output import AsJson, bar, echo, emit
from stopctl.core.words import counted

if TYPE_CHECKING:
    from stopctl.mirror import Remote
    from stopctl.mirror.manual import Moved, Progress

HELP = """Bring a run to an object store or a second disk by hand, and back.

A training script does it by itself: `Run(..., mirror="s3://bucket/runs/mnist")` mirrors each checkpoint as it
is saved, and goes on from there where the directory is empty. These two are for runs that were trained
without, and for looking at one elsewhere.

A URL is s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or file:///mnt/disk/folder.
Credentials come from the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, or FSSPEC_S3_KEY and
the like).
"""

mirror = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True, help=HELP)

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="The mirror's, such as s3://bucket/runs/mnist.")]


@mirror.command()
def push(run: RunPath, url: Url, as_json: AsJson = False) -> None:
    """Bring every checkpoint of a run to a mirror, the newest first; the run must not be open.

    What is there is not sent again: broken off, the same command goes on. Nothing in the mirror is deleted.
    `Run(directory, mirror=URL)` goes on with it, here or, from an empty directory, elsewhere.

    Example: `stopctl mirror push runs/mnist s3://bucket/runs/mnist`

    Exit codes: 0; 1 if a damaged checkpoint was left out; 2 if it is no run, is open, or the store does not
    answer.
    """
    from stopctl.mirror.manual import push

    _move(run, url, as_json, push, "sent to")


@mirror.command()
def pull(run: RunPath, url: Url, as_json: AsJson = False) -> None:
    """Bring a run with all its checkpoints from a mirror into a new directory, every file verified.

    Broken off, the same command goes on; until it has ended, the directory is no run. It does not disturb the
    process that trains. You need not pull to read: `stopctl show URL`, `load(URL, model=...)`.

    Example: `stopctl mirror pull runs/mnist s3://bucket/runs/mnist`

    Exit codes: 0; 1 if a damaged checkpoint was left out; 2 if nothing is mirrored there, the directory is
    not empty, or the store does not answer.
    """
    from stopctl.mirror.manual import pull

    _move(run, url, as_json, pull, "brought back from")


def _move(
    run: Path, url: str, as_json: bool, work: Callable[[Path, Remote, Progress], Moved], done: str
) -> None:
    from stopctl.mirror import remote

    with closing(remote(url)) as store:
        moved = work(run, store, lambda total: bar("moving", total, of_bytes=True))
    if as_json:
        damaged = [{"name": name, "why": why} for name, why in moved.damaged.items()]
        emit({"path": run, "url": url, "moved": moved.gone, "there": moved.there, "damaged": damaged})
    else:
        for name in moved.gone:
            echo(f"{done} {url}: {name}")
        for name, why in moved.damaged.items():
            echo(f"damaged, left out: {name}: {why}")
        before = f", {len(moved.there)} had been there" if moved.there else ""
        echo(f"{counted(len(moved.gone), 'checkpoint')} {done} {url}{before}")
    if moved.damaged:
        raise typer.Exit(1)
