"""attach: a run around a training that ignite's Engine does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from ignite.engine import DeterministicEngine, Engine, Events
from ignite.handlers import EarlyStopping
from ignite.handlers.param_scheduler import BaseParamScheduler

from stopctl import Decision, RunSettings, SettingError
from stopctl.ports import Notice, Tree, detached
from stopctl_torch.resumable import ResumableLoader
from stopctl_torch.run import Run
from stopctl_torch.state import TorchState
from stopctl_torch.watch import How


def attach(
    trainer: Engine,
    evaluator: Engine,
    directory: str | Path,
    *,
    model: torch.nn.Module | Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    extra: Mapping[str, Any] | None = None,
    watch: How = "warn",
    per_rank: bool | Collection[str] = (),
    **settings: Unpack[RunSettings],
) -> Run:
    """Stop, save, prune and resume what ``trainer.run(loader, max_epochs=n)`` trains in the run's block.

    At the end of each epoch, behind all other handlers, what ``evaluator`` has computed there is reported,
    and the state is saved where that is due. Opened again, ``trainer.run`` goes on at the next epoch. With a
    `ResumableLoader`, given in ``extra``, too, it is saved and goes on inside an epoch as well.

    Args:
        trainer: counts epochs and iterations; what its ``state_dict_user_keys`` name is saved as well.
        evaluator: has the goal's metric in ``state.metrics``; those of several numbers are left out.
        directory, model, optimizer, scheduler, scaler, extra, watch, per_rank, settings: as for
            `stopctl_torch.Run`. ignite's own schedulers go into ``extra``.

    Raises:
        SettingError: arguments that do not belong together. ``trainer.run`` raises it for data and lengths by
            which a resumed training would not find its place, and what `stopctl.Run.report` raises.
    """
    if "engine" in (extra or {}):
        raise SettingError('extra={"engine": ...}: that name is the trainer\'s; give it another one')
    moving = {**(extra or {}), "engine": _EngineState(trainer)}
    objects: dict[str, Any] = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    run = _Attached(
        directory, model=model, extra=moving, watch=watch, per_rank=per_rank, **objects, **settings
    )
    schedulers = scheduler.values() if isinstance(scheduler, Mapping) else [scheduler] if scheduler else []
    run.attach(trainer, evaluator, moving, [*moving.values(), *schedulers])
    return run


class _EngineState:
    """What a trainer's state holds besides its counters."""

    def __init__(self, trainer: Engine) -> None:
        self._trainer = trainer
        self.saved: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        keys = {*self._trainer.state_dict_user_keys, "seed"} - {
            "rng_states"
        }  # those of a DeterministicEngine
        return {key: getattr(self._trainer.state, key, None) for key in sorted({*keys, "epoch_length"})}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.saved = saved


