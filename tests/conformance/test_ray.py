"""Ray Tune: the stopper and the checkpoint's folder without a cluster; with one by hand."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from conformance.program import play, programs
from stopctl import (
    Controller,
    Every,
    Maximize,
    MetricError,
    NotARunError,
    Patience,
    ReportError,
    Run,
    SettingError,
)
from stopctl.store import Reader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tune = pytest.importorskip("ray.tune")
    from stopctl.tuners import ray as tuning

VALUES = [0.5, 0.4, 0.45, 0.42, 0.41, 0.3]


def results(values: list[float], first: int = 1) -> list[dict[str, Any]]:
    """What Tune tells of a trial."""
    return [
        {"training_iteration": i, "time_total_s": 0.5 * i, "val_loss": value, "done": False}
        for i, value in enumerate(values, first)
    ]


def test_each_trial_is_stopped_as_by_the_rule_itself_also_when_pickled_between_all_results() -> None:
    controller = Controller(stop=Patience(3), save=None)
    expected = [controller.report({"val_loss": value}, epoch=i).stop for i, value in enumerate(VALUES[:5], 1)]
    stopper = tuning.RuleStopper(Patience(3))
    told = []
    for result in results(VALUES):
        stopper = pickle.loads(pickle.dumps(stopper))
        told.append(stopper("a", result))
        assert not stopper.stop_all()
    assert told == [stop is not None for stop in expected] + [True]
    assert stopper.why("a") == "no improvement over 0.4 for 3 reports"
    assert stopper("b", results(VALUES)[0]) is False, "a trial of its own"
    assert (stopper.why("b"), stopper.why("c")) == (None, None)


def test_what_tune_tells_again_counts_once() -> None:
    stopper = tuning.RuleStopper(Patience(3))
    first = results(VALUES)
    restarted = [*first[:4], *results(VALUES[2:4], 3), first[3]]
    assert [stopper("a", result) for result in restarted] == [False] * 7
    assert stopper("a", {**first[4], "time_total_s": 0.1}) is True


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="write a stop rule"):
        tuning.RuleStopper(3)
    stopper = tuning.RuleStopper(Patience(3), goal=Maximize("f1"))
    with pytest.raises(ReportError, match=r"trial a reports no 'f1', .*: write it in tune\.report"):
        stopper("a", results(VALUES)[0])
    with pytest.raises(MetricError):
        stopper("a", {**results(VALUES)[0], "f1": "high"})
    assert stopper("a", {**results(VALUES)[0], "f1": 0.5}) is False


class Session:
    """Tune's side of a trainable: keeps what is reported, and gives the newest checkpoint back."""

    def __init__(self, monkeypatch: Any, storage: Path) -> None:
        self.told: list[tuple[dict[str, Any], bool]] = []
        self.newest: Any = None
        self._storage = storage
        monkeypatch.setattr(tune, "report", self.report)
        monkeypatch.setattr(tune, "get_checkpoint", lambda: self.newest)

    def report(self, metrics: dict[str, Any], *, checkpoint: Any = None) -> None:
        self.told.append((dict(metrics), checkpoint is not None))
        if checkpoint is not None:
            path = checkpoint.to_directory(self._storage / str(len(self.told)))
            self.newest = tune.Checkpoint.from_directory(path)


class Died(BaseException):
    """The actor is gone, and its local files with it."""


def trainable(*, die: int = 0, **settings: Any) -> tuple[list[float], list[int]]:
    """Train, dying in epoch ``die`` before its report; the state at the end, and the epochs that were trained."""
    state, trained = {"x": [1.0]}, []
    with tuning.directory() as folder, Run(folder, state=state, **{"stop": None, **settings}) as run:
        for epoch in run.epochs(6):
            trained.append(epoch)
            state["x"].append(state["x"][-1] * 0.5 + epoch)
            if epoch == die:
                raise Died
            tuning.report(run, val_loss=1 / epoch)
    return state["x"], trained


