"""Run without a framework: loops, reports, saves, restores, endings."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal

import pytest

import stopctl
from stopctl import (
    After,
    Best,
    BestNotSaved,
    DamagedError,
    Every,
    Last,
    LockedError,
    Maximize,
    Minimize,
    NonFinite,
    OnBest,
    OrderError,
    Patience,
    Preempted,
    Reason,
    Run,
    SaveError,
    SettingError,
    StateError,
)
from stopctl.rules import RemainingGain
from stopctl.runs.choose import choose
from stopctl.runs.history import best_reported
from stopctl.runs.standing import read_run
from stopctl.store import Reader
from stopctl.store.files import FILES
from stopctl.team.follower import info_from_json, info_to_json


def train(directory, values, *, epochs=50, state=None, **settings):
    """Run over ``values`` (one an epoch) and tell the epochs done; the state's weight is the epoch."""
    state = {"weight": 0} if state is None else state
    done = []
    with Run(directory, state=state, **settings) as run:
        for epoch in run.epochs(epochs):
            state["weight"] = epoch
            done.append(epoch)
            run.report(val_loss=values[epoch - 1])
    return run, done, state


def names(run):
    return [(info.epoch, info.is_best) for info in run.checkpoints]


def events(directory, *wanted):
    return [line for line in Reader(directory).journal() if line["event"] in wanted]


def test_a_run_stops_saves_prunes_and_restores_the_best(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=Patience(3), save=Every(epochs=1) | OnBest()) as run:
        for epoch in run.epochs(50):
            state["weight"] = epoch
            decision = run.report(val_loss=[0.5, 0.4, 0.45, 0.41, 0.5][epoch - 1])
        assert str(decision.stop) == str(run.stopped) == "no improvement over 0.4 for 3 reports"
        assert names(run) == [(2, True), (4, False), (5, False)]
        info = run.restore_best()
    assert (state["weight"], info.epoch, info.value, info.is_best) == (2, 2, 0.4, True)
    assert (run.progress.epoch, run.progress.best_epoch, run.progress.best) == (5, 2, 0.4)


