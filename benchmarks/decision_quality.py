"""What stopping rules cost and lose on recorded curves, against a fixed patience and a shorter run."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curves import FORMAT, TRAIN, Curve, CurveError, read, usable
from stopctl import Patience, SettingError, StopctlError, StopPolicy
from stopctl.runs.ruletext import parse_stop

Array = NDArray[np.float64]
Ratio = tuple[float, float | None, float | None]

PATIENCES = range(1, 101)
PERCENTS = range(1, 101)


def patiences(curve: Curve) -> list[int]:
    """The stops of a fixed patience of 1, 2, ..., 100."""
    return curve.patience_stops(PATIENCES[-1])


def share_patiences(curve: Curve) -> list[int]:
    """The stops of a patience of 1 %, 2 %, ..., 100 % of the run, rounded up."""
    stops = curve.patience_stops(len(curve.values))
    return [stops[curve.truncated(percent) - 1] for percent in PERCENTS]


def truncations(curve: Curve) -> list[int]:
    """The stops of "train 1 %, 2 %, ..., 100 % of the run"."""
    return [curve.truncated(percent) for percent in PERCENTS]


LINES: dict[str, Callable[[Curve], list[int]]] = {
    "patience": patiences,
    "patience of a share": share_patiences,
    "truncation": truncations,
}
"""What anybody can have, from cheap to dear; every rule is set against each at equal cost."""

RULES = (
    "Patience(3)",
    "Patience(5)",
    "Patience(10)",
    "Patience(20)",
    "Patience(50)",
    "Patience(10, min_delta=0.01, min_delta_mode='rel')",
    "Smoothed(Patience(10), 0.3)",
    "GeneralizationLoss(5)",
    f"ProgressQuotient(0.5, train={TRAIN!r})",
    "SuccessiveRises(3)",
    "RemainingGain(0.01)",
    "RemainingGain(0.03)",
    "RemainingGain(0.05)",
    "RemainingGain(0.08)",
    "Patience(20) | RemainingGain(0.05)",
    "Patience(10) & RemainingGain(0.05)",
)

EXPLAINED = """\
For every rule and curve, with T the values of the curve and t those seen when the rule stopped:

  cost     t / T: the share of the run that was trained.
  regret   (best of the first t - best of all) / |median of the first 3 - best of all|: what stopping lost, as
           a share of what the whole run wins. 0: nothing; 1: as good as not having trained.

Neither figure alone says whether a rule is good: a longer patience loses less and costs more. So the mean
regret is divided by that of three rules that anybody can have, at the same mean cost on the same curves:

  vs patience             one patience for all curves, 1 to 100
  vs patience of a share  a patience of so many percent of the run
  vs truncation           "train this share of the run and stop"

Below 1 is better. In brackets: a 95 % interval from drawing whole repositories anew (not curves: those of
one are alike). With few repositories it is rather too narrow than too wide. There is none with one
repository, and none where more than one draw in twenty has nothing to compare with.
"-": nothing costs as much, or nothing is lost. "as patience" is the fixed patience of the same mean cost.

The rules know the planned length, T. Patience waits for the drops of the learning rate on curves that carry
them; on these alone a second table has each Patience with and without waiting.

