"""Which bytes of a damaged file differ, and whose: by chunks.bin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stopctl.core.errors import DamagedError
from stopctl.store import safetensors
from stopctl.store.files import Files, naming
from stopctl.store.hashed import CHUNK, DIGEST, FileFact, differing, read_file
from stopctl.store.manifest import CHUNKS

NAMED = 3
"""Tensors that are named."""


def where(files: Files, directory: Path, facts: Mapping[str, FileFact], file: str, found: bytes) -> str:
    """``": bytes 8388608 to 16777215 differ, in 'model/0.weight'"``; nothing where that is not known.

    Args:
        files: the file operations.
        directory: the checkpoint's.
        facts: those of its manifest.
        file: the one that is damaged.
        found: the SHA-256s of its chunks as they are.
    """
    try:
        wanted = _chunks(files, directory, facts)[file]
        damaged = differing(found, wanted)
    except (DamagedError, OSError, KeyError):
        return ""
    if not damaged:
        return ""
    begin, end = CHUNK * damaged[0], min(CHUNK * (damaged[0] + 1), facts[file].size)
    more = f" and {len(damaged) - 1} more such places" if len(damaged) > 1 else ""
    return f": bytes {begin} to {end - 1}{more} differ{_names(files, directory / file, begin, end)}"


def _chunks(files: Files, directory: Path, facts: Mapping[str, FileFact]) -> dict[str, bytes]:
    """The SHA-256s of the chunks of each file that has more than one."""
    listed, at, found = bytes(read_file(files, directory / CHUNKS, facts[CHUNKS])), 0, {}
    for name in sorted(name for name, fact in facts.items() if fact.chunked and name != CHUNKS):
        found[name] = listed[at : at + facts[name].count * DIGEST]
        at += len(found[name])
    return found


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
        return ""
    there = [
        name for name, (*_, first, last) in tensors.items() if start + first < end and begin < start + last
    ]
    names = ", ".join(repr(name[:200]) for name in there[:NAMED])
    return f", in {names}{f' and {len(there) - NAMED} more' if len(there) > NAMED else ''}" if there else ""