class _Attached(Run):
    """A run that is pushed by a trainer's events."""

    _state: TorchState

    def attach(
        self, trainer: Engine, evaluator: Engine, moving: Mapping[str, Any], saved: Sequence[Any]
    ) -> None:
        """Listen to both engines; ``saved`` are the objects of theirs whose state is."""
        self._trainer, self._evaluator, self._moving, self._saved = trainer, evaluator, moving, saved
        self._evaluated: tuple[int, dict[str, Any]] = (-1, {})  # at which iteration, and what
        self._handles: list[Any] = []
        trainer.add_event_handler(Events.STARTED, self._begin)
        evaluator.add_event_handler(Events.COMPLETED, self._end_evaluation)

    def open(self) -> Self:
        super().open()
        self._drawn: Tree = detached(self._state.generators().capture()) if self.resumed else None
        return self

    __enter__ = open

    def _begin(self, trainer: Engine) -> None:
        now, state, length = self.progress, trainer.state, trainer.state.epoch_length
        self._inside = any(state.dataloader is each for each in self._moving.values())
        if length is None or state.max_epochs is None:
            raise SettingError("write trainer.run(data, max_epochs=..., epoch_length=...)")
        if wrong := self._wrong(state.dataloader, length):
            raise SettingError(wrong)
        if self._drawn is not None:  # what was drawn since the opening is drawn in every process
            saved = self._moving["engine"].saved
            if (before := saved.pop("epoch_length", None)) not in (None, length):
                told = f"epochs of {before} iterations before, of {length} now"
                self._state.notices.append(
                    Notice(f"{told}: it ends otherwise than a run that nobody has disturbed")
                )
            vars(state).update(saved)
            self._state.generators().load(self._drawn)
            self._drawn = None
        state.epoch, state.iteration = now.epoch, now.step if now.inside else now.epoch * length
        self._ahead = now.step - state.iteration  # where epochs were shorter, or had another length
        self._tell_handlers()
        for handle in self._handles:
            handle.remove()
        ends = (Events.ITERATION_COMPLETED, self._end_iteration), (Events.EPOCH_COMPLETED, self._end_epoch)
        self._handles = [trainer.add_event_handler(*end) for end in ends]  # behind all others
        self._follow(self.boundary(epoch=now.epoch, step=now.step, planned=state.max_epochs))

    def _tell_handlers(self) -> None:
        """Tell of those that a resumed training begins anew."""
        found = {id(each): each for engine in (self._trainer, self._evaluator) for each in _counting(engine)}
        for each in found.values():
            if any(one is saved for one in (each, *vars(each).values()) for saved in self._saved):
                continue
            kind = type(each).__name__
            better = "stop=Patience(...) in its place, or " if isinstance(each, EarlyStopping) else ""
            self._state.notices.append(
                Notice(
                    f"{kind} is not saved, and a resumed training begins it anew: write {better}"
                    f'extra={{"{kind.lower()}": ...}}'
                )
            )

    def _wrong(self, data: Any, length: int) -> str | None:
        """Why a resumed training would not find its place in the data, and what to write."""
        if isinstance(data, Iterator):
            return f"nobody can begin a {type(data).__name__} again: pass what it iterates over"
        if isinstance(data, ResumableLoader) and isinstance(self._trainer, DeterministicEngine):
            return "a DeterministicEngine orders its data itself: pass the DataLoader that you have wrapped"
        if isinstance(data, ResumableLoader) and not self._inside:
            return 'the position of the data is not saved: write attach(..., extra={"loader": loader})'
        if not self._inside and (whole := length_hint(data, 0)) and length % whole:
            return f"epoch_length={length} ends inside the data of {whole} batches: pass a ResumableLoader"
        return None

    def _end_evaluation(self, evaluator: Engine) -> None:
        metrics = {k: v for k, v in evaluator.state.metrics.items() if getattr(v, "shape", ()) == ()}
        self._evaluated = self._trainer.state.iteration, metrics

    def _end_iteration(self, trainer: Engine) -> None:
        now = trainer.state
        if self._inside and now.iteration % (now.epoch_length or 1):
            self._follow(self.boundary(epoch=now.epoch - 1, step=now.iteration + self._ahead, inside=True))

    def _end_epoch(self, trainer: Engine) -> None:
        now, (at, metrics) = trainer.state, self._evaluated
        counters: dict[str, Any] = {"epoch": now.epoch, "step": now.iteration + self._ahead}
        if at == now.iteration:
            return self._follow(self.report(**{**metrics, **counters}))
        if now.epoch == 1:
            self._state.notices.append(Notice("the evaluator has not run at the end of epoch 1: no report"))
        return self._follow(self.boundary(**counters))

    def _follow(self, decision: Decision) -> None:
        if decision.stop is not None:
            self._trainer.terminate()


def _counting(engine: Engine) -> Iterator[Any]:
    """The handlers of ignite's own that count: schedules, and what stops by patience."""
    for handlers in engine._event_handlers.values():  # there is no public list
        for handler, *_ in handlers:
            parent = getattr(handler, "_parent", None)  # of one that an event's filter wraps
            handler = handler if parent is None else parent()
            handler = getattr(handler, "__self__", handler)
            if isinstance(handler, BaseParamScheduler | EarlyStopping):
                yield handler
