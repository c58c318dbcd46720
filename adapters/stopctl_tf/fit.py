"""FitCallback: a run inside ``model.fit`` on TensorFlow."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import tensorflow as tf

import stopctl_keras.fit
from stopctl import SettingError
from stopctl_tf import strategies
from stopctl_tf.run import Run


class FitCallback(stopctl_keras.fit.FitCallback):
    """Stops, saves, prunes and resumes ``model.fit``; it must stand last in ``callbacks``.

    Each epoch is one pass of ``run.epochs(epochs)``: all of its logs are reported at its end, the state is
    saved where that is due, and fit is stopped when the run is. Called again, in this process or in another,
    fit goes on at the next epoch; a finished run trains nothing, and says so where fit is verbose.

    Last, because the state saved is the one that this callback finds: what a later callback changes at the
    end of an epoch is lost on resume. The counters of other callbacks (``ReduceLROnPlateau``,
    ``EarlyStopping``) are not saved at all. When one of them ends fit, the run stops with it; the next fit
    goes on.

    A resumed fit ends bitwise as an uninterrupted one in the variables of the model and of ``extra``, the
    optimizer, Keras seed generators, ``tf.random.Generator`` objects, and the generators of Python and
    NumPy, if the data's order is a function of (seed, epoch): `epoch_shuffled` with ``epoch=`` here. Not
    covered are the hidden positions of ``tf.data``'s ``shuffle`` and of ``tf.random`` ops; an epoch broken
    off is trained again from its beginning.

    Args:
        directory: The run's directory: one for each model. For loops and tuners that take one callback, a
            function of the model that fit begins with, such as ``lambda model: f"runs/{model.name}"``.
        optimizer: Where ``model.optimizer`` is not all: optimizers by name, see `TfState`. The run's steps
            are the updates by ``model.optimizer``, or by the first of these.
        extra: What moves besides model and optimizer, by name, see `TfState`.
        epoch: An integer ``tf.Variable`` of shape (); set to the epoch's number, from 1, before its data.
        validation_freq: As given to ``fit``, a number or a list of epochs: an epoch that it leaves without
            validation, and so without the goal's metric, is a pass without a report.
        restore_best: At the end, put the best checkpoint back: the weights that were validated, after an
            optimizer with ``use_ema=True`` has put its averages in their place.
        settings: ``goal``, ``stop``, ``save``, ``keep``, ``lr``, ``resume``, ``notes``, ``allow_missing``, as
            in `stopctl.Run`. Metrics have the names of fit's logs; those of several values are left out.

    Raises:
        SettingError: a setting that cannot be, or that is written otherwise here; out of fit, another model
            in a directory whose model this object, or the one that it is a copy of, has trained to its end.
            Out of fit come the errors of opening, of ``report`` (a missing ``val_loss``: give fit
            validation_data, and say ``validation_freq`` here, too), of saving and restoring, and Preempted.
            The run is closed then.

    Examples:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from stopctl import OnBest, Patience
        >>> from stopctl_tf import FitCallback, epoch_shuffled
        >>> x, epoch = np.linspace(-1, 1, 8, dtype=np.float32)[:, None], tf.Variable(1, dtype=tf.int64)
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> data = epoch_shuffled(x, x, seed=0, epoch=epoch, batch_size=4)
        >>> control = FitCallback(directory, epoch=epoch, stop=Patience(3), save=OnBest(), restore_best=True)
        >>> history = model.fit(
        ...     data, validation_data=(x, x), epochs=2, shuffle=False, verbose=0, callbacks=[control]
        ... )
        >>> control.run.progress.epoch, control.run.progress.step
        (2, 4)
    """

    def _new_run(self, directory: Path, **given: Any) -> Run:
        return Run(directory, **given)

    def _check_epoch(self, epoch: Any) -> None:
        if not isinstance(epoch, tf.Variable) or not epoch.dtype.is_integer or epoch.shape.rank != 0:
            raise SettingError(f"epoch is {epoch!r}: pass the tf.Variable that epoch_shuffled() reads")

    def _refuse_fit(self, *things: Any) -> None:
        strategies.refuse_fit(strategies.of(things, ()))

    def _scope(self, model: Any) -> AbstractContextManager[Any]:
        return strategies.scope(strategies.of([model], ()))
