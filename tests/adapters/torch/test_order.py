"""The order of the rows is proved on a resume, and what other ranks have left of an epoch is shared out anew."""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import data

from stopctl import Every, MismatchError
from stopctl.store import Reader
from stopctl_torch import Run, loaders, order
from stopctl_torch.order import Order, fold
from stopctl_torch.rng import PartGenerators
from stopctl_torch.samplers import Histories

ROWS, BATCH = 12, 2


class Crash(Exception):
    """The process ends here."""


class Salted(data.Sampler):
    """An order that each process makes up for itself."""

    def __init__(self, salt: int) -> None:
        self.rows = [(row * salt) % 13 - 1 for row in range(1, 13)]

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Any:
        return iter(self.rows)


class Stubborn(data.DistributedSampler):
    """One that knows its own order."""

    def __iter__(self) -> Any:
        return iter(range(self.num_samples))


def loader(sampler: Any = None, **settings: Any) -> Any:
    def made() -> Any:
        given = (
            sampler(settings) if callable(sampler) else data.DistributedSampler(range(ROWS), 2, 0, **settings)
        )
        return data.DataLoader(range(ROWS), BATCH, sampler=given)  # type: ignore[arg-type]

    return made


def before(sampler: Any, epoch: int, count: int) -> None:
    sampler.set_epoch(epoch)


def own(sampler: Any, epoch: int, count: int) -> None:
    """The script counts by itself, in each process from 0."""
    sampler.set_epoch(count)


def never(sampler: Any, epoch: int, count: int) -> None:
    pass


def process(
    directory: Any,
    made: Any,
    crash: tuple[int, int] | None = None,
    first: Any = before,
    last: Any = never,
    **more: Any,
) -> dict[tuple[int, int], list[int]]:
    """One process, to its end or until a batch of an epoch; returns the rows of each batch."""
    seen, source = {}, made()
    model = torch.nn.Linear(1, 1)
    more = {"save": Every(steps=1), "stop": None, "durability": "process", **more}
    with Run(directory, model=model, **more) as run:
        for count, epoch in enumerate(run.epochs(4)):
            first(source.sampler, epoch, count)
            for rows in run.batches(source):
                if (epoch, run.batch) == crash:
                    raise Crash
                seen[epoch, run.batch] = rows.tolist()
            run.report(val_loss=1 / epoch)
            last(source.sampler, epoch, count)
    return seen


def crashed(directory: Any, made: Any, crash: tuple[int, int] = (3, 3), **more: Any) -> None:
    with pytest.raises(Crash):
        process(directory, made, crash, **more)


