"""The program that all ranks of a schedule run, and a state that knows what it has been through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stopctl import BestNotSaved, Run, SaveError
from stopctl.store import Leaf, Piece, Sharded
from support.schedules import Schedule
from support.schedules_stage import Loss, StagedTeam, Wrong
from support.schedules_world import WORLD

MODULUS = 1_000_003


class Held:
    """The state of a rank: weights that know every batch they have seen, and what each rank has for itself."""

    def __init__(self, schedule: Schedule, rank: int, size: int) -> None:
        self.weights = 1
        self.seen = 0
        self.moved = 0
        self.apart = False  # from the other ranks, where all should have the same
        self._schedule, self._rank, self._size = schedule, rank, size

    def train(self, number: int, batch: int) -> None:
        unit = (number - 1) * max(self._schedule.batches, 1) + batch
        if unit != self.seen:
            raise Wrong(f"rank {self._rank} trains batch {batch} of pass {number} as its number {self.seen}")
        self.seen, self.weights = unit + 1, after(unit + 1)
        self.moved += 1
        WORLD.elapsed[max(WORLD.rank, 0)] += self._schedule.rates[self._rank]

    def capture(self) -> dict[str, Any]:
        components: dict[str, Any] = {
            "model": {"weights": self.weights, "seen": self.seen},
            "own": {"rank": self._rank, "seen": self.seen},
        }
        components["model"]["array"] = Leaf("I64", (1,), (self.weights + self.apart).to_bytes(8, "little"))
        if self._schedule.sharded:
            piece = Piece((self._rank,), (1,), bytes([self.seen % 251]))
            components["model"]["sharded"] = Sharded("U8", (self._size,), [piece])
        return components

    def restore(self, components: Mapping[str, Any], *, allow_missing: Collection[str] = ()) -> None:
        model, own = components["model"], components.get("own")
        if own is None and "own" not in allow_missing:
            raise Wrong(f"rank {self._rank} has got no component of its own")
        check(model, own, self._rank)
        self.weights, self.seen, self.apart = model["weights"], model["seen"], False

    def shared(self) -> dict[str, Any]:
        return {"model": self.capture()["model"]}

    def loose(self, names: Collection[str], *, search: bool = False) -> Collection[str]:
        return ()

    def remedy(self, names: Collection[str]) -> str:
        return "do not"

    def per_rank(self) -> Collection[str]:
        return {"own"}

    def team(self, timeout: float) -> None:
        return None

    def version(self) -> dict[str, int]:
        return {"train()": self.moved}

    def versions(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass

    def batches(self, source: Any, steps: int | None) -> None:
        return None

    def generators(self) -> NoGenerators:
        return NoGenerators()


class NoGenerators:
    def capture(self) -> None:
        return None

    def load(self, saved: Any) -> None:
        pass


_AFTER = [1]


def after(seen: int) -> int:
    """The weights once so many batches have been trained, in order."""
    while len(_AFTER) <= seen:
        _AFTER.append((_AFTER[-1] * 31 + len(_AFTER)) % MODULUS)
    return _AFTER[seen]


def check(model: Mapping[str, Any], own: Mapping[str, Any] | None, rank: int) -> None:
    """All parts are of the same moment."""
    seen = model["seen"]
    whole = [model["weights"] == after(seen)]
    if own is not None:
        whole.append(own == {"rank": rank, "seen": seen})
    if "sharded" in model:
        array = model["sharded"]
        held = (
            [bytes(piece.data) for piece in array.pieces]
            if isinstance(array, Sharded)
            else [bytes(array.data)]
        )
        whole.append(set(b"".join(held)) == {seen % 251} and len(b"".join(held)) == array.shape[0])
    if not all(whole):
        raise Loss(f"a mixture: {model}, {own} on rank {rank}")


def program(
    schedule: Schedule,
    team: StagedTeam | None,
    told: list[tuple[Any, ...]],
    directory: Path,
    runs: dict[int, Run],
) -> dict[str, Any]:
    """What every rank runs; alone, with the metrics that all would judge.

    Args:
        told: gets what the rank is told on the way.
        runs: gets its run.
    """
    rank, size = (team.rank, team.size) if team is not None else (0, schedule.lives[0].ranks)
    held = Held(schedule, rank, size if team is not None else 1)
    run = Run(
        directory,
        state=held,
        team=team,
        reduce=None if team is None else schedule.reduce,  # type: ignore[arg-type]
        save_errors=schedule.errors,  # type: ignore[arg-type]
        durability="process",
        async_save=team is not None and schedule.beside,
        **{name: schedule.rule(getattr(schedule, name)) for name in ("stop", "save", "keep")},
    )
    runs[rank] = run
    WORLD.held[rank] = held

    def place(name: str) -> None:
        if team is not None:
            assert WORLD.stage is not None
            WORLD.stage.pass_by(name)

    def report(number: int, batch: int = 0) -> None:
        if team is None:
            metrics: dict[str, Any] = {"val_loss": schedule.shared(number, batch, size)}
        elif schedule.silent and rank:
            metrics = {}
        else:
            metrics = {"val_loss": schedule.value(rank, number, batch)}
            if schedule.weight(rank) is not None and schedule.reduce:
                metrics["count"] = schedule.weight(rank)
        try:
            decision = run.report(**metrics)
        except SaveError:
            told.append((number, batch, "SaveError"))
            if not schedule.catches:
                raise
        else:
            stop, save = decision.stop, decision.save
            told.append((number, batch, decision.new_best, stop and str(stop), save and str(save)))

    with run:
        loop = run.epochs if schedule.unit == "epochs" else run.steps
        for number in loop(schedule.planned):
            if schedule.batches:
                for batch in run.batches(range(schedule.batches)):
                    place("body")
                    held.train(number, batch)
                    if schedule.inside and (batch + 1) % schedule.inside == 0:
                        report(number, batch + 1)
            else:
                place("body")
                held.train(number, 0)
            place("trained")
            reported = bool(schedule.every) and number % schedule.every == 0
            if reported:
                report(number)
            place("reported")
            if reported and schedule.named == number and team is not None and run.stopped is None:
                try:
                    run.save(f"named-{number}", pin=False)
                except SaveError:
                    told.append((number, 0, "SaveError"))
                    if not schedule.catches:
                        raise
        place("leaving")
        now = run.progress
        end = {
            "stopped": run.stopped and str(run.stopped),
            "facts": (now.epoch, now.step, now.reports, now.best, now.best_epoch, now.best_step),
            "weights": (held.weights, held.seen),
            "checkpoints": [(info.name, info.is_best) for info in run.checkpoints]
            if team is not None
            else [],
        }
        if schedule.restores and team is not None:
            try:
                found = run.restore_best()
                end["restored"] = (found.name, found.value, held.weights)
            except BestNotSaved as error:
                end["restored"] = str(error)
    return end