def test_a_finished_run_stays_finished_and_goes_on_under_larger_limits(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stopctl")
    values = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert train(tmp_path, values, stop=Patience(2))[1] == [1, 2, 3, 4]
    caplog.clear()
    run, done, state = train(tmp_path, values, stop=Patience(2))
    assert (done, state["weight"]) == ([], 4)
    assert str(run.stopped) == "no improvement over 0.4 for 2 reports"
    told = f"{tmp_path}: finished before: stopped at epoch 4 of 50, no improvement over 0.4 for 2 reports; "
    assert [message.startswith(told) for message in caplog.messages] == [True, False]
    assert train(tmp_path, values, stop=Patience(4))[1] == [5, 6]


def test_the_planned_end_is_finished_too(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stopctl")
    assert train(tmp_path, [0.5] * 9, epochs=3, stop=None, save=None)[1] == [1, 2, 3]
    run, done, _ = train(tmp_path, [0.5] * 9, epochs=3, stop=None, save=None)
    assert (done, run.stopped, [info.epoch for info in run.checkpoints]) == ([], None, [3])
    told = f"{tmp_path}: finished before: all 3 epochs are done; nothing was trained, and what you gave has "
    more = "the state that was saved: write more than 3 epochs to go on, or another directory to begin anew"
    assert f"{told}{more}" in caplog.messages
    assert train(tmp_path, [0.5] * 9, epochs=5, stop=None, save=None)[1] == [4, 5]


def test_resume_goes_on_at_the_pass_after_the_newest_checkpoint(tmp_path):
    state = {"weight": 0}

    class Crash(Exception):
        pass

    with pytest.raises(Crash), Run(tmp_path, state=state, save=Every(epochs=2)) as run:
        for epoch in run.epochs(9):
            state["weight"] = epoch
            if epoch == 4:
                raise Crash
            run.report(val_loss=1 / epoch)
    run, done, state = train(tmp_path, [1 / e for e in range(1, 10)], epochs=9, save=Every(epochs=2))
    assert (done[0], run.resumed.epoch, run.progress.reports) == (3, 2, 9)
    assert [line["epoch"] for line in events(tmp_path, "report")] == [1, 2, 3, *range(3, 10)]


def test_reports_that_a_resume_voided_do_not_stand(tmp_path):
    from stopctl.runs.history import reports

    train(tmp_path, [0.9, 0.5, 0.1], epochs=3, stop=None, keep=None)
    for info in Reader(tmp_path).list().good:
        if info.epoch > 1:
            (info.path / "state.json").write_text("{}")
    train(tmp_path, [0.9, 0.8], epochs=2, stop=None)
    standing = [(line["epoch"], line["metrics"]["val_loss"]) for line in reports(Reader(tmp_path))]
    assert standing == [(1, 0.9), (2, 0.8)]


def test_step_loops_count_steps(tmp_path):
    state, seen = {"weight": 0}, []
    with Run(tmp_path, state=state, stop=None, save=Every(steps=4)) as run:
        for step in run.steps(10):
            seen.append(step)
            if step % 2 == 0:
                run.report(val_loss=1.0)
    assert seen == list(range(1, 11))
    assert [(info.epoch, info.step) for info in run.checkpoints] == [(0, 4), (0, 8), (0, 10)]
    assert run.progress.reports == 5


def test_steps_inside_epochs_are_counted(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=1)) as run:
        for _ in run.epochs(2):
            for _ in range(5):
                run.step()
            run.report(val_loss=1.0)
    assert [info.name for info in run.checkpoints] == [
        "epoch-0001-step-000000005-w0001",
        "epoch-0002-step-000000010-w0001",
    ]


def test_a_pass_without_a_report_is_allowed_and_saved_without_a_value(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=Patience(1), save=Every(epochs=1), keep=None) as run:
        for epoch in run.epochs(4):
            if epoch % 2:
                run.report(val_loss=1.0 / epoch)
    assert [(info.epoch, info.value) for info in run.checkpoints] == [
        (1, 1.0),
        (2, None),
        (3, 1 / 3),
        (4, None),
    ]


def test_after_is_asked_between_passes(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=After(epochs=3), save=None) as run:
        assert list(run.epochs(50)) == [1, 2, 3]
    assert str(run.stopped) == "the limit of 3 epochs is reached"
    assert [info.reasons for info in run.checkpoints] == [("stop",)]


def test_seconds_add_up_over_processes(tmp_path):
    train(tmp_path, [0.5] * 3, epochs=1)
    first = Reader(tmp_path)
    spent = next(first.newest_lines())["seconds"]
    with Run(tmp_path, state={"weight": 0}) as run:
        for _ in run.epochs(2):
            run.report(val_loss=0.4)
    assert run.progress.seconds > spent > 0


def test_time_lost_in_a_crash_counts(tmp_path):
    train(tmp_path, [0.5] * 3, epochs=1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"event":"report","epoch":2,"step":0,"seconds":7200.0}\n')
    with Run(tmp_path, state={"weight": 0}, stop=After(hours=2)) as run:
        assert list(run.epochs(3)) == [2]
    assert run.stopped.reason is Reason.AFTER


def test_a_requested_stop_is_a_real_stop(tmp_path):
    with Run(tmp_path, state={"w": 0}, save=None) as run:
        for epoch in run.epochs(9):
            run.report(val_loss=1.0)
            if epoch == 2:
                run.stop("seen enough")
    assert (run.stopped.reason, str(run.stopped)) == (Reason.REQUESTED, "requested: seen enough")
    assert [info.epoch for info in run.checkpoints] == [2]


def test_leaving_the_loop_at_the_stop_is_the_same(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=Patience(1)) as run:
        for _ in run.epochs(9):
            if run.report(val_loss=1.0).stop:
                run.restore_best()
                break
    assert [info.epoch for info in run.checkpoints] == [1, 2]


def test_a_pass_that_was_left_after_its_report_is_complete(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None) as run:
        for epoch in run.epochs(9):
            run.report(val_loss=1.0)
            if epoch == 2:
                break
        assert run.save("here").epoch == 2
        assert list(run.epochs(4)) == [3, 4]


def test_named_saves_are_pinned_and_found(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=None, save=None, keep=Last(1)) as run:
        assert run.save("initial").epoch == 0
        for epoch in run.epochs(4):
            state["weight"] = epoch
            run.report(val_loss=1 / epoch)
            if epoch == 2:
                info = run.save("warm")
            if epoch == 3:
                run.save("loose", pin=False)
    assert (info.label, info.pinned, info.value) == ("warm", True, 0.5)
    assert [(i.label, i.epoch) for i in run.checkpoints] == [("initial", 0), ("warm", 2), (None, 4)]
    with Run(tmp_path, state=state, stop=None, save=None, keep=Last(1)) as run, pytest.raises(SettingError):
        run.save("with/slash")


def test_a_save_in_the_middle_of_a_pass_is_refused(tmp_path):
    with Run(tmp_path, state={"w": 0}) as run:
        for _ in run.epochs(1):
            with pytest.raises(OrderError) as caught:
                run.save("early")
            assert str(caught.value) == "save('early') in the middle of epoch 1: call it after report()"
            break
        with pytest.raises(OrderError, match="in the middle of epoch 1"):
            run.save("left")


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (
            lambda run: run.report(val_loss=1.0),
            "report() was called twice in epoch 1: report all metrics at once",
        ),
        (lambda run: run.step(), "run.step() after run.report(): report() is the last thing in the pass"),
        (
            lambda run: next(iter(run.epochs(3))),
            "run.epochs(3) inside another loop of this run: leave that one first",
        ),
        (
            lambda run: run.restore_best(),
            "restore_best() after report() in the same pass: a resumed run would skip it; call it later",
        ),
        (lambda run: run.restore_latest(), "restore_latest() after report() in the same pass"),
        (lambda run: run.open(), "is open already: call run.close() first"),
    ],
)
def test_calls_at_the_wrong_moment_of_a_pass(tmp_path, misuse, text):
    with Run(tmp_path, state={"w": 0}) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
            with pytest.raises(OrderError) as caught:
                misuse(run)
            assert text in str(caught.value)


