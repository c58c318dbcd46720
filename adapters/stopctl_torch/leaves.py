"""Tensors and NumPy arrays as leaves of a checkpoint tree, and back."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from stopctl import MismatchError, TreeError
from stopctl.ports import (
    Leaf,
    Piece,
    Sharded,
    Tree,
    Typed,
    array_leaf,
    generator,
    leaf_array,
    tree_map,
    typed,
)
from stopctl_torch import sharding

TENSORS: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
if hasattr(torch, "float8_e8m0fnu"):  # of PyTorch 2.7
    TENSORS[torch.float8_e8m0fnu] = "F8_E8M0"
DTYPES = {name: dtype for dtype, name in TENSORS.items()}

WHOLE = (torch.Tensor, torch.nn.Parameter)
"""Types of nearly all tensors: none is a DTensor."""


class Encoder:
    """Turns one state into a tree; lives as long as one capture.

    ``data="view"`` lets CPU leaves look into the live tensors, ``"copy"`` detaches every leaf from
    them, ``"none"`` leaves the bytes out (dtypes and shapes alone). A DTensor becomes the piece of it that
    this rank has, if it is for this rank to save it; in a ``"copy"``, which serves to undo, always. With
    ``unbuilt`` lazy parameters and those on the meta device are None.
    """

    def __init__(self, data: Literal["view", "copy", "none"] = "view", *, unbuilt: bool = False) -> None:
        self._data = data
        self._unbuilt = unbuilt
        self._alive: list[torch.Tensor] = []  # a freed tensor's address, used again, would look like a tie

    def __call__(self, value: Any, path: str) -> Tree:
        """The tree of ``value``; what it does not know passes through, for the store to judge."""
        return tree_map(self._leaf, value, path)

    def _leaf(self, value: Any, path: str, _: Any) -> Tree:
        if isinstance(value, torch.Tensor):
            if self._unbuilt and (torch.nn.parameter.is_lazy(value) or value.device.type == "meta"):
                return None
            whole = type(value) in WHOLE or not sharding.is_sharded(value)
            return self._tensor(value, path) if whole else self._sharded(value, path)
        return self._array(value, path) if isinstance(value, np.ndarray | np.generic) else _typed(value)

    def _tensor(self, tensor: torch.Tensor, path: str) -> Leaf:
        _refuse(tensor, path)
        self._alive.append(tensor)
        plain = tensor.detach()
        order = _order(plain)
        notes = ["order", *map(str, order)] if order else []
        if plain.is_complex():
            notes = ["complex", *notes]
            plain = torch.view_as_real(plain.resolve_conj())
        if plain.dtype not in TENSORS:
            raise TreeError(f"{path}: {tensor.dtype} has no place in a checkpoint")
        return Leaf(
            dtype=TENSORS[plain.dtype],
            shape=tuple(plain.shape),
            data=self._tensor_bytes(plain),
            key=_tie(tensor),
            note=" ".join(notes),
        )

    def _sharded(self, tensor: Any, path: str) -> Sharded:
        if tensor.is_complex():
            raise TreeError(f"{path}: a DTensor of complex numbers has no place in a checkpoint")
        leaf = self._tensor(sharding.local(tensor), path)
        block = sharding.block(tensor, path)
        ours = block is not None and (block.mine or self._data == "copy")
        pieces = (Piece(block.offsets, leaf.shape, leaf.data),) if block is not None and ours else ()
        key = leaf.key if leaf.key is not None or not tensor.numel() else _tie_of_none(sharding.local(tensor))
        return Sharded(leaf.dtype, tuple(tensor.shape), pieces, key=key)

    def _tensor_bytes(self, tensor: torch.Tensor) -> bytes | memoryview:
        if self._data == "none" or not tensor.numel():
            return b""
        dense = tensor.resolve_neg().cpu().contiguous()
        flat = dense.as_strided((dense.numel(),), (1,))  # an axis of length 1 may have any stride
        data = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
        return bytes(data) if self._data == "copy" else data

    def _array(self, value: Any, path: str) -> Leaf:
        if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
            raise TreeError(f"{path}: a {type(value).__name__} is not one plain array")
        leaf = array_leaf(value, path)
        data = b"" if self._data == "none" else bytes(leaf.data) if self._data == "copy" else leaf.data
        return replace(leaf, data=data, note=f"numpy {leaf.note}".rstrip())


def decode(tree: Tree, like: Any = None) -> Any:
    """What was encoded, in fresh memory of its own; tensors are placed as those in ``like`` are.

    That is: on the same device, and in the same parts on the same ranks.

    Raises:
        MismatchError: pieces that do not make up their array.
    """
    seen: dict[Hashable, torch.Tensor] = {}

    def decoded(leaf: Any, _: str, like: Any) -> Any:
        if isinstance(leaf, Typed):
            return _untyped(leaf)
        if not isinstance(leaf, Leaf | Sharded):
            return leaf
        if isinstance(leaf, Leaf) and leaf.note.startswith("numpy"):
            return leaf_array(leaf)
        if leaf.key is None:
            return _to_tensor(leaf, like)
        if leaf.key not in seen:
            seen[leaf.key] = _to_tensor(leaf, like)
        return seen[leaf.key]

    return tree_map(decoded, tree, like=like)


SIZE, DTYPE, GENERATOR = "torch.Size", "torch.dtype", "torch.Generator"


def _typed(value: Any) -> Any:
    """What PyTorch has besides tensors, and generators, as plain values; all else as it is."""
    if type(value) is torch.Size:
        return Typed(SIZE, tuple(value))
    if type(value) is torch.dtype:
        return Typed(DTYPE, str(value).removeprefix("torch."))
    if type(value) is torch.Generator:
        return Typed(f"{GENERATOR}({value.device.type})", bytes(value.get_state().numpy()))
    return typed(value)


def _untyped(saved: Typed) -> Any:
    kind, _, device = saved.kind.removesuffix(")").partition("(")
    try:
        if kind == SIZE:
            return torch.Size(saved.value)
        if kind == DTYPE and isinstance(dtype := getattr(torch, saved.value), torch.dtype):
            return dtype
        if kind == GENERATOR:
            made = torch.Generator(device)
            made.set_state(torch.frombuffer(bytearray(saved.value), dtype=torch.uint8))
            return made
    except (TypeError, AttributeError, RuntimeError) as error:
        raise MismatchError(f"saved is no {saved.kind} of this version of PyTorch: {error}") from error
    return generator(saved)


def _to_tensor(leaf: Leaf | Sharded, like: Any) -> torch.Tensor:
    dtype = DTYPES[leaf.dtype]
    placed = like is not None and type(like) not in WHOLE and sharding.is_sharded(like)
    if placed or isinstance(leaf, Sharded):
        tensor = sharding.like(like, dtype) if placed else torch.empty(leaf.shape, dtype=dtype)
        sharding.fill(tensor, leaf, dtype)
        return tensor if placed or like is None else tensor.to(like.device)
    tensor = torch.empty(leaf.shape, dtype=dtype)
    if tensor.numel():
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(leaf.data, np.uint8)
    head, _, order = leaf.note.partition("order")
    if head.strip() == "complex":
        tensor = torch.view_as_complex(tensor)
    if order:
        dims = [int(dim) for dim in order.split()]
        back = sorted(range(len(dims)), key=dims.__getitem__)
        tensor = tensor.permute(dims).contiguous().permute(back)
    return tensor.to(like.device) if isinstance(like, torch.Tensor) else tensor


def look(leaf: Leaf) -> torch.Tensor | None:
    """A tensor that looks into the leaf's own memory, to be copied from and not kept; None if it cannot."""
    data = memoryview(leaf.data)
    if leaf.note or data.readonly or not data.nbytes:
        return None
    return torch.from_numpy(np.frombuffer(data, np.uint8)).view(DTYPES[leaf.dtype]).view(leaf.shape)


