"""Several ranks in one process: the same inputs, the same decisions, and nobody who waits in vain."""

from __future__ import annotations

import math
import random
import threading

import numpy as np
import pytest

from stopctl import (
    Every,
    LockedError,
    Maximize,
    Patience,
    Preempted,
    ReportError,
    Run,
    SaveError,
    SettingError,
    TeamError,
    TreeError,
)
from stopctl.state.dictstate import DictState
from stopctl.store import FILES, Reader
from stopctl.team.save import JointSave
from support.teams import Killed, together

SIZES = [2, 4]
QUICK = {"durability": "process"}


class Counted(DictState):
    """A dict whose steps can be counted, as an optimizer's are."""

    steps = 0

    def version(self):
        return {"optimizer.step()": self.steps}


def train(directory, values, *, epochs=20, body=None, after=None, state=None, **settings):
    """A program of every rank: reports its own value of each epoch, and tells what became of the run."""

    def program(team):
        held = Counted({"w": 0.0}) if state is None else state(team)
        with Run(directory, state=held, team=team, **{"stop": Patience(3), **QUICK, **settings}) as run:
            for epoch in run.epochs(epochs):
                held._state["w"] += 1.0
                held.steps += 1
                if body is not None:
                    body(team, run, epoch)
                run.report(val_loss=values(team.rank, epoch))
                if after is not None:
                    after(team, run, epoch)
            best = run.restore_best()
        return (
            run.progress.epoch,
            str(run.stopped),
            best.epoch,
            held._state["w"],
            [i.name for i in run.checkpoints],
        )

    return program


def events(directory):
    return [line["event"] for line in Reader(directory).journal()]


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_decide_alike_by_what_rank_0_reports(tmp_path, size):
    def values(rank, epoch):
        return abs(4 - epoch) if rank == 0 else float("nan")

    results = together(size, train(tmp_path, values))
    assert results[0][:4] == (7, "no improvement over 0 for 3 reports", 4, 4.0)
    assert all(result == results[0] for result in results)
    told = events(tmp_path)
    assert told.count("start") == told.count("close") == 1
    assert told.count("report") == 7
    assert Reader(tmp_path).list().good[-1].ranks == size


def test_other_ranks_may_leave_the_metrics_out(tmp_path):
    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, **QUICK) as run:
            for epoch in run.epochs(3):
                run.report(**({"val_loss": 1.0 / epoch} if team.rank == 0 else {}))
        return dict(run.progress.metrics)

    assert together(2, program) == [{"val_loss": 1 / 3}] * 2


@pytest.mark.parametrize(
    ("reduce", "given", "expected"),
    [
        ("mean", [{"val_loss": 1.0}, {"val_loss": 3.0}], 2.0),
        ("sum", [{"val_loss": 1.0}, {"val_loss": 3.0}], 4.0),
        ({"val_loss": "mean"}, [{"val_loss": 1.0, "count": 30}, {"val_loss": 3.0, "count": 10}], 1.5),
        ("mean", [{"val_loss": float("nan"), "count": 0}, {"val_loss": 3.0, "count": 10}], 3.0),
        ("mean", [{"val_loss": float("nan")}, {"val_loss": 3.0}], float("nan")),
        ({"other": "sum"}, [{"val_loss": 1.0, "other": 1}, {"val_loss": 3.0, "other": 2}], 1.0),
        ("sum", [{"val_loss": float("inf")}, {"val_loss": float("-inf")}], float("nan")),
    ],
)
def test_metrics_are_reduced_over_the_ranks(tmp_path, reduce, given, expected):
    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, stop=None, reduce=reduce, **QUICK) as run:
            for _ in run.epochs(1):
                run.report(**given[team.rank])
        return run.progress.metrics

    first, second = together(2, program)
    assert first["val_loss"] == second["val_loss"] == expected or math.isnan(expected)
    assert math.isnan(first["val_loss"]) == math.isnan(second["val_loss"]) == math.isnan(expected)
    assert first.get("other") == second.get("other") == (3.0 if "other" in given[0] else None)
    assert "count" not in first


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([{"val_loss": 1.0}, {}], "rank 1 reported no 'val_loss'"),
        ([{"val_loss": 1.0, "count": 3}, {"val_loss": 1.0}], "rank 1 reported no count="),
        ([{"val_loss": 1.0, "count": 0}, {"val_loss": 1.0, "count": 0}], "count=0 on every rank"),
    ],
)
def test_a_report_that_cannot_be_reduced_is_refused_on_all_ranks_and_can_be_made_again(tmp_path, given, text):
    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, reduce="mean", **QUICK) as run:
            for _ in run.epochs(2):
                with pytest.raises(ReportError, match=text):
                    run.report(**given[team.rank])
                run.report(val_loss=2.0)
        return run.progress.reports

    assert together(2, program) == [2, 2]


