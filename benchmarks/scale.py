"""What saving, agreeing and failing cost a run of thousands of ranks, by a model measured here in part."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
from calibrate import measure
from cluster import (
    DRAWS,
    LIMITS,
    MOST,
    STEPS,
    TODAY,
    Design,
    Floats,
    Rate,
    Site,
    binding,
    connections,
    daly,
    first,
    held,
    rate,
    removing,
    resume,
    save,
    seen,
    share,
    total,
    useful,
    young,
)
from save import bar
from update_overhead import machine

FEWER = 256
"""Ranks that hold all pieces where whole copies of the model are kept besides, as HSDP does."""
RANKS = (1, 10, 100, 1_000, 10_000, 100_000)
DESIGNS = STEPS
ZERO = {"shards", "replicated", "spread", "late_spread", "trip", "network", "restart"}
"""Parameters that may be 0."""

Rows = list[list[str]]

EXPLAINED = """\
One save, phase by phase, of a state that lies in pieces on all ranks of a run, and which resource each phase
waits for; one resume; how much of the time is useful work, by the interval between saves, when nodes fail at
random; and what breaks first as the ranks become more. Ranks differ: the writing of each is slowed by a
lognormal factor of its own, and the slowest of all counts.

Parameters are measured in the first seconds, on this machine and in --directory: give one on the file system
that the run will use. Files are medians, work of a core is the best of a few rounds. What cannot be measured
here is assumed, and the table says where it comes from. Each can be set by its name.

"One part file a node" is NOT what the code does: it shows what that change would bring.

Examples:
  python benchmarks/scale.py --markdown
  python benchmarks/scale.py --ranks 512 --bytes 2e11 --directory /scratch --set per_node=4 aggregate=5e10
"""


def show(value: float) -> str:
    """Three digits, no exponent where it can be helped."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-4 <= abs(value) < 1e9:
        return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.2e}"


def span(values: Floats) -> str:
    """The median; and the smallest and the largest, where they differ."""
    least, middle, most = float(values.min()), float(np.median(values)), float(values.max())
    return show(middle) if most - least < 1e-3 * middle else f"{show(middle)} [{show(least)}..{show(most)}]"


def about(ranks: int | None) -> str:
    """Two digits of it."""
    return "-" if ranks is None else f"{int(float(f'{ranks:.1e}')):,}"


