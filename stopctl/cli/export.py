"""`stopctl export`: the weights of a checkpoint alone, in one safetensors file."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stopctl import StopctlError
from stopctl.cli.output import AsJson, console, downloading, emit, put, say, table

if TYPE_CHECKING:
    from stopctl.export import Export, Exported

Scores = tuple[tuple[str, float, float], ...]


class Dtype(StrEnum):
    """What --dtype takes."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


def export(
    run: Annotated[Path, typer.Argument(help="The run's directory or its mirror's URL; it may be in use.")],
    to: Annotated[Path, typer.Option(help="The file to write, such as model.safetensors.")],
    which: Annotated[
        str, typer.Option(help="best, latest, or the label or directory name of a checkpoint.")
    ] = "best",
    dtype: Annotated[
        Dtype | None, typer.Option(help="What floats become; as they were saved if it is not given.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A component, such as model.encoder or a dict's params; can be given repeatedly."),
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip", help="Bring values beyond the range of --dtype to its largest.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Your metric: called with the weights before and after, NumPy arrays by name (floats as "
            "float32); returns a number or a dict of numbers. Modules in the current directory are found.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the weights of a checkpoint into one safetensors file, in fewer bits if wanted.

    Needs neither PyTorch nor TensorFlow. Integers stay as they are; int8 is symmetric with a scale for each
    output channel, and leaves biases and normalisation in floats; `stopctl.load_exported` gives floats back.
    """
    try:
        from stopctl import export
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise StopctlError("export needs NumPy: pip install numpy") from error
    from stopctl.runs.choose import candidates
    from stopctl.runs.history import goal_of
    from stopctl.runs.reader import open_run

    function = None if evaluate is None else export.metric(evaluate)
    reader = open_run(run)
    chosen = candidates(reader.list().good, which, goal_of(reader.meta))
    with downloading(reader, chosen[0].bytes if chosen else 0):
        weights = export.read(reader, which, only=only or None)
    done = export.write(weights, to, dtype=dtype and dtype.value, clip=clip, force=force)
    compared: Scores = ()
    if function is not None:
        name = str(evaluate).partition(":")[2]
        before = export.scores(function, weights.arrays(), name)
        after = export.scores(function, export.load_exported(to), name)
        compared = tuple((key, before[key], after[key]) for key in before if key in after)
    if as_json:
        emit(_plain(done, weights.metric, compared))
    else:
        _show(done, weights.metric, compared)


def _plain(done: Export, metric: str, compared: Scores) -> dict[str, Any]:
    info = done.checkpoint
    return {
        "path": str(done.path),
        "dtype": done.dtype,
        "checkpoint": {"name": info.name, "epoch": info.epoch, "step": info.step, metric: info.value},
        "tensors": [dataclasses.asdict(tensor) for tensor in done.tensors],
        "left_out": list(done.left_out),
        "bytes_before": done.bytes_before,
        "bytes": done.bytes,
        "evaluate": {name: {"before": before, "after": after} for name, before, after in compared},
    }


def _show(done: Export, metric: str, compared: Scores) -> None:
    out = console()
    info = done.checkpoint
    value = "" if info.value is None else f", {metric} {info.value:.6g}"
    say(out, f"{info.name}: epoch {info.epoch}{value}")
    figures = ("bytes", "now", "max error", "mean error")
    rows = table("tensor", "shape", "from", "to", *figures, right=figures, fold=("tensor",))
    for tensor in done.tensors:
        rows.add_row(*_row(tensor))
    put(out, rows)
    for name in done.left_out:
        say(out, f"left out, no weight: {name}")
    share = f"{done.bytes / done.bytes_before:.1%} of" if done.bytes_before else "from"
    say(out, f"{done.path}: {done.bytes:,} bytes, {share} the {done.bytes_before:,} bytes of weights")
    for name, before, after in compared:
        say(out, f"{name}: {before:.6g} before, {after:.6g} after ({after - before:+.2g})")


def _row(tensor: Exported) -> tuple[Text, ...]:
    name = f"{tensor.name} ({tensor.path})" if tensor.path else tensor.name
    shape = "x".join(map(str, tensor.shape)) or "()"
    if tensor.same_as is not None:
        cells = [name, shape, tensor.before, f"= {tensor.same_as}", "", "", "", ""]
    else:
        after = tensor.after if tensor.axis is None else f"{tensor.after} axis {tensor.axis}"
        sizes = [f"{tensor.bytes_before:,}", f"{tensor.bytes_after:,}"]
        exact = tensor.before == tensor.after
        errors = ["-", "-"] if exact else [f"{tensor.largest:.2g}", f"{tensor.mean:.2g}"]
        cells = [name, shape, tensor.before, after, *sizes, *errors]
    return tuple(map(Text, cells))
