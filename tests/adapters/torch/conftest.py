"""What the tests of the PyTorch adapter share."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from stopctl.ports import Tree
from support.reload import Trees, fingerprints, reload


@pytest.fixture(autouse=True)
def one_thread_and_seeds() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def leftover_workers_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader's iterator that the garbage collector ends, as one that an error holds, waits so long for each worker."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def seed() -> Callable[[int], None]:
    return _seed


def _seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


@pytest.fixture
def reloaded() -> Callable[[Trees], dict[str, Tree]]:
    """As after a load."""
    return reload


@pytest.fixture
def fingerprint() -> Callable[[Trees], dict[str, str]]:
    """A hash of every component."""
    return fingerprints


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Equal in type, dtype, shape and bits, through dicts, lists and tuples; NaN equals NaN."""
    return _same


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape or one.stride() != other.stride():
            return False
        return one.numel() == 0 or _bits(one) == _bits(other)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)


def _bits(tensor: torch.Tensor) -> bytes:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return bytes(tensor.resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
