"""What a State tells Run about the objects of a program: capture them, restore them, whether they moved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from stopctl.store import Leaf, Tree

Described: TypeAlias = dict[str, dict[str, Any]]
"""By component, then by name: plain JSON, all numbers finite."""

Structure: TypeAlias = dict[str, dict[str, list[str]]]
"""By component, then by what is there: the paths; most layers of a model are like others."""


class State(Protocol):
    """The user's objects behind one narrow door; one instance serves one Run."""

    def capture(self) -> dict[str, Tree]:
        """Component name -> tree, as it is now; read by the store before this call's Run goes on."""
        ...

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Check everything, raise MismatchError with every difference, and only then change anything.

        Components are compared both ways: given but not saved, saved but not given. Names in
        ``allow_missing`` may lack on either side and are then left as they are.
        """
        ...

    def version(self) -> Mapping[str, int]:
        """Cheap counters by the call that moves them (``{"scheduler.step()": 3}``), for this process only."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Library versions and thread counts, for run.json."""
        ...

    def close(self) -> None:
        """Give back what the adapter hooked into the user's objects."""
        ...


class Notice(NamedTuple):
    """What a user would want to know of a program, in one line that says what to write.

    Attributes:
        text: the line, without the run's directory.
        level: of `logging`: INFO, WARNING, or ERROR, which ends the run at the boundary where it is taken.
    """

    text: str
    level: int = logging.WARNING


@runtime_checkable
class Notices(Protocol):
    """What a State can do besides that has something to tell.

    Attributes:
        notices: what is new. Run empties this very list at opening, at each boundary, after a restore and at
            close, and tells each text once an opening, in the log and in the journal.
    """

    notices: list[Notice]


@runtime_checkable
class Watched(Protocol):
    """What a State can do besides that sees more of the user's objects than `State.version` counts."""

    def mark(self, *, epoch: bool) -> Mapping[str, int]:
        """`State.version`, at a report; values that must not move after it are remembered, too.

        Args:
            epoch: it ends an epoch: what takes a while is paid rarely.
        """
        ...

    def moved(self) -> str | None:
        """Which of those has moved since, in words; asked once a report."""
        ...

    def passed(self, *, epoch: bool) -> None:
        """Look around: an epoch is over, or a step, or a batch of an epoch."""
        ...


@runtime_checkable
class LearningRate(Protocol):
    """What the State of a framework with learning rates can do besides."""

    def check_lr(self) -> None:
        """Raise SettingError unless the learning rate is Run's to lower."""
        ...

    def scale_lr(self, factor: float, min_lr: float) -> None:
        """Set every learning rate to min(rate, max(rate * factor, min_lr))."""
        ...

    def can_lower(self, factor: float, min_lr: float) -> bool:
        """Whether `scale_lr` would change any rate by more than one part in 1e8."""
        return True

    def lr_drops(self, passes: int, planned: int) -> tuple[int, ...] | range:
        """The passes before the planned end after which the rate drops by a step, past ones too, ascending.

        Args:
            passes: completed, >= 1, from which it follows how many scheduler steps a pass has.
            planned: the last planned pass.
        """
        ...


@runtime_checkable
class Outlined(Protocol):
    """What a State can do besides that can tell what it will save without its bytes."""

    def outline(self) -> dict[str, Tree]:
        """`capture()` with arrays that have no bytes, and None of what is not built yet.

        Raises:
            TreeError: something that a checkpoint cannot hold, with its path.
        """
        ...


def outline_of(state: State) -> dict[str, Tree]:
    """What a State will save, without bytes where it can tell that."""
    return state.outline() if isinstance(state, Outlined) else state.capture()


@runtime_checkable
class Structured(Protocol):
    """What a State can do besides that knows what its models are beside their arrays."""

    def structure(self) -> Structure:
        """What they are now: one short text, and the paths that it is true of.

        That is the layers (``"Dropout(p=0.5)"``), and parameters that are not trained (``"frozen"``).
        """
        ...


