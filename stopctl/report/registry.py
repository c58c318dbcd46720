"""The names that rules are written with: every public policy, and the goals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import stopctl
import stopctl.rules
from stopctl.core import goal, keep, lr, save, stop
from stopctl.core.goal import Goal
from stopctl.core.keep import KeepPolicy
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import Rule, SavePolicy, StopPolicy

KINDS: Mapping[str, type[Rule]] = MappingProxyType(
    {"stop": StopPolicy, "save": SavePolicy, "keep": KeepPolicy, "lr": ReduceOnPlateau}
)
"""The base class of each question's rules."""

_PUBLIC = {*stopctl.__all__, *stopctl.rules.__all__} - {"Goal", "StopPolicy", "SavePolicy", "KeepPolicy"}

KNOWN: Mapping[str, type[Rule] | type[Goal]] = MappingProxyType(
    {
        name: kind
        for module in (stop, save, keep, lr, stopctl.rules, goal)
        for name, kind in vars(module).items()
        if name in _PUBLIC and isinstance(kind, type) and issubclass(kind, Rule | Goal)
    }
)
"""Every class that a rule can be written with, by name."""


def names(question: str) -> list[str]:
    """The rules that answer a question ("stop", "save", "keep", "lr"), sorted.

    >>> names("keep")
    ['Best', 'KeepEvery', 'Last']
    """
    return sorted(name for name, kind in KNOWN.items() if issubclass(kind, KINDS[question]))
