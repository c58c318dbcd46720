"""The bytes of a log as text: gzipped or not, a file or standard input, in any of the usual encodings."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from stopctl.core.words import size
from stopctl.curves.recording import CurveError

STDIN = Path("-")
"""What to give for standard input."""

UNPACK = 256 * 10**6
"""Bytes that a compressed log may have unpacked, unless more are asked for."""

HEAD = 50
"""Lines by which a format is recognized."""


@dataclass(frozen=True, slots=True)
class Source:
    """A log, read.

    Args:
        name: what to call it.
        path: the file; `STDIN`: standard input.
        lines: without their ends.
        notes: what was judged on decoding.

    ``ending`` is the suffix without ".gz", in small letters. ``head``: the first lines that say something.
    """

    name: str
    path: Path
    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()
    ending: str = field(init=False)
    head: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        plain = self.path.with_suffix("") if self.path.suffix.lower() == ".gz" else self.path
        said = (line for line in self.lines if line.strip())
        object.__setattr__(self, "ending", plain.suffix.lower())
        object.__setattr__(self, "head", tuple(line for line, _ in zip(said, range(HEAD), strict=False)))


def read_source(path: Path, unpack: int = UNPACK) -> Source:
    """Read a file, or standard input for ``-``.

    Args:
        path: the file.
        unpack: bytes that a compressed one may have unpacked.

    Raises:
        CurveError: it is not there, not ours to read, no file, too large when it is unpacked, or no text.
    """
    name = "standard input" if path == STDIN else str(path)
    try:
        if path != STDIN and path.exists() and not path.is_file():
            raise CurveError(f"{name} is no file: what a program writes is read from standard input, -")
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        if path.suffix.lower() == ".gz" or data[:2] == b"\x1f\x8b":
            data = _unpacked(data, name, unpack)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CurveError(f"{name} cannot be read: {why}") from error
    text, notes = _decoded(data, name)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return Source(name, path, tuple(lines), notes)


def _unpacked(data: bytes, name: str, limit: int) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise CurveError(
            f"{name} has more than {size(limit)} when it is unpacked: write --unpack with the MB that it has"
        )
    return text


def _decoded(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16"), ()
        except UnicodeDecodeError as error:
            raise CurveError(f"{name} begins as UTF-16 text and does not go on so") from error
    if b"\0" in data:
        raise CurveError(f"{name} is no text: give a run's directory, a log in text, or event files")
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = data.decode("latin-1")
        if any(c < " " and c not in "\t\n\r\f\x1b" for c in text):
            raise CurveError(f"{name} is no text: line {line} has bytes that no text has") from error
        return text, (f"line {line} is not UTF-8: read as Latin-1",)
