"""The small objects of a mirror: canonical JSON with the SHA-256 of itself; no changed bit goes unnoticed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, Never, TypeAlias

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.mirror.remote import Remote
from stopctl.store import strict

Fields: TypeAlias = Mapping[str, type | tuple[type, ...]]
"""The fields of an object, and what they are."""

FORMAT = 1
LIMIT = 65 << 20
"""Bytes of one: run.json may have nearly as many."""


def encode(body: Mapping[str, Any]) -> bytes:
    """The bytes of an object; `body` is strict JSON."""
    said = {"format": FORMAT, **body}
    return strict.dumps(said | {"sha256": hashlib.sha256(strict.dumps(said)).hexdigest()})


def decode(data: bytes, key: str, fields: Fields) -> dict[str, Any]:
    """What `encode` was given.

    Args:
        data: the object's bytes.
        key: its key, for the errors.
        fields: which there are, and their types.

    Raises:
        DamagedError: anything that `encode` does not write.
        NotARunError: a newer format.
    """
    try:
        body = strict.loads(data)
    except ValueError as error:
        raise DamagedError(f"{key}: {error}") from error
    if type(body) is not dict or type(body.get("format")) is not int:
        _refuse(key, "no object with a format")
    if body["format"] > FORMAT:
        raise NotARunError(f"{key} has format {body['format']}, this stopctl reads {FORMAT}: update it")
    said = {name: value for name, value in body.items() if name not in ("format", "sha256")}
    if encode(said) != data:
        _refuse(key, "its own SHA-256 does not match")
    wrong = said.keys() ^ fields.keys() or [name for name in fields if not _is(said[name], fields[name])]
    if wrong:
        _refuse(key, f"not as it should be: {', '.join(sorted(wrong))}")
    return said


def read(remote: Remote, key: str, fields: Fields) -> dict[str, Any]:
    """`decode` of an object; FileNotFoundError, or an OSError of the store's."""
    return decode(remote.read(key, LIMIT), key, fields)


def create(remote: Remote, key: str, data: bytes) -> None:
    """Make an object; one that is there already is made if it is just this one: an answer was lost.

    Raises:
        FileExistsError: somebody else has made it.
        OSError: the store does not answer; whether it was made is not known.
    """
    try:
        remote.create(key, data)
    except FileExistsError:
        with contextlib.suppress(DamagedError):
            if remote.read(key, len(data)) == data:
                return
        raise


def strings(value: object, key: str) -> list[str]:
    """A list of str; DamagedError for anything else."""
    if type(value) is not list or not all(type(item) is str for item in value):
        _refuse(key, "no list of names")
    return value


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))


def _refuse(key: str, why: str) -> Never:
    raise DamagedError(f"{key}: {why}")
