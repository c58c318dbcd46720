"""Training by two workers under MultiWorkerMirroredStrategy; each role in a process forked for it.

``workers_program.py BASE RANK PORTS ROLE...``: rank 0 and rank 1 are started with the same roles, and with two
ports for each role. A role leaves ``BASE/ROLE.RANK.json``; ``{role: exit code or minus the signal}`` is printed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import mirrored_program
import numpy as np
import tensorflow as tf
from mirrored_program import BATCH, EPOCHS, Program, fingerprint, leaves, network, rows, values

from stopctl import Every, Patience, Preempted, SettingError, TeamError
from stopctl.ports import MismatchError
from stopctl_tf import FitCallback, Run, TfState, replicas
from stopctl_tf.team import ServiceTeam
from stopctl_tf.worker import WorkerPart

RANK = int(sys.argv[2])
TIMEOUT = 5.0  # seconds


def workers(timeout: float | None = None) -> Any:
    """The strategy over two processes, who wait for each other here; ``timeout`` is TensorFlow's own."""
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def train(
    directory: Path, who: int = 1, timeout: float | None = None, **at: tuple[int, int]
) -> dict[str, Any]:
    """The run of both; ``at`` says what rank ``who`` does after which batch: ``kill=(2, 4)``."""
    program = Program(workers(timeout))
    extra, model = program.extra, program.model
    begun: list[Any] = []
    told: dict[str, Any] = {"begun": begun}
    x, y = rows()
    began = time.monotonic()
    try:
        with Run(
            directory,
            **program.given(),
            stop=Patience(9),
            save=Every(steps=3),
            timeout=TIMEOUT,
        ) as run:
            for epoch in run.epochs(EPOCHS):
                extra["epoch"].assign(epoch)
                for chosen in run.batches(order(epoch)):
                    begun.append([epoch, run.batch])
                    mine, began = chosen[RANK::2], time.monotonic()
                    program.step(tf.constant(x[mine]), tf.constant(y[mine]))
                    if who == RANK:
                        happen((epoch, run.batch), at, run, directory, program)
                began = time.monotonic()
                told["reporting"] = epoch
                run.report(val_loss=float(tf.reduce_mean((model(x, training=False) - y) ** 2)))
    except (TeamError, RuntimeError, Preempted, tf.errors.OpError) as error:
        told |= {"error": type(error).__name__, "text": str(error), "waited": time.monotonic() - began}
    told |= {"stopped": str(run.stopped), "saved": [info.step for info in run.checkpoints]}
    return {**told, "best": run.progress.best, **fingerprint(TfState(**program.given()))}


def order(epoch: int) -> list[Any]:
    """The rows of every batch, for both workers."""
    permutation = np.random.default_rng((7, epoch)).permutation(len(rows()[0]))
    return list(permutation.reshape(-1, BATCH))


def happen(
    place: tuple[int, int], at: dict[str, tuple[int, int]], run: Run, directory: Path, program: Program
) -> None:
    """What it does there."""
    for what in (name for name, where in at.items() if where == place):
        if what == "stop":
            run.stop("enough")
        elif what == "move":
            moved(program)
        elif what == "fail":
            raise RuntimeError("a bug in rank 1")
        elif what == "sleep":
            time.sleep(30)
        else:
            directory.with_suffix(".pid").write_text(str(os.getpid()))
            os.kill(
                os.getpid(), {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "term": signal.SIGTERM}[what]
            )


def straight(base: Path) -> Any:
    return train(base / "straight")


def killed(base: Path) -> Any:
    """After the last batch of epoch 2, so that rank 0 waits in our exchange and not in TensorFlow's."""
    return train(base / "killed", kill=(2, 4))


def resumed(base: Path) -> Any:
    return train(base / "killed")


def plain(base: Path) -> Any:
    """A run without a strategy, by the first alone."""
    return None if RANK else mirrored_program.plain(base)


def forgetful(base: Path) -> Any:
    """A mutant: each worker goes on with what rank 0 had for itself."""
    if RANK == 0:
        shutil.copytree(base / "killed", base / "forgetful.tmp")
        (base / "forgetful.tmp").rename(base / "forgetful")
    WorkerPart.load = lambda self, saved: None  # type: ignore[method-assign]
    return train(base / "forgetful")


def frozen(base: Path) -> Any:
    return freed(base / "frozen", 1)


def frozen_chief(base: Path) -> Any:
    return freed(base / "frozen_chief", 0)


def freed(directory: Path, who: int) -> Any:
    """Frozen; the other one ends it once it has given up."""
    told = train(directory, who=who, freeze=(2, 4))
    os.kill(int(directory.with_suffix(".pid").read_text()), signal.SIGKILL)
    return told


def killed_chief(base: Path) -> Any:
    return train(base / "killed_chief", who=0, kill=(2, 4))


def killed_in_step(base: Path) -> Any:
    """While the other one is in a collective of TensorFlow."""
    return train(base / "killed_in_step", kill=(2, 3))


def asleep_in_step(base: Path) -> Any:
    """The same, of a process that lives; TensorFlow has been told to wait no longer than that."""
    return train(base / "asleep_in_step", timeout=TIMEOUT, sleep=(2, 3))


def signalled(base: Path) -> Any:
    return train(base / "signalled", term=(2, 3))


def after_signal(base: Path) -> Any:
    return train(base / "signalled")


def stopped(base: Path) -> Any:
    return train(base / "stopped", stop=(2, 3))


def failing(base: Path) -> Any:
    return train(base / "failing", fail=(2, 4))


