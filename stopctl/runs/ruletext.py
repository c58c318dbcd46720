"""Rules given as text, as one would write them in Python; nothing is ever evaluated."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from stopctl import rules
from stopctl.core import goal, keep, lr, save, stop
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.keep import KeepPolicy
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import Rule, SavePolicy, StopPolicy

KINDS: Mapping[str, type[Rule]] = MappingProxyType(
    {"stop": StopPolicy, "save": SavePolicy, "keep": KeepPolicy, "lr": ReduceOnPlateau}
)
"""The base class of each question's rules."""

_BASES = (Goal, KeepPolicy, keep.AnyKeep, keep.AllKeep)

KNOWN: Mapping[str, type[Rule] | type[Goal]] = MappingProxyType(
    {
        name: kind
        for module in (stop, save, keep, lr, rules, goal)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Rule | Goal)
        if kind.__module__.startswith(module.__name__) and kind not in _BASES
    }
)
"""Every class that a rule can be written with, by name."""


def names(question: str) -> list[str]:
    """The rules that answer a question ("stop", "save", "keep", "lr"), sorted.

    >>> names("keep")
    ['Best', 'KeepEvery', 'Last']
    """
    return sorted(name for name, kind in KNOWN.items() if issubclass(kind, KINDS[question]))


LONGEST = 2000
"""Characters that a rule may have."""

SHOWN = 100
"""Characters of a rule that an error repeats."""

EXAMPLES = {
    "stop": "Patience(5) | NonFinite()",
    "save": "Every(epochs=10) | OnBest()",
    "keep": "Last(2) | Best(1)",
    "lr": "ReduceOnPlateau(0.1, patience=3)",
}

R = TypeVar("R", bound=Rule)


NOTHING: Mapping[str, type[Rule]] = MappingProxyType({})


def parse_stop(text: str, own: Mapping[str, type[Rule]] = NOTHING) -> StopPolicy:
    """The stop rule that ``text`` writes; ``own``: rules of the user's that it may name, too.

    Calls of known names with numbers, strings, True, False, None and such calls, joined by | and & and
    grouped by parentheses; anything else is refused.

    Raises:
        SettingError: one line that says what is wrong and in which column (from 1), and what is known.

    >>> parse_stop("Patience(5, goal=Maximize('accuracy')) | Smoothed(RemainingGain(0.05), 0.3)")
    Patience(5, goal=Maximize('accuracy')) | Smoothed(RemainingGain(0.05), 0.3)
    >>> parse_stop("Patiense(5)")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    stopctl.core.errors.SettingError: 'Patiense(5)', column 1: there is no 'Patiense'; did you mean ...
    """
    return _parse(text, "stop", StopPolicy, own)


def import_rules(text: str) -> tuple[str, dict[str, type[Rule]]]:
    """``"module:Rule(3) | NonFinite()"`` as ``"Rule(3) | NonFinite()"`` and the classes that it names.

    The modules are imported, from the present directory as well; so this is for a text that the user has
    written, and never for one that was read from a run.

    Raises:
        SettingError: a module that cannot be imported, or a name in it that is no stop rule.
    """
    found: dict[str, type[Rule]] = {}
    for match in _OWN.finditer(text):
        module, name = match.groups()
        kind = getattr(_imported(module), name, None)
        if not (isinstance(kind, type) and issubclass(kind, StopPolicy) and is_dataclass(kind)):
            raise SettingError(
                f"{module}:{name} is no stop rule: write a dataclass there that is a StopPolicy"
            )
        found[name] = kind
    return _OWN.sub(r"\2", text), found


_OWN = re.compile(r"\b([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?=\()")


