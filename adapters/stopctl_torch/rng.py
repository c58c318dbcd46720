"""The random number generators that every PyTorch program shares."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import data

from stopctl import MismatchError
from stopctl.ports import NumpyRng, PythonRng, Tree, check_positions, differing
from stopctl_torch.leaves import Encoder, decode
from stopctl_torch.parts import Part

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Held:
    """Generators by the attributes that lead to them (``"sampler.generator"``)."""

    def __init__(self, generators: dict[str, Any]) -> None:
        self._generators = generators

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        encode = Encoder("copy")
        return {name: encode(_state(each), name) for name, each in self._generators.items()}

    def check(self, saved: Tree) -> None:
        """Raise MismatchError unless the same attributes lead to generators now."""
        if saved.keys() != self._generators.keys():
            raise MismatchError(
                f"the data was saved with generators at {_listed(saved)}, now they are at "
                f"{_listed(self._generators)}"
            )

    def seed(self, number: int) -> None:
        """Begin all anew, each with a number of its own."""
        for i, each in enumerate(self._generators.values()):
            seed(each, (number + i) % 2**64)

    def load(self, saved: Tree) -> None:
        """Put them there, as far as they were saved."""
        for name, each in self._generators.items():
            if name in saved:
                _set(each, decode(saved[name]))


def generators_in(loader: Any) -> Held:
    """Those of the loader, its samplers and its dataset, and of what the dataset is made of (Subset, ...)."""
    return Held({path: each for path, each in parts_in(loader).items() if isinstance(each, KINDS)})


def parts_in(loader: Any) -> dict[str, Any]:
    """Generators, samplers and datasets by the attributes that lead to them from a loader, each once."""
    parts: dict[str, Any] = {}
    seen: set[int] = set()

    def look(thing: Any, path: str, *, inside: bool = True) -> None:
        if id(thing) in seen or (inside and not isinstance(thing, (*KINDS, data.Dataset, data.Sampler))):
            return
        seen.add(id(thing))
        parts[path] = thing
        attributes = {} if isinstance(thing, KINDS) else getattr(thing, "__dict__", {})
        for name, value in attributes.items():
            if isinstance(value, list | tuple) and len(value) < 100:
                for i, part in enumerate(value):
                    look(part, f"{path}.{name}[{i}]")
            else:
                look(value, f"{path}.{name}")

    look(getattr(loader, "generator", None), "generator")
    for name in ("dataset", "sampler", "batch_sampler"):
        look(getattr(loader, name, None), name, inside=False)
    return parts


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return dict(generator.get_state(legacy=False))
    return generator.getstate()


def position(generator: Any) -> str:
    """Where it stands, to be compared."""
    state = _state(generator)
    return repr(state.tolist() if isinstance(state, torch.Tensor) else state)


def positions() -> tuple[Any, ...]:
    """Where the shared generators of the CPU stand, to be compared."""
    numpy = np.random.get_state(legacy=False)["state"]
    words = [part.tobytes() if isinstance(part, np.ndarray) else part for part in numpy.values()]
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), words


def _set(generator: Any, state: Any) -> None:
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(state)
        elif isinstance(generator, random.Random):
            generator.setstate(state)
        else:
            check_positions(state)
            if isinstance(generator, np.random.Generator):
                generator.bit_generator.state = state
            else:
                generator.set_state(state)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise MismatchError(f"a generator of the data does not take its saved state: {error}") from error


def seed(generator: Any, number: int) -> None:
    """Begin a generator anew by a number below 2^64."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(number)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(number).state
    else:
        generator.seed(number % 2**32)


def number() -> int:
    """One that follows from where torch's default generator stands, which stays there."""
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


CUDA = "rng.cuda"  # devices come and go between machines: restored where the device exists


class SharedRng:
    """Python's or NumPy's global generator, kept as every adapter keeps it."""

    def __init__(self, rng: PythonRng | NumpyRng) -> None:
        self._rng = rng

    def capture(self, encode: Encoder, path: str) -> Tree:
        """Its position, in memory of its own."""
        return self._rng.capture()

    def check(self, saved: Tree, path: str) -> list[str]:
        """Say where it is of another kind."""
        return self._rng.check(saved, path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        self._rng.load(saved)


class TorchRng:
    """``torch``: the default generator of the CPU; a DataLoader without a generator draws from it."""

    def capture(self, encode: Encoder, path: str) -> Tree:
        """Its state, a leaf of bytes."""
        return {"device": "cpu", "state": encode(torch.get_rng_state(), f"{path}/state")}

    def check(self, saved: Tree, path: str) -> list[str]:
        """Say where it is no state of a CPU generator."""
        return differing(saved, "device", "cpu", path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved position."""
        torch.set_rng_state(decode(saved["state"]))


class CudaRng:
    """``torch.cuda``: the default generator of every device; nothing while CUDA is not in use."""

    def capture(self, encode: Encoder, path: str) -> Tree:
        """One leaf a device, in the order of their indices."""
        states = torch.cuda.get_rng_state_all() if cuda_in_use() else []
        return {"device": "cuda", "states": encode(states, f"{path}/states")}

    def check(self, saved: Tree, path: str) -> list[str]:
        """Say where these are no states of CUDA generators; how many devices there are is free."""
        return differing(saved, "device", "cuda", path)

    def load(self, saved: Tree) -> None:
        """Go on from the saved positions, on the devices that are here."""
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for i, state in enumerate(decode(saved["states"])[:here]):
            torch.cuda.set_rng_state(state, i)


def shared_parts() -> dict[str, Part]:
    """The shared generators, as components; CUDA's where it is in use."""
    parts: dict[str, Part] = {"rng.python": SharedRng(PythonRng()), "rng.numpy": SharedRng(NumpyRng())}
    return parts | {"rng.torch": TorchRng(), **({CUDA: CudaRng()} if cuda_in_use() else {})}


class PartGenerators:
    """The generators among the parts of a TorchState: the shared ones, and those in ``extra=``.

    Args:
        parts: all of them.
        own: those in ``extra=`` themselves.
    """

    def __init__(self, parts: Mapping[str, Part], own: Iterable[Any] = ()) -> None:
        self._parts = parts
        self._own = own

    def capture(self) -> Tree:
        """Where they stand, in memory of their own."""
        encode = Encoder("copy")
        return {name: part.capture(encode, name) for name, part in self._parts.items()}

    def load(self, saved: Tree) -> None:
        """Put them there, as far as they were saved."""
        for name, part in self._parts.items():
            if name in saved:
                part.load(saved[name])

    def seed(self, number: int) -> None:
        """Begin all anew, each with a number of its own."""
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.manual_seed(number)
        for i, each in enumerate(self._own, 1):
            seed(each, (number + i) % 2**64)


def cuda_in_use() -> bool:
    """Whether this process has touched a CUDA device; asking does not touch one."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
