"""A model of a disk: which trees of files may be found after a power cut, given the operations before it.

A file has the bytes of its last fsync, or all that was written. A directory has the entries of its last
fsync, or those after any later operation in it. Every combination may be found.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from support.recorder import Op


class File:
    def __init__(self) -> None:
        self.data = b""
        self.synced = b""

    def versions(self) -> list[bytes]:
        return list(dict.fromkeys((self.synced, self.data)))


class Directory:
    def __init__(self) -> None:
        self.entries: dict[str, File | Directory] = {}
        self.history: list[dict[str, File | Directory]] = [{}]

    def changed(self) -> None:
        self.history.append(dict(self.entries))

    def synced(self) -> None:
        self.history = [dict(self.entries)]


class Disk:
    """Starts as an empty, synced `root`; `do` takes the operations of a Recorder in their order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Directory()
        self.open: dict[Path, File] = {}

    def do(self, ops: Iterable[Op]) -> None:
        for op in ops:
            getattr(self, f"_{op.name}", self._nothing)(op)

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Every tree that may be found: relative path -> bytes of a file, None for a directory."""
        seen = set()
        directories = list(_below(self.top))
        for choice in itertools.product(*(range(len(d.history)) for d in directories)):
            entries = {id(d): d.history[i] for d, i in zip(directories, choice, strict=True)}
            files = list({id(f): f for _, f in _walk(self.top, entries, "") if isinstance(f, File)}.values())
            for data in itertools.product(*(file.versions() for file in files)):
                found = {id(file): version for file, version in zip(files, data, strict=True)}
                tree = {path: found.get(id(node)) for path, node in _walk(self.top, entries, "")}
                key = tuple(sorted(tree.items()))
                if key not in seen:
                    seen.add(key)
                    yield tree

    def _nothing(self, op: Op) -> None:
        pass

    def _parent(self, path: Path) -> Directory:
        node: File | Directory = self.top
        for part in path.relative_to(self.root).parts[:-1]:
            assert isinstance(node, Directory)
            node = node.entries[part]
        assert isinstance(node, Directory)
        return node

    def _mkdir(self, op: Op) -> None:
        self._parent(op.paths[0]).entries[op.paths[0].name] = Directory()
        self._parent(op.paths[0]).changed()

    def _create(self, op: Op) -> None:
        parent = self._parent(op.paths[0])
        node = parent.entries.get(op.paths[0].name)
        if not isinstance(node, File):
            node = parent.entries[op.paths[0].name] = File()
            parent.changed()
        self.open[op.paths[0]] = node

    _open_append = _open_lock = _create

    def _write(self, op: Op) -> None:
        self.open[op.paths[0]].data += op.data

    def _sync(self, op: Op) -> None:
        self.open[op.paths[0]].synced = self.open[op.paths[0]].data

    def _sync_directory(self, op: Op) -> None:
        node = self._parent(op.paths[0] / "x")
        node.synced()

    def _rename(self, op: Op) -> None:
        source, target = op.paths
        assert source.parent == target.parent
        parent = self._parent(source)
        parent.entries[target.name] = parent.entries.pop(source.name)
        parent.changed()

    def _link(self, op: Op) -> None:
        source, target = op.paths
        self._parent(target).entries[target.name] = self._parent(source).entries[source.name]
        self._parent(target).changed()

    def _unlink(self, op: Op) -> None:
        parent = self._parent(op.paths[0])
        if parent.entries.pop(op.paths[0].name, None) is not None:
            parent.changed()

    _rmdir = _unlink


def write(tree: dict[str, bytes | None], root: Path) -> None:
    """Put such a tree on the real disk, below the new directory `root`."""
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def _below(directory: Directory) -> Iterator[Directory]:
    """Every directory that some version of the tree has."""
    seen: dict[int, Directory] = {}
    todo = [directory]
    while todo:
        found = todo.pop()
        if id(found) not in seen:
            seen[id(found)] = found
            todo += [n for version in found.history for n in version.values() if isinstance(n, Directory)]
    return iter(seen.values())


def _walk(
    directory: Directory, entries: dict[int, dict[str, File | Directory]], path: str
) -> Iterator[tuple[str, File | Directory]]:
    for name, node in sorted(entries[id(directory)].items()):
        below = f"{path}/{name}" if path else name
        yield below, node
        if isinstance(node, Directory):
            yield from _walk(node, entries, below)
