"""For your tests: that your own training loop, broken off and resumed, is the run that it would have been."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stopctl.core.errors import SettingError
from stopctl.core.values import setting
from stopctl.runs.history import history
from stopctl.store import Reader
from stopctl.testing.bitwise import Difference, common, differences_of
from stopctl.testing.interrupt import Boundary, Function, Interrupted, Script

__all__ = ["Interrupted", "Verified", "verify_resume"]

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, lie as far apart as can be, and in no common phase."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was proved.

    Attributes:
        after: the boundaries, from 1, behind which the run was broken off, in the order of doing so.
        boundaries: how many the undisturbed run has: ends of passes, and of batches in ``run.batches()``.
        resumed_from: the names of the checkpoints that the resumed runs went on from, in the same order.
        checkpoints: (epoch, step) of those that the undisturbed run has in common with any of the resumed
            ones, and that are equal; the last one included.
        components: that each of them holds.
    """

    after: tuple[int, ...]
    boundaries: int
    resumed_from: tuple[str, ...]
    checkpoints: tuple[tuple[int, int], ...]
    components: tuple[str, ...]


def verify_resume(
    train: Callable[[Path], object] | str | Path,
    directory: str | Path | None = None,
    *,
    after: int | None = None,
    budget: float = 30.0,
    timeout: float = 600.0,
) -> Verified:
    """Train undisturbed; train again, broken off and resumed; compare all that was saved, bit by bit.

    That is done for several boundaries: for one in the middle, with work that is lost and done again if there
    is such; for the first one, the first after a report, the first after an epoch, and the last one; and for
    others, spread over the run, while the budget lasts. At all but the one in the middle the run is saved
    before it is broken off, as by a signal.

    Args:
        train: ``train(directory)`` opens a Run there and trains to its end, with objects that it makes
            itself. Or the path of a script that does so with ``sys.argv[1]``; it is run in new processes.
        directory: an empty or new one for all runs; None: a temporary one.
        after: break off behind this boundary alone (the end of a pass, or of a batch in ``run.batches()``),
            from 1, without a save of its own.
        budget: seconds, >= 0; another boundary is taken while it will probably end within them. Those that
            are named above are taken in any case.
        timeout: seconds for each run of a script; subprocess.TimeoutExpired beyond them.

    The shared generators of Python, NumPy and PyTorch are set alike for the beginning of all runs, and
    otherwise for the resumed parts: a loop may seed them, or leave them alone.

    Returns:
        What was compared.

    Raises:
        AssertionError: the first component that differs, by its path, with how much of it differs, and what
            the run has noticed.
        SettingError: nothing could be proved: no run, no checkpoint before the end, a boundary that is none.

    Examples:
        >>> def train(directory):
        ...     state = {"w": 0.0}
        ...     with Run(directory, state=state) as run:
        ...         for epoch in run.epochs(4):
        ...             state["w"] += 1.0
        ...             run.report(val_loss=1 / state["w"])
        >>> verify_resume(train).checkpoints[-1]
        (4, 0)
    """
    if directory is None:
        with tempfile.TemporaryDirectory() as made:
            return verify_resume(train, made, after=after, budget=budget, timeout=timeout)
    budget = setting(budget, "verify_resume(budget=...): budget")
    straight, broken = Path(directory) / "undisturbed", Path(directory) / "resumed"
    for path in (straight, broken):
        if path.exists() and any(path.iterdir()):
            raise SettingError(f"verify_resume(directory={str(directory)!r}): {path.name}/ is not empty")
    play = Script(Path(train), timeout) if isinstance(train, str | Path) else Function(train)
    began = time.monotonic()
    passed = play(straight, None)
    longest = 0.0
    proofs: dict[int, tuple[str, list[tuple[int, int]], tuple[str, ...]]] = {}
    for at, save, due in _points(passed, after):
        now = time.monotonic()
        if not due and now - began + longest > budget:
            break
        proofs[at] = _compared(play, straight, broken / str(at), at, save, passed)
        longest = max(longest, time.monotonic() - now)
    names, places, components = zip(*proofs.values(), strict=True)
    checkpoints = tuple(sorted({place for each in places for place in each}))
    return Verified(tuple(proofs), len(passed), names, checkpoints, components[0])


