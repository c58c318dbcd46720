"""What every adapter does, in one column each: a feature that is not here does not exist."""

from __future__ import annotations

import json
import os
import shutil
import signal
from importlib import metadata

import pytest
import torch  # noqa: F401  # before TensorFlow, where both live in one process
from safetensors.numpy import load_file

from adapters.cases import CASES
from stopctl import (
    BestNotSaved,
    Every,
    MismatchError,
    OnBest,
    OrderError,
    Patience,
    Preempted,
    ReduceOnPlateau,
    SettingError,
)
from stopctl.store import Reader
from support import traces
from support.brake import Brake, finished
from support.oracle import build, make_goal

TRACES = traces.load()
MODES = [False, True, "overlap"]
VALUES = [0.5, 0.3, 0.4, 0.2, 0.6, 0.6, 0.6, 0.6]


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


def train(case, directory, epochs, *, until=None, **settings):
    """Train ``epochs`` epochs over VALUES, or leave the loop in the middle of epoch ``until`` + 1."""
    settings = {"stop": None, "save": Every(epochs=1), **settings}
    with case.Run(directory, **case.given(), **settings) as run:
        for epoch in run.epochs(epochs):
            case.train(epoch)
            if until is not None and epoch > until:
                break
            run.report(val_loss=VALUES[epoch - 1])
    return run


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_golden_traces(case, trace, tmp_path):
    goal, stop, save = traces.rules(trace)
    work = case()
    decisions = []
    settings = {"goal": make_goal(goal), "stop": build(stop), "save": build(save)}
    with work.Run(tmp_path, **work.given(), **settings) as run:
        for epoch in run.epochs(len(trace["values"])):
            decisions.append(traces.shown(run.report(val_loss=trace["values"][epoch - 1])))
    assert decisions == trace["expected"]
    assert (run.stopped is not None) == bool(decisions[-1]["stop"])


@pytest.mark.parametrize("mode", MODES)
def test_restore_best_brings_back_the_weights_that_were_judged(case, tmp_path, mode):
    work, seen = case(), {}
    settings = {"stop": Patience(2), "save": OnBest(), "async_save": mode}
    with work.Run(tmp_path, **work.given(), **settings) as run:
        for epoch in run.epochs(50):
            work.train(epoch)
            run.report(val_loss=VALUES[epoch - 1])
            seen[epoch] = work.everything()
        assert (run.progress.epoch, str(run.stopped)) == (6, "no improvement over 0.2 for 2 reports")
        info = run.restore_best()
        assert (info.epoch, info.is_best, work.everything()) == (4, True, seen[4])
        assert (run.restore_latest().epoch, work.everything()) == (6, seen[6])


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_the_same_run(case, tmp_path, mode):
    straight = case()
    train(straight, tmp_path / "straight", 6)
    first = case()
    train(first, tmp_path / "resumed", 6, until=3, async_save=mode)
    second = case()
    second.train(1)  # whatever the process did before: it is overwritten
    run = train(second, tmp_path / "resumed", 6, async_save=mode)
    assert run.resumed.epoch == 3
    assert second.everything() == straight.everything()
    third = case()
    assert train(third, tmp_path / "resumed", 6).progress.epoch == 6
    assert third.everything() == straight.everything()


def test_load_reads_the_weights_alone(case, tmp_path):
    work, seen = case(), {}
    with work.Run(tmp_path, **work.given(), stop=None, keep=None) as run:
        for epoch in run.epochs(4):
            work.train(epoch)
            run.report(val_loss=[0.5, 0.1, 0.3, 0.4][epoch - 1])
            seen[epoch] = work.weights()
            if epoch == 1:
                run.save("warm-up")
        assert case().load(tmp_path, "best").epoch == 2  # while the run is open
    for which, epoch in (("best", 2), ("latest", 4), ("warm-up", 1)):
        fresh = case()
        info = fresh.load(tmp_path, which)
        assert (info.epoch, fresh.weights()) == (epoch, seen[epoch])
    with pytest.raises(SettingError, match="has no checkpoint for which='first'"):
        case().load(tmp_path, "first")


def test_a_mismatch_changes_nothing_and_gives_the_lock_back(case, tmp_path):
    train(case(), tmp_path, 2)
    other = case(width=5)
    before = other.everything()
    for _ in range(2):
        with pytest.raises(MismatchError) as caught:
            train(other, tmp_path, 3)
        assert other.everything() == before
    assert "3" in str(caught.value)
    assert "5" in str(caught.value)
    assert train(case(), tmp_path, 3).progress.epoch == 3


