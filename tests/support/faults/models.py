"""Two models of what a power cut does to effects that no fsync has made durable.

- ``Posix``, as strict as the standard: every one of them is there or not, whatever became of the others;
  a write may also be there by half, or as zeros of its length. A rename is there as a whole or not at all.
  An fsync of a file brings its bytes, not its name; an fsync of a directory brings its names.
- ``Ext4``, as with data=ordered and delayed allocation: names change in their order, so a prefix of those
  changes is there, and any fsync brings all before it; of each file a prefix of its writes is there.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.faults.disk import HALF, LOST, WHOLE, ZEROS, Data, Disk, Fates, Name
from support.recorder import Op


class Posix(Disk):
    def _fates(self) -> Iterator[list[str]]:
        names, writes = (WHOLE, LOST), (WHOLE, HALF, ZEROS, LOST)
        return self._draw(
            [
                Fates(names, False)
                if isinstance(effect, Name)
                else Fates(names if effect.data is None else writes, effect.file.careless)
                for effect in self._pending
            ]
        )

    def _sync(self, op: Op) -> None:
        file = self._handles[op.paths[0]][0]
        self._settle([e for e in self._pending if isinstance(e, Data) and e.file is file])

    def _sync_directory(self, op: Op) -> None:
        parent = self._find(op.paths[0] / "x")
        self._settle([e for e in self._pending if isinstance(e, Name) and e.parent is parent])


class Ext4(Disk):
    def _fates(self) -> Iterator[list[str]]:
        names = [i for i, effect in enumerate(self._pending) if isinstance(effect, Name)]
        files: dict[int, list[int]] = {}
        for i, effect in enumerate(self._pending):
            if isinstance(effect, Data):
                files.setdefault(id(effect.file), []).append(i)
        prefixes = [Fates([str(n) for n in range(len(names), -1, -1)], False)]
        for writes in files.values():
            effect = self._pending[writes[0]]
            assert isinstance(effect, Data)
            prefixes.append(Fates([str(n) for n in range(2 * len(writes), -1, -1)], effect.file.careless))
        for chosen in self._draw(prefixes):
            fates = [LOST] * len(self._pending)
            for i in names[: int(chosen[0])]:
                fates[i] = WHOLE
            for writes, halves in zip(files.values(), map(int, chosen[1:]), strict=True):
                for i in writes[: halves // 2]:
                    fates[i] = WHOLE
                if halves % 2:
                    fates[writes[halves // 2]] = HALF
            yield fates

    def _sync(self, op: Op) -> None:
        file = self._handles[op.paths[0]][0]
        self._settle([e for e in self._pending if isinstance(e, Name) or e.file is file])

    def _sync_directory(self, op: Op) -> None:
        self._settle([e for e in self._pending if isinstance(e, Name)])


MODELS: dict[str, type[Disk]] = {"posix": Posix, "ext4": Ext4}