def _points(passed: Sequence[Boundary], after: int | None) -> Iterator[tuple[int, bool, bool]]:
    """The boundaries to break off behind, each once; whether to save there, and whether it is due.

    Behind the first of anything that counts, one is lost: that is in phase with no period.
    """
    middle = _chosen(passed, after)
    yield middle, False, True
    if after is not None:
        return
    last = len(passed) - 1
    report, epoch = (next((n for n, each in enumerate(passed, 1) if each[i]), last) for i in (2, 1))
    due = [n for n in dict.fromkeys((1, epoch, report, last)) if n not in (middle, len(passed))]
    yield from ((n, True, True) for n in due)
    spread = (1 + int(k * GOLDEN % 1 * last) for k in range(1, 4 * last))
    others = [n for n in dict.fromkeys((*spread, *range(1, last))) if n not in (middle, *due)]
    yield from ((n, True, False) for n in others)


def _compared(
    play: Function | Script, straight: Path, broken: Path, at: int, save: bool, passed: Sequence[Boundary]
) -> tuple[str, list[tuple[int, int]], tuple[str, ...]]:
    """Break off behind one boundary and resume: from where, what was compared, and its components."""
    if len(play(broken, at, save=save)) != at:
        raise SettingError(f"train() caught Interrupted at boundary {at} and went on: let it pass")
    resumed_from = Reader(broken).list().good[-1]
    play(broken, None, fresh=False)
    one, other = Reader(straight), Reader(broken)
    pairs = common(one, other)
    if differing := differences_of(one, other):
        before = resumed_from.step, resumed_from.epoch
        early = any(difference.counters[::-1] <= before for difference in differing)
        levels = {**history(one, "").noticed(), **history(other, "").noticed()}
        noticed = [text for text, level in levels.items() if level != "info" and not early]
        likely = noticed or [_likely(differing[0], early)]
        raise AssertionError(_sentence(differing, at, len(passed), resumed_from.name, likely))
    ends = [reader.list().good[-1] for reader in (one, other)]
    if not pairs or pairs[-1] != tuple(ends):
        counters = [f"epoch {info.epoch}, step {info.step}" for info in ends]
        raise AssertionError(
            f"broken off behind boundary {at} of {len(passed)}: the undisturbed run ends at {counters[0]}, "
            f"the resumed one at {counters[1]}"
        )
    return resumed_from.name, [(info.epoch, info.step) for info, _ in pairs], pairs[-1][0].components


def _chosen(passed: Sequence[Boundary], after: int | None) -> int:
    """The boundary to break off behind without a save of its own."""
    if after is not None and not (type(after) is int and 0 < after < len(passed)):
        raise SettingError(
            f"after={after!r}: the run has {len(passed)} boundaries; write one before the last"
        )
    saved = [each.saved for each in passed]
    there = [n for n in range(1, len(saved)) if saved[n - 1]]
    if not there or (after is not None and after not in there):
        raise SettingError(
            f"{'the run' if after is None else f'boundary {after}'} has no checkpoint to resume from before "
            f"the end ({len(saved)} boundaries): save more often, such as save=Every(epochs=1)"
        )
    lost = [n for n in there if n > 1 and saved[n - 1] == saved[n - 2]]
    return after or (lost or there)[len(lost or there) // 2]


def _sentence(differing: list[Difference], at: int, boundaries: int, name: str, likely: list[str]) -> str:
    difference, others = differing[0], differing[0].components[1:]
    sooner = [each.where for each in differing[1:] if each.counters[::-1] < difference.counters[::-1]]
    lines = [
        f"resume is not exact: broken off behind boundary {at} of {boundaries} and resumed from {name}, the "
        f"run differs in {difference.where}:",
        f"{difference.path}: {difference.how}",
        *([f"different as well: {', '.join(others)}"] if others else []),
        *([f"seen sooner in what was reported: {sooner[0]}"] if sooner else []),
        *(f"likely: {cause}" for cause in likely),
    ]
    return "\n  ".join(lines)


def _likely(difference: Difference, early: bool) -> str:
    if early:
        return (
            "the runs differ before the interruption already, so it is not about resuming: train() does not "
            "seed all its generators, or computes with nondeterministic kernels"
        )
    if any(name.startswith("rng.") for name in difference.components):
        return (
            "something draws another number of random values in a resumed run: before the loop, before "
            "run.batches() in an epoch, or as often as it is called"
        )
    if set(difference.components) <= {"controller", "reports"}:
        return (
            "all that is saved is the same, and what is reported is not: something that validation looks at "
            "is not given to Run, such as averaged weights (extra={'ema': ema})"
        )
    return (
        "something that moves is not given to Run: a generator of your own, an optimizer, a scheduler, "
        "averaged weights (extra={...}); or the order of the data is no function of saved generators; or "
        "something is drawn before run.batches() in an epoch that goes on in its middle"
    )
