"""What the user gave to Run, checked before any file is touched."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from stopctl.core.controller import GOAL, SAVE, STOP, Controller
from stopctl.core.errors import SettingError
from stopctl.core.goal import Goal
from stopctl.core.keep import Best, KeepPolicy, Last, goals_of
from stopctl.core.keywords import refuse_unknown
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import SavePolicy, StopPolicy, checked_rule
from stopctl.runs.weights import Weights
from stopctl.sinks.observer import Audience, Observer
from stopctl.state.dictstate import DictState
from stopctl.state.protocols import LearningRate, Ranked, State, Team
from stopctl.store import strict
from stopctl.store.rundir import is_url
from stopctl.team.ranks import Ranks
from stopctl.team.reduce import Reduce, checked_reduce

KEEP: KeepPolicy = Last(2) | Best(1)


def checked_state(state: dict[str, Any] | State, lr: ReduceOnPlateau | None) -> State:
    """The State behind ``state=``, able to do what ``lr=`` asks of it."""
    if not isinstance(state, dict) and not hasattr(state, "capture"):
        raise SettingError(
            f"state={state!r}: write a dict, such as state={{'params': params}}, or an adapter's State"
        )
    checked: State = DictState(state) if isinstance(state, dict) else state
    if lr is not None:
        if not isinstance(checked, LearningRate):
            raise SettingError(
                f"lr={lr!r}: this state has no learning rate of its own; use Controller(lr=...)"
            )
        checked.check_lr()
    return checked


class RunSettings(TypedDict, total=False):
    """What every Run and FitCallback takes besides its objects; all of it may be left out.

    Attributes:
        goal: what is better; its metric must be in every report. ``Minimize("val_loss")``.
        stop: when to stop, or None. ``Patience(10) | NonFinite()``.
        save: when to save, or None. ``Every(epochs=1) | OnBest()``.
        keep: what to keep; None keeps all. ``Last(2) | Best(1)``.
        lr: when to lower the learning rate, or None; PyTorch's and TensorFlow's Run do it.
        resume: "auto" goes on where the newest good checkpoint stands, or starts; "require" never starts;
            "never" never resumes. The table is in docs/semantics.md.
        notes: your own settings, plain JSON, kept in run.json; of every opening that gave others.
        allow_missing: names of components that may lack in the checkpoint or in what is given.
        anew: names of components, or "lr" for the settings of the optimizers alone, that are taken from the
            script and not from the checkpoint; once, see docs/resume.md.
        start_from_run: another run, whose best weights a new run begins with; a resumed one ignores it.
            ``Weights(directory, strict=False, rename=...)`` takes what fits.
        take_over: take the run from a process that still has it open; that one then saves no more.
        durability: "full", or "process" without fsync: saves outlive this process, but not a power cut.
        verify_writes: read every file of a checkpoint back before it counts as saved.
        async_save: False, saving ends before ``report`` returns; True, a copy is written while training
            goes on; "overlap", so is the copy itself made, on one rank, see docs/saving.md.
        save_errors: "raise" a failed save from ``report``, in the background from the next one, or
            "continue": it is logged and due again, and closing raises if none has succeeded since.
        grace_seconds: seconds that SIGTERM or SIGUSR1 leaves to save and end; when the last save took
            longer, opening warns of it. None: unknown. The end of a run waits as long for its mirror (60).
        mirror: the URL of an object store, or of another disk, that keeps every checkpoint as well:
            ``"s3://bucket/runs/mnist"``, ``"file:///mnt/disk/mnist"``. A run whose directory is empty goes on
            from there, see docs/mirror.md.
        mirror_options: what fsspec's file system for that URL takes, such as credentials; never written down.
        mirror_max_age: seconds that a checkpoint may wait for the mirror until ``report`` raises SaveError,
            under ``save_errors="continue"``, too; None: warnings alone.
        observers: told of every journal line, such as `stopctl.sinks.CsvSink`; they cannot hurt the run.
        quiet: True has the lines of the run's course go to the log alone, and not to standard error where no
            logging is configured; warnings stay. So does ``STOPCTL_QUIET=1`` in the environment.
        team: "auto" finds the ranks of a distributed program, which then all decide and save together, see
            docs/distributed.md; None: this process alone; or a `stopctl.ports.Team`.
        timeout: seconds to wait for another rank before it counts as lost; every rank then raises TeamError.
        reduce: which metrics are the "mean" or the "sum" over all ranks, "mean" for all of them, or a dict by
            name; of the others rank 0's count. ``count=`` in a report is then the weight of its means.
    """

    goal: Goal
    stop: StopPolicy | None
    save: SavePolicy | None
    keep: KeepPolicy | None
    lr: ReduceOnPlateau | None
    resume: Literal["auto", "require", "never"]
    notes: Mapping[str, Any] | None
    allow_missing: Collection[str]
    anew: Collection[str]
    start_from_run: str | Path | Weights | None
    take_over: bool
    durability: Literal["full", "process"]
    verify_writes: bool
    async_save: bool | Literal["overlap"]
    save_errors: Literal["raise", "continue"]
    grace_seconds: float | None
    mirror: str | None
    mirror_options: Mapping[str, Any] | None
    mirror_max_age: float | None
    observers: Iterable[Observer]
    quiet: bool
    team: Team | Literal["auto"] | None
    timeout: float
    reduce: Reduce


def checked_settings(where: str, given: RunSettings) -> Settings:
    """The settings that ``where`` (Run, FitCallback) was given, with the defaults of the others.

    Raises:
        SettingError: one that cannot be, or that has another name here.
    """
    refuse_unknown(where, given.keys() - RunSettings.__annotations__.keys())
    return Settings(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """RunSettings, checked, with their defaults."""

    goal: Goal = GOAL
    stop: StopPolicy | None = STOP
    save: SavePolicy | None = SAVE
    keep: KeepPolicy | None = KEEP
    lr: ReduceOnPlateau | None = None
    resume: Literal["auto", "require", "never"] = "auto"
    notes: Mapping[str, Any] | None = None
    allow_missing: Collection[str] = ()
    anew: Collection[str] = ()
    start_from_run: str | Path | Weights | None = None
    take_over: bool = False
    durability: Literal["full", "process"] = "full"
    verify_writes: bool = False
    async_save: bool | Literal["overlap"] = False
    save_errors: Literal["raise", "continue"] = "raise"
    grace_seconds: float | None = None
    mirror: str | None = None
    mirror_options: Mapping[str, Any] | None = None
    mirror_max_age: float | None = None
    observers: Iterable[Observer] = ()
    quiet: bool = False
    team: Team | Literal["auto"] | None = "auto"
    timeout: float = 60.0
    reduce: Reduce = None
    audience: Audience = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "audience", Audience(self.observers, self.notes))
        if self.resume not in ("auto", "require", "never"):
            raise SettingError(f"resume={self.resume!r}: write 'auto', 'require' or 'never'")
        if self.durability not in ("full", "process"):
            raise SettingError(f"durability={self.durability!r}: write 'full' or 'process'")
        if type(self.async_save) is not bool and self.async_save != "overlap":
            raise SettingError(f"async_save={self.async_save!r}: write True, 'overlap' or False")
        if self.save_errors not in ("raise", "continue"):
            raise SettingError(f"save_errors={self.save_errors!r}: write 'raise' or 'continue'")
        if self.grace_seconds is not None and not (
            type(self.grace_seconds) in (int, float) and 0 < self.grace_seconds < math.inf
        ):
            raise SettingError(
                f"grace_seconds={self.grace_seconds!r}: write the seconds from the signal to the end of the "
                "process, such as 30, or None"
            )
        self._check_mirror()
        if type(self.timeout) not in (int, float) or not 0 < self.timeout < math.inf:
            raise SettingError(
                f"timeout={self.timeout!r}: write the seconds to wait for another rank, such as 60"
            )
        if self.team not in ("auto", None) and not hasattr(self.team, "share"):
            raise SettingError(f"team={self.team!r}: write 'auto', None for this process alone, or a Team")
        checked_reduce(self.reduce, self.goal.metric)
        for name in ("take_over", "verify_writes", "quiet"):
            if type(getattr(self, name)) is not bool:
                raise SettingError(f"{name}={getattr(self, name)!r}: write True or False")
        if self.start_from_run is not None and not isinstance(self.start_from_run, str | Path | Weights):
            raise SettingError(f"start_from_run={self.start_from_run!r}: write another run's directory")
        checked_rule(self.keep, KeepPolicy, "keep", "Last(2) | Best(1)")
        self.controller()
        for setting in ("allow_missing", "anew"):
            if isinstance(name := getattr(self, setting), str):
                raise SettingError(f"{setting}={name!r}: write a set of names, such as {{{name!r}}}")
        if self.notes is not None and not isinstance(self.notes, Mapping):
            raise SettingError(f"notes={self.notes!r}: write a dict of plain JSON")
        try:
            json.dumps(self.notes, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SettingError(f"notes={self.notes!r}: write plain JSON ({error})") from error

    def _check_mirror(self) -> None:
        if self.mirror is not None and not (isinstance(self.mirror, str) and is_url(self.mirror)):
            raise SettingError(
                f"mirror={self.mirror!r}: write a URL, such as 's3://bucket/runs/mnist' or "
                "'file:///mnt/disk/mnist', or None"
            )
        if self.mirror_options is not None and not isinstance(self.mirror_options, Mapping):
            raise SettingError("mirror_options=...: write a dict of what fsspec's file system takes")
        age = self.mirror_max_age
        if age is not None and not (type(age) in (int, float) and 0 < age < math.inf):
            raise SettingError(f"mirror_max_age={age!r}: write seconds, such as 600, or None")
        if self.mirror is None and (age is not None or self.mirror_options is not None):
            raise SettingError("mirror_options= and mirror_max_age= go with mirror=, which was not given")

    def controller(self) -> Controller:
        """A new machine with these rules."""
        return Controller(
            goal=self.goal, stop=self.stop, save=self.save, lr=self.lr, ranked_by=goals_of(self.keep)
        )

    def ranks(self, state: State) -> Ranks:
        """This process among those it trains with; every rank calls it.

        Raises:
            TeamError: they cannot reach each other.
            SettingError: something that several ranks cannot do.
        """
        team: Team | None = None
        if isinstance(self.team, str):
            team = state.team(float(self.timeout)) if isinstance(state, Ranked) else None
        else:
            team = self.team
        if team is not None and self.async_save == "overlap":
            team.close()
            raise SettingError(
                f"async_save='overlap' with {team.size} ranks, which copy before training goes on: write True"
            )
        return Ranks(team)

    def same(self) -> dict[str, Any]:
        """What must be equal on all ranks."""
        names = ("goal", "stop", "save", "keep", "lr", "resume", "reduce", "async_save")
        return {**{name: repr(getattr(self, name)) for name in names}, "anew": repr(sorted(self.anew))}

    def written(self) -> str:
        """The goal and the rules, as they are written."""
        names = ("goal", "stop", "save", "keep", *(() if self.lr is None else ("lr",)))
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def store_options(self) -> dict[str, Any]:
        """How to open the store."""
        names = ("take_over", "durability", "verify_writes")
        return {name: getattr(self, name) for name in names}

    def meta(self, state: State) -> dict[str, Any]:
        """What run.json says of them."""
        meta = {
            "goal": self.goal.to_json(),
            "rules": {name: repr(getattr(self, name)) for name in ("stop", "save", "keep", "lr")},
            "versions": dict(state.versions()),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self.mirror is not None:
            meta["mirrored"] = self.mirror
        return meta if self.notes is None else {**meta, "notes": strict.plain(dict(self.notes), "notes")}
