"""What the given objects have come to: the steps that they count, and the values that a report has seen.

After a report nothing of that may move until the pass is over: no checkpoint would have it. A tensor has
moved when PyTorch's count of the writes into it (``_version``) and its elements are others: averages that
were swapped in and out again are no fault. Writes through ``.data`` are not counted and stay unseen.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from stopctl.ports import has_state

FIRST = 3
"""Reports of an opening after which the values are looked at in any case."""

EPOCHS, STEPS = 0.05, 0.002
"""What later looks may take of all time, where a report ends an epoch, and where it ends a step."""

SOME = 64
"""Elements of a tensor that are compared; and tensors of which a report at a step remembers some, in turn."""


class Stepped(Protocol):
    """Whoever is told of the steps of optimizers."""

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """It has stepped."""
        ...


class Mark(NamedTuple):
    """A value at a report: a number, or a tensor with its version and some of its elements."""

    component: str
    name: str
    slots: Any
    key: Any
    value: Any
    version: int = 0
    sample: torch.Tensor | None = None


class Marks:
    """Counters of the given optimizers and schedulers, and the values of modules and extras at a report.

    Args:
        modules, optimizers, schedulers: the given ones, by component name.
        extras: the others, by component name: objects with ``state_dict()``, and values.
        watch: told of every step of any optimizer of this process, if given.

    Attributes:
        kept: the values of the newest report; none once it is restored.
        steps: how often each optimizer has stepped since this was made, by its call.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        schedulers: Mapping[str, Any],
        extras: Mapping[str, Any],
        watch: Stepped | None = None,
    ) -> None:
        self._modules = modules
        self._optimizers = optimizers
        self._schedulers = {f"{name}.step()": scheduler for name, scheduler in schedulers.items()}
        self._extras = extras
        self.steps = {f"{name}.step()": 0 for name in optimizers}
        self._watch = None if watch is None else weakref.ref(watch)
        self._hooks: list[Any] = []
        self.kept: list[Mark] = []
        self._looks = 0
        self._cost = self._looked = 0.0
        self._attach()

    def version(self) -> Mapping[str, int]:
        """How often every optimizer and scheduler has stepped; counts on after a close."""
        self._attach()
        counters = dict(self.steps)
        for call, scheduler in self._schedulers.items():
            if (epoch := last_epoch(scheduler)) is not None:
                counters[call] = epoch
        return counters

    def mark(self, *, epoch: bool) -> Mapping[str, int]:
        """The same, at a report, whose values are kept until `moved` is asked.

        Args:
            epoch: it ends an epoch, not a step.
        """
        self.kept = []
        began = time.perf_counter()
        if self._looks < FIRST or (began - self._looked) * (EPOCHS if epoch else STEPS) >= self._cost:
            self._looks += 1
            self.kept = list(self._values(all_of_them=epoch))
            self._cost = time.perf_counter() - began
        return self.version()

    def moved(self) -> str | None:
        """What is no longer as it was at the newest `mark`, in words; asked once."""
        marks, self.kept = self.kept, []
        if not marks:
            return None
        began = time.perf_counter()
        moved = [mark for mark in marks if _has_moved(mark) and self._is_saved(mark)]
        self._looked = time.perf_counter()
        self._cost += self._looked - began
        if not moved:
            return None
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        return f"{moved[0].component}/{moved[0].name}".rstrip("/") + more

    def close(self) -> None:
        """Take all hooks off, and hold no value."""
        self.kept = []
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _attach(self) -> None:
        if not self._hooks:
            counted = zip(self.steps, self._optimizers.values(), strict=True)
            self._hooks = [o.register_step_post_hook(self._count(call)) for call, o in counted]
            if self._watch is not None:
                hook = register_optimizer_step_post_hook(_told(self._watch))
                self._hooks.append(hook)
                weakref.finalize(self, hook.remove)  # PyTorch would keep it for ever

    def _count(self, call: str) -> Any:
        def stepped(*_: object) -> None:
            self.steps[call] += 1

        return stepped

    def _values(self, *, all_of_them: bool) -> Iterator[Mark]:
        places = [
            (component, *place) for component, each in self._modules.items() for place in slots_of(each)
        ]
        stride = 1 if all_of_them else -(-len(places) // SOME) or 1
        for place in places[self._looks % stride :: stride]:
            yield from _marked(*place)
        for component, thing in self._extras.items():
            if has_state(thing):
                attributes = getattr(thing, "__dict__", {})
                for key in list(attributes):
                    yield from _marked(component, key, attributes, key)
            else:
                yield from _walk(component, "", {"": thing}, "")

    def _is_saved(self, mark: Mark) -> bool:
        """Whether a checkpoint would have it."""
        thing = {**self._extras, **self._modules}[mark.component]
        if not has_state(thing):
            return True
        try:
            state = thing.state_dict()
        except Exception:  # a class of the user's, which captures later if at all
            return False
        if mark.component in self._modules:
            return mark.name in state
        now, names = _now(mark), {mark.name, mark.name.lstrip("_")}
        return any(str(key) in names and _equal(now, value) for key, value in leaves(state))


def _told(watch: weakref.ref[Stepped]) -> Any:
    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        told = watch()
        if told is not None:
            told.stepped(optimizer)

    return stepped


def last_epoch(scheduler: Any) -> int | None:
    """The position of a scheduler; of a ChainedScheduler, which has none, those inside added up."""
    inner = [last_epoch(s) or 0 for s in getattr(scheduler, "_schedulers", ())]
    epoch = getattr(scheduler, "last_epoch", sum(inner) if inner else None)
    return epoch if isinstance(epoch, int) else None


def slots_of(module: torch.nn.Module) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Every parameter and persistent buffer: its name, and the dict and the key under which it lies there."""
    for prefix, part in module.named_modules():
        for slots in (part._parameters, part._buffers):
            for key in slots:
                if key not in part._non_persistent_buffers_set:
                    yield f"{prefix}.{key}" if prefix else key, slots, key


def leaves(tree: Any, key: Any = "") -> Iterator[tuple[Any, Any]]:
    """Every number and tensor of nested dicts, lists and tuples, with the key of the dict nearest to it."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, name)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value, key)
    elif isinstance(tree, torch.Tensor) or type(tree) in (int, float):
        yield key, tree


def _walk(component: str, name: str, slots: Any, key: Any) -> Iterator[Mark]:
    """The numbers, tensors and arrays in nested dicts, lists and deques."""
    value = slots[key]
    if not isinstance(value, dict | list | deque):
        yield from _marked(component, name, slots, key)
        return
    for each in list(value) if isinstance(value, dict) else range(len(value)):
        yield from _walk(component, f"{name}/{each}" if name else str(each), value, each)


def _marked(component: str, name: str, slots: Any, key: Any) -> Iterator[Mark]:
    value = slots[key]
    if type(value) in (int, float):
        yield Mark(component, name, slots, key, value)
    elif (sample := _sample(value)) is not None:
        version = value._version if isinstance(value, torch.Tensor) else -1
        yield Mark(component, name, slots, key, value, version, sample)


def _sample(value: Any) -> torch.Tensor | None:
    """Some elements; None of what is no tensor or array of which they and their versions can be told here."""
    if type(value) is np.ndarray and value.dtype.kind in "iuf" and value.dtype.isnative:
        flat = value.reshape(-1)
        return torch.tensor(flat[:: -(-flat.size // SOME) or 1])
    plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided
    if not plain or value.is_meta or value.is_quantized or value.is_inference():
        return None
    elements: torch.Tensor = value.detach().flatten()
    return elements[:: -(-elements.numel() // SOME) or 1].clone()


def _now(mark: Mark) -> Any:
    try:
        return mark.slots[mark.key]
    except (KeyError, IndexError):
        return None


def _has_moved(mark: Mark) -> bool:
    now, before = _now(mark), mark.sample
    if before is None:
        return type(now) in (int, float) and not _equal(now, mark.value)
    if now is mark.value and mark.version == getattr(now, "_version", None):
        return False
    sample = _sample(now)
    return sample is not None and not (now.shape == mark.value.shape and _equal(sample, before))


def _equal(one: Any, other: Any) -> bool:
    """Of two numbers or tensors, NaN equal to NaN; what cannot be compared counts as equal."""
    if isinstance(one, torch.Tensor) != isinstance(other, torch.Tensor):
        return False
    if not isinstance(one, torch.Tensor):
        return bool(one == other or (one != one and other != other))
    try:
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(((one == other) | ((one != one) & (other != other))).all())
    except (RuntimeError, NotImplementedError):
        return True
