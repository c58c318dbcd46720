"""The random generators that a DataLoader, its samplers and its dataset hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils import data

from stopctl import MismatchError
from stopctl.ports import Tree
from stopctl_torch.leaves import Encoder, decode

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Held:
    """Generators by the attributes that lead to them (``"sampler.generator"``)."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        encode = Encoder("copy")
        return {name: encode(_state(each), name) for name, each in self._found.items()}

    def check(self, saved: Tree) -> None:
        """Raise MismatchError unless the same attributes lead to generators now."""
        if saved.keys() != self._found.keys():
            raise MismatchError(
                f"the data was saved with generators at {_told(saved)}, now they are at {_told(self._found)}"
            )

    def load(self, saved: Tree) -> None:
        """Put them there."""
        for name, each in self._found.items():
            _set(each, decode(saved[name]))


def generators_in(loader: data.DataLoader[Any]) -> Held:
    """Those of the loader, its samplers and its dataset, and of what the dataset is made of (Subset, ...)."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def look(thing: Any, path: str) -> None:
        if isinstance(thing, KINDS):
            if id(thing) not in seen:
                seen.add(id(thing))
                found[path] = thing
        elif isinstance(thing, data.Dataset | data.Sampler) and id(thing) not in seen:
            seen.add(id(thing))
            for name, value in vars(thing).items():
                if isinstance(value, list | tuple) and len(value) < 100:
                    for i, part in enumerate(value):
                        look(part, f"{path}.{name}[{i}]")
                else:
                    look(value, f"{path}.{name}")

    for name in ("generator", "dataset", "sampler", "batch_sampler"):
        look(getattr(loader, name, None), name)
    return Held(found)


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return dict(generator.get_state(legacy=False))
    return generator.getstate()


def _set(generator: Any, state: Any) -> None:
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(state)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = state
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.setstate(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MismatchError(f"a generator of the data does not take its saved state: {error}") from error


def _told(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