def test_calls_outside_a_loop_and_outside_the_block(tmp_path):
    run = Run(tmp_path, state={"w": 0})
    with pytest.raises(
        OrderError, match=r"the run is not open: use it in a block, `with Run\(...\) as run:`"
    ):
        run.epochs(3)
    with pytest.raises(OrderError, match="the run is not open"):
        run.stopped
    with run:
        with pytest.raises(OrderError, match=r"report\(\) outside a loop"):
            run.report(val_loss=1.0)
        with pytest.raises(OrderError, match=r"run.step\(\) counts steps inside run.epochs\(n\)"):
            run.step()
        with pytest.raises(SettingError, match=r"epochs\(n\): n=0: write a whole number >= 1"):
            run.epochs(0)
        for _ in run.steps(1):
            with pytest.raises(OrderError, match="run.steps"):
                run.step()
            run.report(val_loss=1.0)
        with pytest.raises(OrderError, match=r"report\(\) outside a loop"):
            run.report(val_loss=1.0)
    with pytest.raises(OrderError, match="the run is closed: open it again in a new `with` block"):
        run.epochs(3)
    assert run.progress.step == 1
    run.close()


def test_a_refused_report_leaves_the_pass_open(tmp_path):
    with Run(tmp_path, state={"w": 0}) as run:
        for _ in run.epochs(1):
            with pytest.raises(TypeError, match=r"val_loss is a list"):
                run.report(val_loss=[1.0])
            with pytest.raises(stopctl.ReportError, match="the report has no 'val_loss'"):
                run.report(loss=1.0)
            assert run.report(val_loss=1.0).new_best


def test_opening_what_this_process_has_open_says_close(tmp_path):
    with Run(tmp_path, state={"w": 0}) as run:
        for _ in run.epochs(1):
            with pytest.raises(LockedError, match=r"run\.close\(\) first, or write take_over=True"):
                Run(tmp_path, state={"w": 0}).open()
            run.report(val_loss=1.0)
    with Run(tmp_path, state={"w": 0}):
        pass


def test_best_not_saved_names_both_epochs(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=2)) as run:
        for epoch in run.epochs(4):
            run.report(val_loss=[0.5, 0.4, 0.1, 0.3][epoch - 1])
        with pytest.raises(BestNotSaved) as caught:
            run.restore_best(exact=True)
        assert str(caught.value) == (
            "the best value 0.1 was reported in epoch 3 (step 0); the best that was saved is 0.3 of epoch 4: "
            "write save=OnBest(), or exact=False"
        )
        info = run.restore_best()
        assert (info.epoch, info.is_best) == (4, False)
        assert run.restore_latest().epoch == 4