def test_what_moves_after_the_report_is_an_error(case, tmp_path):
    work = case()
    if work.moved is None:
        pytest.skip("a dict has no counter that could tell")
    with work.Run(tmp_path, **work.given()) as run, pytest.raises(OrderError) as caught:
        for epoch in run.epochs(2):
            work.train(epoch)
            run.report(val_loss=1.0)
            work.move()
    assert str(caught.value) == (
        f"{work.moved} ran after run.report(); a resumed run would skip it: call it before report()"
    )


def test_a_finished_run_trains_nothing(case, tmp_path):
    straight = case()
    train(straight, tmp_path, 8, stop=Patience(2))
    again = case()
    run = train(again, tmp_path, 8, stop=Patience(2))
    assert (run.progress.epoch, again.everything()) == (6, straight.everything())
    longer = train(case(), tmp_path, 8, stop=Patience(3))
    assert longer.progress.epoch == 7


def test_best_not_saved(case, tmp_path):
    work = case()
    with work.Run(tmp_path, **work.given(), stop=None, save=Every(epochs=3)) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=VALUES[epoch - 1])
        with pytest.raises(BestNotSaved, match=r"0\.3 was reported in epoch 2 .* saved is 0\.4 of epoch 3"):
            run.restore_best(exact=True)
        assert not run.restore_best().is_best


@pytest.mark.parametrize(
    ("save", "mode"), [(None, False), (Every(epochs=1), True), (Every(epochs=1), "overlap")]
)
def test_sigterm_saves_and_raises(case, tmp_path, save, mode):
    work = case()
    settings = {"save": save, "async_save": mode}
    with pytest.raises(Preempted) as caught, work.Run(tmp_path, **work.given(), **settings) as run:
        for epoch in run.epochs(9):
            work.train(epoch)
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            run.report(val_loss=1.0)
    assert caught.value.code == 143
    assert [info.epoch for info in run.checkpoints] == ([1, 2] if save else [2])
    straight = case()
    train(straight, tmp_path / "straight", 3)
    resumed = case()
    assert train(resumed, tmp_path, 3).resumed.epoch == 2
    assert resumed.everything() == straight.everything()


