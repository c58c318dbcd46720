"""FitCallback: a run inside ``model.fit``, whatever its backend."""

from __future__ import annotations

import atexit
import copy
import logging
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self, Unpack

import keras

import stopctl
from stopctl import OrderError, Preempted, ReportError, RunSettings, SaveError, SettingError
from stopctl.ports import Notice, Notices, print_lines, waiting_lines
from stopctl_keras import backend
from stopctl_keras.arrays import array_of
from stopctl_keras.averages import refuse_swapping
from stopctl_keras.data import FitData, calls_of_fit
from stopctl_keras.state import KerasState

log = logging.getLogger("stopctl")

Directory = str | Path | Callable[[Any], str | Path]
# A Run that is never opened checks settings where they are written, and its errors speak of the callback.
_Settings = type("FitCallback", (stopctl.Run,), {})


_begun: dict[str, weakref.ref[FitCallback]] = {}
"""Who has begun the newest fit of this process in a directory, by its real path."""


class FitCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops, saves, prunes and resumes ``model.fit`` on any backend; it must stand last in ``callbacks``.

    Each epoch is one pass of ``run.epochs(epochs)``: all of its logs are reported at its end, the state is
    saved where that is due, and fit is stopped when the run is. Called again, in this process or in another,
    fit goes on at the next epoch; a finished run trains nothing, and says so where fit is verbose.

    Last, because the state saved is the one that this callback finds: what a later callback changes at the
    end of an epoch is lost on resume. The counters of other callbacks (``ReduceLROnPlateau``,
    ``EarlyStopping``) are not saved at all. When one of them ends fit, the run stops with it; the next fit
    goes on.

    A resumed fit ends bitwise as an uninterrupted one in the variables of the model and of ``extra``, the
    optimizer, seed generators, and the generators of Python, NumPy, Keras and PyTorch, if the data's order
    is a function of (seed, epoch), or comes from one of these. What a backend hides is in docs/resume.md. An
    epoch broken off is trained again from its beginning. On TensorFlow, `stopctl_tf.FitCallback` writes the
    same files, and sees ``tf.Variable``, ``tf.data`` and strategies besides.

    Args:
        directory: The run's directory: one for each model. For loops and tuners that take one callback, a
            function of the model that fit begins with, such as ``lambda model: f"runs/{model.name}"``.
        optimizer: Where ``model.optimizer`` is not all: optimizers by name. The run's steps are the updates
            by ``model.optimizer``, or by the first of these.
        extra: What moves besides model and optimizer, by name, see `KerasState`.
        epoch: An integer ``keras.Variable`` of shape (); set to the epoch's number, from 1, before its data.
        validation_freq: As given to ``fit``, a number or a list of epochs: an epoch that it leaves without
            validation, and so without the goal's metric, is a pass without a report.
        restore_best: At the end, put the best checkpoint back: the weights that were validated, after an
            optimizer with ``use_ema=True`` has put its averages in their place.
        settings: ``goal``, ``stop``, ``save``, ``keep``, ``lr``, ``resume``, ``notes``, ``allow_missing``, as
            in `stopctl.Run`. Metrics have the names of fit's logs; those of several values are left out.

    Raises:
        SettingError: a setting that cannot be, or that is written otherwise here; tf_keras, a backend that
            cannot train, the scope of a ``tf.distribute`` strategy; out of fit, another model in a directory
            whose model this object, or the one that it is a copy of, has trained to its end. Out of fit
            come the errors of opening, of ``report`` (a missing ``val_loss``: give fit validation_data, and
            say ``validation_freq`` here, too), of saving and restoring, and Preempted: the run is closed.

    Examples:
        >>> import keras, numpy as np
        >>> from stopctl import OnBest, Patience
        >>> from stopctl_keras import FitCallback
        >>> x = np.linspace(-1, 1, 8, dtype="float32")[:, None]
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> control = FitCallback(directory, stop=Patience(3), save=OnBest(), restore_best=True)
        >>> given = {"validation_data": (x, x), "batch_size": 4, "shuffle": False, "verbose": 0}
        >>> history = model.fit(x, x, epochs=2, callbacks=[control], **given)
        >>> control.run.progress.epoch, control.run.progress.step
        (2, 4)
    """

    def __init__(
        self,
        directory: Directory,
        *,
        optimizer: Any = None,
        extra: Any = None,
        epoch: Any = None,
        restore_best: bool = False,
        validation_freq: int | Sequence[int] = 1,
        **settings: Unpack[RunSettings],
    ) -> None:
        super().__init__()
        backend.refuse_other_keras()
        backend.refuse_tf_keras([epoch, *(each for sort in (optimizer, extra) for each in _each(sort))])
        self._refuse_fit()  # fit itself fails before it calls us
        stopctl.Controller(lr=settings.get("lr"))  # whether the optimizer can follow it is seen in fit
        _Settings("run" if callable(directory) else directory, state={}, **{**settings, "lr": None})
        if epoch is not None:
            self._check_epoch(epoch)
        if not _is_frequency(validation_freq):
            raise SettingError(
                f"validation_freq={validation_freq!r}: pass what fit gets, such as 2 or [1, 5]"
            )
        self._validation_freq = validation_freq
        self._given = {"optimizer": optimizer, "extra": extra, **settings}
        self._directory = directory
        self._trained: dict[str, weakref.ref[Any]] = {}  # the model of a fit that ended, by real directory
        self._epoch = epoch
        self._restore_best = restore_best
        self._forget()

    def _forget(self) -> None:
        """Stand as before the first fit."""
        self._run: stopctl.Run | None = None
        self._release: weakref.finalize[[], Self] | None = None
        self._passes: Iterator[int] = iter(())
        self._number: int | None = None  # the pass we are in
        self._counter: Any = None  # the optimizer whose updates are the steps
        self._before = 0  # its count when the pass began
        self._lines: list[str] = []  # to be printed below the line of this epoch, which is fit's
        self._preempted: Preempted | None = None  # a signal ended the run: told when fit has ended
        self._data: FitData | None = None  # what this fit iterates, as long as there may be something to tell

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Another one for another fit, around the very same objects; tuners make one for each trial.

        It shares which models were trained where.
        """
        twin = copy.copy(self)
        twin._forget()
        return twin

    def _new_run(self, directory: Path, **given: Any) -> stopctl.Run:
        """A run around the objects and settings given."""
        objects = {name: given.pop(name) for name in ("model", "optimizer", "extra")}
        return stopctl.Run(directory, state=KerasState(**objects), **given)

    def _check_epoch(self, epoch: Any) -> None:
        """Raise SettingError unless ``epoch`` is a variable that can be told the epoch's number."""
        whole = isinstance(epoch, keras.Variable) and "int" in epoch.dtype and tuple(epoch.shape) == ()
        if not whole:
            raise SettingError(
                f"epoch is {epoch!r}: pass the keras.Variable that your data reads, such as "
                'keras.Variable(1, dtype="int32", trainable=False)'
            )

    def _refuse_fit(self, *things: Any) -> None:
        """Raise SettingError where fit, or fit of these objects, cannot be stopped and resumed."""
        backend.refuse_strategy(things)

    def _scope(self, model: Any) -> AbstractContextManager[Any]:
        """Where new variables become those of the model's strategy."""
        return nullcontext()

    @property
    def run(self) -> stopctl.Run:
        """The run of the newest fit; ``stopped``, ``progress`` and ``checkpoints`` outlast its end."""
        if self._run is None:
            raise OrderError("there is no run yet: it begins with model.fit(..., callbacks=[..., this one])")
        return self._run

    def close(self) -> None:
        """Give the directory back after a fit that broke off; twice does nothing, fit's end does it too."""
        print_lines(self._lines)
        if self.model is not None:
            self.model._initial_epoch = None
        if self._release is not None:
            self._release()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run, restore, and let fit begin at the next epoch."""
        self.close()  # what a fit that broke off has left open
        self._preempted = None
        model, epochs = self.model, self.params["epochs"]
        backend.refuse_tf_keras([model])
        self._refuse_fit(model)
        refuse_swapping(self)
        directory = self._place(model)
        optimizers = model.optimizer if self._given["optimizer"] is None else self._given["optimizer"]
        self._counter = next(iter(optimizers.values())) if isinstance(optimizers, Mapping) else optimizers
        run = self._new_run(directory, model=model, **{**self._given, "optimizer": optimizers})
        self._run = run
        _begun[os.path.realpath(directory)] = weakref.ref(self)
        self._release = release = weakref.finalize(self, run.close)  # also when the callback is forgotten
        release.atexit = False  # the system does it then
        with self._closing():
            self._look_at_data(epochs)
            self._build_optimizer()  # for what is trained now, whatever was when it was saved
            run.open()  # builds what was saved built
            self._build_optimizer()  # so that a save before the first step has all
            self._passes = iter(run.epochs(epochs))
            self._advance()
            model._initial_epoch = epochs if self._number is None else self._number - 1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell the data which epoch it is; fit opens its iterator after this."""
        self.model._initial_epoch = None  # fit has read it, and would read it next time
        print_lines(self._lines)
        with self._closing():
            if epoch + 1 != self._number:
                raise OrderError(
                    f"fit begins epoch {epoch + 1}, but the run goes on with epoch {self._number}: "
                    "FitCallback says where fit begins; give fit no initial_epoch and no BackupAndRestore"
                )
            if self._epoch is not None:
                self._epoch.assign(self._number)
            if self._data is not None:
                self._data.begin_epoch()
            self._before = self._updates()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report, save, and stop fit when the run has ended."""
        run, model = self.run, self.model
        with self._closing(), waiting_lines(self._lines):
            data = self._data if epoch + 1 < self.params["epochs"] else None
            if data is not None and (moved := data.moved(self._extras())):
                self._tell_of_data(moved)
            done = self._updates() - self._before
            if done:
                run.step(done)
            if model.stop_training:
                run.stop("model.stop_training was set")
            metrics = {name: value for name, value in (logs or {}).items() if _single(value)}
            goal = run.progress.goal.metric
            reports = goal in metrics or self._validates(epoch + 1)
            if not reports and not epoch:
                names = ", ".join(sorted(metrics))
                self._tell(f"epoch 1 has no {goal!r}, the goal, in its logs; it has: {names}", logging.INFO)
            self._advance(metrics if reports else None)
            if self._number is None:
                model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restore the best if that was asked for, and close the run; after a signal, end the process.

        Raises:
            Preempted: SIGTERM or SIGUSR1 came, the run was saved and fit stopped.
        """
        preempted, self._preempted = self._preempted, None
        print_lines(self._lines)
        with self._closing():
            if preempted is not None:
                raise preempted
            if self._restore_best:
                self.run.restore_best()
        self._trained[os.path.realpath(self.run.directory)] = weakref.ref(self.model)
        self.close()

    def _place(self, model: Any) -> Path:
        """The directory of this fit: that of no other model, and given back by a fit that broke off in it."""
        given = self._directory(model) if callable(self._directory) else self._directory
        if not isinstance(given, str | Path):
            raise SettingError(f"the function for the directory gave {given!r}: return a str or a Path")
        real = os.path.realpath(given)
        known = self._trained.get(real)
        if known is not None and known() is not model:
            raise SettingError(
                f"{given}: this FitCallback, or the one that it is a copy of, has trained another model "
                "there, and a directory is for one model: write a FitCallback for each, such as "
                'FitCallback(f"runs/fold-{k}"), or FitCallback(lambda model: f"runs/{model.name}"); to go on '
                "with the run in a model that was built again, make a new FitCallback"
            )
        before = _begun.get(real, lambda: None)()
        if before is not None and before is not self and before._is_open and not _fits(before):
            log.warning(
                "%s was open in this process still, by a fit that broke off: it is closed now, and this fit "
                "goes on at its newest checkpoint",
                given,
            )
            before.close()
        return Path(given)

    @property
    def _is_open(self) -> bool:
        return self._release is not None and self._release.alive

    def _report(self, metrics: Mapping[str, Any]) -> None:
        try:
            self.run.report(**metrics)
        except ReportError as error:
            if "'val_" not in str(error) or any(name.startswith("val_") for name in metrics):
                raise
            raise ReportError(
                f"{error}, or give fit validation_data=, and FitCallback the validation_freq= of fit"
            ) from None

    def _build_optimizer(self) -> None:
        model, given = self.model, self._given["optimizer"]
        several = list(given.values()) if isinstance(given, Mapping) else [given]
        used = given is None or any(each is model.optimizer for each in several)
        if used and model.built and model.optimizer is not None and not model.optimizer.built:
            with self._scope(model):
                model.optimizer.build(model.trainable_variables)

    def _look_at_data(self, epochs: int) -> None:
        """Tell what of the data a resumed fit would see otherwise; of one epoch nothing is resumed."""
        self._data = FitData.of(self.model) if epochs > 1 else None
        if self._data is None:
            return
        doubt = self._data.doubt(self._extras(), getattr(self.run._state, "doubt", None))
        if doubt is None:
            log.debug("%s: nothing is seen that a resumed fit would see otherwise", self.run.directory)
        else:
            self._tell_of_data(doubt)

    def _tell_of_data(self, doubt: str) -> None:
        self._tell(f"fit trains on {doubt}")
        self._data = None

    def _tell(self, text: str, level: int = logging.WARNING) -> None:
        state = self.run._state
        if isinstance(state, Notices):
            state.notices.append(Notice(text, level))
        else:
            log.log(level, "%s: %s", self.run.directory, text)

    def _extras(self) -> Collection[Any]:
        extra = self._given["extra"]
        return list(extra.values()) if isinstance(extra, Mapping) else ()

    def _advance(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Report, and ask for the next pass; a signal leaves none, and fit is to end in good order first."""
        try:
            if metrics is not None:
                self._report(metrics)
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
        return 0 if self._counter is None else int(array_of(self._counter.iterations))


FIT = ("fit", "error_handler")
"""One of them is in the traceback of an error that has broken fit off; Keras hides the first."""


@atexit.register
def close_at_exit() -> None:
    """Close what a fit has left open that an error has broken off, of which no callback is told.

    So the journal says what has ended the process; without an error the system gives all back.
    """
    error: BaseException | None = getattr(sys, "last_value", None)
    if error is None or not any(
        frame.f_code.co_name in FIT for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return
    for callback in [each for reference in _begun.values() if (each := reference()) is not None]:
        if callback._is_open and callback._release is not None and callback._release.detach() is not None:
            with suppress(Exception):
                callback.run.__exit__(type(error), error, error.__traceback__)


def _fits(callback: FitCallback) -> bool:
    """Whether a fit that has this callback is going on in any thread: its frame is on a stack then."""
    return any(
        each is callback
        for top in sys._current_frames().values()
        for given in calls_of_fit(top)
        for each in getattr(given.get("callbacks"), "callbacks", ())
    )


def _each(given: Any) -> list[Any]:
    return list(given.values()) if isinstance(given, Mapping) else [given]


def _is_frequency(given: Any) -> bool:
    epochs = given if isinstance(given, list | tuple) else [given]
    return all(type(n) is int and n > 0 for n in epochs)


def _single(value: Any) -> bool:
    """Whether a log is one number; a metric may give one for each class."""
    return tuple(getattr(value, "shape", ())) == ()