def _imported(module: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingError(f"{module} cannot be imported from here: {error}") from error
    finally:
        sys.path.remove("")


def parse_save(text: str) -> SavePolicy:
    """The save rule that ``text`` writes; see `parse_stop`.

    >>> parse_save("Every(epochs=10) | OnBest()")
    Every(epochs=10) | OnBest()
    """
    return _parse(text, "save", SavePolicy)


def parse_keep(text: str) -> KeepPolicy:
    """The keep rule that ``text`` writes; see `parse_stop`.

    >>> parse_keep("Last(2) | Best(1)")
    Last(2) | Best(1)
    """
    return _parse(text, "keep", KeepPolicy)


def parse_lr(text: str) -> ReduceOnPlateau:
    """The rule for the learning rate that ``text`` writes; see `parse_stop`.

    >>> parse_lr("ReduceOnPlateau(0.5, patience=3)")
    ReduceOnPlateau(0.5, patience=3)
    """
    return _parse(text, "lr", ReduceOnPlateau)


def _parse(text: str, question: str, kind: type[R], own: Mapping[str, type[Rule]] = NOTHING) -> R:
    if len(text) > LONGEST:
        raise SettingError(f"a {question} rule of {len(text)} characters: write at most {LONGEST}")
    rule = _Expression(text, question, {**KNOWN, **own}).rule()
    if not isinstance(rule, kind):
        raise SettingError(f"{text[:SHOWN]!r} is no {question} rule: write one, such as {EXAMPLES[question]}")
    return rule


class _Expression:
    """One text, and the way from a node of its tree to what it writes."""

    def __init__(self, text: str, question: str, known: Mapping[str, type[Rule] | type[Goal]]) -> None:
        self._known = known
        line = " ".join(text.splitlines())
        body = line.lstrip()
        self._text = text
        self._body = body
        self._bytes = body.encode("utf-8", "replace")  # in which ast counts its columns
        self._skipped = len(line) - len(body)
        self._question = question

    def rule(self) -> Any:
        """What the whole text writes."""
        as_in_python = f"write it as in Python: {EXAMPLES[self._question]}"
        if not self._body:
            raise self._refused(0, f"nothing is there; {as_in_python}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd escape in a string is no affair of ours
                tree = ast.parse(self._body, mode="eval").body
            return self._built(tree)
        except SettingError:
            raise
        except SyntaxError as error:
            at = max(0, (error.offset or 1) - 1)
            raise self._refused(at, f"{error.msg}; {as_in_python}") from None
        except ValueError as error:  # of a null byte, before Python 3.11.4
            raise self._refused(0, f"{error}; {as_in_python}") from None
        except (RecursionError, MemoryError):
            raise self._refused(0, f"this cannot be read; {as_in_python}") from None

    def _built(self, node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() as sign, right=right):
                return self._joined(self._part(left), sign, self._part(right), node)
            case ast.Call(func=ast.Name(id=name)) if name in self._known:
                return self._called(node, self._known[name])
            case ast.Constant(value=int() as value) if value.bit_length() >= 1024:
                raise self._refused_at(node, "no number has so many digits")
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Name(id=name) if name in self._known:
                raise self._refused_at(node, f"write its settings, too: {name}(...)")
            case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
                known = ", ".join(names(self._question))
                text = f"there is no {name!r};{_near(name, self._known)} {self._question} rules are {known}"
                raise self._refused_at(node, text)
        raise self._refused_at(node, "a rule is made of names with settings, joined by | and &")

    def _part(self, node: ast.expr) -> Rule:
        part = self._built(node)
        if not isinstance(part, Rule) or isinstance(part, ReduceOnPlateau):
            raise self._refused_at(node, f"| and & join stop, save or keep rules, not {part!r}")
        return part

    def _joined(self, a: Any, sign: ast.operator, b: Any, node: ast.expr) -> Any:
        try:
            return a | b if isinstance(sign, ast.BitOr) else a & b
        except SettingError as error:
            raise self._refused_at(node, str(error)) from None

    def _called(self, node: ast.Call, kind: type[Rule] | type[Goal]) -> Any:
        given = [self._built(part) for part in node.args]
        named = {part.arg: self._built(part.value) for part in node.keywords if part.arg}
        if len(named) < len(node.keywords):
            raise self._refused_at(node, "write each setting once, and without **")
        settings = [item.name for item in fields(kind) if item.init]  # type: ignore[arg-type]
        allowed = f"its settings are {', '.join(settings)}"
        for part in node.keywords:
            if part.arg not in settings:
                near = _near(str(part.arg), settings)
                raise self._refused_at(part, f"{kind.__name__} has no {part.arg!r};{near} {allowed}")
        try:
            return kind(*given, **named)
        except SettingError as error:
            raise self._refused_at(node, str(error)) from None
        except TypeError as error:  # a setting too many or too few
            text = str(error).replace(".__init__()", "()")
            raise self._refused_at(node, f"{text}; {allowed}") from None

    def _refused_at(self, node: ast.expr | ast.keyword, why: str) -> SettingError:
        before = self._bytes[: node.col_offset].decode("utf-8", "replace")
        return self._refused(len(before), why)

    def _refused(self, at: int, why: str) -> SettingError:
        text = self._text if len(self._text) <= SHOWN else self._text[:SHOWN] + "..."
        return SettingError(f"{text!r}, column {at + self._skipped + 1}: {why}")


def _near(name: str, known: Iterable[str]) -> str:
    """``" did you mean Patience?"``, or nothing where no name is close."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" did you mean {matches[0]}?" if matches else ""