OTHERS = {
    "a script that counts its own epochs": (loader(), loader(), own, "sampler.epoch 2 when saved, 0 now"),
    "another seed": (loader(), loader(seed=3), before, "sampler.seed 0 when saved, 3 now"),
    "no shuffle": (loader(), loader(shuffle=False), before, "sampler.shuffle True when saved, False now"),
    "an order made up": (
        loader(lambda _: Salted(2)),
        loader(lambda _: Salted(5)),
        never,
        "digest of their row numbers was",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_order_inside_an_epoch_is_a_mismatch_that_names_both(tmp_path, kind):
    saved, given_now, first, text = OTHERS[kind]
    crashed(tmp_path, saved, first=first)
    with pytest.raises(MismatchError, match=text):
        process(tmp_path, given_now, first=first)
    process(tmp_path, given_now, first=first, allow_missing={"run.data"})


SAME = {
    "the epoch before the batches": (loader(), before, never),
    "the epoch after the report": (loader(), never, before),
    "in order, and no epoch": (loader(shuffle=False), never, never),
    "an order that is always the same": (loader(lambda _: Salted(2)), never, never),
    "a sampler that knows better": (loader(lambda _: Stubborn(range(ROWS), 2, 0)), never, never),
    "a random sampler": (loader(lambda _: data.RandomSampler(range(ROWS))), never, never),
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("old", [False, True])
def test_the_right_program_goes_on_and_hears_nothing(tmp_path, kind, old, monkeypatch, caplog):
    made, first, last = SAME[kind]
    if old:  # a version that did not prove the order

        def capture(self: Any, done: int, real: Any = loaders.Replayed.capture) -> Any:
            tree = real(self, done)
            tree.pop("order", None)
            for each in tree.get("samplers", {}).values():
                each.pop("ahead", None)
            return tree

        monkeypatch.setattr(loaders.Replayed, "capture", capture)
    torch.manual_seed(0)
    straight = process(tmp_path / "straight", made, first=first, last=last)
    torch.manual_seed(0)
    crashed(tmp_path / "broken", made, first=first, last=last)
    monkeypatch.undo()
    torch.manual_seed(1)
    again = process(tmp_path / "broken", made, first=first, last=last)
    assert again == {at: rows for at, rows in straight.items() if at >= (3, 3)}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("settings", "first", "told"),
    [({}, never, 1), ({"shuffle": False}, never, 0), ({}, before, 0), ({}, own, 0)],
)
def test_a_sampler_whose_epoch_stands_still_is_told_once(tmp_path, settings, first, told, caplog):
    process(tmp_path, loader(**settings), first=first)
    texts = [line["text"] for line in Reader(tmp_path).journal() if line["event"] == "noticed"]
    assert len(texts) == len(caplog.records) == told
    if told:
        assert "epoch 2 has the order of the one before: write sampler.set_epoch(epoch)" in texts[0]


def test_in_a_loop_of_steps_the_data_has_its_own_epoch(tmp_path, caplog):
    def steps(directory: Any, crash: int = -1) -> list[Any]:
        source, seen = loader()(), []
        with Run(directory, model=torch.nn.Linear(1, 1), save=Every(steps=1), stop=None) as run:
            batches = run.batches(source)
            for step in run.steps(10):
                source.sampler.set_epoch(batches.epoch)
                if step == crash:
                    raise Crash
                seen.append(next(batches).tolist())
                run.report(val_loss=1.0)
        return seen

    straight = steps(tmp_path / "straight")
    with pytest.raises(Crash):
        steps(tmp_path / "broken", 6)
    assert steps(tmp_path / "broken") == straight[5:]
    assert caplog.records == []


@given(
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), max_size=9),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_a_digest_is_that_of_the_batches_done_however_many_are_drawn_ahead(batches, ahead, behind):
    seen = Order(batches, ahead)
    rows = iter(seen)
    digest: int | None = 0
    for done, batch in enumerate(batches, 1):
        assert next(rows) == batch
        digest = fold(digest, batch)
        assert seen.digest(done) == digest
    if behind < len(batches):
        expected: int | None = 0
        for batch in batches[: len(batches) - behind]:
            expected = fold(expected, batch)
        known = seen.digest(len(batches) - behind)
        assert known == (expected if behind < ahead + 4 else None)
    assert len(seen) == len(batches)


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        ([3, 1], True),
        (3, True),
        (torch.tensor([3, 1]), True),
        (["a"], False),
        ([2**63], False),
        ([(1, 2)], False),
    ],
)
def test_what_is_no_row_number_is_not_proved(rows, known):
    assert (fold(0, rows) is not None) == known
    assert fold(None, rows) is None


def rank_of(
    n: int, size: int, replicas: int, rank: int, epoch: int = 2, drop: bool = False, **more: Any
) -> Any:
    """The batches of one rank of so many, in an epoch of n rows."""
    sampler: Any = data.DistributedSampler(range(n), replicas, rank, drop_last=drop)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    batches: Any = data.DataLoader(range(n), size, sampler=sampler, drop_last=drop, **more)  # type: ignore[arg-type]
    return loaders.batches(batches, PartGenerators({}), Histories().of(batches)), sampler


def trained(
    n: int, size: int, stages: list[tuple[int, int]], drop: bool = False, **more: Any
) -> tuple[list[int], int, Any]:
    """The rows of an epoch that so many ranks have begun, and others gone on with; and those left for the last.

    Args:
        stages: how many ranks, and how many batches each does before all are lost; the last do all that is left.
    """
    rows: list[int] = []
    saved: list[Any] = []
    own: dict[int, list[int]] = defaultdict(list)
    done = left = 0
    for i, (replicas, count) in enumerate(stages):
        ranks, done_before, left, per_rank = [], done, n - len(rows), set()
        for rank in range(replicas):
            ranks.append(rank_of(n, size, replicas, rank, drop=drop, **more)[0])
            there = ranks[-1]
            state = saved[rank if rank < len(saved) else 0] if done else None
            batches = there.resume(2, done_before, state) if done_before else there.begin(2)
            assert there.elastic
            todo = there.length - done_before
            todo = todo if i == len(stages) - 1 else min(count, todo)
            mine = [row for _ in range(todo) for row in next(batches).tolist()]
            rows += mine
            own[rank] += mine
            per_rank.add((todo, len(mine)))
            assert i < len(stages) - 1 or next(batches, None) is None
        assert len(per_rank) == 1  # no rank waits for the last batch of another
        done += todo
        saved = [there.capture(done) for there in ranks] if done else []
    return rows, left, own


