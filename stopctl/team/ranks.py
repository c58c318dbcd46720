"""The ranks of a run, kept in step: what they exchange, and work that all wait for; alone there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from stopctl.core import errors
from stopctl.core.errors import StopctlError, TeamError, TreeError
from stopctl.state.protocols import Team
from stopctl.state.snapshot import Changed
from stopctl.store import strict
from stopctl.store.task import Task
from stopctl.team.notes import Notes, ended, told

T = TypeVar("T")
Message = Mapping[str, Any]

BUSY = 4
"""How often within the team's timeout a rank that waits for its own work says that it is still there."""

ERRORS = {
    kind.__name__: kind
    for kind in (*vars(errors).values(), Changed)
    if isinstance(kind, type) and issubclass(kind, BaseException)
}
"""The errors that cross from rank to rank with all that they say."""


class Done(NamedTuple, Generic[T]):
    """Work that is done on all ranks: this one's result, and what each says of its own."""

    mine: T
    results: list[Any]


class RankFailed(TeamError):
    """One or more ranks are leaving because of an error; ``messages`` is what every rank said."""

    def __init__(self, text: str, messages: list[Message]) -> None:
        super().__init__(text)
        self.messages = messages


class Ranks:
    """This rank among the others; without a team the only one.

    Attributes:
        rank, size: as in `Team`.
        leads: this is the rank that writes.
        several: there are others.
        over: nobody listens any more: a rank is lost, or all have left.
        notes: why others have left.
    """

    def __init__(self, team: Team | None = None) -> None:
        self._team = team
        self.rank = 0 if team is None else team.rank
        self.size = 1 if team is None else team.size
        self.leads, self.several = self.rank == 0, team is not None
        self.over = team is None
        self.notes = Notes(team, self.rank)

    @property
    def patience(self) -> float:
        """Seconds within which what one rank has written is to be seen by the others."""
        return 0.0 if self._team is None else self._team.timeout / BUSY

    def exchange(
        self, call: str, where: str, same: Message | None = None, fields: Message | None = None
    ) -> list[Message]:
        """What every rank tells, by rank; all make the same call, with equal values in ``same``.

        Args:
            call: what this rank is doing. where: the same for people: ``"report() on epoch 3"``.
            same: plain values that must be equal on all ranks.
            fields: plain values of this rank's own.

        Raises:
            RankFailed: at a report: another rank has failed, which ends its part with the call "failed".
            TeamError: the same elsewhere; a rank is lost; the ranks do not do the same. On all ranks alike.
        """
        message = {"call": call, "where": where, "same": dict(same or {}), "fields": dict(fields or {})}
        if self._team is None:
            return [message]
        if self.over:
            raise TeamError(f"the ranks have parted before {where}: open the run again on all of them")
        try:
            texts = self._team.share(strict.dumps(message))
            read = {text: strict.loads(text) for text in {*texts}}  # most are alike
            messages = [read[text] for text in texts]
        except BaseException as error:  # after Ctrl-C, too, nobody knows who has heard what
            self.over = True
            if isinstance(error, TeamError) and (notes := self.notes.read()):
                raise TeamError(ended(notes)) from error
            raise
        failed = [rank for rank, each in enumerate(messages) if each["call"] == "failed"]
        if failed:
            self.over = True
            if self.rank not in failed:
                if call == "report":
                    raise RankFailed(failure(messages), messages)
                raise TeamError(failure(messages))
            return messages
        if odd := _difference(messages):
            self.over = True
            raise TeamError(odd)
        return messages

    def work(
        self, where: str, call: Callable[[], T], tell: Callable[[T], Any] = lambda result: None
    ) -> Done[T]:
        """Have ``call`` made in a thread on every rank, and wait for all; collectives have no place in it.

        Meanwhile the ranks go on telling each other that they are there: only one that is lost is late.

        Args:
            where: what is going on, for people.
            call: the work of this rank.
            tell: the result as plain JSON, for the other ranks.

        Raises:
            TeamError: a rank is lost.
            Exception: of the lowest rank whose work failed, on all ranks alike, as far as it is one of ours.
        """
        if self._team is None:
            result = call()
            return Done(result, [])
        task = Task(call, "stopctl-rank")
        task.start()
        try:
            while True:
                task.wait(self._team.timeout / BUSY)
                answer = _answer(task, tell) if task.done else {"busy": True}
                messages = self.exchange("work", where, fields=answer)
                if not any("busy" in each["fields"] for each in messages):
                    break
        except BaseException:
            with contextlib.suppress(BaseException):
                task.result()  # what it is writing is not left behind half way
            raise
        return self._done(messages, task.result)

    def agree(
        self,
        where: str,
        call: Callable[[], T],
        same: Message | None = None,
        tell: Callable[[T], Any] = lambda result: None,
    ) -> Done[T]:
        """The same in this thread, for what must not be called from another; ``same`` as in `exchange`."""
        if self._team is None:
            return Done(call(), [])
        task = Task(call, "stopctl-rank")
        task.now()
        return self._done(self.exchange("work", where, same, _answer(task, tell)), task.result)

    def lead(
        self, where: str, call: Callable[[], T], tell: Callable[[T], Any] = lambda result: None
    ) -> Done[T | None]:
        """`work` for rank 0 alone; ``results[0]`` is what it tells."""
        leader: Callable[[], T | None] = call if self.leads else lambda: None
        return self.work(where, leader, lambda result: tell(result) if self.leads else None)  # type: ignore[arg-type]

    def hurry(self, seconds: float) -> None:
        """Wait no longer than that for others from now on."""
        if self._team is not None:
            with contextlib.suppress(AttributeError):  # a team of somebody's own
                self._team.timeout = min(self._team.timeout, seconds)

    def close(self) -> None:
        """Part with the others."""
        self.over = True
        if self._team is not None:
            self._team.close()

    def _done(self, messages: list[Message], result: Callable[[], T]) -> Done[T]:
        failed = [rank for rank, each in enumerate(messages) if "error" in each["fields"]]
        if failed:
            if self.rank in failed:
                mine = _caught(result)
                if self.rank == failed[0] or not isinstance(mine, StopctlError):
                    raise mine
            raise _error(failed[0], messages[failed[0]]["fields"])
        return Done(result(), [each["fields"]["result"] for each in messages])


