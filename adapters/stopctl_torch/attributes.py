"""Attributes of modules and extras that training moves and no state_dict() has: a resume begins anew."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from stopctl.ports import Notice
from stopctl_torch.marks import leaves

FOREIGN = ("torch", "torchmetrics")
"""Packages whose classes know what of theirs is state."""


class Attribute(NamedTuple):
    """A number or a tensor."""

    owner: Any
    name: str
    value: Any


class Attributes:
    """What the attributes were when this was made.

    Args:
        things: models and extras, by component.
    """

    def __init__(self, things: Mapping[str, Any]) -> None:
        self._things = things
        self._numbers = {path: found.value for path, found in _numbers(things)}
        self._tensors = {  # by reference: another one may come to lie where one has lain
            path: (weakref.ref(found.value), found.value._version) for path, found in _tensors(things)
        }

    def moved(self) -> Iterator[Notice]:
        """Tell what has moved since."""
        paths = []
        for path, (owner, name, value) in _numbers(self._things):
            before = self._numbers.get(path, value)
            if before != value and before == before and not self._is_saved(path, owner, name, value):
                paths.append(f"{path} ({before} before, {value} now)")
        if paths:
            yield Notice(
                f"moved since opening and in no state_dict(): {', '.join(paths)}; a resumed run begins with "
                "the first value again: make it a buffer, or tell it in get_extra_state() or state_dict()"
            )
        tensors = [
            path for path, found in _tensors(self._things) if not self._is_as_before(path, found.value)
        ]
        if tensors:
            yield Notice(
                f"tensors in no state_dict() that training has changed: {', '.join(tensors)}; where "
                "forward() does not make them anew, register_buffer() keeps them",
                logging.INFO,
            )

    def _is_as_before(self, path: str, tensor: torch.Tensor) -> bool:
        reference, version = self._tensors.get(path, (None, 0))
        return reference is not None and reference() is tensor and tensor._version == version

    def _is_saved(self, path: str, owner: Any, name: str, value: float) -> bool:
        """Whether a state has it under another name: a value of the component's, or a counter beside it."""
        thing = self._things[path.partition("/")[0]]
        values = [(k, v) for k, v in leaves(thing.state_dict()) if not isinstance(v, torch.Tensor)]
        if isinstance(owner, torch.nn.Module):
            buffers = {k: v for k, v in owner.named_buffers(recurse=False) if k != "num_batches_tracked"}
            values += [(key, v.item()) for key, v in buffers.items() if v.numel() == 1]
        return any(each == value or str(key).strip("_") == name.strip("_") for key, each in values)


def _owners(things: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for component, thing in things.items():
        if isinstance(thing, torch.nn.Module):
            yield from (
                (f"{component}/{path}." if path else f"{component}/", m) for path, m in thing.named_modules()
            )
        elif not isinstance(thing, torch.utils.data.DataLoader):
            yield f"{component}/", thing


def _numbers(things: Mapping[str, Any]) -> Iterator[tuple[str, Attribute]]:
    for path, owner in _owners(things):
        if type(owner).__module__.partition(".")[0] not in FOREIGN:
            for name, value in getattr(owner, "__dict__", {}).items():
                if type(value) in (int, float):
                    yield path + name, Attribute(owner, name, value)


def _tensors(things: Mapping[str, Any]) -> Iterator[tuple[str, Attribute]]:
    for path, owner in _owners(things):
        if isinstance(owner, torch.nn.Module):
            passing = {name: owner._buffers.get(name) for name in owner._non_persistent_buffers_set}
            for name, value in {**vars(owner), **passing}.items():
                if isinstance(value, torch.Tensor) and not value.is_inference():
                    yield path + name, Attribute(owner, name, value)
