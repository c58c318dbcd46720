"""What a script gives beside its arrays: settings, notes, what its models are; and what of it was given anew.

Every checkpoint keeps a record of what trained it. A later opening holds the script's against it: where they
differ the saved settings go on, unless the script says ``anew=``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from stopctl.core.errors import SettingError
from stopctl.core.words import masked, on_one_line
from stopctl.state.protocols import Configured, Described, State, Structure, outline_of
from stopctl.store import strict

CONFIG = "config"
"""The record's key in what a checkpoint keeps of the controller."""

MODELS = "models"
"""In it: what the models were, as `Configured.structure` gives it."""

LR = "lr"
"""In ``anew=``: the settings of all optimizers, learning rates and the rest, without their moments."""

RATES = {"lr", "max_lr", "swa_lr", "base_momentum", "max_momentum"}
"""Settings that a schedule begins with: told of it, and of its optimizer where there is none."""

FROZEN = "frozen"
"""What a parameter is that is not trained; the others are not listed."""

TRAINED = "trained"

MOST = 6
"""Differences that one line names."""

LONGEST = 60
"""Characters of a value that one line shows."""

Differ: TypeAlias = dict[str, list[Any]]
"""By name: when saved, and now; None is nothing."""


@dataclass(frozen=True, slots=True)
class Config:
    """What trains a run beside arrays.

    Args:
        settings: by component, what its saved state brings back: a learning rate, the length of a schedule.
        notes: the user's; None: none were given.
        anew: the names whose script's side was taken.
    """

    settings: Described = field(default_factory=dict)
    notes: Mapping[str, Any] | None = None
    anew: tuple[str, ...] = ()

    @classmethod
    def given(cls, state: State, notes: Mapping[str, Any] | None, anew: Collection[str]) -> Config:
        """The script's, read before anything is restored.

        Raises:
            SettingError: a name in ``anew`` that is no component.
        """
        configured = state if isinstance(state, Configured) else None
        if anew:
            _check(anew, outline_of(state), lr=configured is not None)
        settings = configured.settings() if configured else {}
        return cls(
            settings, None if notes is None else strict.plain(dict(notes), "notes"), tuple(sorted(anew))
        )

    @classmethod
    def recorded(cls, record: object) -> Config | None:
        """What a checkpoint recorded; None of one that an older stopctl saved."""
        if not isinstance(record, Mapping):
            return None
        settings, notes, anew = (record.get(name) for name in ("settings", "notes", "anew"))
        if not isinstance(settings, dict) or not all(isinstance(each, dict) for each in settings.values()):
            settings = {}
        names = tuple(map(str, anew)) if isinstance(anew, list) else ()
        return cls(settings, notes if isinstance(notes, dict) else None, names)

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        parts = {"settings": self.settings, "notes": self.notes, "anew": list(self.anew)}
        return {name: part for name, part in parts.items() if part}

    def after(self, record: object) -> Trained:
        """Hold it against what a checkpoint recorded: what trains now, and what was given otherwise."""
        saved = self.recorded(record)
        if saved is None:
            return Trained(self._merged({}, self.anew), anew=self.anew)
        differ = list(_differ(saved.settings, self.settings))
        begins = [each for each in differ if _is_anew(each.component, each.setting, self.anew)]
        anew = self.anew if begins or self.anew != saved.anew else ()
        stays = [each for each in differ if each not in begins]
        notes = _notes(saved.notes, self.notes)
        merged = self._merged(saved.settings, anew)
        new = {name: each for name, each in self.settings.items() if name not in saved.settings}
        config = Config(
            {**new, **merged.settings}, saved.notes if self.notes is None else self.notes, self.anew
        )
        hints = sorted({_hint(each.component, each.setting) for each in stays})
        return Trained(config, _by_name(stays) | notes, tuple(hints), _by_name(begins), anew)

    def _merged(self, saved: Described, anew: tuple[str, ...]) -> Config:
        """The saved settings, but those of ``anew``."""
        merged = {name: dict(settings) for name, settings in saved.items()}
        for component, settings in self.settings.items():
            taken = {key: value for key, value in settings.items() if _is_anew(component, key, anew)}
            if taken:
                merged[component] = {**merged.get(component, {}), **taken}
        return Config(merged, self.notes, self.anew)


