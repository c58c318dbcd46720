"""FitCallback: a run inside ``model.fit``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Unpack

import keras
import tensorflow as tf

import stopctl
from stopctl import OrderError, Preempted, RunSettings, SaveError, SettingError
from stopctl_tf import strategies
from stopctl_tf.run import Run

# A Run that is never opened checks settings where they are written, and its errors speak of the callback.
_Settings = type("FitCallback", (stopctl.Run,), {})


class FitCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops, saves, prunes and resumes ``model.fit``; it must stand last in ``callbacks``.

    Each epoch is one pass of ``run.epochs(epochs)``: all of its logs are reported at its end, the state is
    saved where that is due, and fit is stopped when the run is. Called again, in this process or in another,
    fit goes on at the next epoch; a finished run trains nothing.

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
        directory: The run's directory.
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
        SettingError: a setting that cannot be, or that is written otherwise here. Out of fit come the errors
            of opening, of ``report`` (a missing ``val_loss``: give fit validation_data, and say
            ``validation_freq`` here, too), of saving and restoring, and Preempted. The run is closed then.

    Example:
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

    def __init__(
        self,
        directory: str | Path,
        *,
        optimizer: Any = None,
        extra: Any = None,
        epoch: Any = None,
        restore_best: bool = False,
        validation_freq: int | Sequence[int] = 1,
        **settings: Unpack[RunSettings],
    ) -> None:
        super().__init__()
        strategies.refuse_fit(strategies.of((), ()))  # fit itself fails before it calls us
        stopctl.Controller(lr=settings.get("lr"))  # whether the optimizer can follow it is seen in fit
        _Settings(directory, state={}, **{**settings, "lr": None})
        if epoch is not None and not _counts(epoch):
            raise SettingError(f"epoch is {epoch!r}: pass the tf.Variable that epoch_shuffled() reads")
        if not _is_frequency(validation_freq):
            raise SettingError(
                f"validation_freq={validation_freq!r}: pass what fit gets, such as 2 or [1, 5]"
            )
        self._validation_freq = validation_freq
        self._given = {"optimizer": optimizer, "extra": extra, **settings}
        self._directory = Path(directory)
        self._epoch = epoch
        self._restore_best = restore_best
        self._run: Run | None = None
        self._release: Callable[[], object] | None = None
        self._passes: Iterator[int] = iter(())
        self._number: int | None = None  # the pass we are in
        self._counter: Any = None  # the optimizer whose updates are the steps
        self._before = 0  # its count when the pass began
        self._preempted: Preempted | None = None  # a signal ended the run: told when fit has ended

    @property
    def run(self) -> Run:
        """The run of the newest fit; ``stopped``, ``progress`` and ``checkpoints`` outlast its end."""
        if self._run is None:
            raise OrderError("there is no run yet: it begins with model.fit(..., callbacks=[..., this one])")
        return self._run

    def close(self) -> None:
        """Give the directory back after a fit that broke off; twice does nothing, fit's end does it too."""
        if self.model is not None:
            self.model._initial_epoch = None
        if self._release is not None:
            self._release()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run, restore, and let fit begin at the next epoch."""
        self.close()  # what a fit that broke off has left open
        self._preempted = None
        model, epochs = self.model, self.params["epochs"]
        strategies.refuse_fit(strategies.of([model], ()))
        optimizers = model.optimizer if self._given["optimizer"] is None else self._given["optimizer"]
        self._counter = next(iter(optimizers.values())) if isinstance(optimizers, Mapping) else optimizers
        run = Run(self._directory, model=model, **{**self._given, "optimizer": optimizers})
        self._run = run
        self._release = release = weakref.finalize(self, run.close)  # also when the callback is forgotten
        release.atexit = False  # the system does it then
        with self._closing():
            run.open()  # builds what was saved built
            if model.built and model.optimizer is not None and not model.optimizer.built:
                with strategies.scope(strategies.of([model], ())):
                    # so that a save before the first step has all
                    model.optimizer.build(model.trainable_variables)
            self._passes = iter(run.epochs(epochs))
            self._advance()
            model._initial_epoch = epochs if self._number is None else self._number - 1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell the data which epoch it is; fit opens its iterator after this."""
        self.model._initial_epoch = None  # fit has read it, and would read it next time
        with self._closing():
            if epoch + 1 != self._number:
                raise OrderError(
                    f"fit begins epoch {epoch + 1}, but the run goes on with epoch {self._number}: "
                    "FitCallback says where fit begins; give fit no initial_epoch and no BackupAndRestore"
                )
            if self._epoch is not None:
                self._epoch.assign(self._number)
            self._before = self._updates()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report, save, and stop fit when the run has ended."""
        run, model = self.run, self.model
        with self._closing():
            done = self._updates() - self._before
            if done:
                run.step(done)
            if model.stop_training:
                run.stop("model.stop_training was set")
            metrics = {name: value for name, value in (logs or {}).items() if _single(value)}
            if run.progress.goal.metric in metrics or self._validates(epoch + 1):
                self._advance(metrics)
            else:
                self._advance()
            if self._number is None:
                model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restore the best if that was asked for, and close the run; after a signal, end the process.

        Raises:
            Preempted: SIGTERM or SIGUSR1 came, the run was saved and fit stopped.
        """
        preempted, self._preempted = self._preempted, None
        with self._closing():
            if preempted is not None:
                raise preempted
            if self._restore_best:
                self.run.restore_best()
        self.close()

    def _advance(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Report, and ask for the next pass; a signal leaves none, and fit is to end in good order first."""
        try:
            if metrics is not None:
                self.run.report(**metrics)
            self._number = next(self._passes, None)
        except Preempted as preempted:
            self._preempted, self._number = preempted, None

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Leave nothing open behind an error: fit does not call on_train_end then."""
        try:
            yield
        except BaseException:
            with suppress(SaveError):  # of an earlier save in the background: the log has it
                self.close()
            raise

    def _validates(self, number: int) -> bool:
        """Whether fit validates in this epoch, as Keras counts."""
        frequency = self._validation_freq
        return number % frequency == 0 if isinstance(frequency, int) else number in frequency

    def _updates(self) -> int:
        return 0 if self._counter is None else int(self._counter.iterations.numpy())


def _counts(epoch: Any) -> bool:
    return isinstance(epoch, tf.Variable) and epoch.dtype.is_integer and epoch.shape.rank == 0


def _is_frequency(given: Any) -> bool:
    epochs = given if isinstance(given, list | tuple) else [given]
    return all(type(n) is int and n > 0 for n in epochs)


def _single(value: Any) -> bool:
    """Whether a log is one number; a metric may give one for each class."""
    return tuple(getattr(value, "shape", ())) == ()
