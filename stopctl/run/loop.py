"""The loop of an opened run: which pass and which batch it is in, and what may be called there."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from stopctl.core.decision import Decision
from stopctl.core.errors import OrderError
from stopctl.run.journal import standing
from stopctl.run.progressbar import with_bar
from stopctl.run.session import Session
from stopctl.state.data import Feed, batches_of, generators_of
from stopctl.state.protocols import State, Watched
from stopctl.team.inputs import Counters


class Loop:
    """Drives a session through passes and batches, and owns their counters; Run is its public face."""

    def __init__(self, session: Session, state: State) -> None:
        progress = session.begun
        self.going_on = False
        self._session = session
        self._state = state
        self._watched = state if isinstance(state, Watched) else None
        self._epoch, self._step = progress.epoch, progress.step  # completed ones
        self._unit, self._planned = "epoch", 0
        self._number: int | None = None  # the pass we are in
        self._reported: Mapping[str, int] | None = None  # the state's version at the report we stand at
        self._feed: Feed | None = None  # the batches of this pass

    @property
    def batch(self) -> int:
        """The batch that the loop is in, from 1; 0 outside."""
        feed = self._feed
        return 0 if feed is None or not feed.body else feed.done + (self._reported is None)

    @property
    def where(self) -> str:
        """``epoch 3``, or ``batch 7 of epoch 3``."""
        name = f"{self._unit} {self._number}"
        return f"batch {self.batch} of {name}" if self.batch else name

    @property
    def in_the_middle(self) -> bool:
        """Whether counters and state do not belong together: the loop works on a pass or a batch."""
        return self._number is not None and self._reported is None and not self._stopped_inside()

    @property
    def at_report(self) -> bool:
        """Whether this pass, or this batch, has its report, after which nothing may move."""
        return self.going_on and self._number is not None and self._reported is not None

    def at(self, number: int | None = None) -> Counters:
        """The counters; with pass ``number`` completed, if given."""
        epoch, step = self._epoch, self._step
        if number is not None:
            epoch, step = (number, step) if self._unit == "epoch" else (epoch, number)
        inside = self._session.place.inside if self._feed is None else self._feed.inside
        return Counters(epoch, step, self._unit, self._planned, inside)

    def failed(self) -> tuple[Counters, bool]:
        """Where an error has ended the loop, and whether that was a whole pass but for its report."""
        inside = self._feed is not None and self._feed.inside
        whole = self._number is not None and self._reported is None and not inside
        return self.at(self._number if whole else None), whole

    def passes(self, unit: str, n: int, *, bar: bool = False) -> Passes:
        """The passes still to do."""
        self._refuse_another(unit, n)
        return Passes(self, unit, n, bar and self._session.leads)

    def _refuse_another(self, unit: str, n: int) -> None:
        if self.going_on:
            raise OrderError(f"run.{unit}s({n}) inside another loop of this run: leave that one first")

    def done(self, unit: str) -> int:
        """Completed passes of that unit."""
        return self._epoch if unit == "epoch" else self._step

    def to_come(self, unit: str, n: int) -> int:
        """How many of ``n`` passes are still to do."""
        return 0 if self._session.stopped is not None else max(0, n - self.done(unit))

    @property
    def left(self) -> str | None:
        """Where the user's own code has left the loop, though passes were to come: ``epoch 7 of 50``."""
        at = self.at()
        if self.going_on or not self._session.goes_on(at):
            return None
        return f"{at.unit} {at.done} of {at.planned}"

    def standing(self) -> str:
        """Say in a few words how the run stands."""
        stopped = self._session.stopped
        return standing(self._session.controller.progress) if stopped is None else f"stopped: {stopped}"

    def each(self, unit: str, n: int) -> Generator[int, None, None]:
        """Give the numbers of the passes, one after the other."""
        session = self._session
        self._refuse_another(unit, n)
        self.going_on = session.in_loop = True
        if unit != "epoch":
            self._data_was_used()
        self._unit, self._planned = unit, n
        session.begin_loop(self.at())
        try:
            while session.goes_on(at := self.at()):
                self._number, self._reported, self._feed = at.done + 1, None, None
                yield self._number
                self._end_pass(self._number)
        finally:
            self.going_on = session.in_loop = False
            if self._feed is not None and self._feed.body:  # left in a body that somebody still holds
                self._leave(self._feed)
            if self._number is not None and self._reported is not None and not self.batch:
                self._count(self._number)  # left after its report: it is complete
                self._number = None

    def _count(self, number: int) -> None:
        if self._unit == "epoch":
            self._epoch = number
        else:
            self._step = number

    def step(self, n: int) -> None:
        """Count ``n`` optimizer steps."""
        if not self.going_on or self._unit != "epoch":
            raise OrderError("run.step() counts steps inside run.epochs(n); run.steps(n) counts its own")
        if self.batch:
            raise OrderError("run.step() inside run.batches(): each of its batches is counted as one step")
        if self._reported is not None:
            raise OrderError("run.step() after run.report(): report() is the last thing in the pass")
        self._step += n

    def batches(self, source: Any, steps: int | None, accumulate: int) -> Iterator[Any]:
        """Give the batches of this pass, from the saved position on."""
        session, number = self._session, self._number
        if not self.going_on or number is None or self._unit != "epoch":
            raise OrderError(
                "run.batches() outside a loop of epochs: write `for epoch in run.epochs(n):` around"
            )
        if self._reported is not None:
            raise OrderError("run.batches() after run.report(): report() is the last thing in the pass")
        if self._feed is not None:
            raise OrderError(
                f"run.batches() a second time in epoch {number}: the position of one loop is saved; "
                "chain the data, or give each its own epoch"
            )
        session.find_drops(number - 1, self._planned)
        feed = Feed(
            batches_of(self._state, source, steps),
            generators_of(self._state),
            source=type(source).__name__,
            number=number,
            limit=steps,
            group=accumulate,
        )
        self._feed = feed
        return self._bodies(feed)

    def _begin(self, feed: Feed) -> None:
        """Find the saved position, if there is one; nothing of the user's runs after this."""
        place = self._session.place
        if place.position is None:
            feed.begin()
        else:
            self._unmoved(place.position.done)
            feed.resume(place.position)
        place.enter(feed)

    def _bodies(self, feed: Feed) -> Iterator[Any]:
        session = self._session
        self._still_in(feed)
        self._begin(feed)
        try:
            for batch in self._fetched(feed):
                feed.body = True
                yield batch
                self._still_in(feed)
                self._end_batch(feed)
                if session.stopped:
                    return
        finally:
            if self._feed is feed and feed.inside:
                self._leave(feed)

    def _fetched(self, feed: Feed) -> Iterator[Any]:
        """The batches; where the data dies of a signal that has come here, too, those so far are saved."""
        batches = iter(feed)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception:
                if feed.done and feed.whole(feed.done):
                    self._session.data_failed(self.at())
                raise
            yield batch

    def _still_in(self, feed: Feed) -> None:
        if self._feed is not feed or not feed.inside:
            raise OrderError(f"a batch of epoch {feed.number} was asked for after that epoch's loop was left")

    def _leave(self, feed: Feed) -> None:
        """End the loop over the batches, at its end or where the user left it."""
        self._reported = None
        if self._session.stopped:
            feed.freeze()
        else:
            feed.leave()

    def _end_batch(self, feed: Feed) -> None:
        self._check_unchanged()
        if self._watched is not None:
            self._watched.passed(epoch=False)
        if self._reported is None:
            feed.done += 1
            self._step += feed.whole(feed.done)
        feed.body, self._reported = False, None
        if feed.whole(feed.done) and (not feed.ended or self._session.preempted):
            self._session.step_done(self.at())

    def report(self, metrics: Mapping[str, object]) -> Decision:
        """Decide on the pass, or on the batch that the loop is in."""
        session, number = self._session, self._number
        if not self.going_on or number is None:
            raise OrderError("report() outside a loop: call it inside run.epochs(n) or run.steps(n)")
        if self._reported is not None:
            raise OrderError(f"report() was called twice in {self.where}: report all metrics at once")
        feed = self._feed
        if feed is not None and self._stopped_inside():
            return Decision(stop=session.stopped)
        self._data_was_used()
        in_batch = feed is not None and feed.body
        if feed is not None and in_batch:
            if not feed.whole(feed.done + 1):
                raise OrderError(
                    f"report() in {self.where}, where the gradients of {feed.group} batches are still being "
                    "added up: call it when the optimizer has stepped"
                )
            at = self.at()
            at = at._replace(step=at.step + 1)
        else:
            if feed is not None:
                feed.leave()
            at = self.at(number)
        watched, epoch = self._watched, self._unit == "epoch" and not in_batch
        version = dict(self._state.version() if watched is None else watched.mark(epoch=epoch))
        judged = session.report(at, metrics, version)
        if feed is not None and in_batch:
            self._step = at.step
            feed.done += 1
        self._reported = version
        session.carry_out(judged)
        return judged.decision

    def _end_pass(self, number: int) -> None:
        self._check_unchanged(number)
        if self._watched is not None:
            self._watched.passed(epoch=self._unit == "epoch")
        self._data_was_used()
        self._number = None
        if self._stopped_inside():
            return
        if self._feed is not None:
            self._feed.leave()
        self._count(number)
        self._session.pass_done(self.at())

    def _stopped_inside(self) -> bool:
        """Whether the run has stopped between two batches of this pass, which it does not complete then."""
        return self._feed is not None and self._feed.inside and self._session.stopped is not None

    def restored(self) -> None:
        """The state was restored: what moved by that is no fault."""
        if self._reported is not None:
            self._reported = dict(self._state.version())

    def _check_unchanged(self, number: int | None = None) -> None:
        """Raise where something moved after the report; what did so after the last one is nobody's loss."""
        if self._reported is None:
            return
        moved = _moved(self._reported, self._state.version())
        if moved:
            raise OrderError(
                f"{moved} ran after run.report(); a resumed run would skip it: call it before report()"
            )
        moved = None if self._watched is None else self._watched.moved()
        if moved and self._session.goes_on(self.at(number)):
            raise OrderError(
                f"{moved} changed after run.report(), and a resumed run would not have that: change it "
                "before report(), or first thing in the next pass"
            )

    def _unmoved(self, done: int) -> None:
        moved = _moved(self._session.restored, self._state.version())
        if done and moved:
            raise OrderError(
                f"{moved} ran before run.batches() in an epoch that goes on after batch {done}: it would "
                "run a second time; call it at the end of the epoch"
            )

    def _data_was_used(self) -> None:
        position = self._session.place.position
        if position is not None and position.done:
            raise OrderError(
                f"this run was saved inside epoch {position.epoch}, after batch {position.done}: in the loop "
                "of epochs write `for batch in run.batches(data):`, which goes on at the next one "
                "(allow_missing={'run.data'} begins that epoch anew)"
            )


class Passes:
    """The passes that a loop still has to do: iterate over it once, as the loop itself.

    ``len()`` is how many they are at this moment, for progress bars; none when the run is finished.
    """

    def __init__(self, loop: Loop, unit: str, n: int, bar: bool) -> None:
        self._loop = loop
        self._unit = unit
        self._n = n
        self._bar = bar

    def __len__(self) -> int:
        return self._loop.to_come(self._unit, self._n)

    def __iter__(self) -> Iterator[int]:
        passes = self._loop.each(self._unit, self._n)
        if not self._bar:
            return passes
        done = self._loop.done(self._unit)
        return with_bar(passes, done, self._n, self._unit, self._loop.standing)


def _moved(before: Mapping[str, int], now: Mapping[str, int]) -> str | None:
    return next((call for call, count in before.items() if now.get(call) != count), None)
