"""The few operations on an object store; a mirror goes through them alone, so a test can replace them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Remote(Protocol):
    """One prefix of an object store; keys are relative to it, ``a/b/c``, and never begin with a slash.

    Each method happens or raises OSError, whose text names the url and the key. An operation that fails may
    have happened all the same: the answer was lost. Retries, with their deadline, are the implementation's;
    a `create` or an `upload` that is tried again finds its own first attempt and raises FileExistsError,
    which the caller settles by reading it back. No listing and no content comes from a cache.
    """

    url: str
    """The prefix, without what is secret in it: errors name it."""

    def create(self, key: str, data: bytes) -> None:
        """Make an object; FileExistsError if the key exists."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Make an object out of a local regular file, streamed; FileExistsError if the key exists."""
        ...

    def read(self, key: str, limit: int) -> bytes:
        """The bytes of an object; FileNotFoundError, or DamagedError for more than `limit` bytes."""
        ...

    def download(self, key: str, path: Path, limit: int) -> None:
        """Write an object to a new local file, streamed; FileNotFoundError, or DamagedError as of `read`."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Every key that begins with `prefix` (which ends with a slash), all pages; none is no error."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is not there is no error."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...
