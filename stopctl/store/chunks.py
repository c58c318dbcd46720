"""Which bytes of a damaged file differ, and whose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stopctl.core.errors import DamagedError
from stopctl.store import safetensors
from stopctl.store.files import Files, naming
from stopctl.store.hashed import CHUNK, DIGEST, FileFact, differing, read_file
from stopctl.store.manifest import CHUNKS

NAMED = 3
"""Tensors that are named."""


def where(files: Files, path: Path, size: int, wanted: Callable[[], bytes], found: bytes) -> str:
    """``": bytes 8388608 to 16777215 differ, in 'model/0.weight'"``; nothing where that is not known.

    Args:
        files: the file operations.
        path: the file that is damaged.
        size: its bytes.
        wanted: gives the SHA-256s of its chunks as they were written; DamagedError, OSError if it cannot.
        found: as they are.
    """
    try:
        written = wanted()
    except (DamagedError, OSError):
        return ""
    damaged = differing(found, written)
    if not written or not damaged:
        return ""
    begin, end = CHUNK * damaged[0], min(CHUNK * (damaged[0] + 1), size)
    more = f" and {len(damaged) - 1} more such places" if len(damaged) > 1 else ""
    return f": bytes {begin} to {end - 1}{more} differ{_names(files, path, begin, end)}"


def listed(files: Files, directory: Path, facts: Mapping[str, FileFact], file: str) -> bytes:
    """The SHA-256s of the chunks of a file, by chunks.bin; none where it tells of none.

    Args:
        files: the file operations.
        directory: the checkpoint's.
        facts: those of its manifest.
        file: one of its files.
    """
    if CHUNKS not in facts or file not in facts:
        return b""
    data, at = bytes(read_file(files, directory / CHUNKS, facts[CHUNKS])), 0
    for name in sorted(name for name, fact in facts.items() if fact.chunked and name < file):
        at += 0 if name == CHUNKS else facts[name].count * DIGEST
    return data[at : at + facts[file].count * DIGEST]


def _names(files: Files, path: Path, begin: int, end: int) -> str:
    """The tensors that have bytes there, as the file's header says, which may be damaged itself."""
    try:
        with naming(path):
            handle, size = files.open(path)
            try:
                prefix = memoryview(bytearray(safetensors.PREFIX))
                files.read(handle, prefix, 0)
                length = min(int.from_bytes(prefix, "little"), safetensors.HEADER, size)
                header = memoryview(bytearray(length))
                files.read(handle, header, safetensors.PREFIX)
            finally:
                files.close(handle)
        start = safetensors.PREFIX + length
        tensors = safetensors.describe(header, size - start)
    except (DamagedError, OSError):
        return ""  # the header is damaged itself
    there = [
        name for name, (*_, first, last) in tensors.items() if start + first < end and begin < start + last
    ]
    names = ", ".join(repr(name[:200]) for name in there[:NAMED])
    return f", in {names}{f' and {len(there) - NAMED} more' if len(there) > NAMED else ''}" if there else ""
