"""What a pytree is made of comes back bit by bit; what cannot is refused, with its path, before training."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, NamedTuple

import numpy as np
import pytest

import stopctl
from stopctl import MismatchError, OrderError, Patience, SettingError, TreeError

jax = pytest.importorskip("jax")
jnp = jax.numpy

from stopctl.store import Reader  # noqa: E402
from stopctl_jax import JaxState, Run, load  # noqa: E402

DTYPES = (
    *(
        "bool",
        "int8",
        "uint32",
        "float16",
        "bfloat16",
        "float32",
        "complex64",
        "float8_e4m3fn",
        "float8_e5m2",
    ),
    *("float8_e3m4", "float8_e4m3b11fnuz", "float4_e2m1fn", "int2", "int4", "uint2", "uint4"),
)


class Adam(NamedTuple):
    count: Any
    mu: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Train:
    params: Any
    step: int
    apply: Any = dataclasses.field(metadata={"static": True}, default=jax.nn.relu)


def every_kind(seed: int) -> dict[str, Any]:
    """All that a pytree may hold, with the values of a seed."""
    number = jnp.asarray(0.5 + seed)
    return {
        "dtypes": {name: jnp.asarray([1, seed, 0]).astype(name) for name in DTYPES},
        "empty": jnp.zeros((0, 3), "int4"),
        "weak": [number, jnp.full((2,), 1.0) * number, jnp.asarray(seed)],
        "keys": (
            jax.random.key(seed),
            jax.random.split(jax.random.key(seed, impl="rbg"), 3),
            jax.random.PRNGKey(seed),
        ),
        "opt": (Adam(jnp.zeros((), "int32") + seed, {"w": jnp.ones(2) * seed}), None, ()),
        "train": Train({0: jnp.ones(2) * seed}, seed),
        "plain": [seed, 0.5, "text", b"\x00"],
        "numpy": [np.arange(4.0).reshape(2, 2).T + seed, np.float64(seed), np.random.default_rng(seed)],
        "static": [jax.nn.relu, np.dtype("int8")],
    }


def bits(leaf: Any) -> Any:
    """A leaf down to its bits, with all that a program can tell it by."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), bits(jax.random.key_data(leaf))
    if isinstance(leaf, np.random.Generator):
        return str(leaf.bit_generator.state)
    if not hasattr(leaf, "dtype"):
        return leaf
    facts = (leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", None), np.asarray(leaf).tobytes())
    return ("jax" if isinstance(leaf, jax.Array) else type(leaf), *facts)


def train(run: Run[Any], epochs: int, step: Any) -> None:
    for epoch in run.epochs(epochs):
        run.state = step(run.state)
        run.report(val_loss=1.0 / epoch)


def test_every_kind_of_leaf_comes_back_as_it_was(tmp_path):
    with Run(tmp_path, state=every_kind(1)) as run:
        train(run, 1, lambda state: {**every_kind(2), "dtypes": state["dtypes"]})
        trained = run.state
    with Run(tmp_path, state=every_kind(0)) as run:
        restored = run.state
    assert jax.tree.structure(restored) == jax.tree.structure(trained)
    assert [*map(bits, jax.tree.leaves(restored))] == [*map(bits, jax.tree.leaves(trained))]
    loaded, info = load(tmp_path, state={"opt": every_kind(0)["opt"], "keys": every_kind(3)["keys"]})
    for name, value in loaded.items():
        assert [*map(bits, jax.tree.leaves(value))] == [*map(bits, jax.tree.leaves(trained[name]))]
    assert (info.epoch, info.is_best) == (1, True)


def test_a_number_fits_an_array_of_no_axes_and_comes_back_as_it_was_saved(tmp_path):
    with Run(tmp_path, state=Train(jnp.ones(2), 0)) as run:
        train(run, 1, jax.jit(lambda state: dataclasses.replace(state, step=state.step + 1)))
        assert isinstance(run.state.step, jax.Array)
    with Run(tmp_path, state=Train(jnp.ones(2), 0)) as run:
        assert bits(run.state.step) == bits(jax.jit(lambda n: n + 1)(0))


def test_what_does_not_fit_is_told_by_its_paths_and_changes_nothing(tmp_path):
    with Run(
        tmp_path, state={"a": {"w": jnp.ones(2), "b": jnp.ones(1, "int8")}, "k": jax.random.key(0)}
    ) as run:
        train(run, 1, lambda state: {**state, "k": jax.random.key(1)})
    given = {
        "a": {"w": jnp.ones(3), "b": jnp.ones(1, "int4"), "c": jnp.ones(1)},
        "k": jax.random.key(0, impl="rbg"),
        "ema": jnp.ones(1),
    }
    with pytest.raises(MismatchError) as caught, Run(tmp_path, state=given):
        pass
    told = str(caught.value).splitlines()
    assert set(told[1:-1]) == {
        "  a/b: saved I8 (1,), given int4 (1,)",
        "  a/c: given, but not saved",
        "  a/w: saved F32 (2,), given F32 (3,)",
        "  ema: given, but not saved",
        "  k: saved threefry2x32 key (2,), given rbg key (4,)",
    }
    with pytest.raises(MismatchError, match=r"a/w: saved F32 \(2,\), given F32 \(3,\)"):
        load(tmp_path, state={"a": given["a"]})
    with pytest.raises(MismatchError, match=r"it holds a, k\):\n  b: given, but not saved"):
        load(tmp_path, state={"b": jnp.ones(1)})


class Named(str):
    """A key that does not say what it is."""

    def __str__(self) -> str:
        return "n"


def donated() -> Any:
    array = jnp.ones(2)
    jax.jit(lambda x: x + 1, donate_argnums=0)(array)
    return array


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        (lambda: {"f": len}, SettingError, "has no arrays"),
        (lambda: {"rng.a": jnp.ones(1)}, SettingError, "call it otherwise"),
        (lambda: [{"o": object()}], TreeError, "0/o: a checkpoint cannot hold this builtins.object"),
        (lambda: {"o": np.array([None])}, TreeError, "o has dtype object"),
        (lambda: {"w": jax.ShapeDtypeStruct((2,), "float32")}, TreeError, "w: a checkpoint cannot hold"),
        (
            lambda: {Named("a"): jnp.ones(1), Named("b"): jnp.ones(1)},
            TreeError,
            "two leaves .* are called n:",
        ),
        (lambda: {"a": {"w": donated()}}, TreeError, "a/w: its buffer was donated"),
    ],
)
def test_what_cannot_be_saved_is_refused_when_the_run_is_made(state, error, told, tmp_path):
    with pytest.raises(error, match=told):
        Run(tmp_path, state=state())