def test_alone_a_mean_is_the_value_itself(tmp_path):
    with Run(tmp_path, state={"w": 0}, reduce="mean", **QUICK) as run:
        for _ in run.epochs(1):
            with pytest.raises(ReportError, match="count=-1"):
                run.report(val_loss=2.0, count=-1)
            run.report(val_loss=2.0, count=10)
    assert dict(run.progress.metrics) == {"val_loss": 2.0}


@pytest.mark.parametrize("reduce", ["max", {}, {"val_loss": "median"}, {"count": "sum"}, 3])
def test_a_wrong_reduce_says_what_to_write(tmp_path, reduce):
    with pytest.raises(SettingError, match="reduce="):
        Run(tmp_path, state={}, reduce=reduce)


@pytest.mark.parametrize("more", [{"timeout": 0}, {"timeout": "60"}, {"team": "all"}, {"team": 3}])
def test_a_wrong_team_says_what_to_write(tmp_path, more):
    with pytest.raises(SettingError, match=next(iter(more))):
        Run(tmp_path, state={}, **more)


def test_a_copy_that_overlaps_training_is_refused_with_several_ranks(tmp_path):
    def program(team):
        with pytest.raises(SettingError, match="write True"):
            Run(tmp_path, state={}, team=team, async_save="overlap").open()
        return team.closed

    assert together(2, program) == [True, True]


@pytest.fixture
def slow(monkeypatch):
    """Parts of ranks are written when the test says so; who has begun to."""
    begun, go = [], threading.Event()
    write = JointSave.write

    def late(self):
        begun.append(self._ranks.rank)
        assert go.wait(60)
        return write(self)

    monkeypatch.setattr(JointSave, "write", late)
    return begun, go


BACKGROUND = {"async_save": True, "save": Every(epochs=2)}


def test_several_ranks_train_on_while_what_they_have_is_written(tmp_path, slow):
    _, go = slow
    seen = []

    def after(team, run, epoch):
        if team.rank == 0:
            seen.append((epoch, len(run.checkpoints)))
        if epoch == 3:
            go.set()

    def body(team, run, epoch):
        run._session._state._state["a"][:] = epoch

    def state(team):
        return Counted({"w": 0.0, "a": np.zeros(100_000)})

    more = {"body": body, "after": after, "state": state, **BACKGROUND}
    results = together(3, train(tmp_path, lambda rank, epoch: -epoch, epochs=6, **more))
    assert results[0][:4] == (6, "None", 6, 6.0)
    assert all(result == results[0] for result in results)
    assert seen[:3] == [(1, 0), (2, 0), (3, 0)], "the third pass is trained beside the save"
    for info in Reader(tmp_path).list().good:
        loaded = Reader(tmp_path).load(info)[0]
        found = np.frombuffer(loaded["a"].data)
        assert loaded["w"] == info.epoch == found.min() == found.max(), "saved is what was reported"
    told = [line for line in Reader(tmp_path).journal() if line["event"] == "saved"]
    assert [line["epoch"] for line in told] == [2, 4, 6]