def test_a_damaged_checkpoint_is_replaced_by_the_next_older_one(case, tmp_path, caplog):
    straight = case()
    train(straight, tmp_path, 4)
    newest = Reader(tmp_path).list().good[-1]
    data = bytearray((newest.path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (newest.path / "state.safetensors").write_bytes(data)
    again = case()
    run = train(again, tmp_path, 4)
    assert (run.resumed.epoch, again.everything()) == (3, straight.everything())
    assert (newest.path.parent / f".damaged-{newest.name}").is_dir()
    assert f"{newest.name} is damaged and set aside" in caplog.text


def test_scalars_of_the_framework_are_values(case, tmp_path):
    work = case()
    with work.Run(tmp_path, **work.given()) as run:
        for _ in run.epochs(1):
            with pytest.raises(
                TypeError, match=r"of shape \(1,\): report one number, such as val_loss.mean\(\)"
            ):
                run.report(val_loss=work.vector())
            run.report(val_loss=work.scalar(0.25))
    assert run.progress.best == 0.25


def test_the_safetensors_library_opens_our_files(case, tmp_path):
    train(case(), tmp_path, 1)
    tensors = load_file(Reader(tmp_path).list().good[-1].path / "state.safetensors")
    assert tensors
    assert all(name.count("/") or name in ("weight", "momentum") for name in tensors)


def test_run_json_tells_versions_and_notes(case, tmp_path):
    work = case()
    with work.Run(tmp_path, **work.given(), notes={"seed": 0}):
        pass
    meta = json.loads((tmp_path / "run.json").read_text())
    assert meta["notes"] == {"seed": 0}
    assert {"python", "numpy"} <= set(meta["versions"])
    assert (work.name == "plain") or meta["versions"][work.name] == metadata.version(work.name)


def test_the_learning_rate_falls_on_a_plateau_and_resumes(case, tmp_path):
    if case.moved is None:
        with pytest.raises(SettingError, match=r"this state has no learning rate of its own; use Controller"):
            case().Run(tmp_path / "run", **case().given(), lr=ReduceOnPlateau(0.1))
        return
    rule = ReduceOnPlateau(0.1, patience=2, min_lr=0.001, cooldown=1, max_drops=2)
    values = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]

    def go(work, directory, epochs, until=None):
        rates = []
        with work.Run(directory, **work.given(), stop=None, lr=rule) as run:
            for epoch in run.epochs(epochs):
                work.train(epoch)
                decision = run.report(val_loss=values[epoch - 1])
                rates.append((epoch, decision.lr_factor, round(work.rate(), 6)))
                if epoch == until:
                    break
        return rates

    straight = case(plateau=True)
    rates = go(straight, tmp_path / "straight", 9)
    assert [(epoch, rate) for epoch, factor, rate in rates if factor] == [(4, 0.005), (7, 0.001)]
    go(case(plateau=True), tmp_path / "resumed", 9, until=5)
    resumed = case(plateau=True)
    assert go(resumed, tmp_path / "resumed", 9) == rates[5:]
    assert resumed.everything() == straight.everything()
    dropped = [line for line in Reader(tmp_path / "straight").journal() if "lr_factor" in line]
    assert [line["epoch"] for line in dropped] == [4, 7]


def test_keywords_of_other_libraries_are_refused(case, tmp_path):
    work = case()
    with pytest.raises(SettingError, match=r"Run has no monitor=: write goal=Minimize\('val_loss'\)"):
        work.Run(tmp_path / "run", **work.given(), monitor="val_loss")
    if work.name != "plain":
        with pytest.raises(SettingError, match=r"Run has no state=: write model=\.\.\., and extra="):
            work.Run(tmp_path / "run", **work.given(), state={})
    assert not (tmp_path / "run").exists()


def files(directory):
    """The bytes of every tensor file."""
    return {
        info.name: (info.path / "state.safetensors").read_bytes() for info in Reader(directory).list().good
    }


@pytest.mark.parametrize("mode", MODES[1:])
def test_checkpoints_are_the_same_to_the_last_bit(case, tmp_path, mode):
    straight = case()
    train(straight, tmp_path / "straight", 5, keep=None)
    beside = case()  # now, as it seeds the generators
    train(beside, tmp_path / "beside", 5, keep=None, async_save=mode)
    assert beside.everything() == straight.everything()
    assert files(tmp_path / "beside") == files(tmp_path / "straight")


@pytest.mark.parametrize("mode", MODES[1:])
def test_training_beside_a_save_does_not_change_it(case, tmp_path, monkeypatch, mode):
    work = case()
    brake = Brake(monkeypatch)
    seen = {}
    with work.Run(tmp_path, **work.given(), stop=None, keep=None, async_save=mode) as run:
        for epoch in run.epochs(3):
            work.train(epoch)
            if epoch > 1:
                assert brake.reached()
                brake.release()
                finished()
            run.report(val_loss=1.0)
            seen[epoch] = work.weights()
    for epoch in (1, 2, 3):
        work.load(tmp_path, f"epoch-{epoch:04}-step-000000000-w0001")
        assert work.weights() == seen[epoch]


def test_a_new_run_starts_from_the_best_weights_of_another(case, tmp_path):
    parent, seen = case(), {}
    with parent.Run(tmp_path / "a", **parent.given(), stop=None) as run:
        for epoch in run.epochs(3):
            parent.train(epoch)
            seen[epoch] = parent.weights()
            run.report(val_loss=float(epoch != 2))
    child, fresh = case(), case()
    told = {"directory": str(tmp_path / "a"), "checkpoint": "epoch-0002-step-000000000-w0001"}
    with child.Run(tmp_path / "b", **child.given(), stop=None, start_from_run=tmp_path / "a") as run:
        assert (child.weights(), child.state_of_training()) == (seen[2], fresh.state_of_training())
        assert (run.progress.epoch, run.resumed) == (0, None)
        for epoch in run.epochs(2):
            child.train(epoch)
            run.report(val_loss=0.5)
    assert json.loads((tmp_path / "b" / "run.json").read_text())["parent"] == told
    again = case()
    with again.Run(tmp_path / "b", **again.given(), start_from_run=tmp_path / "a") as run:
        assert (run.resumed.epoch, again.everything()) == (2, child.everything())


def test_the_weights_of_a_lost_disk_are_loaded_from_its_mirror(case, tmp_path):
    work, url = case(), f"file://{tmp_path}/disk"
    train(work, tmp_path / "run", 2, mirror=url, keep=None)
    best = work.weights()
    train(work, tmp_path / "run", 3, mirror=url, keep=None)
    assert work.weights() != best
    shutil.rmtree(tmp_path / "run")
    fresh = case()
    info = fresh.load(url, "best")
    assert (info.epoch, fresh.weights()) == (2, best)
    assert fresh.load(url, info.name).epoch == 2
