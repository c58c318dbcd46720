"""What docs/troubles.md and docs/reference/errors.md quote is what is really said."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import stopctl
from stopctl import Every, Maximize, Minimize, NonFinite, OnBest, Patience, Run, store
from stopctl.state.dictstate import DictState
from stopctl.testing import Interrupted, verify_resume
from support.teams import together

DOCS = Path(__file__).parents[1] / "docs"
QUICK = {"durability": "process"}


def train(passes=3, value=lambda epoch: 1.0 / epoch, state=None, metric="val_loss", body=None, **settings):
    held = {"w": 0.0} if state is None else state
    with Run("runs/a", state=held, **QUICK, **settings) as run:
        for epoch in run.epochs(passes):
            if body is not None:
                body(run, epoch)
            run.report(**{metric: value(epoch)})
    return run


def newest(text="x"):
    """Damage the state of the newest checkpoint."""
    (max(Path("runs/a/checkpoints").glob("epoch-*")) / "state.json").write_text(text)


def setting():
    Patience(0)


def metric():
    train(value=lambda epoch: "0.3")


def lacks():
    train(metric="loss")


def twice():
    train(body=lambda run, epoch: run.report(val_loss=0.3))


def other_goal():
    train()
    train(goal=Maximize("accuracy"))


def misfit():
    train()
    train(5, state={"w": 0.0, "v": 0.0})


def unsavable():
    train(state={"f": print})


def rank_ends():
    def program(team):
        def body(run, epoch):
            if (team.rank, epoch) == (1, 2):
                raise ValueError("bad batch")

        train(body=body, team=team)

    raise together(2, program)[0]


def taken():
    train(body=lambda run, epoch: store.unlock("runs/a"))


def damaged():
    train(1)
    newest()
    train()


def locked():
    caught = []

    def other():
        try:
            Run("runs/a", state={}).open()
        except stopctl.LockedError as error:
            caught.append(error)

    run = Run("runs/a", state={}, **QUICK).open()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    run.close()
    raise caught[0]


def no_run():
    Path("runs/x").mkdir(parents=True)
    Run("runs", state={}, **QUICK).open()


def not_saved():
    run = Run("runs/a", state={}, save=OnBest(min_delta=1.0), stop=None, **QUICK).open()
    for epoch in run.epochs(5):
        run.report(val_loss=3.0 - 0.01 * epoch)
        if epoch == 2:
            break
    try:
        run.restore_best(exact=True)
    finally:
        run.close()


def preempted():
    train(body=lambda run, epoch: signal.raise_signal(signal.SIGTERM))


def interrupted():
    caught = []

    def loop(directory):
        try:
            with Run(directory, state={"w": 0.0}, **QUICK) as run:
                for epoch in run.epochs(2):
                    run.report(val_loss=epoch)
        except Interrupted as error:
            caught.append(error)
            raise

    verify_resume(loop)
    raise caught[0]


ERRORS = {
    stopctl.SettingError: setting,
    stopctl.MetricError: metric,
    stopctl.ReportError: lacks,
    stopctl.OrderError: twice,
    stopctl.StateError: other_goal,
    stopctl.MismatchError: misfit,
    stopctl.TreeError: unsavable,
    stopctl.TeamError: rank_ends,
    stopctl.SaveError: taken,
    stopctl.DamagedError: damaged,
    stopctl.LockedError: locked,
    stopctl.NotARunError: no_run,
    stopctl.BestNotSaved: not_saved,
    stopctl.Preempted: preempted,
    Interrupted: interrupted,
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table():
    """The rows of the page: the names of errors, the Python error that each is, and the text that is quoted."""
    row = re.compile(r"^\| \[`(\w+)`\]\S*?\)(?:, a `(\w+)`)? \| (?:`(.*?)`\. |\w)", re.MULTILINE)
    return {
        name: (also, text) for name, also, text in row.findall((DOCS / "reference/errors.md").read_text())
    }


def test_the_page_of_errors_has_every_public_one():
    public = {"StopctlError"}
    for module in (
        "stopctl",
        "stopctl.rules",
        "stopctl.sinks",
        "stopctl.testing",
        "stopctl.ports",
        "stopctl.store",
    ):
        found = importlib.import_module(module)
        values = {name: getattr(found, name) for name in found.__all__}
        public |= {
            name for name, one in values.items() if isinstance(one, type) and issubclass(one, BaseException)
        }
    assert set(table()) == public == {error.__name__ for error in ERRORS} | {"StopctlError"}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore")
def test_each_error_is_raised_with_the_text_of_the_page(kind, tmp_path):
    also, text = table()[kind.__name__]
    with pytest.raises(kind) as caught:
        ERRORS[kind]()
    assert not also or also in {base.__name__ for base in kind.__mro__}
    assert kind is Interrupted or str(caught.value).replace(f"{tmp_path}/", "").startswith(text)


class Scheduled(DictState):
    """A dict with a scheduler."""

    steps = 0

    def version(self):
        return {"scheduler.step()": self.steps}


def finished():
    train()
    train()


def stopped():
    for _ in range(2):
        train(20, value=lambda epoch: 1.0, stop=Patience(2))


def required():
    train(resume="require")


def never():
    train()
    train(resume="never")


def no_number():
    train(10, value=lambda epoch: 1.0 / epoch if epoch < 3 else float("nan"), stop=NonFinite())


def wrong_way():
    train(goal=Minimize("val_accuracy"), metric="val_accuracy")


def left():
    with Run("runs/a", state={}, **QUICK) as run:
        for epoch in run.epochs(5):
            run.report(val_loss=0.3)
            if epoch == 2:
                break


def late():
    state = Scheduled({})
    with Run("runs/a", state=state, **QUICK) as run:
        for _ in run.epochs(3):
            run.report(val_loss=0.3)
            state.steps += 1


def elsewhere():
    code = "import stopctl, sys; run = stopctl.Run('runs/a', state={}).open(); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        train()


def fewer_ranks():
    def program(team):
        with Run("runs/a", state={"w": 0.0}, team=team, save=Every(steps=1), **QUICK) as run:
            for _ in run.epochs(3):
                for _ in run.batches(list(range(8))):
                    if run.progress.step == 2:
                        run.stop("enough")

    together(2, program)
    raise together(3, program)[0]


def rare():
    print(train(5, save=Every(epochs=10), body=lambda run, epoch: print(run.explain())))


def resumed():
    def body(run, epoch):
        if epoch == 3:
            raise ValueError("bad batch")

    with contextlib.suppress(ValueError):
        train(5, body=body)
    train(5)


def rotten():
    train(6, save=Every(epochs=1))
    newest()
    train(8)


def full(monkeypatch):
    def create(files, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def body(run, epoch):
        if epoch == 2:
            monkeypatch.setattr(type(store.FILES), "create", create)

    with monkeypatch.context() as monkeypatch:
        train(body=body)


def plain(text):
    """The text without what differs from one machine, version and moment to the next, and from log to terminal."""
    text = text.removeprefix("stopctl: ")
    text = re.sub(r"process \d+ on \S+ since \S+?Z", "process N", text)
    return re.sub(r"-[0-9a-f]{8}/|(?<=instead of )\d+", "N", text)


TROUBLES = [
    finished,
    stopped,
    required,
    never,
    no_number,
    wrong_way,
    left,
    preempted,
    late,
    elsewhere,
    taken,
    misfit,
]
TROUBLES += [other_goal, fewer_ranks, no_run, damaged, rare, resumed, rotten, full, not_saved]


@pytest.mark.filterwarnings("ignore")
def test_every_quoted_line_is_really_printed(tmp_path, monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO, "stopctl")
    for trouble in TROUBLES:
        shutil.rmtree("runs", ignore_errors=True)
        try:
            trouble(monkeypatch) if trouble is full else trouble()
        except (stopctl.StopctlError, stopctl.Preempted) as error:
            print(error)
    said = plain((caplog.text + capsys.readouterr().out).replace(f"{tmp_path}/", ""))
    quoted = re.findall(r"^```text\n(.*?)^```", (DOCS / "troubles.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(quoted) > 15
    assert [line for block in quoted for line in block.splitlines() if plain(line) not in said] == []