def test_a_part_that_cannot_be_written_in_the_background_is_told_on_all_ranks(tmp_path, monkeypatch):
    write = JointSave.write

    def full(self):
        if self._ranks.rank == 1 and self._state["epoch"] == 2:
            raise SaveError("no space left", tmp_path)
        return write(self)

    monkeypatch.setattr(JointSave, "write", full)
    given = {"async_save": True, "save": Every(epochs=1)}
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, epochs=5, **given))
    assert [type(result) for result in results] == [SaveError, SaveError]
    assert all("no space left" in str(result) for result in results)
    assert 2 not in [info.epoch for info in Reader(tmp_path).list().good]
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))
    monkeypatch.undo()
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, epochs=5, **given))
    assert results[0][:4] == (5, "None", 5, 5.0)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["all have trained it", "not all have trained it"])
def test_an_error_on_one_rank_while_a_save_is_written(tmp_path, slow, rank, how):
    """What all have trained is saved with the others, and the save before is ended; else that is taken back."""
    _, go = slow

    def body(team, run, epoch):
        if epoch == 3:
            go.set()
        if (team.rank, epoch) == (rank, 3):
            run._session._state.steps -= how == "not all have trained it"
            raise ValueError("boom")

    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, body=body, **BACKGROUND))
    assert isinstance(results[rank], ValueError)
    assert isinstance(results[1 - rank], TeamError)
    saved = [info.epoch for info in Reader(tmp_path).list().good]
    assert saved == ([2, 3] if rank == 1 and how == "all have trained it" else [])
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, epochs=5, **BACKGROUND))
    assert results[0][:4] == (5, "None", 5, 5.0)
    assert results[0] == results[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_that_one_rank_asks_for_stops_all(tmp_path, rank):
    def body(team, run, epoch):
        if (team.rank, epoch) == (rank, 3):
            run.stop("budget spent")

    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, body=body))
    assert results[0][:2] == (3, "requested: budget spent")
    assert results[0] == results[1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("where", ["body", "after"])
def test_a_signal_to_one_rank_makes_all_save_and_leave(tmp_path, rank, where):
    def signal(team, run, epoch):
        if (team.rank, epoch) == (rank, 3):
            run._session._watch.came = "SIGTERM"

    results = together(
        2, train(tmp_path, lambda rank, epoch: -epoch, save=Every(epochs=10), **{where: signal})
    )
    assert [type(result) for result in results] == [Preempted, Preempted]
    assert [result.signal for result in results] == ["SIGTERM", "SIGTERM"]
    assert [info.epoch for info in Reader(tmp_path).list().good] == [3]
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, epochs=5))
    assert results[0][:4] == (5, "None", 5, 5.0)
    assert results[0] == results[1]


def boom(at, epoch_=3):
    def body(team, run, epoch):
        if (team.rank, epoch) == (at, epoch_):
            raise ValueError("boom")

    return body


def test_an_error_on_one_rank_saves_what_all_have_trained_and_ends_all(tmp_path):
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, body=boom(1), save=Every(epochs=10)))
    assert isinstance(results[1], ValueError)
    assert isinstance(results[0], TeamError)
    assert "rank 1 has ended with ValueError: boom; epoch-0003" in str(results[0])
    (info,) = Reader(tmp_path).list().good
    assert (info.epoch, info.value, info.reasons) == (3, -3.0, ("preempted",))
    results = together(2, train(tmp_path, lambda rank, epoch: -epoch, epochs=5))
    assert results[0][:4] == (5, "None", 5, 5.0), "epoch 3 was judged before, and is not done again"
    assert results[0] == results[1]
    assert events(tmp_path).count("report") == 5


