"""What run.batches() returns: it knows its length, goes on from pass to pass, and stands beside another one."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
from tqdm import tqdm

from run.test_loop import Crash, Telling
from stopctl import Every, Indices, MismatchError, OrderError, Run, SettingError
from stopctl.state.data import DATA
from stopctl.store import Reader

SOURCES = {
    "indices": lambda: Indices(7, batch_size=2, seed=5),
    "a list": lambda: [[1], [2], [3]],
    "one that tells its position": lambda: Telling(3),
}


def opened(directory, state, **settings):
    settings = {"save": Every(steps=1), "stop": None, "durability": "process", **settings}
    return Run(directory, state=state, **settings)


def stepping(directory, source, n=11, crash=-1, **given):
    """Steps that take none, one or two batches each, and draw before and after; what was seen, and the end."""
    random.seed(1)
    state, seen = {"w": 0.0}, {}
    with opened(directory, state) as run:
        data = run.batches(source, **given)
        for step in run.steps(n):
            state["w"] += random.random()
            rows = [np.asarray(next(data)).tolist() for _ in range(step % 3)]
            if step == crash:
                raise Crash
            state["w"] = state["w"] * 0.9 + random.random() + float(sum(np.sum(each) for each in rows))
            seen[step] = rows
            if step % 4 == 0:
                run.report(val_loss=state["w"])
        assert run.progress.step == n
        return seen, state["w"], random.random(), data.epoch


@pytest.mark.parametrize("kind", SOURCES)
def test_steps_go_on_from_epoch_to_epoch_of_the_data_and_after_a_crash_as_if_there_was_none(tmp_path, kind):
    straight, *end = stepping(tmp_path / "straight", SOURCES[kind]())
    assert end[-1] > 3  # several epochs of it
    for crash in range(1, 12):
        with pytest.raises(Crash):
            stepping(tmp_path / str(crash), SOURCES[kind](), crash=crash)
        again, *rest = stepping(tmp_path / str(crash), SOURCES[kind]())
        assert rest == end
        assert again == {step: rows for step, rows in straight.items() if step >= crash}


def test_each_epoch_of_the_data_has_another_order_and_each_row_once(tmp_path):
    with opened(tmp_path, {"w": 0}) as run:
        data = run.batches(Indices(6, batch_size=2, seed=1))
        rows = [next(data).tolist() for _ in run.steps(6)]
    first, second = (np.concatenate(each).tolist() for each in (rows[:3], rows[3:]))
    assert sorted(first) == sorted(second) == [*range(6)] != first != second
    assert Indices(6, batch_size=2, seed=1).epoch(2).__next__().tolist() == rows[3]


def test_it_may_be_zipped_with_the_steps_and_end_an_epoch_early(tmp_path):
    with opened(tmp_path, {"w": 0}) as run:
        data = run.batches([1, 2, 3], steps=2)
        assert (len(data), list(zip(run.steps(5), data, strict=False))) == (
            2,
            [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)],
        )
    with opened(tmp_path, {"w": 0}) as run:
        data = run.batches([1, 2, 3], steps=2)
        assert list(zip(run.steps(8), data, strict=False)) == [(6, 2), (7, 1), (8, 2)]


def test_beside_epochs_it_goes_on_from_one_to_the_next(tmp_path):
    def train(directory, crash=None):
        seen = {}
        with opened(directory, {"w": 0}) as run:
            other = run.batches([10, 20, 30], name="other")
            for epoch in run.epochs(3):
                for batch in run.batches([1, 2]):
                    if (epoch, batch) == crash:
                        raise Crash
                    seen[epoch, batch] = next(other)
                run.report(val_loss=1.0)
        return seen

    straight = train(tmp_path / "straight")
    assert [*straight.values()] == [10, 20, 30, 10, 20, 30]
    for crash in straight:
        broken = tmp_path / "{}-{}".format(*crash)
        with pytest.raises(Crash):
            train(broken, crash)
        assert train(broken) == {at: batch for at, batch in straight.items() if at >= crash}


def paired(run, told):
    return zip(run.batches(Indices(4, batch_size=1, seed=1)), run.batches(told, name="b"), strict=False)


def beside(run, told):
    other = run.batches(told, name="b")
    return (
        (batch, random.random(), next(other, None)) for batch in run.batches(Indices(4, batch_size=1, seed=1))
    )


def reported_beside(run, told):
    other = run.batches(told, name="b")
    for batch in run.batches([1, 2, 3, 4]):
        yield batch, next(other, None)
        if batch != 1:
            run.report(val_loss=1.0)


def shorter_beside(run, told):
    other = run.batches([7, 8], name="b")
    return ((batch, next(other, None)) for batch in run.batches([1, 2, 3, 4]))


def one_after_the_other(run, told):
    yield from ((1, batch) for batch in run.batches([1, 2]))
    yield from ((2, batch) for batch in run.batches(told, name="b"))


@pytest.mark.parametrize("kind", [paired, beside, reported_beside, shorter_beside, one_after_the_other])
def test_several_data_an_epoch_go_on_together(tmp_path, kind):
    def train(directory, crash=-1):
        random.seed(2)
        seen, left, state, told = [], crash, {"w": 0.0}, Telling(5)
        with opened(directory, state) as run:
            for epoch in run.epochs(3):
                for batch in kind(run, told):
                    if left == 0:
                        raise Crash
                    left -= 1
                    state["w"] += random.random()
                    seen.append((epoch, str(batch)))
                run.report(val_loss=state["w"])
            return seen, state["w"], random.random(), run.progress.step

    straight, *end = train(tmp_path / "straight")
    for crash in range(1, len(straight)):
        with pytest.raises(Crash):
            train(tmp_path / str(crash), crash)
        again, *rest = train(tmp_path / str(crash))
        assert (again, rest) == (straight[len(straight) - len(again) :], end)
        assert len(straight) - len(again) in (crash, crash - 1)  # after a last batch nothing is saved


def test_a_batch_that_is_drawn_in_the_body_of_another_counts_no_step(tmp_path):
    with opened(tmp_path, {"w": 0}) as run:
        for _ in run.epochs(1):
            for one, other in zip(run.batches([1, 2, 3]), run.batches([4, 5], name="b"), strict=False):
                assert (run.batch, other) == (one, one + 3)
            run.report(val_loss=1.0)
    assert run.progress.step == 2


WRAPPED = {
    "held": lambda data: data,
    "enumerated": enumerate,
    "a bar": lambda data: tqdm(data, disable=True),
    "a bar of enumerated": lambda data: tqdm(enumerate(data), disable=True),
    "an iterator": iter,
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_break_counts_the_same_whoever_holds_the_iterator(tmp_path, kind):
    with opened(tmp_path, {"w": 0}) as run:
        for epoch in run.epochs(2):
            held = WRAPPED[kind](run.batches([1, 2, 3]))
            for _ in held:
                if run.batch == 2:
                    if epoch == 2:
                        run.report(val_loss=2.0)
                    break
            run.report(val_loss=1.0)
        assert (run.progress.epoch, run.progress.step, run.progress.reports) == (2, 3, 3)


def test_it_knows_its_data(tmp_path):
    class Loader(list):
        dataset, batch_size = "rows", 4

    with opened(tmp_path, {"w": 0}) as run:
        data = run.batches(Loader([1, 2, 3]))
        assert (len(data), data.dataset, data.batch_size, data.epoch) == (3, "rows", 4, 1)
        for _ in run.epochs(2):
            assert list(tqdm(data, disable=True)) == [1, 2, 3]  # of this epoch
            run.report(val_loss=1.0)
            assert len(data) == 3
        for epoch in run.epochs(3):
            data = run.batches(Telling(2), steps=1)
            assert (len(data), data.epoch, next(data)) == (1, epoch, 1)
            assert list(data) == []
            endless = run.batches(Telling(2), name="c")
            with pytest.raises(TypeError, match="nobody knows how many batches this Telling has"):
                len(endless)
            with pytest.raises(AttributeError, match="dataset"):
                _ = endless.dataset


class Lying(list):
    """Has more than it says, or nothing."""

    def __init__(self, given):
        super().__init__(given)

    def state_dict(self):
        return {}

    load_state_dict = print


def in_steps(call):
    def misuse(run):
        for _ in run.steps(2):
            call(run)

    return misuse


def after_a_report(run):
    data = run.batches([1])
    for _ in run.steps(1):
        run.report(val_loss=1.0)
        next(data)


def accumulated(run):
    data = run.batches([1, 2], accumulate=2)
    for _ in run.steps(1):
        next(data)


def made_twice(run):
    data, _ = run.batches([1]), run.batches([2])
    for _ in run.steps(1):
        next(data)


def nothing(run):
    data = run.batches([])
    for _ in run.steps(1):
        next(data)


def both_ways(run):
    data = run.batches([1, 2])
    for _ in run.epochs(1):
        next(data)
        list(data)


def by_next_after(run):
    data = run.batches([1, 2])
    for _ in run.epochs(1):
        for _ in data:
            next(data)


def twice_by_name(run):
    for _ in run.epochs(1):
        run.batches([1], name="a")
        run.batches([2], name="a")


@pytest.mark.parametrize(
    ("misuse", "error", "text"),
    [
        (
            lambda run: run.batches([1, 2, 3], steps=12),
            SettingError,
            "steps=12) got a list of 3 batches an epoch: write",
        ),
        (lambda run: run.batches([1], name=""), SettingError, "name=''): write a name"),
        (lambda run: run.batches([1], name=3), SettingError, "name=3): write a name"),
        (after_a_report, OrderError, "next(data) after run.report()"),
        (accumulated, OrderError, "accumulate=...) with next(data), which counts no steps"),
        (made_twice, OrderError, "a second time before the loop"),
        (nothing, SettingError, "got a list that gives no batch"),
        (both_ways, OrderError, "`for batch in data` after next(data): keep to one"),
        (by_next_after, OrderError, "the position of one is saved; give each"),
        (twice_by_name, OrderError, "run.batches() of name='a' a second time in epoch 1: give each"),
    ],
)
def test_what_cannot_be_says_what_to_write(tmp_path, misuse, error, text):
    with opened(tmp_path, {"w": 0}) as run, pytest.raises(error) as caught:
        misuse(run)
    assert text in str(caught.value)


def test_a_run_inside_its_data_must_go_on_with_it(tmp_path):
    def first(data=(1, 2, 3)):
        return opened(tmp_path, {"w": 0}), list(data)

    run, data = first()
    with run:
        batches = run.batches(data)
        for _ in run.steps(2):
            next(batches)
    for loop, text in (
        (
            lambda run: list(run.steps(4)),
            "saved inside its data, after batch 2 of the data's epoch 1: write `data =",
        ),
        (lambda run: list(run.epochs(4)), "before the loop and next(data) in it, which goes on there"),
    ):
        with opened(tmp_path, {"w": 0}) as run, pytest.raises(OrderError) as caught:
            loop(run)
        assert text in str(caught.value)
    with (
        opened(tmp_path, {"w": 0}) as run,
        pytest.raises(MismatchError, match="epoch 1 of its data with .* 3, "),
    ):
        batches = run.batches([1, 2])
        next(iter(run.steps(4)))
    with opened(tmp_path, {"w": 0}, allow_missing={DATA}) as run:
        assert list(run.steps(3)) == [3]


def test_a_report_may_come_before_the_other_data_is_asked_for(tmp_path):
    def train(crash):
        with opened(tmp_path, {"w": 0}) as run:
            for _ in run.epochs(1):
                other = run.batches([5, 6, 7], name="other")
                for batch in run.batches([1, 2, 3]):
                    if batch == crash:
                        raise Crash
                    if run.resumed is None:
                        next(other)
                    run.report(val_loss=1.0)
                left.extend(other)
                run.report(val_loss=1.0)

    left = []
    with pytest.raises(Crash):
        train(2)
    train(None)
    assert left == [6, 7]


def test_each_loop_may_have_data_of_its_own(tmp_path):
    def train(crash=None):
        seen = []
        with opened(tmp_path / str(crash is None), {"w": 0}) as run:
            for n in (2, 5):
                data = run.batches([1, 2, 3, 4])
                for step in run.steps(n):
                    if step == crash and run.resumed is None:
                        raise Crash
                    seen.append((step, next(data)))
        return seen

    with pytest.raises(Crash):
        train(4)
    assert train() == [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3)]
    assert train(4) == [(4, 2), (5, 3)]


def test_a_save_that_comes_before_the_data_is_asked_for_keeps_its_position(tmp_path):
    def train(n, take):
        with opened(tmp_path, {"w": 0}) as run:
            data = run.batches([1, 2, 3])
            return [next(data) if take else None for _ in run.steps(n)]

    assert train(2, True) == [1, 2]
    assert train(3, False) == [None]
    assert train(5, True) == [3, 1]  # 3 ends an epoch: the next begins when it is asked for
    assert train(6, True) == [2]


def test_without_a_name_nothing_is_new_in_a_checkpoint(tmp_path):
    with opened(tmp_path, {"w": 0}) as run:
        for _ in run.epochs(1):
            list(run.batches([1, 2]))
            run.report(val_loss=1.0)
    reader = Reader(tmp_path)
    components, _ = reader.load(reader.list().good[-1])
    assert components[DATA].keys() == {"epoch", "done", "source", "length", "saved", "generators"}


def two_epochs(directory, first, then, *, steps=False, name="", **settings):
    """An epoch (or a step, by next()) of the one data, and after another opening one of the other."""
    for end, source in enumerate((first, then), 1):
        with opened(directory, {"w": 0}, save=Every(epochs=1), **settings) as run:
            if steps:
                data = run.batches(source, **({"name": name} if name else {}))
                for _ in run.epochs(end):
                    for _ in range(len(source)):
                        next(data)
                    run.report(val_loss=1.0)
            else:
                for _ in run.epochs(end):
                    for _ in run.batches(source, **({"name": name} if name else {})):
                        pass
                    run.report(val_loss=1.0)


SIX = Indices(12, batch_size=2, seed=1)


@pytest.mark.parametrize("steps", [False, True], ids=["a loop", "next"])
@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (SIX, Indices(12, batch_size=3, seed=1), f"{SIX!r} when saved, Indices(12, batch_size=3, seed=1, shuffle=True, drop_last=False) now"),
        (SIX, Indices(12, batch_size=2, seed=2), f"{SIX!r} when saved, Indices(12, batch_size=2, seed=2, shuffle=True, drop_last=False) now"),
        ([1, 2, 3], [1, 2], "3 batches an epoch when saved, 2 now"),
        ([1, 2, 3], SIX, "list when saved, Indices now"),
    ],
)  # fmt: skip
def test_other_data_between_two_epochs_is_told_once_and_used(tmp_path, caplog, first, then, said, steps):
    two_epochs(tmp_path, first, then, steps=steps)
    told = [line.getMessage() for line in caplog.records if "other data" in line.getMessage()]
    assert told == [
        f"{tmp_path}: run.batches() has other data than before: {said}; it is used as it is now: give what was "
        "saved to go on as before"
    ]
    assert caplog.records[-1].levelno >= logging.INFO
    (line,) = [line for line in Reader(tmp_path).journal() if line["event"] == "changed"]
    assert said in line["text"]


@pytest.mark.parametrize("data", [SIX, [1, 2, 3]])
def test_the_same_data_is_not_told_of(tmp_path, caplog, data):
    two_epochs(tmp_path, data, data)
    assert "other data" not in caplog.text


def test_other_data_is_told_by_its_name_and_not_where_it_begins_anew(tmp_path, caplog):
    two_epochs(tmp_path / "named", [1, 2], [1], name="real")
    assert "run.batches(name='real') has other data than before: 2 batches" in caplog.text
    caplog.clear()
    two_epochs(tmp_path / "anew", [1, 2], [1], allow_missing={DATA})
    assert "other data" not in caplog.text