def printed(rows: Rows, *, markdown: bool) -> str:
    """Numbers at the right, text at the left."""
    columns = list(zip(*rows, strict=True))
    right = [all(cell[0].isdigit() or cell == "-" for cell in column[1:] if cell) for column in columns]
    if markdown:
        line = "|".join("---:" if number else "---" for number in right)
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], f"|{line}|", *lines[1:]])
    widths = [max(map(len, column)) for column in columns]
    put = [str.rjust if number else str.ljust for number in right]
    cells = [[one(cell, width) for one, cell, width in zip(put, row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in cells)


def parameter_table(site: Site, measured: Sequence[str], told: Sequence[str]) -> Rows:
    """Every parameter, and where it comes from."""
    rows = [["parameter", "value", "unit", "from"]]
    for one in fields(Site):
        source = one.metadata.get("source", "")
        if "what" in one.metadata:
            source = ("measured: " if one.name in measured else "measured earlier: ") + one.metadata["what"]
        source = "set" if one.name in told else source
        rows.append([one.name, show(getattr(site, one.name)), one.metadata["unit"], source])
    return rows


def save_table(site: Site, seed: int) -> Rows:
    """Seconds of a save by phase."""
    now, then = (save(site, design, seed) for design in DESIGNS.values())
    rows = [["one save, seconds", *DESIGNS, "as it is, it waits for"]]
    rows += [[name, span(p.seconds), span(then[name].seconds), p.waits] for name, p in now.items()]
    return [*rows, ["all", span(total(now)), span(total(then)), binding(now)[1].waits]]


def resume_table(site: Site) -> Rows:
    """Seconds of a resume by what it waits for, with as many ranks as before and with another number."""
    cases = [resume(site, design, same=same) for design in DESIGNS.values() for same in (True, False)]
    heads = [f"{name}{more}" for name in DESIGNS for more in ("", ", another number of ranks")]
    rows = [["one resume, seconds", *heads]]
    rows += [[name, *(show(case[name]) for case in cases)] for name in cases[0]]
    return [*rows, ["all", *(show(sum(case.values())) for case in cases)]]


def size_table(site: Site) -> Rows:
    """How large things become."""
    rows = [["sizes", *DESIGNS]]
    lines: dict[str, Callable[[Design], float]] = {
        "sockets of rank 0": lambda _: connections(site),
        "MB that a rank gets at an exchange": lambda _: site.ranks * site.message / 1e6,
        "files of a checkpoint": lambda d: d.files(site) + 5,
        "pieces": lambda _: site.leaves * site.owners,
        "MB of part manifests": lambda _: site.table * site.owners / 1e6,
        "MB of parts.json": lambda d: d.files(site) / 2 * site.listed / 1e6,
        "GB of part manifests in a node's memory, on resume": lambda _: held(site) / 1e9,
        "the same, with another number of ranks": lambda _: held(site, same=False) / 1e9,
        "s of deleting a checkpoint, beside training": lambda d: removing(site, d),
    }
    return rows + [[name, *(show(line(d)) for d in DESIGNS.values())] for name, line in lines.items()]


def rate_table(one: Rate) -> Rows:
    """Useful time by interval."""
    rows = [["work between two saves", "saving", "useful, simulated", "useful, Daly's formula"]]
    for i in range(0, len(one.intervals), 4):
        each = one.intervals[i]
        shares = (one.cost / (each + one.cost), one.simulated[i], one.formula[i])
        rows.append([f"{show(each / 60)} min", *(f"{share:.1%}" for share in shares)])
    return rows


def optimum_table(site: Site, failures: int, seed: int) -> Rows:
    """The best interval, and what each change would bring."""
    rows = [["", "a save, s", "a resume, s", "Young, min", "Daly, min", "simulated, min", "useful there"]]
    cases = [(name, site, design) for name, design in STEPS.items()]
    fewer = min(FEWER, int(site.ranks))
    cases.insert(1, (f"as it is, pieces on {fewer} ranks alone", replace(site, shards=fewer), TODAY))
    for name, where, design in cases:
        r = rate(where, design, failures, seed)
        there = useful(r.optimum, r.cost, r.restart, r.mtbf)
        minutes = (seconds / 60 for seconds in (young(r.cost, r.mtbf), daly(r.cost, r.mtbf), r.optimum))
        rows.append([name, *map(show, (r.cost, r.restart - where.restart, *minutes)), f"{there:.1%}"])
    return rows


def growth_table(site: Site, seed: int) -> Rows:
    """The same state on more and more ranks, as it is."""
    head = "ranks|an exchange, s|a signal, s|writing, s|a save, s|most of it"
    head += "|a resume, s|by another number, s|fails every, h|Daly, min|useful"
    rows = [head.split("|")]
    for ranks in RANKS:
        one = replace(site, ranks=ranks)
        phases = save(one, TODAY, seed)
        cost, back = float(total(phases).mean()), sum(resume(one, TODAY).values())
        interval = daly(cost, one.mtbf)
        there = useful(interval, cost, site.restart + back, one.mtbf)
        writing = float(np.median(phases["parts are written"].seconds))
        others = sum(resume(one, TODAY, same=False).values())
        numbers = [share(one), seen(one), writing, cost, back, others, one.mtbf / 3600]
        cells = [f"{ranks:,}", *map(show, [*numbers, interval / 60]), f"{there:.1%}"]
        rows.append([*cells[:5], binding(phases)[0], *cells[5:]])
    return rows


def limit_table(site: Site) -> Rows:
    """What breaks, in the order in which it does."""
    rows = []
    for limit in LIMITS:
        scale = {"%": 100.0, "GB": 1e-9}.get(limit.unit, 1.0)
        ranks = [first(limit, site, design) for design in DESIGNS.values()]
        here, most = (
            f"{show(x * scale)} {limit.unit}".strip() for x in (limit.value(site, TODAY), limit.most)
        )
        rows.append(
            (ranks[0] or math.inf, [limit.what, most, about(ranks[0]), here, about(ranks[1]), limit.help])
        )
    than = "one part file a node: from"
    head = ["what breaks", "at", "from ranks", f"with {site.ranks:,.0f}", than, "what helps"]
    return [head, *(row for _, row in sorted(rows, key=lambda pair: pair[0]))]


def settings(parser: argparse.ArgumentParser, texts: Sequence[str]) -> dict[str, float]:
    """NAME=VALUE, for names of parameters."""
    names = [one.name for one in fields(Site) if one.name not in ("ranks", "bytes")]
    told = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in names:
            parser.error(f"--set {text}: write NAME=VALUE, NAME one of {', '.join(names)}")
        try:
            told[name] = float(number)
        except ValueError:
            parser.error(f"--set {text}: {number!r} is no number")
        if not math.isfinite(told[name]) or told[name] < 0 or (told[name] == 0 and name not in ZERO):
            parser.error(f"--set {text}: a finite number above 0")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scale.py",
        description=__doc__,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ranks", type=int, default=10_000, metavar="N", help="default: 10,000")
    parser.add_argument("--bytes", type=float, default=1e12, metavar="B", help="of the state (default: 1e12)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters by name")
    parser.add_argument(
        "--failures", type=int, default=20_000, metavar="N", help="that are simulated (default: 20,000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where to measure (default: the temporary one)"
    )
    parser.add_argument("--no-measuring", action="store_true", help="take the documents' figures instead")
    parser.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    parser.add_argument("--json", action="store_true", help="parameters and all tables as JSON, nothing else")
    given = parser.parse_args(arguments)
    told = settings(parser, given.set)
    if not 1 <= given.ranks <= MOST:
        parser.error(f"--ranks {given.ranks}: from 1 to {MOST:,}")
    if not 1 <= given.bytes < math.inf:
        parser.error(f"--bytes {given.bytes:g}: at least 1, such as 1e12")
    if given.failures < 100:
        parser.error(f"--failures {given.failures}: at least 100, better 20,000")
    steps = iter(range(7))

    def tick(text: str) -> None:
        bar(next(steps), 7, text)

    site = replace(Site(), ranks=given.ranks, bytes=given.bytes, **told)
    measured: dict[str, float] = {}
    if not given.no_measuring:
        measured = measure(int(site.leaves), given.directory, tick)
        site = replace(site, **(measured | told))
    tick("saves")
    tables = {"One save": save_table(site, given.seed), "One resume": resume_table(site)}
    tables["Sizes"] = size_table(site)
    tick("failures")
    tables["How often to save, as it is"] = rate_table(rate(site, TODAY, given.failures, given.seed))
    tables["The best interval, and what changes would bring"] = optimum_table(
        site, given.failures, given.seed
    )
    tick("growth")
    tables["The same state on more ranks, as it is"] = growth_table(site, given.seed)
    tick("limits")
    tables["What breaks first"] = limit_table(site)
    bar(1, 1, "")
    where = machine()
    if given.json:
        data = {"machine": where, "seed": given.seed, "site": asdict(site), "measured": list(measured)}
        print(json.dumps(data | {"tables": tables}, indent=1))
        return 0
    tables = {"Parameters": parameter_table(site, list(measured), list(told))} | tables
    for title, rows in tables.items():
        print(f"### {title}\n" if given.markdown else f"{title}:")
        print(printed(rows, markdown=given.markdown) + "\n")
    notes = [", ".join(f"{name} {value}" for name, value in where.items()), f"seed {given.seed}"]
    notes.append(f"{given.failures:,} failures, {DRAWS} saves drawn: medians, the smallest, the largest")
    print("\n".join(f"- {note}" if given.markdown else note for note in notes))
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
