"""Generators of a program's own: every kind there and back, and none that leads beyond its own words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stopctl import MismatchError
from stopctl.state.generators import BITS, follow, generator, typed
from stopctl.store.tree import Typed, flatten, unflatten

KINDS: dict[str, Callable[[int], Any]] = {
    "random.Random": random.Random,
    "numpy.random.RandomState(MT19937)": np.random.RandomState,
    **{
        f"numpy.random.Generator({bits})": lambda seed, bits=bits: np.random.Generator(
            getattr(np.random, bits)(seed)
        )
        for bits in sorted(BITS)
    },
}


def drawn(generator: Any) -> list[float]:
    """Also what some generators keep half of for the next call."""
    gauss = getattr(generator, "gauss", None) or generator.normal
    return [gauss(0.0, 1.0) for _ in range(3)] + [float(generator.random()) for _ in range(3)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_goes_on_where_it_was_saved(kind: str) -> None:
    live = KINDS[kind](3)
    drawn(live)
    skeleton, leaves = flatten({"x": typed(live)})
    saved = unflatten(json.loads(json.dumps(skeleton)), leaves)["x"]
    assert (saved.kind, leaves) == (kind, {})
    other = KINDS[kind](4)
    made = generator(saved)
    assert follow(other, made)
    assert drawn(made) == drawn(other) == drawn(live)


def test_other_things_are_no_generators() -> None:
    class Mine(random.Random):
        pass

    for thing in (1, np.zeros(2), Mine(), np.random.PCG64()):
        assert typed(thing) is thing
    assert not follow(np.random.default_rng(0), random.Random())
    assert not follow(None, 1)


def changed(kind: str, **more: Any) -> Typed:
    saved = typed(KINDS[kind](0))
    return Typed(kind, {**saved.value, **more})


@pytest.mark.parametrize(
    "saved",
    [
        Typed("random.Random", (3, (1, 2), None)),
        Typed("torch.Size", (1,)),
        Typed("numpy.random.Generator(SystemRandom)", {}),
        Typed("numpy.random.seed(PCG64)", {}),
        Typed("numpy.random.Generator(PCG64)", 3),
        changed("numpy.random.Generator(MT19937)", state={"key": [0] * 624, "pos": 10**6}),
        changed("numpy.random.Generator(Philox)", buffer_pos=-1),
        changed("numpy.random.RandomState(MT19937)", state={"key": [0] * 624, "pos": 625}),
        changed("numpy.random.Generator(PCG64)", bit_generator="MT19937"),
    ],
    ids=lambda saved: saved.kind,
)
def test_what_is_no_state_of_one_is_refused(saved: Typed) -> None:
    with pytest.raises(MismatchError):
        generator(saved)