class Trained(NamedTuple):
    """What goes on after a resume.

    Attributes:
        config: what trains from now on.
        stays: what the script gives otherwise and does not get.
        hints: the names to write in ``anew=`` to get it.
        begins: what it gets otherwise than saved.
        anew: the names whose script's side is to be taken; empty where that was done before.
    """

    config: Config
    stays: Differ = {}  # noqa: RUF012  # nobody writes to it
    hints: tuple[str, ...] = ()
    begins: Differ = {}  # noqa: RUF012
    anew: tuple[str, ...] = ()

    def sentences(self) -> Iterator[tuple[bool, str, Differ]]:
        """Whether it is a surprise, one line, and the differences that it tells."""
        if self.anew:
            names = ", ".join(self.anew)
            yield False, f"begins anew, by anew=: {names}" + _with(self.begins), self.begins
        if not self.stays:
            return
        if not self.hints:
            yield True, f"{told(self.stays)} (run.json keeps the notes of both)", self.stays
            return
        names = ", ".join(repr(name) for name in sorted({*self.hints, *self.config.anew}))
        write = (
            f"what was saved goes on; write anew={{{names}}} for the script's, once, or give what was saved"
        )
        yield True, f"{told(self.stays)}: {write}", self.stays


def restructured(saved: object, now: Structure) -> dict[str, tuple[str, str]]:
    """What models were when they were saved, and are now, by path, where that differs.

    Of layers, those that are on both sides; a parameter that one side does not call frozen is trained.
    """
    differ = {}
    there = saved if isinstance(saved, dict) else {}
    for component in [name for name in now if name in there]:
        before, after = _by_path(there[component]), _by_path(now[component])
        for path in {**before, **after}:
            texts = (before.get(path, TRAINED), after.get(path, TRAINED))
            if texts[0] != texts[1] and (TRAINED not in texts or FROZEN in texts):
                differ[path if component == "model" else f"{component}/{path}"] = texts
    return differ


def _by_path(texts: object) -> dict[str, str]:
    there = texts if isinstance(texts, dict) else {}
    return {str(path): text for text, paths in there.items() if isinstance(paths, list) for path in paths}


def structure_told(differ: Mapping[str, tuple[str, str]]) -> str:
    """``"1: Dropout(p=0.5) when saved, Dropout(p=0.2) now; 0.weight was trained, is frozen now: ..."``."""
    parts = [
        f"{path} was {saved}, is {now} now"
        if FROZEN in (saved, now)
        else f"{path}: {saved} when saved, {now} now"
        for path, (saved, now) in islice(differ.items(), MOST)
    ]
    more = [f"and {len(differ) - MOST} more (the journal has all)"] if len(differ) > MOST else []
    return (
        f"the model is not what was saved, and trains as the script has it: {'; '.join(parts + more)}: "
        "give it as it was to go on as before"
    )


class Difference(NamedTuple):
    """One setting, when saved and now."""

    component: str
    setting: str
    saved: Any
    given: Any


def told(differ: Differ) -> str:
    """``"optimizer lr 0.1 when saved, 0.01 now; scheduler T_max 4 when saved, 8 now"``."""
    parts = [
        f"{name} {_value(saved)} when saved, {_value(given)} now"
        for name, (saved, given) in islice(differ.items(), MOST)
    ]
    more = [f"and {len(differ) - MOST} more (the journal has all)"] if len(differ) > MOST else []
    return "; ".join(parts + more)


def begins_anew(component: str, anew: Collection[str]) -> bool:
    """Whether a component is named, or its kind: ``"optimizer"`` is each of several."""
    return component in anew or _kind(component) in anew


def _is_anew(component: str, setting: str, anew: Collection[str]) -> bool:
    rates = LR in anew or any(_kind(name) == "optimizer" for name in anew)
    return begins_anew(component, anew) or (rates and _hint(component, setting) == LR)


def _hint(component: str, setting: str) -> str:
    return LR if setting in RATES or _kind(component) == "optimizer" else component


def _kind(component: str) -> str:
    return component.partition(".")[0]


def _differ(saved: Described, given: Described) -> Iterator[Difference]:
    for component in [name for name in given if name in saved]:
        before, now = saved[component], given[component]
        for setting in [name for name in now if name in before and before[name] != now[name]]:
            yield Difference(component, setting, before[setting], now[setting])


def _by_name(differ: Collection[Difference]) -> Differ:
    return {f"{each.component} {each.setting}": [each.saved, each.given] for each in differ}


def _notes(saved: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> Differ:
    if saved is None or given is None:
        return {}
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    both: Any = [masked({name: each.get(name) for name in names}) for each in (saved, given)]
    return {f"notes {name}": [each[name] for each in both] for name in names}


def _with(differ: Differ) -> str:
    return f" ({told(differ)})" if differ else ""


def _value(value: Any) -> str:
    text = on_one_line(value if isinstance(value, str) else "none" if value is None else repr(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _check(anew: Collection[str], components: Collection[str], *, lr: bool) -> None:
    known = {LR} if lr else set()
    for name in components:
        known |= {name, name.partition(".")[0]}
    if unknown := sorted(set(anew) - known):
        there = ", ".join(repr(name) for name in [*components, *([LR] if lr else [])])
        raise SettingError(f"anew={set(unknown)!r}: no component of that name; there are {there}")
