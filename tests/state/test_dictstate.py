"""The dict as the state: read when the run saves, filled when it resumes."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import stopctl
from stopctl import MismatchError, Run, TreeError
from stopctl.state.dictstate import DictState
from stopctl.store.tree import flatten, unflatten


class Moments(NamedTuple):
    count: int
    mu: np.ndarray


def full():
    rng = np.random.default_rng(0)
    return {
        "params": {"w": rng.normal(size=(3, 2)), "b": np.zeros(2, np.float32)},
        "opt": (Moments(3, np.ones(3)), ()),
        "history": [0.5, float("nan")],
        "misc": OrderedDict(a=None, b=b"x", c=Counter({3: 2}), d=np.float32(1.5), e=True, f="text"),
    }


def carried(state):
    """What a checkpoint gives back."""
    return unflatten(*flatten(DictState(state).capture()))


def test_everything_comes_back_as_it_was():
    state = full()
    saved = carried(state)
    other = full()
    other["params"]["w"] *= 0
    other["opt"] = (Moments(0, np.zeros(3)), ())
    other["history"] = []
    other["misc"] = {}
    DictState(other).restore(saved)
    np.testing.assert_array_equal(other["params"]["w"], state["params"]["w"])
    assert type(other["opt"][0]) is Moments
    np.testing.assert_array_equal(other["opt"][0].mu, np.ones(3))
    assert (other["opt"][0].count, other["opt"][1]) == (3, ())
    assert repr(other["history"]) == "[0.5, nan]"
    assert list(other["misc"].items()) == list(state["misc"].items())
    assert (type(other["misc"]), type(other["misc"]["c"]), type(other["misc"]["d"])) == (
        OrderedDict,
        Counter,
        np.float32,
    )


def test_restored_arrays_are_their_own_memory():
    saved = carried(full())
    state = full()
    DictState(state).restore(saved)
    state["params"]["w"] += 1
    again = full()
    DictState(again).restore(saved)
    np.testing.assert_array_equal(again["params"]["w"], full()["params"]["w"])


def test_the_random_states_of_python_and_numpy_are_restored():
    random.seed(1)
    np.random.seed(1)
    saved = carried({"w": 0})
    expected = (random.random(), np.random.normal())
    random.seed(2)
    np.random.seed(2)
    DictState({"w": 0}).restore(saved)
    assert (random.random(), np.random.normal()) == expected


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("opt"), "opt: saved, but not given"),
        (lambda s: s.update(more=1), "more: given, but not saved"),
        (lambda s: s["params"].update(w=np.zeros((3, 3))), "params/w: saved F64 (3, 2), given F64 (3, 3)"),
        (lambda s: s["params"].update(b=np.zeros(2)), "params/b: saved F32 (2,), given F64 (2,)"),
        (lambda s: s["params"].pop("b"), "params/b: saved, but not given"),
        (lambda s: s["params"].update(c=1), "params/c: given, but not saved"),
        (lambda s: s["params"].update(w=[1.0]), "params/w: saved"),
        (lambda s: s.update(opt=(1,)), "opt"),
    ],
)
def test_a_mismatch_changes_nothing(change, text):
    saved = carried(full())
    state = full()
    change(state)
    before = repr(state)
    random.seed(3)
    python = random.getstate()
    with pytest.raises(MismatchError) as caught:
        DictState(state).restore(saved)
    assert text in str(caught.value)
    assert repr(state) == before
    assert random.getstate() == python


def test_all_differences_are_told_at_once():
    state = full()
    state["params"] = {"w": np.zeros(1), "b": np.zeros(1, np.float32)}
    with pytest.raises(MismatchError) as caught:
        DictState(state).restore(carried(full()))
    assert str(caught.value).count("\n") == 2


def test_none_and_empty_containers_are_places_to_fill():
    state = dict.fromkeys(full())
    DictState(state).restore(carried(full()))
    np.testing.assert_array_equal(state["params"]["w"], full()["params"]["w"])


@pytest.mark.parametrize("rng", [("rng.python", "x"), ("rng.numpy", {"bit_generator": "PCG64"})])
def test_random_states_of_other_generators_are_refused(rng):
    saved = {**carried({"w": 1}), rng[0]: rng[1]}
    with pytest.raises(MismatchError, match=rng[0]):
        DictState({"w": 0}).restore(saved)


def test_jax_arrays_come_back_as_jax_arrays():
    jax = pytest.importorskip("jax")
    state = {"params": {"w": jax.numpy.arange(6.0).reshape(2, 3), "h": jax.numpy.ones(2, jax.numpy.bfloat16)}}
    saved = carried(state)
    other = {"params": {"w": jax.numpy.zeros((2, 3)), "h": jax.numpy.zeros(2, jax.numpy.bfloat16)}}
    DictState(other).restore(saved)
    assert isinstance(other["params"]["w"], jax.Array)
    assert (other["params"]["w"] == state["params"]["w"]).all()
    assert other["params"]["h"].dtype == jax.numpy.bfloat16
    assert "jax" in DictState(state).versions()


def test_a_scikit_learn_model_in_a_dict(tmp_path):
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)

    def fit(directory, epochs):
        model = linear.SGDClassifier(random_state=0)
        model.partial_fit(x, y, classes=[0, 1])
        names = ["coef_", "intercept_", "t_"]
        state = {name: getattr(model, name) for name in names}
        with Run(directory, state=state, stop=None) as run:
            for name in names:
                setattr(model, name, state[name])
            for _ in run.epochs(epochs):
                model.partial_fit(x, y)
                state.update({name: getattr(model, name) for name in names})
                run.report(val_loss=1 - model.score(x, y))
        return model.coef_.copy()

    straight = fit(tmp_path / "a", 6)
    fit(tmp_path / "b", 3)
    np.testing.assert_array_equal(fit(tmp_path / "b", 6), straight)


def test_tensors_of_a_framework_with_an_adapter_are_sent_there():
    torch = pytest.importorskip("torch")
    with pytest.raises(TreeError, match=r"w/0 is a torch Tensor: use Run from stopctl_torch"):
        DictState({"w": [torch.zeros(2)]}).capture()


WITHOUT_NUMPY = """
import logging, random, sys
class No:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")
sys.meta_path.insert(0, No())
sys.path.insert(0, sys.argv[1])
logging.basicConfig(format="%(message)s")  # warnings
import stopctl

