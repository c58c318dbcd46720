"""verify_resume passes what is exact, and names what is not given to Run."""

from __future__ import annotations

import logging
import random
import subprocess
import sys

import numpy as np
import pytest

from stopctl import Every, Indices, Run, SettingError
from stopctl.state.dictstate import DictState
from stopctl.state.protocols import Notice
from stopctl.testing.interrupt import Interrupted
from stopctl.testing.verify import verify_resume

ROWS = np.random.default_rng(0).normal(size=(24, 3))


def loop(directory, *, state, draw=np.random.normal, judged=None, batches=False, **settings):
    """Momentum descent with noise, in epochs that may be saved inside."""
    settings = {"save": Every(steps=2) if batches else Every(epochs=2), "stop": None, **settings}
    with Run(directory, state=state, **settings) as run:
        for _ in run.epochs(6):
            data = Indices(len(ROWS), batch_size=6, seed=3)
            for rows in run.batches(data) if batches else np.arange(24).reshape(4, 6):
                gradient = state["w"] - ROWS[rows].mean(0) + 0.1 * draw()
                if "momentum" in state:
                    state["momentum"] = 0.9 * state["momentum"] + gradient
                    gradient = state["momentum"]
                state["w"] = state["w"] - 0.1 * gradient
            run.report(val_loss=float(np.square((judged or state.__getitem__)("w")).sum()))


def fresh(**more):
    return {"w": np.ones(3), "momentum": np.zeros(3), **more}


@pytest.mark.parametrize("batches", [False, True])
def test_an_exact_loop_passes_and_the_report_tells_what_was_compared(batches, tmp_path):
    budget = 0 if batches else 30
    proof = verify_resume(
        lambda directory: loop(directory, state=fresh(), batches=batches), tmp_path, budget=budget
    )
    assert (proof.boundaries, proof.checkpoints[-1]) == (24, (6, 24)) if batches else (6, (6, 0))
    assert sorted(proof.after) == ([1, 4, 13, 23] if batches else [1, 2, 3, 4, 5])
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == {str(after) for after in proof.after}
    for after, name in zip(proof.after, proof.resumed_from, strict=True):
        done = after - (after == proof.after[0])  # what was not saved is lost there, and done again
        assert f"-step-{done:09}-" in name if batches else name.startswith(f"epoch-{done:04}-")
    assert {"w", "momentum", "rng.numpy", "rng.python"} <= set(proof.components)


def test_the_middle_boundary_that_loses_work_is_taken_or_the_one_that_is_asked_for():
    def train(directory):
        loop(directory, state=fresh())

    assert verify_resume(train).after == (
        5,
        1,
        4,
        2,
        3,
    )  # of 3 and 5, which save nothing; 1 has nothing to go on from
    assert verify_resume(train, budget=0).after == (5, 1)
    for after in (2, 3, 4, 5):
        assert verify_resume(train, after=after).after == (after,)


def test_the_loop_is_called_with_other_generators_the_second_time():
    seen = []

    def train(directory):
        seen.append((random.random(), np.random.random()))
        loop(directory, state=fresh())

    verify_resume(train, after=2)
    assert seen[0] == seen[1]
    assert all(one != other for one, other in zip(seen[0], seen[2], strict=True))


def test_a_generator_that_is_not_saved_is_found_by_what_it_moves():
    def train(directory):
        loop(directory, state=fresh(), draw=np.random.default_rng(5).normal)

    with pytest.raises(AssertionError) as caught:
        verify_resume(train)
    text = str(caught.value)
    assert text.startswith(
        "resume is not exact: broken off behind boundary 5 of 6 and resumed from epoch-0004-"
    )
    assert "the run differs in the checkpoint of epoch 6, step 0:\n  w: 3 of 3 elements differ, by " in text
    assert "different as well: momentum, controller" in text
    assert "seen sooner in what was reported: report 5 (epoch 5, step 0)" in text
    assert "a generator of your own" in text


def test_an_optimizer_that_is_not_given_is_found():
    def train(directory):
        momentum = np.zeros(3)
        state = {"w": np.ones(3)}
        with Run(directory, state=state, save=Every(epochs=1), stop=None) as run:
            for _ in run.epochs(4):
                momentum = 0.9 * momentum + state["w"]
                state["w"] = state["w"] - 0.1 * momentum
                run.report(val_loss=float(state["w"].sum()))

    with pytest.raises(AssertionError, match=r"\n  w: 3 of 3 elements differ(.|\n)*an optimizer"):
        verify_resume(train)