def test_another_function_or_field_or_number_of_the_script_is_told(tmp_path, caplog):
    def given(rate: float, apply: Any) -> Any:
        return {
            "net": Train(jnp.ones(2), 0, apply),
            "opt": {"hyperparams": {"lr": jnp.asarray(rate), "act": apply}},
            "f": apply,
        }

    for rate, apply in ((0.1, jax.nn.relu), (0.1, jax.nn.relu), (0.5, jax.nn.tanh)):
        caplog.clear()
        with Run(tmp_path, state=given(rate, apply), stop=Patience(9)) as run:
            for epoch in run.epochs(run.progress.epoch + 3):
                run.state = jax.tree.map(lambda x: x if callable(x) else x * 1, run.state)
                run.report(val_loss=1.0 / epoch)
            assert run.state["f"] is apply
        if rate == 0.1:
            assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    told = "opt hyperparams/lr 0.1 when saved, 0.5 now: what was saved goes on; write anew={'opt'}"
    assert told in caplog.text
    for text in ("f: relu when saved, tanh now", "net: Train(apply=relu) when saved, Train(apply=tanh) now"):
        assert text in caplog.text
    with Run(tmp_path, state=given(0.5, jax.nn.relu), anew={"opt"}) as run:
        assert float(run.state["opt"]["hyperparams"]["lr"]) == 0.5


