"""The data of ``fit``: whether a resumed fit sees what an undisturbed one would have seen."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from types import CodeType, FrameType, GeneratorType
from typing import Any

import keras
import numpy as np

from stopctl.ports import Typed, typed

PLAIN = (type(None), bool, int, float, str, bytes)

SAMPLE = 1024
"""Items of an array or a list that are looked at: what shuffles it moves some of them."""


def calls_of_fit(frame: FrameType | None) -> Iterator[Mapping[str, Any]]:
    """The variables of each ``fit`` that is going on in a stack, the innermost first."""
    while frame is not None:
        if frame.f_code.co_name == "fit":
            yield frame.f_locals
        frame = frame.f_back


class FitData:
    """What a fit iterates.

    Args:
        x: fit's first argument.
        steps: its ``steps_per_epoch``.
        batches: of a whole pass over x, None where nobody knows.
    """

    def __init__(self, x: Any, steps: int | None, batches: int | None) -> None:
        self.x, self.steps, self.batches = x, steps, batches
        self._marks: dict[str, Any] = {}

    @classmethod
    def of(cls, model: Any) -> FitData | None:
        """That of the ``model.fit`` that is calling; None where no such call is found."""
        # Keras 3.15 shows no callback its data; names of public arguments are the least private way to it
        for given in calls_of_fit(sys._getframe(1)):
            if given.get("self") is model and {"x", "steps_per_epoch", "epoch_iterator"} <= given.keys():
                adapter = getattr(given["epoch_iterator"], "data_adapter", None)
                return cls(given["x"], given["steps_per_epoch"], getattr(adapter, "num_batches", None))
        return None

    def doubt(
        self, extras: Collection[Any], judge: Callable[[Any, int | None], str | None] | None
    ) -> str | None:
        """What makes a resumed fit see another order, in words; None: nothing that can be seen.

        Args:
            extras: the objects in ``extra=``.
            judge: of what a backend knows better.
        """
        x, steps, batches = self.x, self.steps, self.batches
        if isinstance(x, GeneratorType):
            return (
                "a Python generator, of which a resumed fit gets what the script's new one yields first: "
                "write a keras.utils.PyDataset"
            )
        if steps is not None and batches is not None and steps < batches:
            return (
                f"{steps} of {batches} batches an epoch (steps_per_epoch), and goes on with the rest in the "
                "next, where a resumed fit begins anew: leave steps_per_epoch out"
            )
        if isinstance(x, keras.utils.PyDataset):
            if batches is not None or _is_in(x, extras):
                return None
            return (
                f"a {_name(x)} without an end, which a resumed fit begins at item 0: give it __len__(), and "
                "an epoch is all of it"
            )
        if _draws(x, extras):
            return (
                "a DataLoader that shuffles by a torch.Generator which is not saved here: write a "
                "keras.utils.PyDataset, whose batches fit(shuffle=True) draws from a generator that is"
            )
        return None if judge is None else judge(x, steps)

    def begin_epoch(self) -> None:
        """Remember where a PyDataset stands."""
        self._marks = dict(self._standing())

    def moved(self, extras: Collection[Any]) -> str | None:
        """What a PyDataset's ``on_epoch_end()`` has moved since that nobody saves, in words."""
        names = [name for name, mark in self._standing() if not _same(mark, self._marks.get(name))]
        if not names or _is_in(self.x, extras):
            return None
        return (
            f"a {_name(self.x)} whose on_epoch_end() moves {', '.join(names)}, which a resumed fit begins "
            "anew: give it state_dict() and load_state_dict(), and write "
            f'extra={{"data": <the {_name(self.x)}>}}'
        )

    def _standing(self) -> Iterator[tuple[str, Any]]:
        """The attributes that ``on_epoch_end()`` and the methods it calls name, as they are now."""
        if isinstance(self.x, keras.utils.PyDataset):
            have = vars(self.x)
            yield from ((name, _mark(have[name])) for name in sorted(_touched(self.x)) if name in have)


def _is_in(x: Any, extras: Collection[Any]) -> bool:
    return any(x is each for each in extras)


def _name(x: Any) -> str:
    return type(x).__name__


def _draws(x: Any, extras: Collection[Any]) -> bool:
    """Whether it is a DataLoader in an order that PyTorch draws from a generator that is not saved."""
    data = getattr(getattr(sys.modules.get("torch"), "utils", None), "data", None)
    if data is None or not isinstance(x, data.DataLoader) or not isinstance(x.sampler, data.RandomSampler):
        return False
    own = x.generator or x.sampler.generator
    return not _is_in(own, extras) if own is not None else keras.backend.backend() != "torch"


def _touched(x: Any) -> set[str]:
    """The names in the code of ``on_epoch_end()``, and of the methods among them."""
    names: set[str] = set()
    todo = [_code(x, "on_epoch_end")]
    while todo:
        code = todo.pop()
        if code is not None:
            todo += [each for each in code.co_consts if isinstance(each, CodeType)]
            todo += [_code(x, name) for name in code.co_names if name not in names]
            names.update(code.co_names)
    return names


def _code(x: Any, name: str) -> CodeType | None:
    code = getattr(getattr(type(x), name, None), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _mark(value: Any) -> Any:
    """What tells whether a value has moved: itself, or what is in it."""
    value = typed(value)
    if isinstance(value, Typed):
        return [value.kind, repr(value.value)]
    if isinstance(value, np.ndarray):
        return [value.shape, value.flat[:: value.size // SAMPLE + 1].tobytes()]
    if isinstance(value, list | tuple | deque):
        return [len(value), repr(list(value)[:: len(value) // SAMPLE + 1])]
    return value


def _same(one: Any, other: Any) -> bool:
    """By value where that is plain, else whether they are one object."""
    return one is other or (type(one) is type(other) and type(one) in (*PLAIN, list) and one == other)