def test_without_a_finite_value_there_is_no_best(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=NonFinite()) as run:
        with pytest.raises(DamagedError, match="there is no checkpoint yet"):
            run.restore_latest()
        with pytest.raises(BestNotSaved, match=r"no finite value of val_loss was reported \(none at all\)"):
            run.restore_best()
        for _ in run.epochs(4):
            run.report(val_loss=float("nan"))
        with pytest.raises(
            BestNotSaved, match=r"no finite value of val_loss was reported \(the newest is nan\)"
        ):
            run.restore_best()
        assert run.restore_latest().epoch == 1
    assert run.stopped.reason is Reason.NON_FINITE


def test_a_damaged_best_is_set_aside_and_the_next_best_restored(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=None, keep=Last(9)) as run:
        for epoch in run.epochs(4):
            state["weight"] = epoch
            run.report(val_loss=[0.5, 0.1, 0.2, 0.3][epoch - 1])
        best = run.checkpoints[1]
        data = bytearray((best.path / "state.json").read_bytes())
        data[len(data) // 2] ^= 1
        (best.path / "state.json").write_bytes(data)
        info = run.restore_best()
        assert (info.epoch, info.is_best, state["weight"]) == (3, False, 3)
        assert [i.epoch for i in run.checkpoints] == [1, 3, 4]
        assert list(run.epochs(5)) == [5]
    assert (tmp_path / "checkpoints" / f".damaged-{best.name}").is_dir()
    assert [line["name"] for line in events(tmp_path, "set_aside")] == [best.name]


def test_sigterm_saves_and_ends_the_process_with_143(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as caught, Run(tmp_path, state={"w": 0}, save=None) as run:
        for epoch in run.epochs(9):
            if epoch == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            run.report(val_loss=1.0)
        pytest.fail("nothing after the loop runs")
    assert (caught.value.code, isinstance(caught.value, SystemExit)) == (143, True)
    assert "preempted by SIGTERM; the run is saved" in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [(info.epoch, info.reasons) for info in run.checkpoints] == [(3, ("preempted",))]
    assert [line["signal"] for line in events(tmp_path, "preempted")] == ["SIGTERM"]
    assert train(tmp_path, [1.0] * 9, epochs=5, state={"w": 0}, allow_missing={"weight"})[1] == [4, 5]


@pytest.mark.parametrize("where", ["before the loop", "in a pass without a report"])
def test_sigterm_is_seen_at_the_boundary(tmp_path, where):
    with pytest.raises(Preempted), Run(tmp_path, state={"w": 0}, save=None) as run:
        if where == "before the loop":
            os.kill(os.getpid(), signal.SIGTERM)
        for epoch in run.epochs(9):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert [info.epoch for info in run.checkpoints] == [0 if where == "before the loop" else 2]


def test_sigterm_after_the_loop_ends_the_process_at_close(tmp_path):
    reached = []
    with pytest.raises(Preempted) as caught, Run(tmp_path, state={"w": 0}) as run:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        run.restore_best()
        reached.append("restored")
    assert (caught.value.code, reached) == (143, ["restored"])
    with pytest.raises(KeyError), Run(tmp_path, state={"w": 0}):
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError  # an error on its way out is not replaced


def full(*paths):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0]))


def test_a_failed_save_raises_and_is_due_again(tmp_path, monkeypatch):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=2)) as run:
        for epoch in run.epochs(6):
            if epoch == 2:
                with monkeypatch.context() as patch:
                    patch.setattr(FILES, "rename", full)
                    with pytest.raises(SaveError, match="No space left on device"):
                        run.report(val_loss=1.0)
                assert run.checkpoints == ()
            else:
                run.report(val_loss=1.0)
    assert [line["epoch"] for line in events(tmp_path, "saved")] == [3, 4, 6]
    assert len(events(tmp_path, "save_failed")) == 1


def test_a_disk_that_stays_full_does_not_end_a_loop_that_goes_on(tmp_path, monkeypatch):
    failed = []
    with Run(tmp_path, state={"w": 0}, stop=None) as run:
        monkeypatch.setattr(FILES, "rename", full)
        for epoch in run.epochs(4):
            try:
                run.report(val_loss=1.0)
            except SaveError:
                failed.append(epoch)
            if epoch == 4:
                monkeypatch.undo()  # in time: the save of the last pass is owed at the loop's end
        assert failed == [1, 2, 3, 4]
    assert [info.epoch for info in run.checkpoints] == [4]