def _refuse(tensor: torch.Tensor, path: str) -> None:
    """Tensors that are not one plain array of numbers."""
    if torch.nn.parameter.is_lazy(tensor):
        raise TreeError(f"{path}: a lazy layer has no shape yet: run one batch through the model first")
    if tensor.device.type == "meta":
        raise TreeError(f"{path}: a tensor on the meta device has no data: use to_empty() first")
    if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise TreeError(f"{path}: a {kind} tensor has no place in a checkpoint: save it as a dense one")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TreeError(f"{path}: a {type(tensor).__name__} is not one plain tensor")


def _tie(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that are the same memory seen the same way; None where there is no memory."""
    if not tensor.numel():
        return None
    storage = tensor.untyped_storage().data_ptr()
    seen = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return (str(tensor.device), storage, tensor.storage_offset(), *seen)


def _tie_of_none(tensor: torch.Tensor) -> Hashable:
    """The same of a rank that has nothing of a tensor that others have: by what would hold it."""
    return ("none", tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape))


def _order(tensor: torch.Tensor) -> tuple[int, ...]:
    """The dimensions from slowest to fastest when dense but not C-contiguous (channels_last), else ()."""
    if tensor.is_contiguous():
        return ()
    dims = tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    return dims if tensor.permute(dims).is_contiguous() else ()