def test_the_state_is_set_before_the_report_by_its_structure_and_from_what_was_restored(tmp_path):
    with Run(tmp_path, state={"w": jnp.ones(2)}, stop=Patience(9)) as run:
        for epoch in run.epochs(2):
            if epoch == 1:
                with pytest.raises(
                    MismatchError, match=r"v: saved, but not given\n  w: given, but not saved"
                ):
                    run.state = {"v": jnp.ones(2)}
            run.state = {"w": run.state["w"] + 1}
            run.report(val_loss=1.0 / epoch)
        run.state = {"w": jnp.zeros(2)}
    with (
        Run(tmp_path, state={"w": jnp.ones(2)}, stop=Patience(9)) as run,
        pytest.raises(OrderError, match="ran after"),
    ):
        for epoch in run.epochs(4):
            run.state = {"w": run.state["w"] + 1}
            run.report(val_loss=1.0 / epoch)
            run.state = {"w": run.state["w"] + 1}
    with (
        Run(tmp_path, state={"w": jnp.ones(2)}) as run,
        pytest.raises(OrderError, match=r"begin with state = run\.state"),
    ):
        run.state = {"w": jnp.ones(2)}
    with Run(tmp_path, state={"w": jnp.ones(2)}, stop=Patience(9)) as run:
        assert run.state["w"].tolist() == [4, 4]
        with pytest.raises(MismatchError, match=r"w: saved F32 \(3,\), given F32 \(2,\)"):
            train(run, 6, lambda state: {"w": jnp.ones(3 if run.progress.epoch == 4 else 2)})
    assert Reader(tmp_path).list().good[-1].epoch == 4


def test_the_dtypes_of_x64_are_refused_without_it(tmp_path):
    with jax.enable_x64(True), Run(tmp_path, state={"f": 0.5}) as run:
        train(run, 1, lambda state: {"f": jnp.asarray(0.1)})
    with (
        pytest.raises(MismatchError, match=r"f: saved float64: set jax_enable_x64"),
        Run(tmp_path, state={"f": 0.5}),
    ):
        pass


def test_a_run_that_was_begun_with_a_dict_of_dicts_goes_on(tmp_path):
    def given() -> Any:
        return {"a": {"b": {"c": jnp.ones(2)}, "b/c": jnp.zeros(2)}, "key": jax.random.PRNGKey(0)}

    state = given()
    with stopctl.Run(tmp_path, state=state) as run:
        for _ in run.epochs(1):
            state["a"]["b"]["c"] += 1
            run.report(val_loss=1.0)
    with Run(tmp_path, state=given()) as run:
        assert [*map(bits, jax.tree.leaves(run.state))] == [*map(bits, jax.tree.leaves(state))]


def test_a_new_run_begins_with_the_best_of_another(tmp_path):
    with Run(tmp_path / "a", state={"w": jnp.ones(2)}) as run:
        train(run, 2, lambda state: {"w": state["w"] + 1})
    with Run(tmp_path / "b", state={"w": jnp.zeros(2)}, start_from_run=tmp_path / "a") as run:
        assert run.state["w"].tolist() == [3, 3]


def test_a_buffer_that_was_donated_away_is_an_error_that_says_what_to_write(tmp_path):
    step = jax.jit(lambda state: {"w": state["w"] + 1}, donate_argnums=0)
    with Run(tmp_path, state={"w": jnp.ones(2)}, async_save=True) as run:
        train(run, 3, step)  # each is copied before the next step takes its buffer
        with pytest.raises(TreeError, match=r"w: its buffer was donated.*run\.state = train_step"):
            for _ in run.epochs(5):
                step(run.state)
                run.report(val_loss=0.1)
        run.restore_best()
        assert run.state["w"].tolist() == [4, 4]


def test_one_process_of_several_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(SettingError, match="one of 2 JAX processes"):
        JaxState(jnp.ones(2))
