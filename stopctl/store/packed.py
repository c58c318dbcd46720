"""Arrays that earlier versions compressed by Zstandard: only read, within what is needed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from stopctl.core.errors import DamagedError, SettingError
from stopctl.store import safetensors
from stopctl.store.files import STEP
from stopctl.store.hashed import Bytes

WINDOW = 1 << 23
"""Bytes that unpacking may have to remember, the largest window of what was written."""


def unpack(data: Bytes, size: int, name: str, arrays: Collection[str]) -> bytearray:
    """The safetensors file of `size` bytes that was compressed.

    Its header is unpacked first: nothing more is, unless it describes just that size, and only `arrays`.

    Args:
        data: one Zstandard frame.
        size: bytes that the manifest says it holds.
        name: the file's.
        arrays: the names of those that the checkpoint's components are made of.

    Raises:
        DamagedError: it is nothing of that kind, of another size, or holds an array that nobody needs.
        SettingError: the library is not installed.
    """
    zstandard = _library()
    try:
        if zstandard.frame_content_size(data) != size:
            raise DamagedError(f"{name}: it does not hold {size} bytes")
        stream = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(data)
        found = bytearray()
        _read(stream, found, safetensors.PREFIX)
        length = int.from_bytes(found, "little")
        if not length <= min(size - len(found), safetensors.HEADER):
            raise DamagedError(f"{name}: a header of {length} bytes")
        _read(stream, found, length)
        header = memoryview(found)[safetensors.PREFIX :]
        if more := safetensors.describe(header, size - len(found)).keys() - set(arrays):
            raise DamagedError(f"{name}: {min(more)[:200]!r} is in no component")
        del header  # a bytearray of which there are views does not grow
        _read(stream, found, size - len(found))
        if len(found) != size or stream.read(1):
            raise DamagedError(f"{name}: it holds other than {size} bytes")
    except zstandard.ZstdError as error:
        raise DamagedError(f"{name}: {error}") from error
    return found


def _read(stream: Any, found: bytearray, count: int) -> None:
    """Append `count` bytes, or as many as there are."""
    end = len(found) + count
    while len(found) < end and (piece := stream.read(min(STEP, end - len(found)))):
        found += piece


def _library() -> Any:
    """The module; SettingError where it is not installed."""
    try:
        import zstandard
    except ImportError as error:
        raise SettingError("this checkpoint is compressed: pip install 'stopctl[zstd]' to read it") from error
    return zstandard
