"""A simulated disk: which trees of files a power cut may leave, given the operations before it.

After Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014). What may become of effects that no
fsync has made durable is in models.py.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from support.recorder import Op

Tree: TypeAlias = dict[str, bytes | None]
"""Relative path -> the bytes of a file, None for a directory."""


class File:
    """An inode; `data` as the durable writes have made it."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.careless = False


class Directory:
    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}


Node: TypeAlias = File | Directory


class Name(NamedTuple):
    """A change of names in one directory: `old` goes, `new` comes (either may be missing)."""

    parent: Directory
    old: str | None
    new: str | None
    node: Node


class Data(NamedTuple):
    """A write; `data` None: the file is cut at `offset`."""

    file: File
    offset: int
    data: bytes | None


Effect: TypeAlias = Name | Data
WHOLE, LOST, HALF, ZEROS = "whole", "lost", "half", "zeros"


class Fates(NamedTuple):
    """What may become of an effect, the best first; `careless`: no promise rests on it."""

    fates: Sequence[str]
    careless: bool


class Disk:
    """Starts with `tree`, all durable, below `root`; `do` takes the operations of a Recorder in their order.

    `states` gives every combination of what may become of the pending effects; where there are more than
    `limit`, it gives none, all, all but each one, and others that are drawn, and `exhaustive` is False from
    then on. Only of the journal and the lock the fates are drawn always: no promise rests on their bytes.
    """

    def __init__(self, root: Path, tree: Tree | None = None, *, limit: int = 64, seed: int = 0) -> None:
        self.root = root
        self.limit = limit
        self.exhaustive = True
        self._random = random.Random(seed)
        self._top = Directory()
        self._pending: list[Effect] = []
        self._handles: dict[Path, tuple[File, int]] = {}
        for path, data in sorted((tree or {}).items()):
            parent = self._find(self.root / path)
            parent.entries[Path(path).name] = Directory() if data is None else File(data)

    def do(self, ops: Iterable[Op]) -> None:
        for op in ops:
            getattr(self, f"_{op.name}", lambda op: None)(op)

    def states(self) -> Iterator[Tree]:
        """The trees that a power cut may leave here, each once (or as many as `limit` allows)."""
        seen = set()
        for fates in self._fates():
            tree = self._tree(fates)
            key = tuple(sorted(tree.items()))
            if key not in seen:
                seen.add(key)
                yield tree

    def now(self) -> Tree:
        """The tree that a process sees, power uncut."""
        return self._tree([WHOLE] * len(self._pending))

    def _fates(self) -> Iterator[list[str]]:
        raise NotImplementedError

    def _draw(self, choices: Sequence[Fates]) -> Iterator[list[str]]:
        """Every combination, or as many as `limit` allows, of all but the careless; those of them are drawn."""
        careful = [i for i, choice in enumerate(choices) if not choice.careless]
        combinations = math.prod(len(choices[i].fates) for i in careful)
        self.exhaustive &= combinations <= self.limit
        if combinations <= self.limit:
            chosen: Iterable[Sequence[str]] = itertools.product(*(choices[i].fates for i in careful))
        else:
            chosen = self._some([choices[i].fates for i in careful])
        first = [choice.fates[0] for choice in choices]
        for i, choice in enumerate(choices):
            if choice.careless:
                yield from ([*first[:i], fate, *first[i + 1 :]] for fate in choice.fates[1:])
        for combination in chosen:
            fates = [self._random.choice(choice.fates) for choice in choices]
            for i, fate in zip(careful, combination, strict=True):
                fates[i] = fate
            yield fates

    def _some(self, choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
        first = [fates[0] for fates in choices]
        yield first
        yield [fates[-1] for fates in choices]
        for i, fates in enumerate(choices):
            yield from ([*first[:i], fate, *first[i + 1 :]] for fate in fates[1:])
        for _ in range(self.limit // 2):
            yield [self._random.choice(fates) for fates in choices]

    def _tree(self, fates: Sequence[str]) -> Tree:
        entries: dict[int, dict[str, Node]] = {}
        contents: dict[int, bytes] = {}
        for effect, fate in zip(self._pending, fates, strict=True):
            if fate == LOST:
                continue
            if isinstance(effect, Name):
                _rename(entries.setdefault(id(effect.parent), dict(effect.parent.entries)), effect)
            else:
                before = contents.get(id(effect.file), effect.file.data)
                contents[id(effect.file)] = _written(before, effect, fate)
        found: Tree = {}

        def walk(directory: Directory, path: str) -> None:
            for name, node in entries.get(id(directory), directory.entries).items():
                if isinstance(node, Directory):
                    found[path + name] = None
                    walk(node, f"{path}{name}/")
                else:
                    found[path + name] = contents.get(id(node), node.data)

        walk(self._top, "")
        return found

    # what operations do

    def _find(self, path: Path) -> Directory:
        """The directory that `path` lies in, as a process sees it; KeyError if there is none."""
        node: Node = self._top
        for part in path.relative_to(self.root).parts[:-1]:
            assert isinstance(node, Directory)
            node = self._seen(node)[part]
        assert isinstance(node, Directory)
        return node

    def _at(self, path: Path) -> Node | None:
        """What has that name, if anything has."""
        try:
            return self._seen(self._find(path)).get(path.name)
        except KeyError:
            return None

    def _seen(self, directory: Directory) -> dict[str, Node]:
        entries = dict(directory.entries)
        for effect in self._pending:
            if isinstance(effect, Name) and effect.parent is directory:
                _rename(entries, effect)
        return entries

    def _change(self, path: Path, old: str | None, new: str | None, node: Node) -> None:
        self._pending.append(Name(self._find(path), old, new, node))

    def _mkdir(self, op: Op) -> None:
        if op.paths[0].name not in self._seen(self._find(op.paths[0])):  # else it has failed
            self._change(op.paths[0], None, op.paths[0].name, Directory())

    def _create(self, op: Op) -> None:
        path = op.paths[0]
        node = self._seen(self._find(path)).get(path.name)
        if isinstance(node, File) and op.name == "create":
            return  # it has failed
        if not isinstance(node, File):
            node = File()
            self._change(path, None, path.name, node)
        node.careless = op.name != "create"  # the journal and the lock: no promise rests on their bytes
        self._handles[path] = (node, len(self._content(node)) if op.name == "open_append" else 0)

    _open_append = _open_lock = _create

    def _write(self, op: Op) -> None:
        file, offset = self._handles[op.paths[0]]
        self._pending.append(Data(file, offset, op.data))
        self._handles[op.paths[0]] = (file, offset + len(op.data))

    def _truncate(self, op: Op) -> None:
        self._pending.append(Data(*self._handles[op.paths[0]], None))

    def _rename(self, op: Op) -> None:
        source, target = op.paths
        assert source.parent == target.parent
        node = self._at(source)
        if node is not None:  # else it has failed
            self._change(source, source.name, target.name, node)

    def _link(self, op: Op) -> None:
        source, target = op.paths
        self._change(target, None, target.name, self._seen(self._find(source))[source.name])

    def _unlink(self, op: Op) -> None:
        node = self._at(op.paths[0])
        if node is not None:  # else it has failed
            self._change(op.paths[0], op.paths[0].name, None, node)

    def _rmdir(self, op: Op) -> None:
        node = self._at(op.paths[0])
        if isinstance(node, Directory) and not self._seen(node):  # else it has failed
            self._change(op.paths[0], op.paths[0].name, None, node)

    def _rot(self, op: Op) -> None:
        """Not an operation of the store: the bytes of a durable file are others now."""
        node = self._seen(self._find(op.paths[0]))[op.paths[0].name]
        assert isinstance(node, File)
        node.data = op.data

    def _content(self, file: File) -> bytes:
        data = file.data
        for effect in self._pending:
            if isinstance(effect, Data) and effect.file is file:
                data = _written(data, effect, WHOLE)
        return data

    def _settle(self, durable: Iterable[Effect]) -> None:
        """These effects, which are pending, are durable now."""
        done = set(map(id, durable))
        for effect in self._pending:
            if id(effect) not in done:
                continue
            if isinstance(effect, Name):
                _rename(effect.parent.entries, effect)
            else:
                effect.file.data = _written(effect.file.data, effect, WHOLE)
        self._pending = [effect for effect in self._pending if id(effect) not in done]


def _rename(entries: dict[str, Node], change: Name) -> None:
    if change.old is not None and entries.get(change.old) is change.node:
        del entries[change.old]
    if change.new is not None:
        entries[change.new] = change.node


def _written(before: bytes, effect: Data, fate: str) -> bytes:
    if effect.data is None:
        return before[: effect.offset]
    data = effect.data
    if fate == HALF:
        data = data[: len(data) // 2]
    elif fate == ZEROS:
        data = bytes(len(data))
    before = before.ljust(effect.offset, b"\0")
    return before[: effect.offset] + data + before[effect.offset + len(data) :]


def read(root: Path) -> Tree:
    """The tree that is really below `root`."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def write(tree: Tree, root: Path) -> None:
    """Put such a tree on the real disk, below the new directory `root`."""
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