STAGES = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 3), STAGES)
def test_whatever_the_numbers_of_ranks_each_row_of_an_epoch_is_trained_once(n, size, stages):
    rows, left, _ = trained(n, size, stages)
    assert {*rows} == {*range(n)}
    assert len(rows) - n < max(ranks for ranks, _ in stages)
    if left > 0 and left % stages[-1][0] == 0:
        assert len(rows) == n


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 3), STAGES)
def test_where_a_rest_is_dropped_none_is_trained_twice(n, size, stages):
    rows, _, _ = trained(n, size, stages, drop=True)
    assert len(rows) == len({*rows})
    assert n - len(rows) < stages[-1][0] * size


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_a_share_of_all_rows_is_what_a_distributed_sampler_gives(n, size, replicas, drop):
    for rank in range(replicas):
        there, sampler = rank_of(n, size, replicas, rank, drop=drop)
        how = {"size": size, "drop_last": drop, "drop_batch": drop}
        shared = order.share(order.rows_of(sampler), 0, replicas, rank, **how)
        assert shared == [batch.tolist() for batch in there.begin(2)]


@pytest.mark.parametrize("more", [{}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}])
def test_a_rest_goes_on_as_any_epoch_does_and_the_next_is_an_ordinary_one(more):
    _, _, straight = trained(24, 2, [(3, 2), (2, 9)])
    assert trained(24, 2, [(3, 2), (2, 1), (2, 1), (2, 9)], **more)[2] == straight
    state = rank_of(24, 2, 3, 0)[0]
    next(state.begin(2))
    there, sampler = rank_of(24, 2, 2, 0, **more)
    rest = [batch.tolist() for batch in there.resume(2, 1, state.capture(1))]
    assert (len(rest), there.length) == (5, 6)  # of 18 rows that are left
    sampler.set_epoch(3)
    straight_next = [batch.tolist() for batch in rank_of(24, 2, 2, 0, epoch=3)[0].begin(3)]
    assert [batch.tolist() for batch in there.begin(3)] == straight_next
    assert there.length == 6


def test_other_rows_are_not_shared_out():
    saved = rank_of(24, 2, 3, 0)[0]
    next(saved.begin(2))
    for n, size, text in (
        (26, 2, "rows=24, now it has 26"),
        (24, 3, "batch_size=2, now it has 3"),
    ):
        with pytest.raises(MismatchError, match=text):
            rank_of(n, size, 2, 0)[0].resume(2, 1, saved.capture(1))


MUTANTS = {
    "forgets the rows of a lost rank": ("rest[rank::replicas]", "rest[rank :: replicas + 1]"),
    "trains again what was done": ("rows[gone:]", "rows[:]"),
    "gives each rank all that is left": ("rest[rank::replicas]", "rest[:]"),
    "leaves out what does not divide": ("elif over:", "elif not rows:"),
    "leaves out a smaller last batch": ("if drop_batch", "if True"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_share_out_that_is_wrong_is_noticed(name, monkeypatch):
    old, new = MUTANTS[name]
    source = inspect.getsource(order.share)
    assert source.count(old) == 1
    scope: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + source.replace(old, new), scope)
    monkeypatch.setattr(order, "share", scope["share"])
    with pytest.raises((AssertionError, StopIteration, MismatchError)):
        for n, ranks in ((23, 2), (24, 2)):
            rows, _, _ = trained(n, 2, [(4, 1), (ranks, 2), (1, 9)])
            assert sorted(rows) == [*range(n)]
            rows, _, _ = trained(n, 2, [(4, 1), (ranks, 9)])
            assert {*rows} == {*range(n)}
            assert len(rows) - n < ranks