def failure(messages: list[Message]) -> str:
    """``"rank 1 has ended with ValueError: boom"``."""
    ends = {rank: each["fields"]["error"] for rank, each in enumerate(messages) if each["call"] == "failed"}
    return ended(ends)


def _difference(messages: list[Message]) -> str | None:
    """The first difference from rank 0, in words."""
    first = messages[0]
    for rank, each in enumerate(messages):
        if each["call"] != first["call"] or (each["call"] == "work" and each["where"] != first["where"]):
            return (
                f"the ranks do not do the same: rank 0 is at {first['where']}, rank {rank} at "
                f"{each['where']}: every rank makes the same calls of the run in the same order"
            )
        for name in first["same"] | each["same"]:
            ours, theirs = first["same"].get(name), each["same"].get(name)
            if ours != theirs:
                differ = f"{name} is {ours} on rank 0, {theirs} on rank {rank}"
                return f"the ranks differ at {first['where']}: {differ}"
    return None


def _answer(task: Task[T], tell: Callable[[T], Any]) -> dict[str, Any]:
    try:
        return {"result": tell(task.result())}
    except BaseException as error:
        return {"error": told(error), **_parts(error)}


def _parts(error: BaseException) -> dict[str, Any]:
    """All that `_error` builds it from; nothing of an error that is none of ours, or that JSON cannot say."""
    name, cause = type(error).__name__, error.__cause__
    if ERRORS.get(name) is not type(error):
        return {}
    why: list[Any] = []
    if isinstance(cause, OSError) and cause.errno is not None:
        why = [cause.errno, cause.strerror, cause.filename]
    try:
        args, why = ([_packed(value) for value in values] for values in (error.args, why))
        attributes = {name: _packed(value) for name, value in vars(error).items()}
    except TreeError:
        return {}
    return {"kind": name, "args": args, "vars": attributes, "cause": why}


def _packed(value: object) -> Any:
    return {"path": str(value)} if isinstance(value, Path) else strict.plain(value, "an error")


def _unpacked(value: Any) -> Any:
    return Path(value["path"]) if type(value) is dict else value


def _caught(result: Callable[[], object]) -> BaseException:
    try:
        result()
    except BaseException as error:
        return error
    raise AssertionError("told of an error, and had none")


def _error(rank: int, fields: Message) -> BaseException:
    kind = ERRORS.get(fields.get("kind", ""))
    if kind is None:
        return TeamError(f"rank {rank} has failed: {fields['error']}")
    args, cause = ([_unpacked(value) for value in fields[name]] for name in ("args", "cause"))
    error = kind(*args)
    vars(error).update({name: _unpacked(value) for name, value in fields["vars"].items()})
    if isinstance(error, StopctlError):
        error.args = (": ".join([f"rank {rank}", *map(str, args[:1])]), *args[1:])
    error.__cause__ = OSError(*cause) if cause else None
    return error
