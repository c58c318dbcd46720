"""What loops hold besides, given in ``extra=``: tensors, arrays, generators, and dicts and lists of these."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from stopctl import TreeError
from stopctl.ports import Filling, Leaf, Tree, has_state, misfits, tree_leaves, tree_map
from stopctl_torch.leaves import WHOLE, Encoder, decode
from stopctl_torch.parts import Part, is_complex, overlaps
from stopctl_torch.rng import KINDS
from stopctl_torch.sharding import is_sharded

CONTAINERS = (dict, OrderedDict, Counter, list, deque, set)


def is_value(thing: Any) -> bool:
    """Whether it is of a kind that is filled in place."""
    return isinstance(thing, (torch.Tensor, *KINDS)) or type(thing) in (*CONTAINERS, np.ndarray)


def is_written(thing: Any) -> bool:
    """Whether what is given by itself can be written to."""
    if isinstance(thing, torch.Tensor):
        return not overlaps(thing) and not thing.is_inference()
    return not isinstance(thing, np.ndarray) or thing.flags.writeable


def held(value: Any, path: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    """All of those kinds in a value, by path: ``"extra.loop/rng"``."""
    found: dict[str, Any] = {}

    def look(part: Any, path: str, _: Any) -> None:
        if isinstance(part, kinds):
            found[path] = part

    tree_map(look, value, path)
    return found


class ValuesPart(Part):
    """One of them, filled in place where it can be.

    Args:
        value: a tensor, an array, a generator or a container.
        name: of the component.
        others: the tensors of the modules given, whose memory is theirs.
    """

    def __init__(self, value: Any, name: str, others: Callable[[], Iterable[torch.Tensor]]) -> None:
        self.value = value
        self._name = name
        self._others = others

    def capture(self, encode: Encoder, path: str) -> Tree:
        """The tree of the value itself."""
        tree_map(_refuse, self.value, path)
        return encode(self.value, path)

    def check(self, saved: Tree, path: str) -> list[str]:
        """Keys, shapes and dtypes, but for places to fill."""
        try:
            given = self.capture(Encoder("none"), path)
        except TreeError as error:
            return [str(error)]
        lines = misfits(saved, given, path)
        if not lines and isinstance(given, Leaf) and is_complex(saved) != is_complex(given):
            lines.append(f"{path}: complex numbers are saved or given, and real ones are the other")
        return lines

    def load(self, saved: Tree) -> None:
        """Fill it."""
        tied = {path for path, leaf in tree_leaves(saved, self._name) if leaf.key not in (None, path)}
        fresh = decode(saved, like=self.value)
        TensorFilling(self._others(), tied).fill(fresh, self.value, self._name)


def _refuse(part: Any, path: str, _: Any) -> None:
    if has_state(part):
        kind, name = type(part).__name__, path.rpartition("/")[2]
        raise TreeError(f'{path} is a {kind}, which is given by itself: extra={{"{name}": ...}}')


class TensorFilling(Filling):
    """The same with tensors.

    Args:
        others: tensors that have been loaded already.
        tied: paths of tensors that were saved as one with another: these are written to wherever they lie.
    """

    def __init__(self, others: Iterable[torch.Tensor], tied: set[str]) -> None:
        super().__init__()
        self._tied = tied
        self._extents: dict[int, list[tuple[int, int]]] = {}
        for tensor in others:
            self._is_free(tensor)

    def put(self, fresh: Any, live: Any, path: str) -> bool:
        """Write a tensor, or the position of a torch.Generator, into a live one; whether it could be."""
        if isinstance(fresh, torch.Generator):
            fits = isinstance(live, torch.Generator) and live.device.type == fresh.device.type
            if fits:
                live.set_state(fresh.get_state())
            return fits
        if not isinstance(fresh, torch.Tensor):
            return super().put(fresh, live, path)
        if not isinstance(live, torch.Tensor) or not is_written(live):
            return False
        if (live.dtype, live.shape) != (fresh.dtype, fresh.shape):
            return False
        if not self._is_free(live) and path not in self._tied:
            return False
        with torch.no_grad():
            live.copy_(fresh)
        return True

    def _is_free(self, tensor: torch.Tensor) -> bool:
        """Whether it shares its memory with none of those before; from now on it is one of them."""
        if type(tensor) not in WHOLE and is_sharded(tensor):
            tensor = tensor.to_local()  # type: ignore[attr-defined]
        if torch.nn.parameter.is_lazy(tensor) or not tensor.numel():
            return True
        span = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        begin = int(tensor.storage_offset()) * tensor.element_size()
        end = begin + (int(span) + 1) * tensor.element_size()
        beside = self._extents.setdefault(tensor.untyped_storage().data_ptr(), [])
        free = not any(begin < other_end and other_begin < end for other_begin, other_end in beside)
        beside.append((begin, end))
        return free
