"""Ranks that do not quite share what they should: each of these must be noticed by schedules."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple

from support.faults.mutants import NoLongerApplies


class Mutant(NamedTuple):
    """`function` (``module:qualified.name`` below stopctl) with `new` for `old`, as in support.faults.mutants."""

    function: str
    old: str
    new: str


MUTANTS = {
    "seconds by each rank's own clock": Mutant(
        "team.inputs:Sharing.take", "max(self._seconds, inputs[0]['seconds'])", "max(self._seconds, self._clock())"
    ),
    "a rhythm by each rank's own clock": Mutant(
        "team.inputs:Sharing.take", "beat(at.step, self._seconds,", "beat(at.step, self._clock(),"
    ),
    "a signal that is looked at locally": Mutant(
        "run.session:Session.preempted", "self._inputs.now().signal", "self._inputs._signals.came"
    ),
    "a signal that nobody else hears": Mutant(
        "team.inputs:Sharing._take_signal", "next(filter(None, signals), None)", "self._signals.came"
    ),
    "a late signal that is looked at locally": Mutant(
        "run.session:Session.owed_signal", "self._inputs.now().signal", "self._inputs._signals.came"
    ),
    "a stop that nobody else hears": Mutant(
        "team.inputs:Sharing.take", "for text in each['wishes']:", "for text in self._wishes[:each is inputs[self._ranks.rank]]:"
    ),
    "metrics of each rank's own": Mutant(
        "team.inputs:Sharing.report", "return self.judged(messages)", "return {**self.judged(messages), **given}"
    ),
    "a mean without its weights": Mutant("team.reduce:_weights", "return counts", "return None"),
    "a save's failure that nobody else hears": Mutant(
        "team.ranks:Ranks._done", "if 'error' in each['fields']", "if 'error' in each['fields'] and rank == self.rank"
    ),
    "a commit that fails after it was told": Mutant(
        "team.save:JointSave.finish",
        "published = ranks.lead('committing a save', publish, info_to_json)",
        "published = ranks.lead('committing a save', lambda: self._drafts[0].info, info_to_json)\nif self._drafts: publish()",
    ),
    "a save in the background that each rank takes up by itself": Mutant(
        "run.session:Session._hear", "self._inputs.still_writing", "[self._saver.writing]"
    ),
    "a save in the background that an error leaves to itself": Mutant(
        "run.session:Session.close", "None if parts else self._saver.close()", "self._saver.close()"
    ),
    "a difference that is passed over": Mutant("team.proof:Proof.compare", "len(set(digests)) == 1", "True"),
    "a digest that looks at nothing": Mutant(
        "team.proof:Proof.digest", "hashlib.sha256(raw(leaf)).hexdigest()[:32]", "name"
    ),
    "a failing journal that nobody else hears of": Mutant("run.journal:Journal.note", "if self._ranks.over:", "if True:"),
    "a note that is dropped": Mutant("team.leave:Parting.leave", "ranks.notes.leave(fault)", "pass"),
    "a note that nobody reads": Mutant("team.ranks:Ranks.exchange", "self.notes.read()", "{}"),
    "an error that nobody else hears of": Mutant(
        "team.leave:Parting.leave", "self._last_save(self._sharing.farewell(at, fault, versions), at)", "return None"
    ),
    "another exchange after one was broken off": Mutant(
        "team.ranks:Ranks.exchange", "except BaseException as error:", "except TeamError as error:"
    ),
    "every rank is given rank 0's part": Mutant("team.restore:_load", "rank=ranks.rank", "rank=0"),
    "other ranks go on inside an epoch": Mutant(
        "team.restore:check_ranks", "info.ranks == ranks.size", "True"
    ),
    "a lock that is kept when the opening fails": Mutant("run.session:Session.__init__", "self._give_back()", "pass"),
}  # fmt: skip


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The mutant lives within the block."""
    function = _function(mutant.function)
    source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    lines = [_replaced(line, mutant) for line in source.splitlines() if not line.startswith("@")]
    if not any(mutant.old in line for line in source.splitlines()):
        raise NoLongerApplies(f"{mutant.function} has no {mutant.old!r} any more, but:\n{source}")
    scope: dict[str, Any] = {}
    text = "\n".join(["from __future__ import annotations", *lines])
    exec(compile(text, f"<{mutant.function}, mutated>", "exec"), function.__globals__, scope)
    before, function.__code__ = function.__code__, scope[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


def _replaced(line: str, mutant: Mutant) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return line.replace(mutant.old, mutant.new.replace("\n", f"\n{indent}"))


def _function(name: str) -> FunctionType:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(f"stopctl.{module}")
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    found = found.fget if isinstance(found, property) else found
    assert isinstance(found, FunctionType)
    return found
