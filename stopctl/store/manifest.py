"""manifest.json: what a checkpoint is, written last; and the name of its directory.

At most `LIMIT` bytes, whatever is asked to go in: reasons that do not fit into `REASONS` bytes are left out
(the journal has them all), and component names beyond `COMPONENTS` bytes stand only in state.json. The file
is canonical JSON (sorted keys, no spaces, ASCII) with the SHA-256 of itself without that field, and is only
accepted in exactly that spelling, so no changed bit goes unnoticed.

Format 2 is that of a checkpoint with a file of more than one chunk: such a file's hash is the one over those
of its chunks, which are in chunks.bin. All others are of format 1, as are those that earlier versions wrote,
where every hash is that of the whole file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Never

from stopctl.core.codec import NON_FINITE, float_to_json
from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.words import figure, size
from stopctl.store import strict
from stopctl.store.hashed import DIGEST, Bytes, FileFact


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """One checkpoint, as its verified manifest says.

    Args:
        name: that of the directory.
        path: the directory, absolute.
        epoch: passes completed.
        step: steps completed.
        seconds: training time so far, in seconds.
        value: the goal metric as reported for exactly this state; None: no report belongs to it; may be NaN.
        values: the same for other goals that rules name, by goal.
        writer: how many writers had opened the run, from 1.
        label: the name the user gave it, if any.
        pinned: never to be deleted.
        reasons: why it was saved; long ones are left out.
        components: what it holds ("model", "optimizer", ...).
        bytes: size of all its files, in bytes.
        frozen: bytes of those in the file of unchanged arrays, which it may share with other checkpoints: on
            the disk such a file is there once.
        unpacked: bytes of the other arrays' file before it was compressed; None: it is not.
        created: ISO 8601, UTC.
        ranks: how many processes have written it together.
        is_best: whether it has the best finite value of the run; the store leaves that to Run.
        mirrored: whether the run's mirror has told that it has it; the store leaves that to Run.
    """

    name: str
    path: Path
    epoch: int
    step: int
    seconds: float
    value: float | None
    writer: int
    label: str | None
    pinned: bool
    reasons: tuple[str, ...]
    components: tuple[str, ...]
    bytes: int
    created: str
    frozen: int = 0
    unpacked: int | None = None
    ranks: int = 1
    is_best: bool = False
    mirrored: bool = False
    values: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        marks = {"best": self.is_best, "pinned": self.pinned, "mirrored": self.mirrored}
        said = (
            f"value {figure(self.value)}",
            *(mark for mark, holds in marks.items() if holds),
            size(self.bytes),
        )
        return f"<CheckpointInfo {self.name}: {', '.join(said)}>"

    def _repr_html_(self) -> str:
        from stopctl.core.card import card, curve
        from stopctl.store.points import points

        rows = {
            "epoch": self.epoch, "step": self.step, "value": self.value, "best": self.is_best,
            "pinned": self.pinned, "label": self.label, "size": size(self.bytes), "created": self.created,
            "saved for": ", ".join(self.reasons), "holds": ", ".join(self.components), "path": str(self.path),
        }  # fmt: skip
        metric, series, by = points(self.path.parent.parent)
        return card(self.name, rows, drawn=curve(metric, series, self.step if by == "step" else self.epoch))


FORMATS = (1, 2)
TENSORS, FROZEN = "state.safetensors", "frozen.safetensors"
"""The arrays that may change, and those that did not from save to save, if any."""
PACKED = "state.safetensors.zst"
"""The first of them, where it is compressed."""
STATE, MANIFEST = "state.json", "manifest.json"
PARTS = "parts.json"
"""What each rank of a team has written besides, if any."""
CHUNKS = "chunks.bin"
"""The SHA-256s of the chunks of the files that have more than one, if any: file by file, by name."""
LIMIT, REASONS, COMPONENTS, VALUES = 2048, 400, 600, 150
MAX_RANKS = 10**5
MAX_WRITER = 10**18 - 1
STATE_LIMIT = 1 << 30
"""Bytes that state.json may have."""

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME = re.compile(rf"epoch-(\d{{4,20}})-step-(\d{{9,20}})-w(\d{{4,18}})(?:-({LABEL.pattern}))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def directory_name(epoch: int, step: int, writer: int, label: str | None) -> str:
    """``epoch-0010-step-000004690-w0003``, and ``-label`` where there is one."""
    name = f"epoch-{epoch:04d}-step-{step:09d}-w{writer:04d}"
    return name if label is None else f"{name}-{label}"


def encode(info: CheckpointInfo, files: Mapping[str, FileFact], parts: int = 0) -> bytes:
    """The bytes of manifest.json, at most `LIMIT`; what can be computed from the rest is not in it.

    Args:
        info: the checkpoint.
        files: its files, but for the parts of a team.
        parts: bytes of those.
    """
    components = info.components if len(strict.dumps(info.components)) <= COMPONENTS else None
    reasons = list(info.reasons)
    while len(strict.dumps(reasons)) > REASONS:
        reasons.pop()
    body: dict[str, Any] = {
        "format": format_of(files),
        "epoch": info.epoch,
        "step": info.step,
        "seconds": info.seconds,
        "value": None if info.value is None else float_to_json(info.value),
        "writer": info.writer,
        "label": info.label,
        "pinned": info.pinned,
        "reasons": reasons,
        "components": components,
        "created": info.created,
        "files": {name: fact.to_json() for name, fact in files.items()},
    }
    if info.values:
        body["values"] = {goal: float_to_json(value) for goal, value in info.values.items()}
    if info.unpacked is not None:
        body["unpacked"] = info.unpacked
    if PARTS in files:
        body |= {"ranks": info.ranks, "parts": parts}
    return strict.dumps(body | {"sha256": _hash(body)}, sort_keys=True)


def parse(data: Bytes, folder: Path) -> tuple[CheckpointInfo, dict[str, FileFact]]:
    """What `data` says of a checkpoint in `folder`; no components if their names are in state.json only.

    Raises:
        DamagedError: anything that `encode` does not write.
    """
    if len(data) > LIMIT:
        _refuse(f"longer than {LIMIT} bytes")
    try:
        body = strict.loads(data)
    except ValueError as error:
        raise DamagedError(f"{MANIFEST}: {error}") from error
    if type(body) is not dict:
        _refuse("no object")
    if type(body.get("format")) is not int or body["format"] not in FORMATS:
        _refuse(f"format {body.get('format')!r}, this version reads {' and '.join(map(str, FORMATS))}")
    if not _is_signed(body, bytes(data)):
        _refuse("its own SHA-256 does not match")
    files, unpacked = body.pop("files", None), body.pop("unpacked", None)
    ranks, parts = body.pop("ranks", None), body.pop("parts", None)
    values = body.pop("values", None)
    written, _ = body.pop("format"), body.pop("sha256")
    if not _are_files(files) or body.keys() != _FIELDS.keys():
        _refuse("not the fields of a manifest")
    if not are_values({} if values is None else values):
        _refuse(f"values are wrong: {str(values)[:100]}")
    if not (is_count(unpacked) if PACKED in files else unpacked is None):
        _refuse(f"unpacked is wrong: {str(unpacked)[:100]}")
    if not (is_ranks(ranks) and is_count(parts) if PARTS in files else ranks is None and parts is None):
        _refuse(f"ranks or parts are wrong: {str(ranks)[:100]}, {str(parts)[:100]}")
    for field, value in body.items():
        if not _FIELDS[field][0](value):
            _refuse(f"{field} is wrong: {str(value)[:100]}")
    facts = facts_of(files, written)
    if chunks_size(facts) != (facts[CHUNKS].size if CHUNKS in facts else 0):
        _refuse(f"{CHUNKS} is not that of its files")
    if written != format_of(facts):
        _refuse(f"format {written}, but no file has more than one chunk")
    body["components"] = body["components"] or ()
    sizes = {name: fact.size for name, fact in facts.items()}
    body["values"] = values or {}
    info = _info(folder, body, len(data) + sum(sizes.values()) + (parts or 0))
    return replace(info, frozen=sizes.get(FROZEN, 0), unpacked=unpacked, ranks=ranks or 1), facts


def parse_as(name: str, data: Bytes, folder: Path) -> tuple[CheckpointInfo, dict[str, FileFact]]:
    """What `data` says of the checkpoint of this name, see `parse`; DamagedError for that of another."""
    info, facts = parse(data, folder)
    if info.name != name:
        _refuse(f"it is that of {info.name}")
    return info, facts


def draft(folder: Path, **fields: Any) -> CheckpointInfo:
    """A checkpoint that is to be written, of 0 bytes so far; SettingError for a field that cannot be."""
    for field, (right, wanted) in _FIELDS.items():
        if not right(fields[field]):
            raise SettingError(f"the {field} of a checkpoint is {wanted}, not {fields[field]!r}")
    if not are_values(fields.get("values", {})):
        raise SettingError(
            f"the values of a checkpoint are numbers by goal, at most {VALUES} bytes of JSON, not "
            f"{fields['values']!r}: let fewer rules name goals of their own"
        )
    return _info(folder, fields, 0)


def _info(folder: Path, fields: dict[str, Any], size: int) -> CheckpointInfo:
    name = directory_name(fields["epoch"], fields["step"], fields["writer"], fields["label"])
    exact = {
        "seconds": float(fields["seconds"]),
        "value": None if fields["value"] is None else float(fields["value"]),
        "reasons": tuple(fields["reasons"]),
        "components": tuple(fields["components"]),
        "values": {goal: float(value) for goal, value in sorted(fields.get("values", {}).items())},
    }
    return CheckpointInfo(name=name, path=folder / name, bytes=size, **(fields | exact))


def facts_of(files: Mapping[str, Any], written: int) -> dict[str, FileFact]:
    """What JSON of a format has of files, each of which `is_fact`."""
    return {name: (FileFact if written == 1 else FileFact.of)(**fact) for name, fact in files.items()}


def format_of(facts: Mapping[str, FileFact]) -> int:
    """The format in which these files are told of."""
    return 2 if any(fact.chunked for fact in facts.values()) else 1


def chunks_size(facts: Mapping[str, FileFact]) -> int:
    """Bytes of the chunks.bin that goes with these files; 0: there is none."""
    return sum(fact.count * DIGEST for name, fact in facts.items() if fact.chunked and name != CHUNKS)


def is_count(value: object) -> bool:
    """Whether `value` is an int from 0 that fits into 64 bits."""
    return type(value) is int and 0 <= value < 2**63


def is_ranks(value: object) -> bool:
    """Whether `value` is a number of ranks: an int from 1 to `MAX_RANKS`."""
    return is_count(value) and 1 <= value <= MAX_RANKS  # type: ignore[operator]


def is_fact(value: object) -> bool:
    """Whether `value` is what JSON has of a `FileFact`."""
    return (
        type(value) is dict
        and value.keys() == {"size", "sha256"}
        and is_count(value["size"])
        and type(value["sha256"]) is str
        and _SHA256.fullmatch(value["sha256"]) is not None
    )


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**63)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _is_value(value: object) -> bool:
    return value is None or _is_number(value) or (type(value) is str and value in NON_FINITE)


def are_values(values: object) -> bool:
    """Whether `values` are numbers by goal, few enough for a manifest."""
    return (
        type(values) is dict
        and all(
            type(goal) is str and value is not None and _is_value(value) for goal, value in values.items()
        )
        and (not values or _length(values) <= VALUES)
    )


def _length(values: dict[str, Any]) -> int:
    return len(strict.dumps({goal: float_to_json(float(value)) for goal, value in values.items()}))


def _is_label(value: object) -> bool:
    return value is None or (type(value) is str and LABEL.fullmatch(value) is not None)


def _are_strings(value: object) -> bool:
    return isinstance(value, list | tuple) and all(type(item) is str for item in value)


def _are_files(value: object) -> bool:
    """Exactly our files: so no name can lead anywhere else."""
    return (
        type(value) is dict
        and value.keys() - {FROZEN, PARTS, CHUNKS} in ({TENSORS, STATE}, {PACKED, STATE})
        and all(map(is_fact, value.values()))
    )


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epoch": (is_count, "an int from 0"),
    "step": (is_count, "an int from 0"),
    "seconds": (_is_seconds, "a finite number from 0"),
    "value": (_is_value, "a number or None"),
    "writer": (is_count, "an int from 0"),
    "label": (_is_label, "at most 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"),
    "pinned": (lambda value: type(value) is bool, "a bool"),
    "reasons": (_are_strings, "a list of str"),
    "components": (lambda value: value is None or _are_strings(value), "a list of str"),
    "created": (lambda value: type(value) is str, "a str"),
}


def order(name: str) -> tuple[int, int, int]:
    """(step, epoch, writer) of a directory's name that matches `NAME`."""
    _, epoch, _, step, writer = name.split("-")[:5]
    return int(step), int(epoch), int(writer[1:])


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(strict.dumps(body, sort_keys=True)).hexdigest()


def _is_signed(body: dict[str, Any], data: bytes) -> bool:
    """Whether `data` is the canonical spelling of `body`, and its hash that of itself without the hash.

    In that spelling the field stands behind every other one that holds a string of its look.
    """
    said = body.get("sha256")
    if type(said) is not str or strict.dumps(body, sort_keys=True) != data:
        return False
    before, field, after = data.rpartition(f'"sha256":"{said}",'.encode())
    return bool(field) and hashlib.sha256(before + after).hexdigest() == said


def _refuse(why: str) -> Never:
    raise DamagedError(f"{MANIFEST}: {why}")
