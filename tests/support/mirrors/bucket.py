"""An object store in memory: the operations of a mirror as one seam, where each can fail, be lost, late or the last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopctl.core.errors import DamagedError

WRITES = ("create", "upload", "delete")


class Died(BaseException):
    """The process is dead: nothing of it runs any more."""


class Bucket(dict[str, bytes]):
    """The objects, by key; atomic and consistent, as S3 is. `made` tells in which order they came."""

    def __init__(self, objects: Mapping[str, bytes] = MappingProxyType({})) -> None:
        super().__init__(objects)
        self.made = dict(getattr(objects, "made", {}))

    def create(self, key: str, data: bytes) -> None:
        if key in self:
            raise FileExistsError(f"{key} exists")
        self[key] = data
        self.made[key] = len(self.made)

    def get_bytes(self, key: str, limit: int) -> bytes:
        if key not in self:
            raise FileNotFoundError(f"{key} is not there")
        if len(self[key]) > limit:
            raise DamagedError(f"{key}: more than {limit} bytes")
        return self[key]

    def keys_below(self, prefix: str) -> list[str]:
        assert prefix.endswith("/")
        return sorted(key for key in self if key.startswith(prefix))

    def drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.pop(key, None)


Seam = Callable[[str, Callable[[], Any]], Any]


class Memory:
    """A `Remote` of one machine on a bucket; `seam` is given each operation's name and what it does."""

    url = "memory://bucket/run"

    def __init__(self, bucket: Bucket, seam: Seam = lambda operation, does: does()) -> None:
        self.bucket, self.seam = bucket, seam

    def create(self, key: str, data: bytes) -> None:
        self.seam("create", lambda: self.bucket.create(key, data))

    def upload(self, key: str, path: Path) -> None:
        data = path.read_bytes()
        self.seam("upload", lambda: self.bucket.create(key, data))

    def read(self, key: str, limit: int) -> bytes:
        return self.seam("read", lambda: self.bucket.get_bytes(key, limit))

    def download(self, key: str, path: Path, limit: int) -> None:
        def does() -> None:
            path.write_bytes(self.bucket.get_bytes(key, limit))

        self.seam("download", does)

    def list(self, prefix: str) -> list[str]:
        return self.seam("list", lambda: self.bucket.keys_below(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        gone = list(keys)
        if gone:
            self.seam("delete", lambda: self.bucket.drop(gone))

    def close(self) -> None:
        pass


class Faults:
    """A seam that counts the operations, and at number `at` (from 0) does what `kind` says.

    error: nothing happens, OSError. lost: it happens, OSError. again: it happens, and is tried again.
    late: OSError, and it happens `LATE` operations later (what only reads does not). before, after: the
    process dies before it or after it. away: no operation does anything from there on, for `AWAY` of them.
    """

    KINDS = ("error", "lost", "again", "late", "before", "after", "away")
    LATE, AWAY = 7, 5

    def __init__(self, kind: str = "", at: int = -1) -> None:
        self.kind, self.at, self.count = kind, at, 0
        self.meanwhile: Callable[[], None] | None = None
        self._late: tuple[int, Callable[[], Any]] | None = None

    def __call__(self, operation: str, does: Callable[[], Any]) -> Any:
        number, self.count = self.count, self.count + 1
        self.land(number)
        if self.kind == "away" and self.at <= number < self.at + self.AWAY:
            raise OSError("the store is away")
        if number != self.at:
            return does()
        match self.kind:
            case "meanwhile":
                assert self.meanwhile is not None
                self.meanwhile()
                return does()
            case "before":
                raise Died
            case "after":
                does()
                raise Died
            case "again":
                does()
                return does()
            case "lost":
                does()
            case "late" if operation in WRITES:
                self._late = number + self.LATE, does
        raise OSError("the answer was lost")

    def land(self, number: float = float("inf")) -> None:
        """What is late happens, if it is due."""
        if self._late is not None and number >= self._late[0]:
            (_, does), self._late = self._late, None
            with contextlib.suppress(OSError):  # a create that came second
                does()