def test_the_last_save_is_committed_or_raises_before_the_loop_ends(tmp_path, monkeypatch):
    with Run(tmp_path, state={"w": 0}, stop=None, save=None) as run, pytest.raises(SaveError):
        monkeypatch.setattr(FILES, "rename", full)
        for _ in run.epochs(2):
            if run.progress.epoch == 1:
                with pytest.raises(SaveError):
                    run.report(val_loss=1.0)
            else:
                run.report(val_loss=1.0)


def test_what_cannot_be_saved_is_named_with_its_path(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state) as run:
        for _ in run.epochs(1):
            state["weight"] = {"deep": [1, object()]}
            with pytest.raises(stopctl.TreeError, match="weight/deep/1"):
                run.report(val_loss=1.0)
            state["weight"] = 1
    assert [info.epoch for info in run.checkpoints] == [1]


def test_notes_and_rules_are_in_run_json(tmp_path):
    with Run(tmp_path, state={"w": 0}, notes={"seed": 3}, goal=Maximize("acc"), keep=Best(3)) as run:
        assert run.notes == {"seed": 3}
    meta = json.loads((tmp_path / "run.json").read_text())
    assert meta["notes"] == {"seed": 3}
    assert meta["goal"] == {"metric": "acc", "mode": "max"}
    assert meta["rules"] == {
        "stop": "Patience(10) | NonFinite()",
        "save": "Every(epochs=1) | OnBest()",
        "keep": "Best(3)",
        "lr": "None",
    }
    assert (meta["format"], meta["writer"]) == (1, 1)
    with Run(tmp_path, state={"w": 0}, goal=Maximize("acc")) as run:
        assert run.notes == {"seed": 3}
    with Run(tmp_path, state={"w": 0}, goal=Maximize("acc"), notes={"seed": 4}) as run:
        assert run.notes == {"seed": 4}


def test_one_line_a_decision(tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO, "stopctl")
    train(tmp_path, [0.5, 0.6, 0.6], stop=Patience(2), save=OnBest())
    bytes_ = sum(info.bytes for info in Reader(tmp_path).list().good)
    assert caplog.messages == [
        f"{tmp_path}: begins 50 epochs: goal=Minimize('val_loss'), stop=Patience(2), save=OnBest(), "
        "keep=Last(2) | Best(1)",
        "epoch 1, step 0; val_loss 0.5 (new best); saved epoch-0001-step-000000000-w0001 (new best 0.5)",
        "epoch 3, step 0; val_loss 0.6; saved epoch-0003-step-000000000-w0001 (the run stops); "
        "stop: no improvement over 0.5 for 2 reports",
        f"{tmp_path}: stopped at epoch 3 of 50: no improvement over 0.5 for 2 reports; val_loss 0.6, best 0.5 "
        "(epoch 1)",
        f"closed {tmp_path}: 2 checkpoints, {bytes_ / 1000:.1f} kB",
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"monitor": "val_loss"},
            "Run has no monitor=: write goal=Minimize('val_loss'), or goal=Maximize('accuracy')",
        ),
        (
            {"restore_best_weights": True},
            "Run has no restore_best_weights=: write run.restore_best() after the loop, or "
            "FitCallback(..., restore_best=True)",
        ),
        ({"save_best_only": True}, "Run has no save_best_only=: write save=OnBest()"),
        (
            {"start_from_epoch": 3},
            "Run has no start_from_epoch=: write stop=Patience(n, start_from=...), which counts reports",
        ),
        ({"resume": "yes"}, "resume='yes': write 'auto', 'require' or 'never'"),
        ({"keep": 3}, "keep=3: write a keep rule, such as keep=Last(2) | Best(1), or None"),
        ({"stop": 3}, "stop=3: write a stop rule, such as stop=Patience(10), or None"),
        ({"notes": {"a": object}}, "write plain JSON"),
        ({"notes": {"a": float("nan")}}, "write plain JSON"),
        ({"notes": [1]}, "notes=[1]: write a dict of plain JSON"),
        ({"state": 3}, "state=3: write a dict, such as state={'params': params}, or an adapter's State"),
        ({"state": {1: 2}}, "state has the key 1: use names such as 'params'"),
        ({"state": {"rng.python": 2}}, "state has the key 'rng.python'"),
        (
            {"allow_missing": "scheduler"},
            "allow_missing='scheduler': write a set of names, such as {'scheduler'}",
        ),
    ],
)
def test_wrong_settings_say_what_to_write_and_touch_nothing(tmp_path, settings, text):
    with pytest.raises(SettingError) as caught:
        Run(tmp_path / "run", **{"state": {"w": 0}, **settings})
    assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_outlook_and_what_is_probably_not_meant(tmp_path, caplog):
    with Run(tmp_path, state={}, goal=Maximize("val_loss"), stop=RemainingGain(1e-9), save=None) as run:
        assert run.outlook() is None
        for epoch in run.epochs(20):
            run.report(val_loss=1 - 2.0**-epoch)
            if epoch == 15:
                outlook = run.outlook()
    assert 0.8 < outlook.probability(0.5) < outlook.probability(0.9) < 1
    assert "Maximize('val_loss'): larger is better there; did you mean Minimize('val_loss')?" in caplog.text