@runtime_checkable
class Configured(Structured, Protocol):
    """What a State can do besides whose objects have settings beside their arrays."""

    def settings(self) -> Described:
        """What a restore brings back of settings: learning rates, options, the length of a schedule.

        Asked before a restore, so that it is what the script gave; what has not moved since a run of this
        process has used it is not, and is left out.
        """
        ...

    def restore(
        self,
        components: Mapping[str, Tree],
        *,
        allow_missing: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        """As `State.restore`; ``anew`` names what begins with the script's settings.

        "lr": every optimizer, with its moments restored. A component (it is not among ``components``), or
        the kind of several: what belongs to it and is kept elsewhere, as the rates that a schedule begins
        with are kept by its optimizer.
        """
        ...

    def too_short(self, passes: int, before: int, planned: int) -> list[str]:
        """A sentence for each schedule that was as long as the plan and no longer is, with what to write.

        Args:
            passes: completed, >= 1, from which it follows how many scheduler steps a pass has.
            before: the last pass that was planned when the run was saved.
            planned: the one that is now.
        """
        ...


class Batches(Protocol):
    """The batches of one pass over a user's data, whose position a resume finds again."""

    length: int | None
    """Batches a pass has; None where nobody knows. One whose rest is shared out anew has another number."""

    # elastic: bool = False; whether any number of ranks can go on at a position inside a pass
    # lent: bool = False; whether a rank that is new takes rank 0's position between two passes, too

    def begin(self, epoch: int) -> Iterator[Any]:
        """Begin a new pass; returns its batches."""
        ...

    def resume(self, epoch: int, done: int, saved: Tree) -> Iterator[Any]:
        """The batches after the first ``done`` of a pass that was saved; 0: of the pass after it.

        What it draws from the shared generators meanwhile does not matter, they are put back afterwards.

        Raises:
            MismatchError: ``saved`` does not belong to this data.
        """
        ...

    def capture(self, done: int) -> Tree:
        """The position after ``done`` batches of this pass; 0: between this pass and the next."""
        ...


@runtime_checkable
class Ordered(Protocol):
    """What Batches can do besides whose order somebody may set from outside."""

    def check(self, saved: Tree) -> None:
        """Look, before a pass is gone on with, whether the script has set it to another order.

        Raises:
            MismatchError: it has.
        """
        ...

    def leave(self) -> None:
        """The pass is over, or has its report; called again when the next one is about to begin."""
        ...


@runtime_checkable
class Compared(Protocol):
    """What Batches can do besides that know the settings by which a batch has its rows."""

    def altered(self, saved: Tree) -> Mapping[str, tuple[Any, Any]]:
        """Those that differ: when a position between two passes was saved, and now; "": the data itself."""
        ...


class Generators(Protocol):
    """All random generators that a State knows."""

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        ...

    def load(self, saved: Tree) -> None:
        """Put them there."""
        ...


@runtime_checkable
class Seeded(Protocol):
    """What Generators can do besides for a rank that was not there when a checkpoint was saved."""

    def seed(self, number: int) -> None:
        """Begin all of them anew by a number below 2^64."""
        ...


@runtime_checkable
class DataSource(Protocol):
    """What a State can do besides whose framework has loaders of its own."""

    def batches(self, source: Any, steps: int | None) -> Batches | None:
        """The batches of ``source``, ``steps`` of them a pass where given; None: no kind that it knows.

        Raises:
            SettingError: a kind that it knows, but whose position cannot be saved, and what to write instead.
        """
        ...

    def generators(self) -> Generators:
        """The generators to put back once the position inside a pass is there."""
        ...


class Team(Protocol):
    """The processes (ranks) that train one model together, and the one way in which they talk.

    Attributes:
        rank: this one, from 0; rank 0 leads: it alone holds the lock and commits.
        size: how many there are.
        timeout: seconds after which a rank that does not come counts as lost.
    """

    rank: int
    size: int
    timeout: float

    def share(self, message: bytes) -> list[bytes]:
        """The messages of all ranks, by rank; each rank calls it as often as the others, in the same order.

        At most two small collectives, whatever is sent. After an error it is not called again.

        Raises:
            TeamError: a rank is gone, or has not come within ``timeout``.
        """
        ...

    def close(self) -> None:
        """Give back what the team holds; waits for nobody."""
        ...


@runtime_checkable
class Noted(Protocol):
    """What a `Team` can do besides that has a place for notes, for which nobody need answer."""

    def note(self, text: str) -> None:
        """Leave word why this rank ends; within a second, and no error where that cannot be."""
        ...

    def notes(self) -> Mapping[int, str]:
        """What ranks have left, by rank; within a second, and nothing where that cannot be."""
        ...

    def lost(self, error: BaseException) -> bool:
        """Whether a collective of the framework has raised this, as it does where another rank is gone."""
        ...


@runtime_checkable
class Ranked(Protocol):
    """What a State can do besides whose framework may run on several ranks."""

    def team(self, timeout: float) -> Team | None:
        """The ranks that this process trains with, None where it trains alone; every rank calls it.

        Raises:
            TeamError: the ranks cannot reach each other.
        """
        ...

    def per_rank(self) -> Collection[str]:
        """The components that every rank has for itself, such as random generators.

        Of all others rank 0 writes what is a `Leaf`, and each rank its own pieces of what is `Sharded`.
        """
        ...


@runtime_checkable
class Proved(Protocol):
    """What a `Ranked` State can do besides whose arrays that are saved once are to be equal on all ranks.

    They are compared bit by bit, when a run is opened and beside every save.
    """

    def shared(self) -> dict[str, Tree]:
        """`capture()` of what is saved once; what cannot tell its state yet is left out, or None."""
        ...

    def loose(self, names: Collection[str], *, search: bool = False) -> Collection[str]:
        """Those of these arrays that differ in right programs, as a framework makes them rank 0's.

        Args:
            names: such as ``"model/1.running_mean"``.
            search: look for whatever says so as well, for a while: some of them do differ.
        """
        ...

    def remedy(self, names: Collection[str]) -> str:
        """What to write where these differ."""
        ...


def _unchanged() -> None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The leaves of a capture that need not be copied before training goes on.

    Attributes:
        own: nobody writes to their memory any more: they are not copied at all.
        later: their memory stays as it is until they are copied, by another thread.
        changed: called by that thread after it has copied ``later``: what has changed all the same, in
            words, or None.
    """

    own: Collection[Leaf] = frozenset()
    later: Collection[Leaf] = frozenset()
    changed: Callable[[], str | None] = _unchanged


@runtime_checkable
class Overlap(Protocol):
    """What a State can do besides whose arrays may be copied while training goes on (``"overlap"``)."""

    def overlap(self, components: Mapping[str, Tree], wait: Callable[[], None]) -> Held:
        """Say which leaves of the newest ``capture()`` keep their values for a while.

        From now on, whatever this State can hook into must call ``wait`` before it changes one of those
        that are copied later; it returns at once where nothing is left to be copied. Every other leaf is
        copied before this call's Run goes on.
        """
        ...
