"""The policy protocol, and what ``|`` and ``&`` mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

from stopctl.core import words
from stopctl.core.decision import Reason
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal, checked_goal
from stopctl.core.outlook import Outlook
from stopctl.core.progress import Progress, Report

T = TypeVar("T", bound="Rule")


class Rule:
    """Frozen data that answers one question; ``|`` (any of) and ``&`` (all of) join rules of one question."""

    question: ClassVar[str]

    def _joined(self, sign: str, other: object) -> Any:
        if not isinstance(other, Rule) or other.question != self.question:
            raise SettingError(
                f"{self!r} {sign} {other!r}: this is a {self.question} rule; "
                f"join it with other {self.question} rules"
            )
        kind = _GROUPS[self.question, sign]
        return kind(
            tuple(part for rule in (self, other) for part in (rule.parts if type(rule) is kind else (rule,)))
        )

    def __repr__(self) -> str:
        """As one would write it: settings that are not the default, by name from the keyword-only ones on."""
        told = []
        settings: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        for item in (item for item in settings if item.repr):
            value = getattr(self, item.name)
            if not item.kw_only and not (value is None and item.default is None):
                told.append(repr(value))
            elif value != _default(item):
                told.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


def _default(item: Field[Any]) -> object:
    return None if item.default is MISSING else item.default


class Policy(Rule):
    """A stop or save rule with a memory of its own; see docs/policies.md.

    ``x`` is the rule's number, signed so that smaller is better, and ``now`` the run's facts, this report
    included. All methods are pure: they return the new memory and change nothing, but for a memory that is a
    list, which ``update`` may change in place and return.
    """

    goal: Goal | None = None
    reason: ClassVar[Reason] = Reason.CUSTOM
    counters_only: ClassVar[bool] = False
    """The rule reads counters alone (never ``x``), so it is asked at loop boundaries, too."""
    non_finite_only: ClassVar[bool] = False
    """The rule is met by NaN and infinities alone, so it need not be asked about a finite x."""
    total: ClassVar[bool] = False
    """The rule's methods never raise, so a report need not be tried on a copy first."""

    @property
    def updates(self) -> bool:
        """Whether the rule has a memory that reports change."""
        return type(self).update is not Policy.update

    def resume(self, memory: Any) -> Any:
        """A saved memory, of this rule or of another of its class, as this rule has it."""
        return memory

    def needs(self) -> tuple[str, ...]:
        """Metrics that must be in every report, besides the goal's."""
        return ()

    def check(self, x: float, report: Report) -> None:
        """Raise ReportError for a report that the rule cannot judge; nothing has changed yet."""

    def start(self, now: Progress) -> Any:
        """The memory when the rule joins the run: numbers, None, strings, lists and tuples of these.

        Raises:
            SettingError: the rule does not go with the run's goal.
        """
        return None

    def update(self, memory: Any, x: float, now: Progress) -> Any:
        """The memory after this report."""
        return memory

    def met(self, memory: Any, x: float, now: Progress) -> bool:
        """Whether the rule is met at this report."""
        raise NotImplementedError(f"{type(self).__name__} does not say when it is met: write met()")

    def numbers(self, memory: Any, x: float, now: Progress) -> Mapping[str, Any]:
        """The figures that the sentence is told with."""
        return {}

    def sentence(self, numbers: Mapping[str, Any], /) -> str:
        """Why the rule is met, in words; a metric that is not the run's goal is put before it.

        Args:
            numbers: as `numbers` gave them, and ``"unit"``, what a report is called, where they have none.
        """
        return words.met(repr(self), numbers)

    def standing(self, numbers: Mapping[str, Any], /) -> str:
        """How close the rule is to being met, in words, for explain(); ``numbers`` as for `sentence`."""
        return words.figures(numbers) or "no figures"

    def outlook(self, memory: Any, x: float, now: Progress) -> Outlook | None:
        """How much is probably still to be won, for a rule that knows; None for one that does not."""
        return None

    def _check_goal(self) -> None:
        """Raise SettingError unless the rule's own goal, if it has one, is a goal."""
        if self.goal is not None:
            checked_goal(self.goal, type(self).__name__)

    def _sign(self, now: Progress) -> float:
        """The sign that x has against the metric's value."""
        return (self.goal or now.goal).sign

    def _named(self, now: Progress) -> dict[str, Any]:
        """The metric's name for the sentence, where it is not the run's."""
        return {"metric": self.goal.metric} if self.goal is not None and self.goal != now.goal else {}


class StopPolicy(Policy):
    """When to stop; subclass it for a rule of your own."""

    question = "stop"

    def __or__(self, other: StopPolicy) -> StopPolicy:
        return self._joined("|", other)  # type: ignore[no-any-return]

    def __and__(self, other: StopPolicy) -> StopPolicy:
        return self._joined("&", other)  # type: ignore[no-any-return]


class SavePolicy(Policy):
    """When to save; subclass it for a rule of your own."""

    question = "save"

    def __or__(self, other: SavePolicy) -> SavePolicy:
        return self._joined("|", other)  # type: ignore[no-any-return]

    def __and__(self, other: SavePolicy) -> SavePolicy:
        return self._joined("&", other)  # type: ignore[no-any-return]


@dataclass(frozen=True, repr=False)
class Group(Rule):
    """Rules joined by one sign; never empty."""

    parts: tuple[Any, ...]
    sign: ClassVar[str]

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or not all(
            isinstance(p, Rule) and p.question == self.question for p in self.parts
        ):
            raise SettingError(
                f"{type(self).__name__}({self.parts!r}): join {self.question} rules by {self.sign}"
            )

    def __repr__(self) -> str:
        def told(part: Rule) -> str:
            return f"({part!r})" if isinstance(part, Group) else repr(part)

        return f" {self.sign} ".join(told(part) for part in self.parts)


class AnyOf(Group):
    """Met when any part is met."""

    sign = "|"


class AllOf(Group):
    """Met when all parts are met at the same report."""

    sign = "&"


class AnyStop(AnyOf, StopPolicy):
    """Stop rules joined by ``|``."""


class AllStop(AllOf, StopPolicy):
    """Stop rules joined by ``&``."""


class AnySave(AnyOf, SavePolicy):
    """Save rules joined by ``|``."""


class AllSave(AllOf, SavePolicy):
    """Save rules joined by ``&``."""


_GROUPS: dict[tuple[str, str], type[Group]] = {
    ("stop", "|"): AnyStop,
    ("stop", "&"): AllStop,
    ("save", "|"): AnySave,
    ("save", "&"): AllSave,
}


def join_as(question: str, any_of: type[Group], all_of: type[Group]) -> None:
    """Name the groups of one more question."""
    _GROUPS[question, "|"], _GROUPS[question, "&"] = any_of, all_of


def leaves(rule: Rule | None) -> Iterator[Policy]:
    """The rules without their joints, in the order written."""
    if isinstance(rule, Group):
        for part in rule.parts:
            yield from leaves(part)
    elif isinstance(rule, Policy):
        yield rule


def checked_rule(rule: object, kind: type[T], where: str, example: str) -> T | None:
    """The rule itself or None; an error that says what to write at ``where`` for anything else."""
    if rule is None or isinstance(rule, kind):
        return rule
    given = f"the class {rule.__name__}" if isinstance(rule, type) else repr(rule)
    raise SettingError(f"{where}={given}: write a {kind.question} rule, such as {where}={example}, or None")
