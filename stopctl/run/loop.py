"""The loop of an opened run: which pass and which batch it is in, and what may be called there."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from types import FrameType
from typing import Any

from stopctl.core.decision import Decision
from stopctl.core.errors import OrderError, SettingError
from stopctl.run.batches import BatchIterator
from stopctl.run.callsite import callsite, cell, is_left
from stopctl.run.lifecycle import standing
from stopctl.run.progressbar import with_bar
from stopctl.run.session import Session
from stopctl.state.data import Feed, Laps, batches_of, generators_of, total_of
from stopctl.state.protocols import Batches, State, Watched
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
        self._unit = "epoch"
        self._planned: int | None = 0
        self._number: int | None = None  # the pass we are in
        self._reported: Mapping[str, int] | None = None  # the state's version at the report we stand at
        self._feed: Feed | None = None  # the batches of this pass, of several data those at work
        self._feeds: dict[str, Feed] = {}  # all that were asked for in this pass, by name
        self._made: dict[str, BatchIterator[Any]] = {}  # before the loop

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
        inside = self._inside() if self._feeds else self._session.place.inside
        return Counters(epoch, step, self._unit, self._planned, inside)

    def failed(self) -> tuple[Counters, bool]:
        """Where an error has ended the loop, and whether that was a whole pass but for its report."""
        whole = self._number is not None and self._reported is None and not self._inside()
        return self.at(self._number if whole else None), whole

    def _inside(self) -> bool:
        return any(feed.inside for feed in self._feeds.values())

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
    def is_left(self) -> bool:
        """Whether the user's own code has left the loop, though passes were to come."""
        return not self.going_on and self._session.goes_on(self.at())

    def standing(self) -> str:
        """Say in a few words how the run stands."""
        stopped = self._session.stopped
        return standing(self._session.controller.progress) if stopped is None else f"stopped: {stopped}"

    def each(self, unit: str, n: int) -> Generator[int, None, None]:
        """Give the numbers of the passes, one after the other."""
        session = self._session
        self._refuse_another(unit, n)
        self.going_on = session.in_loop = True
        session.cell = cell()
        if unit != "epoch":
            self._data_was_used()
        self._unit, self._planned = unit, n
        session.enter_loop(begun := self.at())
        if session.goes_on(self.at()):
            self._find_laps()
            session.tell_anew(begun)
        try:
            while session.goes_on(at := self.at()):
                self._number, self._reported, self._feed, self._feeds = at.done + 1, None, None, {}
                yield self._number
                self._end_pass(self._number)
            if at != begun:
                session.end_loop(at)
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
        self._see_break(sys._getframe(1))
        if self.batch:
            raise OrderError("run.step() inside run.batches(): each of its batches is counted as one step")
        if self._reported is not None:
            raise OrderError("run.step() after run.report(): report() is the last thing in the pass")
        self._step += n

    def batches(self, source: Any, steps: int | None, accumulate: int, name: str) -> BatchIterator[Any]:
        """The batches of this pass, from the saved position on; before the loop, those of all passes."""
        made: BatchIterator[Any] = BatchIterator(self, source, steps, accumulate, name)
        if not self.going_on:
            made.length = total_of(self._checked(made), steps)
            self._made[name] = made
            return made
        if self._unit != "epoch":
            raise OrderError(
                "run.batches() inside run.steps(n): write `data = run.batches(data)` once, before the loop, "
                "and `next(data)` in each step"
            )
        made.feed = self._new_feed(made)
        return made

    def _checked(self, made: BatchIterator[Any]) -> Batches:
        batches = batches_of(self._state, made.source, made.limit)
        if made.limit is not None and batches.length is not None and made.limit > batches.length:
            raise SettingError(
                f"run.batches(steps={made.limit}) got a {type(made.source).__name__} of {batches.length} "
                f"batches an epoch: write steps={batches.length} or less, or none; several of its epochs are "
                "gone through by `data = run.batches(data)` before run.steps(n) and next(data) in each step"
            )
        return batches

    def _new_feed(self, made: BatchIterator[Any]) -> Feed:
        session, number, name = self._session, self._number, made.name
        if number is None or self._unit != "epoch":
            raise OrderError(
                "run.batches() outside a loop of epochs: write `for epoch in run.epochs(n):` around"
            )
        if self._reported is not None:
            raise OrderError("run.batches() after run.report(): report() is the last thing in the pass")
        if name in self._feeds:
            named = f"of name={name!r} " if name else ""
            raise OrderError(
                f"run.batches() {named}a second time in epoch {number}: give each data of an epoch a name of "
                "its own, run.batches(data, name=...)"
            )
        session.find_drops(number - 1, self._planned)
        batches = self._checked(made)
        feed = Feed(
            batches,
            generators_of(self._state),
            source=type(made.source).__name__,
            number=number,
            limit=made.limit,
            group=made.group,
        )
        made.length = total_of(batches, made.limit)
        self._feeds[name] = feed
        return feed

    def iterate(self, made: BatchIterator[Any]) -> Iterator[Any]:
        """The batches of an epoch; outside run.epochs(n) one after the other, wherever they are asked for."""
        if made.feed is not None:
            return self._bodies(made.feed, made.name)
        if self.going_on and self._unit == "epoch":
            if made.laps is not None:
                raise OrderError(
                    "`for batch in data` after next(data): keep to one of them, or make two by name="
                )
            self._one_use(made)
            return self._bodies(self._new_feed(made), made.name)
        return self._endless(made)

    def _endless(self, made: BatchIterator[Any]) -> Iterator[Any]:
        while True:
            yield self.next_batch(made)

    def next_batch(self, made: BatchIterator[Any]) -> Any:
        """The next batch of data that goes on from pass to pass."""
        if not self.going_on or self._number is None:
            raise OrderError("next(data) outside a loop: call it inside run.steps(n) or run.epochs(n)")
        if self._reported is not None:
            raise OrderError("next(data) after run.report(): report() is the last thing in the pass")
        if made.laps is None:
            self._one_use(made)
            made.laps = self._new_laps(made)
        return made.laps.next()

    def _new_laps(self, made: BatchIterator[Any]) -> Laps:
        if made.group != 1:
            raise OrderError(
                "run.batches(accumulate=...) with next(data), which counts no steps: leave it out"
            )
        source = type(made.source).__name__
        laps = Laps(self._checked(made), generators_of(self._state), source=source, limit=made.limit)
        if (position := self._session.place.waiting.get(made.name)) is not None:
            if position.inside:
                self._data_was_used()
            self._session.compare_data(made.name, position, laps)
            laps.resume(position)
        self._session.place.enter(made.name, laps)
        return laps

    def _one_use(self, made: BatchIterator[Any]) -> None:
        if self._made.get(made.name) is not made or (made.laps is None and made.name in self._feeds):
            raise OrderError(
                "run.batches() a second time before the loop: the position of one is saved; give each data a "
                "name of its own, run.batches(data, name=...)"
            )

    def _find_laps(self) -> None:
        """Go on where data stood that goes on from pass to pass, before anything else is done."""
        for name, position in list(self._session.place.waiting.items()):
            made = self._made.get(name)
            if position.lap is not None and made is not None and made.laps is None:
                made.laps = self._new_laps(made)
            elif position.lap is not None and position.done:
                named = f", name={name!r}" if name else ""
                raise OrderError(
                    f"this run was saved inside its data, after batch {position.done} of the data's epoch "
                    f"{position.lap}: write `data = run.batches(data{named})` before the loop and next(data) "
                    "in it, which goes on there (allow_missing={'run.data'} begins the data anew)"
                )

    def _begin(self, feed: Feed, name: str) -> None:
        """Find the saved position, if there is one; nothing of the user's runs after this."""
        place, first = self._session.place, self._feed is None
        position = place.waiting.get(name)
        if position is not None and position.over:
            feed.inside = False
            return
        self._session.begin_data(feed.number, feed.total)
        if position is None:
            feed.begin()
        else:
            if first:
                self._unmoved(position.done)
            self._session.compare_data(name, position, feed)
            feed.resume(position, first=first)
        place.enter(name, feed)
        if first:
            self._feed = feed

    def _bodies(self, feed: Feed, name: str) -> Iterator[Any]:
        session = self._session
        self._still_in(feed, name)
        self._begin(feed, name)
        try:
            for batch in self._fetched(feed):
                main = self._feed is None or self._feed is feed or not self._feed.body
                if main:
                    self._feed, feed.body, feed.site = feed, True, callsite(sys._getframe(1))
                else:  # beside those of another, whose step it is
                    feed.done += 1
                yield batch
                self._still_in(feed, name)
                if main:
                    self._end_batch(feed)
                if session.stopped:
                    return
        finally:
            if self._feeds.get(name) is feed and feed.inside:
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
                if feed.done and feed.whole(feed.done) and not self.batch:
                    self._session.data_failed(self.at())
                raise
            yield batch

    def _still_in(self, feed: Feed, name: str) -> None:
        if self._feeds.get(name) is not feed or not feed.inside:
            raise OrderError(f"a batch of epoch {feed.number} was asked for after that epoch's loop was left")

    def _leave(self, feed: Feed) -> None:
        """End the loop over the batches, at its end or where the user left it."""
        if self._feed is feed:
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
            raise OrderError(
                "report() outside a loop: call it inside run.epochs(n) or run.steps(n); where another loop "
                "trains, say what it has completed: report(..., epoch=3, step=1200)"
            )
        self._see_break(sys._getframe(1))
        if self._reported is not None:
            raise OrderError(f"report() was called twice in {self.where}: report all metrics at once")
        feed = self._feed
        if feed is not None and self._stopped_inside():
            return Decision(stop=session.stopped)
        in_batch = feed is not None and feed.body
        if not in_batch:
            self._data_was_used()
        if feed is not None and in_batch:
            if not feed.whole(feed.done + 1):
                raise OrderError(
                    f"report() in {self.where}, where the gradients of {feed.group} batches are still being "
                    "added up: call it when the optimizer has stepped"
                )
            at = self.at()
            at = at._replace(step=at.step + 1)
        else:
            for each in self._feeds.values():
                each.leave()
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
        for feed in self._feeds.values():
            feed.leave()
        self._session.place.next_pass()
        self._count(number)
        self._session.pass_done(self.at())

    def _see_break(self, frame: FrameType) -> None:
        """Leave the batches whose loop was left while somebody still holds its iterator, such as a bar."""
        feed = self._feed
        if feed is not None and feed.body and feed.inside and is_left(feed.site, frame):
            self._leave(feed)

    def _stopped_inside(self) -> bool:
        """Whether the run has stopped between two batches of this pass, which it does not complete then."""
        return self._inside() and self._session.stopped is not None

    def restored(self) -> None:
        """The state was restored: what moved by that is no fault."""
        if self._reported is not None:
            self._reported = dict(self._state.version())

    def _check_unchanged(self, number: int | None = None) -> None:
        """Raise where something moved after the report; what did so after the last one is nobody's loss."""
        if self._reported is None:
            return
        what = moved(self._reported, self._state.version())
        if what:
            raise OrderError(
                f"{what} ran after run.report(); a resumed run would skip it: call it before report()"
            )
        what = None if self._watched is None else self._watched.moved()
        if what and self._session.goes_on(self.at(number)):
            raise OrderError(
                f"{what} changed after run.report(), and a resumed run would not have that: change it "
                "before report(), or first thing in the next pass"
            )

    def _unmoved(self, done: int) -> None:
        what = moved(self._session.restored, self._state.version())
        if done and what:
            raise OrderError(
                f"{what} ran before run.batches() in an epoch that goes on after batch {done}: it would "
                "run a second time; call it at the end of the epoch"
            )

    def _data_was_used(self) -> None:
        waiting = {name: each for name, each in self._session.place.waiting.items() if each.inside}
        for name, position in waiting.items():
            if self._feed is not None and name in self._feeds:
                # it stands beside others, which have no batch left for it
                self._begin(self._feeds[name], name)
                continue
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


def moved(before: Mapping[str, int], now: Mapping[str, int]) -> str | None:
    """The call that has moved a count between two versions of a State, if one has."""
    return next((call for call, count in before.items() if now.get(call) != count), None)