def test_averages_and_warm_ups_are_what_manifests_and_readers_have(tmp_path):
    goal = Minimize("val_loss", alpha=0.5, start_from=1)
    values = [0.1, 1.1, 0.4, 0.9]  # the averages are 0.1, 0.6, 0.5, 0.7; the first is never best
    with Run(tmp_path, state={"w": 0}, goal=goal, stop=Patience(9), save=Every(epochs=1), keep=None) as run:
        for epoch in run.epochs(4):
            run.report(val_loss=values[epoch - 1])
        assert [info.value for info in run.checkpoints] == [None, pytest.approx(0.6), 0.5, pytest.approx(0.7)]
        assert run.restore_best().epoch == 3
    standing = read_run(tmp_path).standing
    assert (standing.best, standing.best_epoch, standing.value) == (0.5, 3, pytest.approx(0.7))
    assert best_reported(Reader(tmp_path), read_run(tmp_path).goal) == 0.5
    assert "new best 0.5" in [moment.text for moment in read_run(tmp_path).history.moments]
    with pytest.raises(
        StateError, match=r"was begun with goal=Minimize\('val_loss', alpha=0.5, start_from=1\)"
    ):
        Run(tmp_path, state={"w": 0}, goal=Minimize("val_loss", alpha=0.4)).open()
    with Run(tmp_path, state={"w": 0}, goal=Minimize("val_loss", alpha=0.5), stop=None) as run:
        assert (run.progress.epoch, run.progress.best) == (4, 0.5)


def test_the_best_of_several_metrics_are_saved_kept_and_found(tmp_path):
    f1, state = Maximize("f1"), {"w": 0}
    reports = [(0.5, 0.1), (0.4, 0.9), (0.3, 0.5), (0.35, 0.4), (0.36, 0.3)]
    given = {"save": OnBest() | OnBest(goal=f1), "keep": Last(1) | Best(1) | Best(1, goal=f1), "stop": None}
    for end in (3, 5):  # resumed in between
        with Run(tmp_path, state=state, durability="process", **given) as run:
            for epoch in run.epochs(end):
                state["w"] = epoch
                loss, score = reports[epoch - 1]
                run.report(val_loss=loss, f1=score)
    listed = {info.epoch: (info.value, info.values) for info in run.checkpoints}
    assert listed == {
        2: (0.4, {"Maximize('f1')": 0.9}), 3: (0.3, {"Maximize('f1')": 0.5}), 5: (0.36, {"Maximize('f1')": 0.3})
    }  # fmt: skip
    assert choose(tmp_path)[0].epoch == 3
    assert choose(tmp_path, goal=f1)[0].epoch == 2
    assert choose(tmp_path, goal=Minimize("val_loss"))[0].epoch == 3
    with pytest.raises(
        SettingError, match=r"has no checkpoint with a finite value of Maximize\('auc'\) \(OnBest"
    ):
        choose(tmp_path, goal=Maximize("auc"))
    assert (
        info_from_json(json.loads(json.dumps(info_to_json(run.checkpoints[0]))), tmp_path)
        == run.checkpoints[0]
    )
