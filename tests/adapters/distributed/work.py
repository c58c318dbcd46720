"""What the ranks of a run leave behind, and whether it is bit by bit what others have left."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopctl.runs.history import reports
from stopctl.store import Leaf, Reader, Sharded


@dataclass
class Work:
    """One run, and all that its starts leave behind."""

    path: Path
    settings: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    program: str = "ddp_program"

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def environment(self, plan: list[dict[str, Any]] | None = None) -> dict[str, str]:
        """What every rank of the next start gets."""
        told = {"DIRECTORY": str(self.path), "PLAN": json.dumps(plan or []), **self.settings}
        return {f"STOPCTL_RANKS_{name}": value for name, value in told.items()}

    def told(self, kind: str, start: int) -> dict[int, Any]:
        """What the ranks of one start have written, by rank."""
        found = {int(path.name.split("-")[2]): path for path in self.path.glob(f"{kind}-{start}-*")}
        return {rank: json.loads(path.read_text()) for rank, path in sorted(found.items())}

    def ended(self, start: int) -> Ended:
        """What the ranks of the last start have ended with, and what is in the directory; whatever it is, it is whole."""
        reader = Reader(self.path / "run")
        listing = reader.list()
        assert listing.damaged == ()
        assert not [
            path for path in (self.path / "run" / "checkpoints").iterdir() if path.name.startswith(".")
        ]
        other = (
            "time",
            "seconds",
            "writer",
            "save",
        )  # when, by which process, and what a signal had saved besides
        decisions = [{k: v for k, v in line.items() if k not in other} for line in reports(reader)]
        kept = {}
        for info in listing.good:
            parts = {
                f"{name} of rank {rank}": tree
                for rank in range(info.ranks)
                for name, tree in reader.load(info, rank=rank)[0].items()
            }
            kept[info.epoch, info.step] = {
                **parts,
                "value": info.value,
                "label": info.label,
                "ranks": info.ranks,
            }
        resumed = {line["checkpoint"] for line in reader.journal() if line["event"] == "resume"}
        guarded = {(info.epoch, info.step) for info in listing.good if info.name in resumed}
        return Ended(self.told("result", start), decisions, kept, guarded)


@dataclass
class Ended:
    """The end of a run.

    Attributes:
        results: hashes of all that moves, by rank and name.
        decisions: the lines of the journal's reports.
        kept: the components of every checkpoint, by epoch and step.
        guarded: the checkpoints that a start went on from, which it does not delete.
    """

    results: dict[int, Any]
    decisions: list[dict[str, Any]]
    kept: dict[tuple[int, int], dict[str, Any]]
    guarded: set[tuple[int, int]]


def differing(found: Ended, straight: Ended, *, saved_more: bool = False) -> list[str]:
    """What differs, in words; where ``saved_more`` there have been more saves, and so others may be kept."""
    lines = []
    for rank, expected in straight.results.items():
        ours = found.results.get(rank, {})
        lines += [f"rank {rank}: {name}" for name in expected if ours.get(name) != expected[name]]
    if found.decisions != straight.decisions:
        lines.append("decisions")
    wanted = straight.kept.keys()
    if saved_more:
        best = min((parts["value"], at) for at, parts in straight.kept.items() if parts["value"] is not None)[
            1
        ]
        wanted = {best, max(wanted)}
    lines += [f"checkpoint {at} is missing" for at in wanted - found.kept.keys()]
    if not saved_more:
        lines += [f"checkpoint {at} is kept" for at in found.kept.keys() - wanted - found.guarded]
    for at in found.kept.keys() & straight.kept.keys():
        ours, theirs = found.kept[at], straight.kept[at]
        lines += [
            f"checkpoint {at}: {name}"
            for name in {**ours, **theirs}
            if not _same(ours.get(name), theirs.get(name))
        ]
    return lines


def _same(ours: Any, theirs: Any) -> bool:
    return bits(ours) == bits(theirs)


def bits(tree: Any) -> Any:
    """A tree with the bytes of its arrays; an array in pieces as one."""
    if isinstance(tree, Sharded):
        return [
            tree.dtype,
            tree.shape,
            [(piece.offsets, piece.shape, bytes(piece.data)) for piece in tree.pieces],
        ]
    if isinstance(tree, Leaf):
        return [tree.dtype, tree.shape, tree.note, bytes(tree.data)]
    if isinstance(tree, dict):
        return [type(tree).__name__, [(key, bits(value)) for key, value in tree.items()]]
    if isinstance(tree, list | tuple):
        return [type(tree).__name__, [bits(value) for value in tree]]
    return repr(tree)