def unequal(base: Path) -> Any:
    """One worker has other weights when the run is opened."""
    program = Program(workers())
    if RANK:
        moved(program)
    try:
        Run(base / "unequal", **program.given(), stop=None, timeout=TIMEOUT).open()
    except TeamError as error:
        return {"error": type(error).__name__, "text": str(error), "saved": []}


def moved(program: Program) -> None:
    for copy in replicas.copies(program.model.weights[0].value):
        copy.assign(copy + 1.0)


def moving(base: Path) -> Any:
    """One worker moves them beside the steps."""
    return train(base / "moving", move=(1, 2))


def team(base: Path) -> Any:
    """The team by itself: messages of any length, what a rank does alone, and how it ends."""
    program = Program(workers())
    state = TfState(**program.given())
    found = state.team(TIMEOUT)
    assert isinstance(found, ServiceTeam)
    assert (found.rank, found.size, found.timeout) == (RANK, 2, TIMEOUT)
    assert found.share(b"") == [b"", b""]
    for length in (1, 5000, 300_000):
        mine = bytes([RANK, 0, 255]) * length
        assert found.share(mine) == [bytes([rank, 0, 255]) * length for rank in (0, 1)]
    for name in ("sum", "mean", "first"):
        for copy in replicas.copies(program.extra[name]):
            copy.assign(RANK + 3.0)
    own: dict[str, Any] = {}
    if RANK == 1:  # alone: a collective would wait for rank 0 for ever
        saved = state.capture()
        own = {name: sorted(tree) for name, tree in saved["worker"].items()}  # type: ignore[union-attr]
        before = fingerprint(state)
        for copy in replicas.copies(program.extra["sum"]):
            copy.assign(77.0)
        state.restore(saved)
        assert fingerprint(state) == before
        assert len(leaves(saved)) > 40
    assert found.share(b"after") == [b"after"] * 2
    began = time.monotonic()
    for _ in range(100):
        found.share(b"x" * 500)
    each = (time.monotonic() - began) / 100
    found.close()
    second = state.team(TIMEOUT)
    assert second is not None
    assert second.share(bytes([RANK])) == [b"\0", b"\1"]
    if RANK == 1:
        second.close()
        return {"own": own, "milliseconds": each * 1000}
    told = []
    for _ in range(2):
        began = time.monotonic()
        try:
            second.share(b"who is there?")
        except TeamError as error:
            told.append([str(error), time.monotonic() - began])
    second.close()
    return {"left": told, "milliseconds": each * 1000}


def late(base: Path) -> Any:
    """Rank 1 comes after rank 0 has given up."""
    found = TfState(**Program(workers()).given()).team(2.0)
    assert found is not None
    found.share(b"")
    if RANK == 1:
        wait_for(base / "late.gave-up")
    try:
        found.share(b"")
    except TeamError as error:
        (base / ("late.heard" if RANK else "late.gave-up")).touch()
        wait_for(base / "late.heard")  # rank 1 finds it alive
        return {"text": str(error)}
    return {}


def wait_for(path: Path) -> None:
    while not path.exists():  # the alarm ends who waits in vain
        time.sleep(0.01)


def fit(base: Path) -> Any:
    """Keras cannot fit() here; FitCallback says so."""
    strategy = workers()
    told = {}
    with strategy.scope():
        model = network()
        model.compile("sgd", loss="mse")
    try:
        model.fit(*rows(), epochs=1, verbose=0)
    except ValueError as error:
        told["keras"] = str(error)
    for where, scope in {"inside": strategy.scope(), "outside": mirrored_program.Alone().scope()}.items():
        try:
            with scope:
                FitCallback(base / "fit")
        except SettingError as error:
            told[where] = str(error)
    assert not (base / "fit").exists()
    return told


def read_straight(base: Path) -> Any:
    """What the two have saved, read by two others."""
    return read(base / "straight")


def read_plain(base: Path) -> Any:
    """A run of one process, saved without a strategy, read by both."""
    return read(base / "plain")


def read(directory: Path) -> Any:
    program = Program(workers())
    with Run(directory, **program.given(), stop=Patience(9), save=Every(steps=3), timeout=TIMEOUT) as run:
        run.restore_latest()
    return values(program)


def read_alone(base: Path) -> Any:
    """The run of two workers by one without a strategy: all but the shares of a sum."""
    if RANK:
        return None
    program = Program(mirrored_program.Alone())
    apart = ("extra.loss", "extra.sum", "extra.mean")
    try:
        mirrored_program.saved_values(program, base / "straight")
    except MismatchError as error:
        told = str(error)
    given = program.given()
    given["extra"] = {name: each for name, each in given["extra"].items() if f"extra.{name}" not in apart}
    rules = {"stop": Patience(9), "save": Every(steps=3)}
    with Run(base / "straight", **given, **rules, allow_missing=apart) as run:
        run.restore_latest()
    return {"refused": told, "values": values(program)}


def main() -> None:
    """Fork for each role, as TensorFlow has not started yet."""
    base, codes = Path(sys.argv[1]), {}
    ports, roles = sys.argv[3].split(","), sys.argv[4:]
    for i, role in enumerate(roles):
        pid = os.fork()
        if pid == 0:
            signal.alarm(100)
            code = 1
            addresses = [f"127.0.0.1:{port}" for port in ports[2 * i : 2 * i + 2]]
            task = {"type": "worker", "index": RANK}
            os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            try:
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(2)
                found = globals()[role](base)
                (base / f"{role}.{RANK}.json").write_text(json.dumps(found))
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        codes[role] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