def test_an_actor_that_died_goes_on_with_the_run_in_tunes_checkpoint(
    tmp_path: Path, monkeypatch: Any
) -> None:
    undisturbed = Session(monkeypatch, tmp_path / "undisturbed")
    expected, _ = trainable()
    session = Session(monkeypatch, tmp_path / "died")
    for die in (4, 5):
        with pytest.raises(Died):
            trainable(die=die)
    assert trainable() == (expected, [5, 6])
    assert session.told == undisturbed.told
    assert all(saved for _, saved in session.told)
    folder = Path(session.newest.path)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "journal.jsonl", "run.json"]
    assert [info.epoch for info in Reader(folder).list().good][-2:] == [5, 6]
    assert trainable() == (expected, [])
    assert len(session.told) == 6


def test_only_what_is_saved_becomes_a_checkpoint_and_nothing_unfinished(
    tmp_path: Path, monkeypatch: Any
) -> None:
    session = Session(monkeypatch, tmp_path)
    link, made = tuning.os.link, []

    def no_links(source: str, target: str) -> None:
        made.append(target)
        raise OSError

    monkeypatch.setattr(tuning.os, "link", no_links)
    with Run(tmp_path / "run", state={"x": 1}, stop=None, save=Every(epochs=2)) as run:
        for epoch in run.epochs(3):
            (run.directory / "checkpoints" / ".tmp-epoch-0009").mkdir(exist_ok=True)
            tuning.report(run, val_loss=1 / epoch)
    monkeypatch.setattr(tuning.os, "link", link)
    assert [saved for _, saved in session.told] == [False, True, True]
    assert made
    assert [path.name for path in (tmp_path / "3" / "checkpoints").iterdir() if path.name[0] == "."] == []
    assert [info.epoch for info in Reader(tmp_path / "3").list().good] == [2, 3]


def test_a_save_in_the_background_is_committed_before_tune_hears_of_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    session = Session(monkeypatch, tmp_path)
    expected, _ = trainable(async_save=True)
    assert [saved for _, saved in session.told] == [True] * 6
    newest = Reader(Path(session.newest.path)).list().good[-1]
    assert (newest.epoch, len(expected)) == (6, 7)


def test_a_checkpoint_that_is_no_run_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    session = Session(monkeypatch, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.pt").touch()
    session.newest = tune.Checkpoint.from_directory(tmp_path / "other")
    with pytest.raises(NotARunError, match=r"it has no run\.json, but model\.pt"):
        trainable()
    with pytest.raises(ReportError, match="has no 'f1', which a rule watches"):
        session.newest = None
        trainable(goal=Maximize("f1"))


DYING = """
import os, signal
def dying(config, epochs):
    \"\"\"Kill the actor after epoch 2, and inside the save of epoch 5; each once.\"\"\"
    from stopctl.store.files import FILES  # of this process, and no copy that came with the function
    def once(name):
        try:
            os.close(os.open(os.path.join(FOLDER, f"{name}-{config['lr']}"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
    rename = FILES.rename
    def killed(source, target):
        if target.name.startswith("epoch-0005"):
            once("save")
        rename(source, target)
    FILES.rename = killed
    for epoch in epochs:
        yield epoch
        if epoch == 2:
            once("boundary")
"""


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_program_of_the_page_with_actors_killed_twice_ends_with_the_same_bits(tmp_path: Path) -> None:
    (program,) = (each for each in programs("tuners") if "ray" in each)
    play(tmp_path / "as-it-stands", program, seconds=500)
    (tmp_path / "marks").mkdir()
    seeded = program.replace(
        "    model = ",
        "    torch.manual_seed(0 if tune.get_checkpoint() is None else os.getpid())\n    model = ",
    )
    seeded += (
        "print('ends with', sorted((r.config['lr'], r.metrics['val_loss']) for r in tuner.get_results()))\n"
    )
    dying = DYING.replace("FOLDER", repr(str(tmp_path / "marks")))
    killed = dying + seeded.replace("run.epochs(8)", "dying(config, run.epochs(8))")
    found = []
    for name, code in (("straight", seeded), ("killed", killed)):
        told = play(tmp_path / name, code, seconds=500)
        found += re.findall(r"^ends with .*$", told, re.MULTILINE)
    assert len(list((tmp_path / "marks").iterdir())) == 4
    assert len(found) == 2
    assert found[0] == found[1]