@pytest.mark.parametrize("why", ["rank 0 fails", "not all have stepped", "reduced", "no version"])
def test_what_would_be_a_mixture_is_not_saved_when_a_rank_fails(tmp_path, why):
    failing = 0 if why == "rank 0 fails" else 1

    def body(team, run, epoch):
        if (team.rank, epoch) == (failing, 3):
            if why == "not all have stepped":
                run._session._state.steps -= 1
            raise ValueError("boom")

    class Plain(DictState):
        pass

    more = {"reduce": "mean"} if why == "reduced" else {}
    state = (lambda team: Plain({"w": 0.0})) if why == "no version" else None
    if state:
        Plain.steps = 0
    results = together(
        2, train(tmp_path, lambda rank, epoch: -epoch, body=body, save=Every(epochs=10), state=state, **more)
    )
    assert isinstance(results[failing], ValueError)
    assert isinstance(results[1 - failing], TeamError)
    assert "goes on from its newest checkpoint" in str(results[1 - failing])
    assert Reader(tmp_path).list().good == ()
    assert events(tmp_path)[-1] == "close"


def test_an_error_on_all_ranks_is_everybodys_own(tmp_path):
    def body(team, run, epoch):
        raise ValueError(f"boom {team.rank}")

    assert [str(error) for error in together(2, train(tmp_path, lambda r, e: 0, body=body))] == [
        "boom 0",
        "boom 1",
    ]


def test_an_error_between_two_passes_ends_all(tmp_path):
    def after(team, run, epoch):
        if (team.rank, epoch) == (1, 2):
            raise ValueError("boom")

    first, second = together(2, train(tmp_path, lambda r, e: -e, after=after))
    assert isinstance(second, ValueError)
    assert "rank 1 has ended with ValueError" in str(first)
    assert [info.epoch for info in Reader(tmp_path).list().good] == [1, 2]


def test_a_rank_that_leaves_its_loop_early_is_found_out(tmp_path):
    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, **QUICK) as run:
            for epoch in run.epochs(5):
                run.report(val_loss=1.0)
                if team.rank == 1 and epoch == 2:
                    break

    results = together(2, program)
    assert [type(result) for result in results] == [TeamError, TeamError]
    assert "rank 0 is at the end of epoch 2, rank 1 at closing the run" in str(results[0])
    assert str(results[0]) == str(results[1])


def test_a_call_that_only_one_rank_makes_is_found_out(tmp_path):
    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, **QUICK) as run:
            for _ in run.epochs(2):
                run.report(val_loss=1.0)
            if team.rank == 0:
                run.restore_best()

    results = together(2, program)
    assert [type(result) for result in results] == [TeamError, TeamError]
    assert "rank 0 is at loading epoch-0001" in str(results[0])
    assert "every rank makes the same calls" in str(results[1])


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            lambda rank: {"stop": Patience(3 + rank)},
            "stop is Patience\\(3\\) on rank 0, Patience\\(4\\) on rank 1",
        ),
        (lambda rank: {"goal": Maximize("val_loss") if rank else Maximize("other")}, "goal is Maximize"),
        (lambda rank: {"epochs": 5 + rank}, "planned is 5 on rank 0, 6 on rank 1"),
    ],
)
def test_ranks_that_were_given_different_rules_are_told_so(tmp_path, more, text):
    results = together(2, lambda team: train(tmp_path, lambda r, e: 1.0, **more(team.rank))(team))
    for result in results:
        assert isinstance(result, TeamError), result
        with pytest.raises(TeamError, match=text):
            raise result


def test_ranks_whose_states_differ_are_told_the_first_difference(tmp_path):
    def body(team, run, epoch):
        if (team.rank, epoch) == (1, 3):
            run._session.controller._state.best = 0.25

    first, second = together(2, train(tmp_path, lambda r, e: 1.0 / e, body=body))
    assert isinstance(first, TeamError)
    assert "best is 0.5 on rank 0, 0.25 on rank 1" in str(first)
    assert str(first) == str(second)


