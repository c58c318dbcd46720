"""What flax, optax, equinox and grain make, in stopctl_jax; the blocks of docs/jax.md that need them run."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.exact.harness import KILLED, STRAIGHT, Program, Work, play
from stopctl import Every, MismatchError, Patience, SettingError

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
grain = pytest.importorskip("grain.python")
nnx = pytest.importorskip("flax.nnx")
optax = pytest.importorskip("optax")

import flax.struct  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax.core import FrozenDict  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402

from stopctl_jax import JaxState, Run, load  # noqa: E402

PAGE = Path(__file__).parent.parent.parent / "docs" / "jax.md"
TX = optax.adam(1e-2)


def test_a_train_state_fed_by_grain_and_killed_twice_ends_as_if_never_killed(tmp_path):
    with Program("flax_program", servers=1) as program:
        straight = play(program, Work(tmp_path / "straight", ""), STRAIGHT)
        work = Work(tmp_path / "killed", "")
        assert program.attempt(work, "batch 5 2") == KILLED
        assert work.new_passes() == "12345"
        assert play(program, work, [("save 6 before rename 1", "56"), ("", "6789")]) == straight


SOURCES = {
    "loader": (lambda: loader(16), None),
    "dataset": (lambda: dataset().to_iter_dataset(), None),
    "map dataset": (lambda: dataset(), None),
    "iterator": (lambda: iter(dataset().repeat().to_iter_dataset()), 5),
}


def dataset() -> Any:
    return grain.MapDataset.source(range(16)).shuffle(seed=1).batch(3)


def loader(rows: int) -> Any:
    sampler = grain.IndexSampler(rows, shard_options=grain.NoSharding(), shuffle=True, num_epochs=1, seed=2)
    return grain.DataLoader(
        data_source=range(rows), sampler=sampler, operations=[grain.Batch(3)], worker_count=0
    )


@pytest.mark.parametrize("name", SOURCES)
def test_a_run_goes_on_at_the_next_batch_of_grain(name, tmp_path):
    make, steps = SOURCES[name]

    def train(where: Path, last: int) -> list[list[int]]:
        seen = []
        with Run(where, state={"w": jnp.zeros(())}, save=Every(steps=1), stop=None) as run:
            for epoch in run.epochs(3):
                for batch in run.batches(source, steps=steps):
                    seen.append(np.asarray(batch).tolist())
                    run.state = {"w": run.state["w"] + np.asarray(batch).sum()}
                    if run.progress.step == last:
                        raise KeyError("broken off")
                run.report(val_loss=1.0 / epoch)
        return seen

    source = make()
    straight = train(tmp_path / "straight", -1)
    assert len(straight) >= 15
    source = make()
    with pytest.raises(KeyError):
        train(tmp_path / "broken", 8)
    source = make()
    assert train(tmp_path / "broken", -1) == straight[8:]
    if name == "loader":
        with pytest.raises(KeyError):
            train(tmp_path / "other", 2)
        source = loader(17)
        with pytest.raises(MismatchError, match="grain does not take the saved position"):
            train(tmp_path / "other", -1)


def test_an_iterator_of_grain_needs_steps():
    with pytest.raises(SettingError, match=r"run\.batches\(iterator, steps=100\)"):
        JaxState({"w": jnp.zeros(())}).batches(SOURCES["iterator"][0](), None)


def params(seed: int) -> dict[str, Any]:
    return {"w": jax.random.normal(jax.random.key(seed), (3, 2)), "b": jnp.zeros(2) + seed}


class Module(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.dense, self.dropout = nnx.Linear(3, 2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)


@flax.struct.dataclass
class Struct:
    params: Any
    step: int
    apply: Any = flax.struct.field(pytree_node=False, default=jax.nn.relu)


class Net(eqx.Module):
    mlp: eqx.nn.MLP
    dropout: eqx.nn.Dropout


def optimized(tx: Any, seed: int) -> Any:
    return params(seed), tx.init(params(0))


def with_optimizer(seed: int) -> Any:
    model = Module(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, TX, wrt=nnx.Param)


OPTIMIZERS = {
    "adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
    "inject_hyperparams": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "multi_steps": optax.MultiSteps(TX, 2),
    "masked": optax.multi_transform({"a": TX, "b": optax.set_to_zero()}, {"w": "a", "b": "b"}),
    "finite": optax.apply_if_finite(TX, 3),
    "plateau": optax.chain(TX, optax.contrib.reduce_on_plateau(patience=2)),
}
MADE = {
    **{name: partial(optimized, tx) for name, tx in OPTIMIZERS.items()},
    "struct": lambda seed: Struct(params(seed), seed),
    "train state": lambda seed: TrainState.create(apply_fn=len, params=params(seed), tx=TX),
    "frozen dict": lambda seed: FrozenDict(params(seed)),
    "nnx module": lambda seed: Module(nnx.Rngs(seed)),
    "nnx state": lambda seed: nnx.state(Module(nnx.Rngs(seed))),
    "nnx split": lambda seed: nnx.split(Module(nnx.Rngs(seed))),
    "nnx optimizer": with_optimizer,
    "equinox": lambda seed: Net(eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(seed)), eqx.nn.Dropout(0.5)),
    "equinox arrays": lambda seed: eqx.filter(eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(seed)), eqx.is_array),
}


def bits(leaf: Any) -> Any:
    key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = jax.random.key_data(leaf) if key else leaf
    return (
        leaf
        if callable(leaf)
        else (str(leaf.dtype), np.asarray(array).tobytes())
        if key
        else str(np.asarray(leaf))
    )


@pytest.mark.parametrize("name", MADE)
def test_what_other_libraries_make_comes_back_and_is_what_it_was(name, tmp_path):
    with Run(tmp_path, state=MADE[name](1), stop=Patience(9)) as run:
        for epoch in run.epochs(1):
            moved = jax.tree.map(lambda x: x * 1.5 if eqx.is_inexact_array(x) else x, run.state)
            run.state = moved
            run.report(val_loss=1.0 / epoch)
    fresh = MADE[name](0)
    with Run(tmp_path, state=fresh, stop=Patience(9)) as run:
        restored = run.state
    assert jax.tree.structure(restored) == jax.tree.structure(fresh)
    assert [*map(bits, jax.tree.leaves(restored))] == [*map(bits, jax.tree.leaves(moved))]
    loaded, _ = load(tmp_path, state=fresh)
    assert [*map(bits, jax.tree.leaves(loaded))] == [*map(bits, jax.tree.leaves(moved))]


def test_another_model_or_optimizer_is_a_mismatch_and_a_shared_variable_is_refused(tmp_path):
    with Run(tmp_path, state=MADE["train state"](1)) as run:
        for _ in run.epochs(1):
            run.state = run.state.apply_gradients(grads=params(2))
            run.report(val_loss=1.0)
    other = TrainState.create(apply_fn=len, params=params(0), tx=optax.sgd(0.1, momentum=0.9))
    with (
        pytest.raises(MismatchError, match=r"opt_state/0/trace: given, but not saved\n"),
        Run(tmp_path, state=other),
    ):
        pass
    tied = Module(nnx.Rngs(0))
    tied.again = tied.dense
    with pytest.raises(SettingError, match=r"again/bias and dense/bias are one Param.*nnx\.state\(model\)"):
        Run(tmp_path / "tied", state=tied)
    Run(tmp_path / "tied", state=nnx.state(tied))


def names() -> dict[str, Any]:
    """What the blocks of the page take for granted."""
    x, y = np.ones((8, 2), "f4"), np.ones((8, 1), "f4")
    optim = optax.adam(1e-2)

    def apply(variables: Any, x: Any) -> Any:
        return x @ variables["params"]["w"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.square(apply({"params": params}, x) - y).mean()

    @jax.jit
    def train_step(state: Any, x: Any, y: Any) -> Any:
        return state.apply_gradients(grads=jax.grad(loss)(state.params, x, y))

    class Model(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.dense, self.dropout = nnx.Linear(2, 1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.dropout(self.dense(x))

    def nnx_loss(model: Any, x: Any, y: Any) -> Any:
        return jnp.square(model(x) - y).mean()

    @nnx.jit
    def nnx_step(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        optimizer.update(model, nnx.grad(nnx_loss)(model, x, y))

    def eqx_loss(model: Any, x: Any, y: Any) -> Any:
        return jnp.square(jax.vmap(model)(x) - y).mean()

    @eqx.filter_jit
    def eqx_step(model: Any, opt_state: Any, x: Any, y: Any) -> Any:
        grads = eqx.filter_grad(eqx_loss)(model, x, y)
        updates, opt_state = optim.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state

    sampler = grain.IndexSampler(16, shard_options=grain.NoSharding(), shuffle=True, num_epochs=1, seed=0)
    model = type("Linen", (), {"apply": staticmethod(apply)})
    return {
        **locals(),
        "source": range(16),
        "params": {"w": jnp.zeros((2, 1))},
        "Run": Run,
        "Patience": Patience,
        **{name: globals()[name] for name in ("TrainState", "optax", "jax", "jnp", "eqx", "nnx")},
        "grain": __import__("grain"),
    }


@pytest.mark.parametrize("number", range(1, 5))
def test_the_blocks_of_the_page_run(number, tmp_path, monkeypatch, caplog):
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5  # the first is what the program was before
    monkeypatch.chdir(tmp_path)
    trained = []
    for _ in range(2):  # the second time it is finished
        scope = names()
        exec(compile(blocks[number], PAGE.name, "exec"), scope)
        trained.append(scope["run"].progress.step or scope["run"].progress.epoch)
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert trained[0] == trained[1] > 0
