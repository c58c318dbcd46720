"""A team's checkpoint, put together of the parts that its ranks have written; read without trust."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from stopctl.core.errors import DamagedError
from stopctl.store import safetensors, strict
from stopctl.store.blocks import Block, common, fault, paste
from stopctl.store.chunks import where
from stopctl.store.files import ROTTEN, Files, as_damage, damage_of
from stopctl.store.hashed import CHUNK, DIGEST, Bytes, FileFact, Workers, read_chunks, read_file, room
from stopctl.store.layout import Groups, Layouts, grouped
from stopctl.store.manifest import PARTS, CheckpointInfo
from stopctl.store.partfile import Parts, Saved, arrays_name, facts_name, parse_part, parse_parts
from stopctl.store.tree import ITEMSIZE, Leaf, Piece, Sharded, raw, size_in_bytes

LOOKING = 63
"""Threads, at most, that look at the sizes of files beside the caller: they wait for round trips."""
EACH = 32
"""Files for which one of them pays."""


class Assembly:
    """The parts of one checkpoint: what they say is read and verified here, arrays when they are asked for.

    Args:
        files: the file operations.
        info: the checkpoint.
        fact: of its ``parts.json``.

    Raises:
        DamagedError: ``parts.json`` is not what was written. The methods raise it, and so do the pieces, for
            parts that are not, or that do not make up every array.
        OSError: for a reason that lies in this process, not in the checkpoint.
    """

    def __init__(self, files: Files, info: CheckpointInfo, fact: FileFact) -> None:
        self._io, self._path, self._name = files, info.path, info.name
        self.parts = read_parts(files, info, fact)
        self._files: dict[int, _PartFile] = {}
        self._looked_at: dict[str, list[tuple[_PartFile, Saved]]] = {}
        self._groups: dict[int, Groups] = {}

    def components(self, rank: int) -> tuple[strict.JsonValue, Mapping[str, Leaf]]:
        """The skeleton and the arrays of what this rank had for itself; nothing if it has no part."""
        file = self._file(rank)
        if file is None or not file.part.components:
            return {}, {}
        return file.part.components, file.tensors()

    def whole(self) -> dict[str, Leaf]:
        """Every array in one; every part is read and verified, one after the other."""
        check_sizes(self._io, self._path, self.parts.files)  # before memory is taken for what they tell of
        self._pieces()
        arrays = self.parts.arrays
        leaves = {
            name: Leaf(dtype, shape, bytearray(size_in_bytes(dtype, shape)))
            for name, (dtype, shape) in arrays.items()
        }
        for file in self._files.values():
            file.tensors()
            for name, pieces in file.part.pieces.items():
                dtype, shape = arrays[name]
                for saved in pieces:
                    block = saved.offsets, saved.shape
                    paste(raw(leaves[name]), shape, ITEMSIZE[dtype], block, file.data(saved, dtype))
            file.close()
        return leaves

    def sharded(self, rank: int) -> dict[str, Sharded]:
        """Every array in the pieces in which it was saved; their data is read when it is first asked for.

        So is what parts say, of those that have something of what is asked for.
        """
        own = [] if (file := self._file(rank)) is None else [file]
        return {
            name: Sharded(
                dtype,
                shape,
                _Pieces(partial(self._all_of, name, dtype)),
                around=partial(self._around, name, dtype, own),
            )
            for name, (dtype, shape) in self.parts.arrays.items()
        }

    @cached_property
    def _layouts(self) -> Layouts:
        return Layouts(self.parts.layouts, self.parts.having(), self._groups_of)

    def _groups_of(self, rank: int) -> Groups:
        if rank not in self._groups:
            file, pieces = self._file(rank), {}
            if file is not None:
                pieces = {name: [each.block for each in saved] for name, saved in file.part.pieces.items()}
            self._groups[rank] = grouped(self.parts.arrays, pieces)[0]
        return self._groups[rank]

    def _around(self, name: str, dtype: str, own: Sequence[_PartFile], block: Block) -> Sequence[Piece]:
        """The pieces that make up a block: of this rank's part, or of all that have some of it."""
        with damage_of(self._name):
            return (
                self._make_up(own, name, dtype, block)
                or self._make_up(self._holding(name, block), name, dtype, block)
                or self._all_of(name, dtype)
            )

    def _holding(self, name: str, block: Block) -> list[_PartFile]:
        files = [self._file(rank) for rank in self._layouts.holding(name, block)]
        return [file for file in files if file is not None]

    def _make_up(self, files: Iterable[_PartFile], name: str, dtype: str, block: Block) -> list[Piece]:
        """The pieces of these files, if they make up a block that is not empty."""
        pairs = [(file, saved) for file in files for saved in file.part.pieces.get(name, ())]
        if sum(common(saved.block, block) for _, saved in pairs) != math.prod(block[1]):
            return []
        return [piece for file, saved in pairs for piece in self._lazy(file, [saved], dtype)]

    def _all_of(self, name: str, dtype: str) -> list[Piece]:
        with damage_of(self._name):
            return [
                piece for file, saved in self._pieces()[name] for piece in self._lazy(file, [saved], dtype)
            ]

    def _lazy(self, file: _PartFile, pieces: Iterable[Saved], dtype: str) -> list[Piece]:
        return [_LazyPiece(saved, partial(file.data, saved, dtype), self._name) for saved in pieces]

    def _file(self, rank: int) -> _PartFile | None:
        if rank not in self._files and facts_name(rank) in self.parts.files:
            self._files[rank] = _PartFile(self._io, self._path, rank, self.parts)
        return self._files.get(rank)

    def _pieces(self) -> Mapping[str, list[tuple[_PartFile, Saved]]]:
        """Of every part, by array: each array is whole."""
        if not self._looked_at:
            files = [file for rank in self.parts.having() if (file := self._file(rank)) is not None]
            pieces = {
                name: [(file, saved) for file in files for saved in file.part.pieces.get(name, ())]
                for name in self.parts.arrays
            }
            for name, (_, shape) in self.parts.arrays.items():
                if why := fault(shape, [(saved.offsets, saved.shape) for _, saved in pieces[name]]):
                    raise DamagedError(f"{name[:200]}: {why}")
            self._looked_at = pieces
        return self._looked_at