def test_a_different_number_of_steps_is_a_difference(tmp_path):
    def body(team, run, epoch):
        run.step(10 + (team.rank if epoch == 2 else 0))

    first, second = together(2, train(tmp_path, lambda r, e: 1.0 / e, body=body))
    assert "step is 20 on rank 0, 21 on rank 1" in str(first)
    assert str(first) == str(second)


def test_a_second_run_of_the_directory_is_refused_on_all_ranks(tmp_path):
    with Run(tmp_path, state={"w": 0}, team=None):
        results = together(2, train(tmp_path, lambda r, e: 1.0))
    assert [type(result) for result in results] == [LockedError, LockedError]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_cannot_be_saved_on_one_rank_is_saved_on_none(tmp_path, rank):
    def body(team, run, epoch):
        if (team.rank, epoch) == (rank, 2):
            run._session._state._state["w"] = object()

    results = together(2, train(tmp_path, lambda r, e: -e, body=body, epochs=3, stop=None))
    assert isinstance(results[rank], TreeError)
    assert isinstance(results[1 - rank], TreeError)
    assert f"rank {rank}: " in str(results[1 - rank])
    assert [info.epoch for info in Reader(tmp_path).list().good] == [1]


def test_a_rank_with_another_model_is_told_so_before_anything_is_written(tmp_path):
    def body(team, run, epoch):
        if (team.rank, epoch) == (1, 2):
            run._session._state._state["more"] = np.zeros(3)

    results = together(2, train(tmp_path, lambda r, e: -e, body=body, epochs=3, stop=None))
    assert [type(result) for result in results] == [TreeError, TreeError]
    assert "rank 1 has other arrays than rank 0, in what all ranks share" in str(results[0])
    assert [info.epoch for info in Reader(tmp_path).list().good] == [1]


def test_a_save_that_fails_on_one_rank_fails_on_all_and_is_due_again(tmp_path, monkeypatch):
    failed = []
    create = type(FILES).create

    def full(files, path):
        if path.name == "part-00001.safetensors" and "epoch-0002" in path.parent.name:
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        return create(files, path)

    monkeypatch.setattr(type(FILES), "create", full)

    def program(team):
        errors = []
        with Run(tmp_path, state={"w": 0}, team=team, save=Every(epochs=1), keep=None, **QUICK) as run:
            for epoch in run.epochs(3):
                try:
                    run.report(val_loss=1.0 / epoch)
                except SaveError as error:
                    errors.append(str(error))
        return errors, [info.epoch for info in run.checkpoints]

    first, second = together(2, program)
    assert len(failed) == 1
    assert first[1] == second[1] == [1, 3]
    assert "part-00001" in first[0][0]
    assert "No space left" in first[0][0]
    assert [len(errors) for errors, _ in (first, second)] == [1, 1]
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_each_rank_resumes_its_own_generators(tmp_path):
    epochs = [3, 6]

    def program(team):
        # threads share one generator, so each rank's has a stand-in
        with Run(tmp_path, state=Own(team.rank), team=team, stop=None, **QUICK) as run:
            for _ in run.epochs(epochs[0]):
                run._session._state.rng.random()
                run.report(val_loss=1.0)
            return run._session._state.rng.random()

    class Own(DictState):
        def __init__(self, rank):
            super().__init__({"w": 0})
            self.rng = random.Random(rank)

        def capture(self):
            version, numbers, _ = self.rng.getstate()
            return {**super().capture(), "rng.own": {"numbers": list(numbers), "version": version}}

        def restore(self, components, *, allow_missing=()):
            own = dict(components)
            saved = own.pop("rng.own", None)
            if saved is not None:
                self.rng.setstate((saved["version"], tuple(saved["numbers"]), None))
            super().restore(own, allow_missing=allow_missing)

        def per_rank(self):
            return {*super().per_rank(), "rng.own"}

    def alone(rank, draws):
        rng = random.Random(rank)
        return [rng.random() for _ in range(draws)][-1]

    together(2, program)
    epochs.pop(0)
    assert together(2, program) == [alone(0, 7), alone(1, 7)]


