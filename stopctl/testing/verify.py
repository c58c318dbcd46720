"""For your tests: that your own training loop, broken off and resumed, is the run that it would have been."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stopctl.core.errors import SettingError
from stopctl.store import Reader
from stopctl.testing.bitwise import Difference, common, differences_of
from stopctl.testing.interrupt import Function, Interrupted, Script

__all__ = ["Interrupted", "Verified", "verify_resume"]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was proved.

    Attributes:
        after: the boundary, from 1, behind which the run was broken off.
        boundaries: how many the undisturbed run has: ends of passes, and of batches in ``run.batches()``.
        resumed_from: the name of the checkpoint that the second process went on from.
        checkpoints: (epoch, step) of those that both runs have, and that are equal; the last one included.
        components: that each of them holds.
    """

    after: int
    boundaries: int
    resumed_from: str
    checkpoints: tuple[tuple[int, int], ...]
    components: tuple[str, ...]


def verify_resume(
    train: Callable[[Path], object] | str | Path,
    directory: str | Path | None = None,
    *,
    after: int | None = None,
    timeout: float = 600.0,
) -> Verified:
    """Train undisturbed; train again, broken off and resumed; compare all that was saved, bit by bit.

    Args:
        train: ``train(directory)`` opens a Run there and trains to its end, with objects that it makes
            itself. Or the path of a script that does so with ``sys.argv[1]``; it is run in new processes.
        directory: an empty or new one for both runs; None: a temporary one.
        after: break off behind this boundary (the end of a pass, or of a batch in ``run.batches()``), from 1.
            None: one in the middle that has a checkpoint before it, and work that is lost if there is such.
        timeout: seconds for each run of a script; subprocess.TimeoutExpired beyond them.

    The shared generators of Python, NumPy and PyTorch are set alike for the beginning of both runs, and
    otherwise for the resumed part: a loop may seed them, or leave them alone.

    Returns:
        What was compared.

    Raises:
        AssertionError: the first component that differs, by its path, with how much of it differs.
        SettingError: nothing could be proved: no run, no checkpoint before the end, a boundary that is none.

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
            return verify_resume(train, made, after=after, timeout=timeout)
    straight, broken = Path(directory) / "undisturbed", Path(directory) / "resumed"
    for path in (straight, broken):
        if path.exists() and any(path.iterdir()):
            raise SettingError(f"verify_resume(directory={str(directory)!r}): {path.name}/ is not empty")
    play = Script(Path(train), timeout) if isinstance(train, str | Path) else Function(train)
    saved = play(straight, None)
    at = _chosen(saved, after)
    if len(play(broken, at)) != at:
        raise SettingError(f"train() caught Interrupted at boundary {at} and went on: let it pass")
    resumed_from = Reader(broken).list().good[-1]
    play(broken, None, fresh=False)
    one, other = Reader(straight), Reader(broken)
    pairs = common(one, other)
    if differing := differences_of(one, other):
        before = resumed_from.step, resumed_from.epoch
        early = any(difference.counters[::-1] <= before for difference in differing)
        raise AssertionError(_sentence(differing, at, len(saved), resumed_from.name, early))
    ends = [reader.list().good[-1] for reader in (one, other)]
    if not pairs or pairs[-1] != tuple(ends):
        counters = [f"epoch {info.epoch}, step {info.step}" for info in ends]
        raise AssertionError(f"the undisturbed run ends at {counters[0]}, the resumed one at {counters[1]}")
    places = tuple((info.epoch, info.step) for info, _ in pairs)
    return Verified(at, len(saved), resumed_from.name, places, pairs[-1][0].components)


def _chosen(saved: list[str], after: int | None) -> int:
    """The boundary to break off behind; ``saved`` has the newest checkpoint at each, "" for none."""
    if after is not None and not (type(after) is int and 0 < after < len(saved)):
        raise SettingError(f"after={after!r}: the run has {len(saved)} boundaries; write one before the last")
    there = [n for n in range(1, len(saved)) if saved[n - 1]]
    if not there or (after is not None and after not in there):
        raise SettingError(
            f"{'the run' if after is None else f'boundary {after}'} has no checkpoint to resume from before "
            f"the end ({len(saved)} boundaries): save more often, such as save=Every(epochs=1)"
        )
    lost = [n for n in there if n > 1 and saved[n - 1] == saved[n - 2]]
    return after or (lost or there)[len(lost or there) // 2]


def _sentence(differing: list[Difference], at: int, boundaries: int, name: str, early: bool) -> str:
    difference, others = differing[0], differing[0].components[1:]
    sooner = [each.where for each in differing[1:] if each.counters[::-1] < difference.counters[::-1]]
    lines = [
        f"resume is not exact: broken off behind boundary {at} of {boundaries} and resumed from {name}, the "
        f"run differs in {difference.where}:",
        f"{difference.path}: {difference.how}",
        *([f"different as well: {', '.join(others)}"] if others else []),
        *([f"seen sooner in what was reported: {sooner[0]}"] if sooner else []),
        f"likely: {_likely(difference, early)}",
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
