"""Random generators of a program's own, NumPy's and Python's, as plain values: kept, set and made again."""

from __future__ import annotations

import random
import sys
from typing import Any

from stopctl.core.errors import MismatchError
from stopctl.store.tree import Tree, Typed

PYTHON = "random.Random"
BITS = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})
"""NumPy's bit generators: their whole state is what they tell of it."""


def typed(value: Any) -> Any:
    """A generator as plain values, ``Typed("numpy.random.Generator(PCG64)", {...})``; all else as it is.

    What ``spawn()`` has given is not counted: NumPy keeps it beside the state.
    """
    if type(value) is random.Random:
        return Typed(PYTHON, value.getstate())
    rng = getattr(sys.modules.get("numpy"), "random", None)
    if rng is None or type(value) not in (rng.Generator, rng.RandomState):
        return value
    legacy = type(value) is rng.RandomState
    state = value.get_state(legacy=False) if legacy else value.bit_generator.state
    kind = f"numpy.random.{type(value).__name__}({state['bit_generator']})"
    return Typed(kind, _plain(state)) if state["bit_generator"] in BITS else value


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(part) for key, part in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state


def generator(saved: Typed) -> Any:
    """The generator that `typed` was given, as a new object.

    Raises:
        MismatchError: no such kind, or no state of it.
    """
    kind, _, bits = saved.kind.removesuffix(")").rpartition(".")[2].partition("(")
    if saved.kind == PYTHON:
        made: Any = random.Random()
    elif (
        saved.kind == f"numpy.random.{kind}({bits})" and kind in ("Generator", "RandomState") and bits in BITS
    ):
        import numpy as np

        made = getattr(np.random, kind)(getattr(np.random, bits)())
    else:
        raise MismatchError(f"a {saved.kind} was saved, which is no generator of NumPy's or Python's")
    try:
        _set(made, saved.value)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise MismatchError(f"saved is not the state of a {saved.kind} ({error})") from error
    return made


def follow(live: Any, other: Any) -> bool:
    """Have a generator go on where another of its kind stands; whether they are of one kind."""
    ours, theirs = typed(live), typed(other)
    if ours is live or theirs is other or ours.kind != theirs.kind:
        return False
    _set(live, theirs.value)
    return True


def _set(live: Any, state: Tree) -> None:
    if isinstance(live, random.Random):
        live.setstate(state)
        return
    check_positions(state)
    if hasattr(live, "bit_generator"):
        live.bit_generator.state = state
    else:
        live.set_state(state)


def check_positions(state: Any) -> None:
    """ValueError where a state leads beyond its own words: NumPy takes any position, and reads there."""
    for name, last in (("pos", 624), ("buffer_pos", 4)):
        if not 0 <= state["state"].get(name, state.get(name, 0)) <= last:
            raise ValueError(f"{name} is out of range")