def test_ranks_that_lose_one_end_with_a_team_error_and_lose_nothing(tmp_path):
    for number in range(40):
        run = tmp_path / str(number)

        def fault(rank, exchange, number=number):
            if (rank, exchange) == (1, number):
                raise Killed
            return True

        first, second = together(2, train(run, lambda r, e: -e, epochs=3, stop=None), fault)
        if not isinstance(second, Killed):
            break
        assert isinstance(first, TeamError), first
        if (run / "run.json").exists():
            saved = {line["epoch"] for line in Reader(run).journal() if line["event"] == "saved"}
            assert saved <= {info.epoch for info in Reader(run).list().good} | {1}
        results = together(2, train(run, lambda r, e: -e, epochs=3, stop=None))
        assert results[0][:4] == (3, "None", 3, 3.0)
        assert results[0] == results[1]
    assert number > 15, (number, first, second)


def test_boundaries_that_come_fast_are_not_all_shared(tmp_path):
    shared = []

    def fault(rank, exchange):
        shared.append((rank, exchange))
        return True

    def program(team):
        with Run(tmp_path, state={"w": 0}, team=team, save=Every(steps=500), **QUICK) as run:
            for step in run.steps(1000):
                if step % 500 == 0:
                    run.report(val_loss=1.0)
        return [info.step for info in run.checkpoints]

    assert together(2, program, fault) == [[500, 1000], [500, 1000]]
    assert len(shared) / 2 < 120


def test_batches_inside_an_epoch_are_resumed_on_as_many_ranks_only(tmp_path):
    def program(size):
        def rank(team):
            seen = []
            with Run(tmp_path, state={"w": 0}, team=team, save=Every(steps=2), **QUICK) as run:
                for epoch in run.epochs(2):
                    for batch in run.batches(list(range(5))):
                        seen.append((epoch, batch))
                        if not tmp_path.joinpath("go").exists() and run.batch == 3:
                            raise KeyboardInterrupt
                    run.report(val_loss=1.0)
            return seen

        return together(size, rank)

    assert [type(error) for error in program(2)] == [KeyboardInterrupt] * 2
    tmp_path.joinpath("go").touch()
    results = program(4)
    assert all("saved by 2 ranks inside epoch 1, after batch 2" in str(error) for error in results)
    assert program(2) == [[(1, 2), (1, 3), (1, 4), *((2, n) for n in range(5))]] * 2


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (1, 3), (3, 1)])
def test_as_many_other_ranks_go_on_between_two_epochs(tmp_path, sizes):
    before, after = sizes
    together(before, train(tmp_path, lambda r, e: -e, epochs=2))
    results = together(after, train(tmp_path, lambda r, e: -e, epochs=4))
    assert results[0][:4] == (4, "None", 4, 4.0)
    assert all(result == results[0] for result in results)
    assert [line["ranks"] for line in Reader(tmp_path).journal() if line["event"] in ("start", "resume")] == [
        *sizes
    ]


def test_a_damaged_part_makes_all_ranks_take_the_checkpoint_before(tmp_path):
    together(2, train(tmp_path, lambda r, e: -e, epochs=3, stop=None))
    newest = Reader(tmp_path).list().good[-1]
    part = newest.path / "part-00001.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    results = together(2, train(tmp_path, lambda r, e: -e, epochs=3, stop=None))
    assert results[0][:4] == (3, "None", 3, 3.0)
    assert results[0] == results[1]
    assert "set_aside" in events(tmp_path)


def test_one_rank_runs_as_without_a_team(tmp_path):
    assert together(1, train(tmp_path, lambda r, e: -e, epochs=3, stop=None))[0][:4] == (3, "None", 3, 3.0)
