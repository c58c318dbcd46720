"""Files compressed by Zstandard (the extra ``zstd``): written in one stream, read within a given size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stopctl.core.errors import DamagedError, SettingError
from stopctl.store.hashed import CHUNK, Bytes

LEVEL = 3

WINDOW = 1 << 23
"""Bytes that unpacking may have to remember, the largest window of our level."""


class Packed:
    """The compressed bytes of `parts`, made while they are taken; once more each time that one iterates."""

    def __init__(self, parts: Sequence[Bytes]) -> None:
        self._library = library()
        self._parts = parts
        self.unpacked = sum(map(len, parts))

    def __iter__(self) -> Iterator[Bytes]:
        stream = self._library.ZstdCompressor(level=LEVEL).compressobj(size=self.unpacked)
        for part in self._parts:
            for start in range(0, len(part), CHUNK):
                yield stream.compress(part[start : start + CHUNK])
        yield stream.flush()


def unpack(data: Bytes, size: int, name: str) -> bytearray:
    """What `Packed` made of `size` bytes; never takes much more memory than that, whatever `data` says.

    Raises:
        DamagedError: it is nothing of that kind, or of another size.
        SettingError: the library is not installed.
    """
    zstandard = library()
    unpacked = bytearray()
    try:
        if zstandard.frame_content_size(data) != size:
            raise DamagedError(f"{name}: it does not hold {size} bytes")
        stream = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(data)
        while len(unpacked) <= size and (piece := stream.read(CHUNK)):
            unpacked += piece
    except zstandard.ZstdError as error:
        raise DamagedError(f"{name}: {error}") from error
    if len(unpacked) != size:
        raise DamagedError(f"{name}: it holds other than {size} bytes")
    return unpacked


def library() -> Any:
    """The module; SettingError where it is not installed."""
    try:
        import zstandard
    except ImportError as error:
        raise SettingError("compressed checkpoints need zstandard: pip install 'stopctl[zstd]'") from error
    return zstandard
