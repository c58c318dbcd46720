"""Copying tensors while training goes on: who waits for it, which tensors it is for, and what it missed.

Parameters and moments change in ``optimizer.step()`` and ``load_state_dict()``, which can be made to wait.
Whatever else writes to them in place is seen afterwards by PyTorch's own counter of such writes; a tensor
that is replaced keeps its old memory, which the capture holds on to. Not seen are writes that do not count:
through ``.data`` or a NumPy view, and those of fused kernels that are called outside ``step()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from stopctl.ports import Held, Leaf, Tree, tree_leaves

Mark = tuple[str, torch.Tensor, int, int]
"""A tensor's path, itself, where its memory is, and how often it was written to."""

SMALL = 64 << 10
"""Bytes below which a tensor is copied at once, as it is not worth the watching."""


class Hook:
    """Waits, whatever it is called with; a copy of the object that it is hooked into waits for nobody."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait

    def __call__(self, *_: object, **__: object) -> None:
        """Return when training may go on."""
        self._wait()

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (_return,)


def _return() -> None:
    pass


class Overlapping:
    """What a TorchState knows of its tensors' changes.

    Args:
        modules: whose parameters may be copied later, and whose buffers not: ``forward()`` writes to them.
        optimizers: whose state may be copied later.
    """

    def __init__(
        self, modules: Iterable[torch.nn.Module], optimizers: Iterable[torch.optim.Optimizer]
    ) -> None:
        self._modules = list(modules)
        self._optimizers = list(optimizers)
        self._hooks: list[Any] = []

    def attach(self, wait: Callable[[], None]) -> None:
        """Have ``wait`` called before steps and loads; does nothing the second time."""
        if self._hooks:
            return
        hook = Hook(wait)
        inner = {id(m): m for module in self._modules for m in module.modules()}
        self._hooks = [
            *(o.register_step_pre_hook(hook) for o in self._optimizers),
            *(o.register_load_state_dict_pre_hook(hook) for o in self._optimizers),
            *(m.register_load_state_dict_pre_hook(hook) for m in inner.values()),  # type: ignore[no-untyped-call]
        ]

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def held(self, components: Mapping[str, Tree]) -> Held:
        """Sort the leaves of a capture: those that are copies already, those to copy later."""
        steady = self._steady()
        copies: set[Leaf] = set()
        watched: dict[Leaf, Mark] = {}
        for path, leaf in tree_leaves(components):
            if not isinstance(leaf, Leaf) or len(leaf.data) < SMALL:
                continue
            address: int = np.frombuffer(leaf.data, np.uint8).__array_interface__["data"][0]
            tensor = steady.get(address)
            if tensor is not None and tensor.nbytes == len(leaf.data):
                watched[leaf] = (path, tensor, address, tensor._version)
            elif isinstance(leaf.key, tuple) and leaf.key[0] != "cpu":
                copies.add(leaf)  # the capture has fetched it from its device
        return Held(copies, watched.keys(), lambda: _changed(watched.values()))

    def _steady(self) -> dict[int, torch.Tensor]:
        """What only steps and loads are expected to change, by address."""
        buffers = {b.untyped_storage().data_ptr() for m in self._modules for b in m.buffers()}
        params = (p for module in self._modules for p in module.parameters())
        moments = (
            value
            for optimizer in self._optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
        return {
            tensor.data_ptr(): tensor
            for tensor in (*params, *moments)
            if tensor.untyped_storage().data_ptr() not in buffers and not tensor.is_inference()
        }  # of inference tensors no write is counted


def _changed(marks: Iterable[Mark]) -> str | None:
    for path, tensor, address, version in marks:
        if (tensor.data_ptr(), tensor._version) != (address, version):
            return path
    return None
