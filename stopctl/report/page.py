"""One self-contained HTML page about one or several runs: curves, reasons, checkpoints, what if."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.curves.whatif import patience_of
from stopctl.report import tables
from stopctl.report.data import PageRun, page_runs
from stopctl.report.sample import sampled
from stopctl.report.slider import answers, caveat
from stopctl.store.publish import publish, refuse_to_replace

SCRIPTS = ("figures.js", "chart.js", "runs.js", "export.js", "zoom.js", "page.js")
"""What runs in the page, in this order; ``live.js`` after it where the page is served."""

POINTS, AT_LEAST = 100_000, 200
"""Reports whose values are in one page, of all runs; and of each, if there are many runs."""

GENERATOR = '<meta name="generator" content="stopctl report">'


def write_report(
    directories: Sequence[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    *,
    force: bool = False,
    leave_out: Callable[[str], object] | None = None,
) -> Path:
    """Write the page about these runs into one file, which needs no network and no other file.

    Args:
        directories: runs, at least one; they may be in use, and are only read.
        to: the file; it appears whole.
        force: replace one that is there, if it is not a report of ours (that is always replaced).
        leave_out: is told, in a sentence, of each run that cannot be read or has another goal than the first
            one; the page is about the others. None: such a run is an error.

    Returns:
        The file.

    Raises:
        NotARunError, DamagedError: a directory that is no run, or not readable as one.
        SettingError: no run, or a file that is there and is no report.
        SaveError: the file could not be written.
    """
    target = Path(to)
    if not directories:
        raise SettingError("a report needs at least one run")
    may_replace = _anything if force else _is_report
    refuse_to_replace(target, "the report", may_replace)
    text = page(checked(page_runs(directories, leave_out), leave_out))
    publish(target, [text.encode("utf-8")], "the report", ours=may_replace)
    return target


def checked(runs: Sequence[PageRun], leave_out: Callable[[str], object] | None = None) -> Sequence[PageRun]:
    """The runs; one that maximizes what another one minimizes is a SettingError, or left out."""
    first: dict[str, PageRun] = {}
    good = []
    for run in runs:
        other = first.setdefault(run.metric, run)
        if other.question.goal == run.question.goal:
            good.append(run)
            continue
        goals = f"{other.name} has {other.question.goal!r}, {run.name} has {run.question.goal!r}"
        if leave_out is None:
            raise SettingError(f"mixed directions: {goals}; make a page for each")
        leave_out(f"left out: {run.name}: mixed directions: {goals}")
    return good


def policy(script: str, style: str, *, live: bool) -> str:
    """The content security policy of a page: its own script and style, and nothing from anywhere."""
    asks = " connect-src 'self';" if live else ""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:;{asks} "
        "base-uri 'none'; form-action 'none'"
    )


def page(runs: Sequence[PageRun], *, notices: Sequence[str] = (), version_served: str = "") -> str:
    """The page as text. Its scripts and styles are the only ones that a browser will run in it.

    Args:
        runs: what it is about.
        notices: sentences to stand above all, such as that a run cannot be read.
        version_served: what tells this state of the page from others, where it is served and renews itself.
    """
    live = bool(version_served)
    script = "\n".join(map(_resource, (*SCRIPTS, *(["live.js"] if live else []))))
    style = _resource("page.css")
    names = [run.name for run in runs]
    title = (
        f"{len(runs)} runs"
        if len(runs) > 3
        else f"{', '.join(names[:-1])} and {names[-1]}".removeprefix(" and ")
    )
    many = len(runs) > tables.FEW
    return Template(_resource("template.html")).substitute(
        title=escape(title),
        policy=policy(script, style, live=live),
        version=escape(version_served),
        kind="many" if many else "few",
        open="" if many else " open",
        notices="".join(f'<p class="notice">{escape(notice)}</p>' for notice in notices),
        script=script,
        style=style,
        runs=tables.runs(runs),
        checkpoints=tables.checkpoints(runs),
        decisions=tables.decisions(runs),
        rules=tables.rules(runs),
        footer=escape(_footer(runs)),
        data=embedded(_data(runs)),
    )


def _data(runs: Sequence[PageRun]) -> dict[str, Any]:
    patiences, outcomes = answers([run.question for run in runs])
    most = max(AT_LEAST, POINTS // max(1, len(runs)))
    drawn = []
    for run, rows in zip(runs, outcomes, strict=True):
        curves, told = sampled(run.drawn, rows, most)
        while (
            len(told) > 1 and told[-1] == told[-2]
        ):  # a longer patience changes nothing: the last row stands for it
            told.pop()
        drawn.append(
            {
                **curves,
                "value": run.best,
                "mode": run.question.goal.mode,
                "state": run.state,
                "reason": run.reason,
                "notes": run.notes,
                "patience": patience_of(run.question.rule),
                "whatif": told,
                "caveat": caveat(run.question, patiences, rows, run.drawn["stop"]) if patiences else "",
            }
        )
    return {"runs": drawn, "patiences": patiences}


def embedded(value: Any) -> str:
    """Strict JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return files("stopctl.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _is_report(target: Path) -> bool:
    try:
        with target.open("rb") as file:
            return GENERATOR.encode() in file.read(1000)
    except OSError:
        return False


def _anything(target: Path) -> bool:
    return True


def _footer(runs: Sequence[PageRun]) -> str:
    made = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return (
        f"Made by stopctl {version('stopctl')} on {made} UTC; it read these runs and changed nothing in them."
    )