class _Pieces(Sequence[Piece]):
    """Pieces that are looked for when the first is asked for."""

    def __init__(self, find: Callable[[], list[Piece]]) -> None:
        self._find = find

    @cached_property
    def _pieces(self) -> list[Piece]:
        return self._find()

    def __getitem__(self, index: Any) -> Any:
        return self._pieces[index]

    def __len__(self) -> int:
        return len(self._pieces)


class _PartFile:
    """The part of one rank; its arrays are read once and kept as long as anybody has it.

    Of a file of several chunks only those are read that hold what is asked for, unless all of it is.
    """

    def __init__(self, files: Files, directory: Path, rank: int, parts: Parts) -> None:
        name, self._name = facts_name(rank), arrays_name(rank)
        self.part = parse_part(read_verified(files, directory, name, parts.files[name]), rank, parts.arrays)
        if self.part.tensors != parts.files[self._name]:
            raise DamagedError(f"{name} and {PARTS} tell of another {self._name}")
        fact = self.part.tensors
        told = partial(where, files, directory / self._name, fact.size, lambda: fact.chunks)
        self._read = partial(read_verified, files, directory, self._name, fact, told)
        self._open = partial(_Slices, files, directory / self._name, self.part.tensors)
        self._tensors: dict[str, Leaf] | None = None
        self._slices: _Slices | None = None

    def tensors(self) -> dict[str, Leaf]:
        """What the file holds, verified."""
        if self._tensors is None:
            self._tensors = safetensors.decode(self._read())
        return self._tensors

    def data(self, saved: Saved, dtype: str) -> memoryview:
        """The bytes of a piece."""
        if self._tensors is None and self.part.tensors.chunked:
            self._slices = self._slices or self._open()
            leaf = self._slices.leaf(saved.tensor)
        else:
            leaf = self.tensors().get(saved.tensor)
        if leaf is None or (leaf.dtype, leaf.shape) != (dtype, saved.shape):
            raise DamagedError(f"{self._name}: no {dtype} {saved.shape} of the name {saved.tensor[:200]!r}")
        return raw(leaf)

    def close(self) -> None:
        """Let go of what was read."""
        self._tensors = self._slices = None