def test_averages_that_are_not_given_are_found_by_what_is_reported():
    def train(directory):
        average = np.ones(3)
        state = {"w": np.ones(3)}
        with Run(directory, state=state, save=Every(epochs=1), stop=None) as run:
            for _ in run.epochs(4):
                state["w"] = 0.9 * state["w"]
                average = 0.5 * average + 0.5 * state["w"]
                run.report(val_loss=float(average.sum()))

    with pytest.raises(AssertionError) as caught:
        verify_resume(train)
    assert "\n  controller/metrics/val_loss: " in str(caught.value)
    assert "averaged weights (extra={'ema': ema})" in str(caught.value)


class Seeing(DictState):
    """A State that sees what is wrong."""

    def __init__(self, values):
        super().__init__(values)
        self.notices = [Notice("the scheduler is not given: write scheduler="), Notice("x", logging.INFO)]


def test_what_the_run_has_noticed_is_the_likely_cause():
    def train(directory):
        state, rng = fresh(), np.random.default_rng(5)
        with Run(directory, state=Seeing(state), save=Every(epochs=1), stop=None) as run:
            for _ in run.epochs(3):
                state["w"] = state["w"] + rng.random()
                run.report(val_loss=1.0)

    with pytest.raises(AssertionError) as caught:
        verify_resume(train)
    assert str(caught.value).endswith("\n  likely: the scheduler is not given: write scheduler=")


def test_draws_before_the_batches_of_an_epoch_are_found():
    def train(directory):
        state = {"w": 0.0}
        with Run(directory, state=state, save=Every(steps=1), stop=None) as run:
            for _ in run.epochs(3):
                scale = random.random()  # once more when the epoch goes on in its middle
                for _ in run.batches([1.0, 2.0, 3.0]):
                    state["w"] += scale + random.random()
                run.report(val_loss=state["w"])

    with pytest.raises(AssertionError) as caught:
        verify_resume(train, after=4)
    assert ":\n  w: " in str(caught.value)
    assert "something is drawn before run.batches()" in str(caught.value)


def test_a_loop_that_is_never_the_same_is_told_apart():
    def train(directory):
        loop(directory, state=fresh(), draw=random.SystemRandom().random)

    with pytest.raises(AssertionError, match="before the interruption already, so it is not about resuming"):
        verify_resume(train)


@pytest.mark.parametrize(
    ("settings", "train", "said"),
    [
        ({}, lambda d: None, "opened no Run in that directory"),
        ({}, lambda d: loop(d, state=fresh(), save=None), "has no checkpoint to resume from before the end"),
        ({"after": 1}, lambda d: loop(d, state=fresh()), "boundary 1 has no checkpoint"),
        ({"after": 6}, lambda d: loop(d, state=fresh()), "the run has 6 boundaries"),
        ({"after": True}, lambda d: loop(d, state=fresh()), "after=True"),
        ({"budget": "10"}, lambda d: loop(d, state=fresh()), "budget='10': write a finite number"),
        ({}, "no_such_script.py", "there is no such script"),
    ],
)
def test_what_proves_nothing_is_an_error(settings, train, said):
    with pytest.raises(SettingError, match=said):
        verify_resume(train, **settings)


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "resumed").mkdir()
    (tmp_path / "resumed" / "x").touch()
    with pytest.raises(SettingError, match="resumed/ is not empty"):
        verify_resume(lambda d: loop(d, state=fresh()), tmp_path)


def test_a_loop_that_goes_on_over_the_interruption_is_an_error():
    def train(directory):
        try:
            loop(directory, state=fresh())
        except Interrupted:
            loop(directory, state=fresh())

    with pytest.raises(SettingError, match="caught Interrupted at boundary 5 and went on"):
        verify_resume(train)


SCRIPT = """
import sys
import numpy as np
from stopctl import Every, Run

np.random.seed(1)
draw = {draw}
state = {{"w": np.ones(3)}}
with Run(sys.argv[1], state=state, stop=None, save=Every(epochs=2)) as run:
    for epoch in run.epochs(6):
        state["w"] = state["w"] + draw()
        run.report(val_loss=1.0)
"""


def test_a_script_is_run_in_processes_of_its_own(tmp_path):
    good, bad, broken = (tmp_path / f"{name}.py" for name in ("good", "bad", "broken"))
    good.write_text(SCRIPT.format(draw="np.random.normal"))
    proof = verify_resume(good, budget=0)
    assert (proof.after, proof.boundaries, proof.checkpoints[-1]) == ((5, 1), 6, (6, 0))
    bad.write_text(SCRIPT.format(draw="np.random.default_rng(2).normal"))
    with pytest.raises(AssertionError, match=r"\n  w: 3 of 3 elements differ"):
        verify_resume(str(bad))
    broken.write_text("raise KeyError('lost')")
    with pytest.raises(AssertionError, match="ended with 1:(.|\n)*KeyError: 'lost'"):
        verify_resume(broken)


def test_no_framework_is_imported():
    code = "import sys, stopctl.testing; print({'torch', 'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "set()\n"