Examples:
  python benchmarks/decision_quality.py curves.jsonl.gz
  python benchmarks/decision_quality.py curves.jsonl.gz --stop "Patience(10)" --stop "RemainingGain(0.05)"
  python benchmarks/decision_quality.py curves.jsonl.gz --png regret.png --markdown
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule over the curves that it can judge.

    ``patience`` is the fixed patience of the same mean cost, ``versus`` the ratio to each of LINES: the value
    and its interval. None: nothing costs as much, or nothing is lost.
    """

    name: str
    curves: int
    cost: float
    mean: float
    median: float
    p95: float
    patience: float | None = None
    versus: dict[str, Ratio | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A family of rules from cheap to dear: what each costs and loses on each curve, (curves, members)."""

    costs: Array
    regrets: Array

    @classmethod
    def of(cls, curves: Sequence[Curve], stops: Callable[[Curve], Iterable[int]]) -> Line:
        points = np.array([[(c.cost(t), c.regret(t)) for t in stops(c)] for c in curves], dtype=np.float64)
        return cls(points[..., 0], points[..., 1])

    def at(self, chosen: NDArray[np.bool_]) -> Line:
        """The same on some of the curves."""
        return Line(self.costs[chosen], self.regrets[chosen])

    def mean(self) -> list[tuple[float, float]]:
        """Mean cost and mean regret of each member."""
        return list(zip(self.costs.mean(axis=0).tolist(), self.regrets.mean(axis=0).tolist(), strict=True))

    def means(self, groups: NDArray[np.intp], weights: Array) -> tuple[Array, Array]:
        """Mean cost and mean regret, (draws, members), when group g counts weights[draw, g] times.

        Costs are rounded, so that equal ones are equal however they were summed up.
        """
        counts = weights @ np.bincount(groups, minlength=weights.shape[1])
        sums = np.zeros((2, weights.shape[1], self.costs.shape[1]))
        np.add.at(sums, (0, groups), self.costs)
        np.add.at(sums, (1, groups), self.regrets)
        cost, regret = (weights @ sums) / counts[:, None]
        return cost.round(12), regret


def judge(rule: StopPolicy, curves: Sequence[Curve]) -> tuple[list[int | None], Counter[str]]:
    """Where the rule stops each curve (None where it cannot judge it), and why it could not."""
    stops: list[int | None] = []
    refused: Counter[str] = Counter()
    for curve in curves:
        try:
            stops.append(curve.stop(rule))
        except StopctlError as error:
            stops.append(None)
            refused[_cause(error, rule)] += 1
    return stops, refused


def _cause(error: StopctlError, rule: StopPolicy) -> str:
    """The error without the number that brought it, so that equal causes are counted together."""
    return re.sub(r"=-?\d[-+.\de]*", "", str(error).replace(repr(rule), "the rule"))


def draws(groups: NDArray[np.intp], count: int, seed: int) -> Array:
    """How often each group is drawn: once each in draw 0, then ``count`` times with replacement."""
    size = int(groups.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=count)
    return np.vstack([np.ones(size), drawn]).astype(np.float64)