def train(epochs):
    state = {"w": 1.0, "seen": [], "blob": b"x" * 70_000, "own": random.Random(3), "rows": {1, 2}, "deep": {}}
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}
    with stopctl.Run(sys.argv[2], state=state, save=stopctl.Every(epochs=1), keep=None) as run:
        for epoch in run.epochs(epochs):
            for batch in run.batches([[1], [2]]):
                state["w"] += random.random() * batch[0]
            state["seen"].append(state["own"].random())
            run.report(val_loss=losses[epoch])
        newest = dict(state, seen=list(state["seen"]))
        best = run.restore_best()
        return newest["w"], newest["seen"], best.epoch, state["w"], state["seen"], sorted(best.components)

random.seed(5)
first = train(2)
random.seed(9)
second = train(4)
random.seed(5)
sys.argv[2] += "-straight"
straight = train(4)
assert second == straight, (second, straight)
assert (second[2], len(second[1]), second[4]) == (2, 4, first[1]), second
assert "rng.python" in second[5] and "rng.numpy" not in second[5], second[5]

class Array:
    dtype, shape = "float32", (2,)
try:
    with stopctl.Run(sys.argv[2] + "-array", state={"deep": {"w": Array()}}):
        pass
except stopctl.TreeError as error:
    assert "deep/w is a Array" in str(error) and "pip install numpy" in str(error), error
else:
    raise AssertionError
state = {"w": None}
try:
    with stopctl.Run(sys.argv[3], state=state):
        pass
except stopctl.MismatchError as error:
    assert "pip install numpy" in str(error), error
else:
    raise AssertionError
assert state == {"w": None} and "numpy" not in sys.modules
"""


def test_without_numpy_all_but_its_generator_is_saved(tmp_path, caplog):
    with Run(tmp_path / "arrays", state={"w": np.ones(2)}) as run:
        run.save("given")
    home = str(Path(stopctl.__file__).parent.parent)
    places = [home, str(tmp_path / "run"), str(tmp_path / "arrays")]
    command = [sys.executable, "-I", "-W", "error", "-c", WITHOUT_NUMPY, *places]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr

    def noticed(**settings):
        caplog.clear()
        state = {"w": 0.0, "seen": [], "blob": b"", "own": random.Random(), "rows": set(), "deep": {}}
        with Run(tmp_path / "run", state=state, **settings) as run:
            run.restore_latest()
        return [record.getMessage() for record in caplog.records if "numpy.random" in record.getMessage()]

    (text,) = noticed()  # NumPy is there now: told once
    assert "saved where NumPy was not installed" in text
    assert noticed(allow_missing={"rng.numpy"}) == []
    assert noticed() == [text]  # the same checkpoint still
