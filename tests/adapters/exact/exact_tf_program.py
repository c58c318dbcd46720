"""Every moving part of TensorFlow and Keras in a training loop of its own; the variant says which."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import points
import tensorflow as tf
from keras import layers
from keras.optimizers import schedules
from loop import COLUMNS, Work, batches, forgetful, rules, seed, shaped, trained

from stopctl_tf import Run, TfState, epoch_shuffled
from stopctl_tf.rng import PartGenerators

HELD = batches()[0]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(*between: Any) -> Any:
    """Eight hidden units."""
    hidden = [layers.Dense(8, activation="tanh"), *between, layers.Dense(3)]
    return keras.Sequential([keras.Input((COLUMNS,)), *hidden])


def gradients(model: Any, batch: Any) -> Any:
    """Of the loss by every trainable variable, with that variable."""
    x, y = batch
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    return tape.gradient(loss, model.trainable_variables)


def validated(model: Any) -> float:
    """The loss on rows that are held fixed."""
    x, y = HELD
    return float(LOSS(y, model(x, training=False)))


def work(model: Any, optimizer: Any, *, step: Any = None, extra: Any = None, **more: Any) -> Work:
    """A plain loop, but for what is given."""
    given = {"model": model, "optimizer": optimizer, "extra": extra}

    def plain(batch: Any) -> None:
        found = gradients(model, batch)
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    def everything() -> dict[str, Any]:
        found = {}
        for sort, things in given.items():
            for name, thing in (things if isinstance(things, dict) else {"": things}).items():
                variables = getattr(thing, "variables", None) or [getattr(thing, "state", thing)]
                found[f"{sort}.{name}"] = [np.asarray(v) for v in variables if v is not None]
        return {**found, "keras": np.asarray(keras.random.uniform((4,)))}

    return Work(
        given=given,
        step=step or plain,
        everything=everything,
        **{"validate": lambda: validated(model), **more},
    )


def optimized(make: Callable[[], Any], **more: Any) -> Work:
    """The plain loop with another optimizer."""
    return work(net(), make(), **more)


def scheduled(schedule: Any) -> Work:
    """SGD with momentum under a schedule."""
    return optimized(lambda: keras.optimizers.SGD(schedule, momentum=0.9))


def scaled() -> Work:
    """The scale grows every three steps."""
    model = net()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.02), initial_scale=2.0**10, dynamic_growth_steps=3
    )

    def step(batch: Any) -> None:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(LOSS(y, model(x, training=True)))
        found = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    return work(model, optimizer, step=step)


class Swap(tf.Module):
    """Exchanges the weights of a model with their averages in the optimizer, and knows which are in place."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        super().__init__()
        self.swapped = tf.Variable(False)
        self._pairs = lambda: zip(
            model.trainable_variables, optimizer._model_variables_moving_average, strict=True
        )

    def put(self, swapped: bool) -> None:
        """Have the averages in the model, or the weights; twice does nothing."""
        if swapped != bool(self.swapped):
            for one, other in self._pairs():
                kept = one.numpy()
                one.assign(other)
                other.assign(kept)
        self.swapped.assign(swapped)


def swapping() -> Work:
    """Validated, and saved, with the averages in place of the weights."""
    model = net()
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8)
    optimizer.build(model.trainable_variables)
    swap = Swap(model, optimizer)

    def validate() -> float:
        swap.put(True)
        return validated(model)

    return work(
        model, optimizer, extra={"swap": swap}, begin=lambda epoch: swap.put(False), validate=validate
    )