class _Slices:
    """The tensors of a file of several chunks, of which only those that hold what is asked for are read.

    Args:
        files: the file operations.
        path: where.
        fact: of the file, with the SHA-256s of its chunks.

    Raises:
        DamagedError: the file is not as `fact` says.
        OSError: for a reason that lies in this process, not in the checkpoint.
    """

    def __init__(self, files: Files, path: Path, fact: FileFact) -> None:
        check_sizes(files, path.parent, {path.name: fact})  # before memory is taken for what it tells of
        self._files, self._path, self._fact = files, path, fact
        self._data, self._there = room(fact.size), bytearray(fact.count)
        self._need(0, safetensors.PREFIX)
        self._start = safetensors.begin(self._data)
        self._need(0, self._start)
        header = self._data[safetensors.PREFIX : self._start]
        self._tensors = safetensors.describe(header, fact.size - self._start)

    def leaf(self, name: str) -> Leaf | None:
        """The tensor of that name, if there is one."""
        if name not in self._tensors:
            return None
        dtype, shape, begin, end = self._tensors[name]
        begin, end = self._start + begin, self._start + end
        self._need(begin, end)
        return Leaf(dtype, shape, self._data[begin:end])

    def _need(self, begin: int, end: int) -> None:
        """Have these bytes."""
        numbers = range(begin // CHUNK, -(-end // CHUNK))
        for lacks, run in groupby(numbers, lambda number: not self._there[number]):
            if lacks:
                first, *more = run
                after = first + 1 + len(more)
                into = self._data[CHUNK * first : min(CHUNK * after, self._fact.size)]
                chunks = self._fact.chunks[DIGEST * first : DIGEST * after]
                with as_damage(self._path.name, ROTTEN):
                    read_chunks(self._files, self._path, into, first, chunks)
                self._there[first:after] = bytes([1]) * (after - first)


class _LazyPiece(Piece):
    """A piece whose bytes are read when they are asked for."""

    __slots__ = ("_checkpoint", "_read")
    _read: Callable[[], memoryview]
    _checkpoint: str

    def __init__(self, saved: Saved, read: Callable[[], memoryview], checkpoint: str) -> None:
        object.__setattr__(self, "offsets", saved.offsets)
        object.__setattr__(self, "shape", saved.shape)
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_checkpoint", checkpoint)

    @property
    def data(self) -> memoryview:
        with damage_of(self._checkpoint):
            return self._read()


def read_parts(files: Files, info: CheckpointInfo, fact: FileFact) -> Parts:
    """``parts.json``, verified.

    Raises:
        DamagedError: it is not what was written.
        OSError: for a reason that lies in this process, not in the checkpoint.
    """
    parts = parse_parts(read_verified(files, info.path, PARTS, fact))
    if parts.ranks != info.ranks:
        raise DamagedError(f"{PARTS}: of {parts.ranks} ranks instead of {info.ranks}")
    return parts


def check_sizes(files: Files, directory: Path, facts: Mapping[str, FileFact]) -> None:
    """DamagedError unless these files are there and of their sizes; many are looked at by several threads."""
    left = deque(facts.items())

    def look() -> None:
        while left:
            try:
                name, fact = left.popleft()
            except IndexError:  # another thread has taken the last
                return
            with as_damage(name, ROTTEN):
                size = files.size(directory / name)
            if size != fact.size:
                raise DamagedError(f"{name}: {size} bytes instead of {fact.size}")

    if len(facts) < EACH:
        look()
        return
    with Workers(look, min(LOOKING, len(facts) // EACH), lambda threads: left.clear()):
        look()


def read_verified(
    files: Files, directory: Path, name: str, fact: FileFact, told: Callable[[bytes], str] = lambda found: ""
) -> Bytes:
    """The bytes of a file of a checkpoint; DamagedError if it is not as `fact` says, or not there."""
    with as_damage(name, ROTTEN):
        return read_file(files, directory / name, fact, told)