def against(line: Line, rule: Line, groups: NDArray[np.intp], weights: Array) -> Ratio | None:
    """The rule's mean regret over the line's at the same mean cost: as measured, and the interval's ends.

    None when nothing on the line costs as much, or neither loses anything; no interval when that is so in
    more than 5 % of the draws.
    """
    costs, regrets = line.means(groups, weights)
    cost, regret = (part[:, 0] for part in rule.means(groups, weights))
    same = [np.interp(c, x, y, np.nan, np.nan) for c, x, y in zip(cost, costs, regrets, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = regret / np.array(same)
    value, drawn = float(ratios[0]), ratios[1:][~np.isnan(ratios[1:])]
    if np.isnan(value):
        return None
    if weights.shape[1] < 2 or drawn.size < 0.95 * (len(ratios) - 1):
        return value, None, None
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return value, float(low), float(high)


def row(name: str, curves: Sequence[Curve], stops: Sequence[int]) -> Row:
    """The figures of one rule without a comparison."""
    costs = [curve.cost(t) for curve, t in zip(curves, stops, strict=True)]
    regrets = [curve.regret(t) for curve, t in zip(curves, stops, strict=True)]
    p50, p95 = np.quantile(regrets, [0.5, 0.95])
    return Row(name, len(curves), float(np.mean(costs)), float(np.mean(regrets)), float(p50), float(p95))


@dataclass(frozen=True, slots=True)
class Study:
    """All that was measured; ``lines``: mean (cost, regret) of the members of each of LINES."""

    references: list[Row]
    rules: list[Row]
    refused: dict[str, dict[str, int]]
    lines: dict[str, list[tuple[float, float]]]


def study(
    curves: Sequence[Curve],
    rules: Sequence[StopPolicy],
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Study:
    """Measure the rules on the curves; ``tick`` is called after each rule."""
    lines = {name: Line.of(curves, stops) for name, stops in LINES.items()}
    references = [row("the whole run", curves, [len(curve.values) for curve in curves])]
    for percent in (90, 80, 70, 60, 50):
        references.append(row(f"{percent} % of the run", curves, [c.truncated(percent) for c in curves]))
    references.append(row("oracle: at the best value", curves, [c.oracle() for c in curves]))
    rows, refused = [], {}
    for rule in rules:
        stops, why = judge(rule, curves)
        refused[repr(rule)] = dict(why)
        if any(stops):
            rows.append(compared(repr(rule), curves, stops, lines, bootstrap, seed))
        tick()
    return Study(references, rows, refused, {name: line.mean() for name, line in lines.items()})


def compared(
    name: str,
    curves: Sequence[Curve],
    stops: Sequence[int | None],
    lines: dict[str, Line],
    bootstrap: int,
    seed: int,
) -> Row:
    """A rule's row, against each line on the curves that the rule judges."""
    chosen = np.array([t is not None for t in stops])
    judged = {curve: t for curve, t in zip(curves, stops, strict=True) if t is not None}
    rule = Line.of(list(judged), lambda curve: [judged[curve]])
    _, groups = np.unique([curve.repository for curve in judged], return_inverse=True)
    weights = draws(groups, bootstrap, seed)
    plain = row(name, list(judged), list(judged.values()))
    costs = lines["patience"].costs[chosen].mean(axis=0).round(12)
    patience = np.interp(round(plain.cost, 12), costs, PATIENCES, left=np.nan, right=np.nan)
    return replace(
        plain,
        patience=None if np.isnan(patience) else float(patience),
        versus={told: against(line.at(chosen), rule, groups, weights) for told, line in lines.items()},
    )


def waiting(rules: Sequence[StopPolicy]) -> list[StopPolicy]:
    """Every Patience of the rules, with and without waiting for drops."""
    plain = [rule for rule in rules if isinstance(rule, Patience)]
    return [replace(rule, hold_for_lr=hold) for rule in plain for hold in (True, False)]


HEADS = (
    "rule", "curves", "cost", "regret: mean", "median", "95 %", "as patience",
    *(f"vs {name}" for name in LINES),
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row as text."""

    def ratio(told: Ratio | None) -> str:
        if told is None:
            return "-"
        value, low, high = told
        return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"

    return [
        row.name,
        str(row.curves),
        f"{row.cost:.3f}",
        *(f"{regret:.4f}" for regret in (row.mean, row.median, row.p95)),
        "-" if row.patience is None else f"{row.patience:.1f}",
        *(ratio(row.versus.get(name)) for name in LINES),
    ]


def table(rows: Iterable[Row], *, markdown: bool) -> str:
    """The rows, aligned, or as Markdown."""
    lines = [list(HEADS), *map(cells, rows)]
    if markdown:
        for line in lines[1:]:
            line[0] = f"`{line[0]}`".replace("|", "\\|") if "(" in line[0] else line[0]
        rule = "|---" + "|---:" * (len(HEADS) - 1) + "|"
        told = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([told[0], rule, *told[1:]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(line) for line in aligned)


def plot(result: Study, curves: int, path: Path) -> None:
    """Mean regret against mean cost: the lines, and a mark for each rule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for (name, line), style in zip(result.lines.items(), ("-", "--", ":"), strict=True):
        axes.plot(*zip(*line, strict=True), style, color="0.3", label=name)
    for i, told in enumerate(result.rules):
        part = told.curves < curves
        label = f"{told.name} ({told.curves} curves)" if part else told.name
        face = "none" if part else f"C{i % 10}"
        marker = "osD^vP"[i // 10 % 6]
        axes.plot(told.cost, told.mean, marker, color=f"C{i % 10}", markerfacecolor=face, label=label)
    shown = [told.mean for told in result.rules if told.mean > 0] or [0.01, 1.0]
    axes.set_yscale("log")
    axes.set_ylim(min(shown) / 2, max(*shown, 0.1) * 2)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("cost: share of the run that was trained (mean)")
    axes.set_ylabel("regret: share of the gain that was lost (mean)")
    axes.set_title(f"Stopping rules on {curves} recorded curves")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def as_json(result: Study, summary: dict[str, Any]) -> str:
    """All figures, for a program."""
    data = {**summary, **asdict(result)}
    for row in data["rules"]:  # strict JSON has no infinity
        row["versus"] = {
            name: told and ["Infinity" if part == np.inf else part for part in told]
            for name, told in row["versus"].items()
        }
    return json.dumps(data, indent=1, allow_nan=False)


def notes(curves: Sequence[Curve], left_out: Counter[str], result: Study) -> list[str]:
    """On what the figures rest, and what was left out."""
    repositories = len({curve.repository for curve in curves})
    logged = sum(curve.train is not None for curve in curves)
    lines = [f"{len(curves)} curves of {repositories} repositories; training losses with {logged} of them."]
    lines += [f"Left out: {count} with {why}." for why, count in left_out.items()]
    for name, why in result.refused.items():
        lines += [f"{name} does not apply to {count} curves: {text}." for text, count in why.items()]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="decision_quality.py",
        description=__doc__,
        epilog=EXPLAINED + "\n" + FORMAT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("curves", type=Path, metavar="FILE", help="recorded curves: .jsonl or .jsonl.gz")
    parser.add_argument(
        "--stop", action="append", metavar="RULE", help="a rule, as in Python; may be given again and again"
    )
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="draws (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--by-repository", action="store_true", help="then the rules on each repository alone"
    )
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--json", action="store_true", help="all figures as JSON, nothing else")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw regret against cost")
    given = parser.parse_args(arguments)
    if given.bootstrap < 1:
        parser.error(f"--bootstrap {given.bootstrap}: draw at least once, better 2000 times")
    try:
        rules = [parse_stop(text) for text in given.stop or RULES]
        curves, left_out = usable(read(given.curves))
    except (SettingError, CurveError) as error:
        parser.error(str(error))
    if not curves:
        parser.error(f"{given.curves}: no curve with 3 finite values or more")
    began = time.perf_counter()
    with progress(len(rules)) as tick:
        result = study(curves, rules, bootstrap=given.bootstrap, seed=given.seed, tick=tick)
    seconds = time.perf_counter() - began
    told = notes(curves, left_out, result)
    if given.json:
        summary = {"curves": len(curves), "left_out": dict(left_out), "bootstrap": given.bootstrap}
        print(as_json(result, summary))
    else:
        print(table([*result.references, *result.rules], markdown=given.markdown))
        dropping = [curve for curve in curves if curve.lr_drops]
        if dropping:
            part = study(dropping, waiting(rules), bootstrap=given.bootstrap, seed=given.seed)
            print(f"\nOn the {len(dropping)} curves whose learning rate drops by steps:\n")
            print(table([*part.references, *part.rules], markdown=given.markdown))
        for name in sorted({curve.repository for curve in curves}) if given.by_repository else ():
            part = study([curve for curve in curves if curve.repository == name], rules, bootstrap=1)
            print(f"\n{name}\n\n" + table(part.rules, markdown=given.markdown))
        print("\n" + "\n".join(f"- {line}" if given.markdown else line for line in told))
        print(f"{seconds:.0f} s", file=sys.stderr)
    if given.png:
        plot(result, len(curves), given.png)
    return 0


@contextmanager
def progress(rules: int) -> Iterator[Callable[[], object]]:
    """A bar on standard error where rich is installed and somebody looks, else nothing."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda: None
        return
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rules", total=rules)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    sys.exit(main())