def adversarial() -> Work:
    """A generator of rows and a critic, each with an optimizer."""
    maker = keras.Sequential([keras.Input((3,)), layers.Dense(COLUMNS)])
    critic = keras.Sequential([keras.Input((COLUMNS,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    optimizers = {
        "maker": keras.optimizers.Adam(0.02),
        "critic": keras.optimizers.SGD(0.1, momentum=0.9),
    }

    def judged(rows: Any) -> Any:
        return tf.reduce_mean(tf.sigmoid(critic(rows)))

    def step(batch: Any) -> None:
        for name, model in (("critic", critic), ("maker", maker)):
            made = keras.random.normal((8, 3))
            with tf.GradientTape() as tape:
                fake = judged(maker(made))
                loss = fake - judged(batch[0]) if name == "critic" else -fake
            variables = model.trainable_variables
            found = tape.gradient(loss, variables)
            optimizers[name].apply_gradients(zip(found, variables, strict=True))

    return work(
        {"maker": maker, "critic": critic},
        optimizers,
        step=step,
        validate=lambda: float(tf.reduce_mean(tf.square(critic(HELD[0])))),
    )


def tied() -> Work:
    """One layer in two places."""
    shared = layers.Dense(COLUMNS, activation="tanh")
    inputs = keras.Input((COLUMNS,))
    model = keras.Model(inputs, layers.Dense(3)(shared(shared(inputs))))
    return work(model, keras.optimizers.Adam(0.05))


def traced(**settings: Any) -> Work:
    """The step is one traced function."""
    model = net()
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False, **settings)
    def update(x: Any, y: Any) -> None:
        found = gradients(model, (x, y))
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    return work(model, optimizer, step=lambda batch: update(*map(tf.convert_to_tensor, batch)))


def noise(kind: str) -> Work:
    """Rows with noise from a generator of the loop's own, or from Keras'."""
    model, optimizer = net(), keras.optimizers.Adam(0.05)
    own = tf.random.Generator.from_seed(seed() + 1)
    seeds = keras.random.SeedGenerator(seed() + 2)
    draw = {
        "noise": lambda: own.normal((8, COLUMNS)),
        "seeds": lambda: keras.random.normal((8, COLUMNS), seed=seeds),
        "": lambda: keras.random.normal((8, COLUMNS)),
    }[kind]

    def step(batch: Any) -> None:
        x, y = batch
        found = gradients(model, (x + draw(), y))
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    extra = {"noise": own} if kind == "noise" else {"seeds": seeds} if kind == "seeds" else None
    return work(model, optimizer, step=step, extra=extra)


def shuffled() -> Work:
    """Another order every epoch, saved in the middle of it."""
    epoch = tf.Variable(1, dtype=tf.int64)
    x, y = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
    data = epoch_shuffled(x, y, seed=3, epoch=epoch, batch_size=8)
    return work(net(), keras.optimizers.Adam(0.05), data=data, begin=epoch.assign)


def iterated() -> Work:
    """One iterator for all epochs, saved in the middle of them; each is validated there, too."""
    x, y = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
    tf.random.set_seed(3)  # of the script, as the order is that of both seeds
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().shuffle(20, seed=6).batch(8).prefetch(2)
    model = net(layers.Dropout(0.3))
    return work(model, keras.optimizers.Adam(0.05), data=iter(data), steps=len(x) // 8, middle=3)


def whole() -> Work:
    """Every kind of state: a step-wise schedule, dropout, noise from a generator, from Python and from NumPy."""
    model = net(layers.Dropout(0.3))
    optimizer = keras.optimizers.Adam(schedules.PiecewiseConstantDecay([12, 28], [0.02, 0.01, 0.003]))
    optimizer.build(model.trainable_variables)
    noise = tf.random.Generator.from_seed(5)

    @tf.function(autograph=False)
    def update(x: Any, y: Any) -> None:
        found = gradients(model, (x + 0.1 * noise.normal(tf.shape(x)), y))
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    def step(batch: Any) -> None:
        jitter = np.float32(0.2 * random.random() + 0.2 * np.random.random())
        update(*map(tf.convert_to_tensor, (batch[0] + jitter, batch[1])))

    return work(model, optimizer, step=step, extra={"noise": noise})


def seeds_inside(state: Any) -> list[Any]:
    """The variables of the seed generators in a state's model."""
    found = state._parts["model"].thing.variables
    return [variable for variable in found if variable.name == "seed_generator_state"]


CASES: dict[str, Callable[[], Work]] = {
    "PiecewiseConstantDecay": lambda: scheduled(schedules.PiecewiseConstantDecay([4, 9], [0.3, 0.1, 0.02])),
    "CosineDecay": lambda: scheduled(schedules.CosineDecay(0.3, 14, warmup_target=0.4, warmup_steps=3)),
    "LossScaleOptimizer": scaled,
    "use_ema": lambda: optimized(
        lambda: keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5)
    ),
    "use_ema, swapped in for validation": swapping,
    "gradient_accumulation_steps": lambda: optimized(
        lambda: keras.optimizers.Adam(0.05, gradient_accumulation_steps=3)
    ),
    "dropout and batch-norm": lambda: work(
        net(layers.BatchNormalization(), layers.Dropout(0.4), layers.GaussianNoise(0.1)),
        keras.optimizers.Adam(0.05),
    ),
    "two optimizers and models": adversarial,
    "tied layers": tied,
    "tf.function": traced,
    "jit_compile=True": lambda: traced(jit_compile=True),
    "AdamW": lambda: optimized(lambda: keras.optimizers.AdamW(0.05, weight_decay=0.01, amsgrad=True)),
    "tf.random.Generator": lambda: noise("noise"),
    "keras.random.SeedGenerator": lambda: noise("seeds"),
    "epoch_shuffled, inside the epoch": shuffled,
    "iterator of tf.data, inside the epoch": iterated,
    "keras.random without a seed": lambda: noise(""),
}


def main() -> None:
    """Train one of them."""
    tf.config.experimental.enable_op_determinism()
    points.arm()
    is_whole = points.setting("VARIANT") == points.WHOLE
    keras.utils.set_random_seed(1 if is_whole else seed())
    forgetful(TfState, PartGenerators, seeds_inside)
    work = whole() if is_whole else CASES[points.setting("VARIANT")]()
    with Run(points.base() / "run", **work.given, **(points.RULES if is_whole else rules(work))) as run:
        (shaped if is_whole else trained)(run, work)
