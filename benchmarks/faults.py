"""What faults leave of checkpoints, ours and the peers': kills, a full disk, flipped bits, power cuts."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

EXPLAINED = """\
Every library saves a small state (4 arrays of 16 KiB) three times, as its documentation shows it, each time
from a process of its own; the fault comes in the third save or after it. Then another process resumes, and
what it has is compared with the three states, number by number.

  kill       SIGKILL before a system call of the third save that changes a file below the folder, each in turn
  disk full  a small tmpfs is filled to its last page before such a call, and again before each one after it;
             when the process has ended there is room again
  flip       one bit of one file turns over, drawn evenly over files, bytes and bits
  power cut  an ext4 in a loop device is copied while it is mounted, so many seconds after the third save was
             reported, and the copy mounted, whose journal the kernel replays

  right    the newest state that was reported; after a kill or a full disk also the one that was in the making
  older    a whole state, but one before that: a save that was reported is lost
  refused  an error; nothing is resumed until somebody mends it by hand
  nothing  no error, and no state: training would begin anew
  WRONG    numbers that were never saved, without an error

"silent 3" are saves on a full disk that returned without an error and are not there. Kills and the full disk
need Linux on x86_64, the full disk and power cuts root; what cannot be done is skipped, and so are libraries
that are not installed. The number before the colon says how many positions were tried, of how many.

Examples:
  python benchmarks/faults.py --quick
  python benchmarks/faults.py --markdown
  python benchmarks/faults.py --libraries stopctl torch.save --faults kill --positions 1000
"""

STATES = 3
CLASSES = ("right", "older", "refused", "nothing", "WRONG")
FAULTS = ("kill", "disk full", "flip", "power cut")
PATIENCE = 120.0
"""Seconds that one process may take."""

State = dict[str, Any]


def state(number: int) -> State:
    """Arrays whose every number tells of which state it is, exactly as float32."""
    ramp = np.arange(4096, dtype=np.float32) / 8192
    return {f"w{i}": (number + i / 8 + ramp).astype(np.float32).reshape(64, 64) for i in range(4)}


def number_of(found: Mapping[str, Any]) -> int | None:
    """Which state the arrays are, bit by bit; 0 for those that a program begins with, None if none."""
    for number in range(STATES + 1):
        wanted = state(number)
        if found.keys() == wanted.keys() and all(
            np.asarray(found[name]).tobytes() == array.tobytes() for name, array in wanted.items()
        ):
            return number
    return None


# The libraries: each function imports what it needs, and gives how to save state n and how to resume, which
# returns arrays, or None where the library says that there is nothing.


@dataclass(frozen=True, slots=True)
class Library:
    """How a library saves state n into a folder, and what it resumes with."""

    save: Callable[[Path, int], object]
    resume: Callable[[Path], Mapping[str, Any] | None]


def ours() -> Library:
    from stopctl import Every, Last, Run

    logging.getLogger("stopctl").setLevel(logging.CRITICAL)

    def begun(folder: Path, held: State) -> Run:
        return Run(folder / "run", state=held, save=Every(epochs=1), keep=Last(2), stop=None)

    def save(folder: Path, number: int) -> None:
        held = state(0)
        with begun(folder, held) as run:
            for epoch in run.epochs(number):
                held.update(state(epoch))
                run.report(val_loss=1 / epoch)

    def resume(folder: Path) -> State | None:
        held = state(0)
        with begun(folder, held) as run:
            return None if run.resumed is None else held

    return Library(save, resume)


def tensors(arrays: State) -> State:
    import torch

    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def torch_same_name() -> Library:
    import torch

    def resume(folder: Path) -> State | None:
        path = folder / "last.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    return Library(lambda folder, number: torch.save(tensors(state(number)), folder / "last.pt"), resume)


def torch_replaced() -> Library:
    import torch

    def save(folder: Path, number: int) -> None:
        torch.save(tensors(state(number)), folder / "last.pt.tmp")
        os.replace(folder / "last.pt.tmp", folder / "last.pt")

    return Library(save, torch_same_name().resume)


def safetensors() -> Library:
    from safetensors.torch import load_file, save_file

    def resume(folder: Path) -> State | None:
        path = folder / "last.safetensors"
        return load_file(path) if path.exists() else None

    return Library(lambda folder, n: save_file(tensors(state(n)), folder / "last.safetensors"), resume)


def dcp() -> Library:
    import torch.distributed.checkpoint as dist_checkpoint

    def steps(folder: Path) -> list[Path]:
        return sorted(folder.glob("step*"))

    def save(folder: Path, number: int) -> None:
        dist_checkpoint.save(tensors(state(number)), checkpoint_id=folder / f"step{number}", no_dist=True)
        for old in steps(folder)[:-2]:
            shutil.rmtree(old)

    def resume(folder: Path) -> State | None:
        held = tensors(state(0))
        if not steps(folder):
            return None
        dist_checkpoint.load(held, checkpoint_id=steps(folder)[-1], no_dist=True)
        return held

    return Library(save, resume)


def orbax() -> Library:
    import orbax.checkpoint as ocp

    def manager(folder: Path) -> Any:
        return ocp.CheckpointManager(folder / "run", options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def save(folder: Path, number: int) -> None:
        with manager(folder) as saving:
            saving.save(number, args=ocp.args.StandardSave(state(number)))
            saving.wait_until_finished()

    def resume(folder: Path) -> State | None:
        with manager(folder) as saved:
            newest = saved.latest_step()
            return None if newest is None else saved.restore(newest, args=ocp.args.StandardRestore(state(0)))

    return Library(save, resume)


def tf_manager() -> Library:
    import tensorflow as tf

    def manager(folder: Path) -> tuple[State, Any, Any]:
        held = {name: tf.Variable(array) for name, array in state(0).items()}
        checkpoint = tf.train.Checkpoint(**held)
        return held, checkpoint, tf.train.CheckpointManager(checkpoint, str(folder / "run"), max_to_keep=2)

    def save(folder: Path, number: int) -> None:
        held, checkpoint, saving = manager(folder)
        checkpoint.restore(saving.latest_checkpoint)
        for name, array in state(number).items():
            held[name].assign(array)
        saving.save()

    def resume(folder: Path) -> State | None:
        held, checkpoint, saved = manager(folder)
        if saved.latest_checkpoint is None:
            return None
        checkpoint.restore(saved.latest_checkpoint)
        return {name: variable.numpy() for name, variable in held.items()}

    return Library(save, resume)


def keras_model(number: int) -> Any:
    import keras

    class Held(keras.layers.Layer):
        def build(self, _: object) -> None:
            for name in state(0):
                setattr(self, name, self.add_weight(shape=(64, 64), name=name))

        def call(self, x: Any) -> Any:
            return x

    keras.saving.register_keras_serializable("faults", "Held")(Held)
    model = keras.Sequential([keras.Input((1,)), Held()])
    model.compile(loss="mse")
    model.set_weights(list(state(number).values()))
    return model


def keras_arrays(model: Any) -> State:
    return dict(zip(state(0), model.get_weights(), strict=True))


def keras_model_checkpoint() -> Library:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    def save(folder: Path, number: int) -> None:
        callback = keras.callbacks.ModelCheckpoint(str(folder / "last.keras"))
        callback.set_model(keras_model(number))
        callback.on_epoch_end(number - 1, {"loss": 1.0})

    def resume(folder: Path) -> State | None:
        keras_model(0)  # registers the layer
        path = folder / "last.keras"
        return keras_arrays(keras.models.load_model(path)) if path.exists() else None

    return Library(save, resume)


def keras_backup() -> Library:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    def made(folder: Path, number: int) -> tuple[Any, Any]:
        model, callback = keras_model(number), keras.callbacks.BackupAndRestore(str(folder / "backup"))
        callback.set_model(model)
        return model, callback

    def save(folder: Path, number: int) -> None:
        model, callback = made(folder, 0)
        callback.on_train_begin()
        model.set_weights(list(state(number).values()))
        callback.on_epoch_end(number - 1, {"loss": 1.0})

    def resume(folder: Path) -> State | None:
        model, callback = made(folder, 0)
        callback.on_train_begin()
        arrays = keras_arrays(model)
        return None if number_of(arrays) == 0 else arrays

    return Library(save, resume)


def lightning() -> Library:
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Held(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.held = torch.nn.ParameterDict(tensors(state(0)))

        def training_step(self, *_: object) -> Any:
            return sum(weight.sum() * 0 for weight in self.held.values())

        def on_train_epoch_end(self) -> None:
            for name, weight in tensors(state(self.current_epoch + 1)).items():
                self.held[name].data.copy_(weight)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    def newest(folder: Path) -> Path | None:
        return max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)

    def save(folder: Path, number: int) -> None:
        saving = ModelCheckpoint(dirpath=folder, every_n_epochs=1)
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        data = torch.utils.data.DataLoader(torch.zeros(1, 1))
        trainer = lightning.Trainer(max_epochs=number, accelerator="cpu", callbacks=[saving], **quiet)
        trainer.fit(Held(), data, ckpt_path=newest(folder), weights_only=False)

    def resume(folder: Path) -> State | None:
        path = newest(folder)
        if path is None:
            return None
        saved = torch.load(path, weights_only=False)["state_dict"]
        return {name.removeprefix("held."): array for name, array in saved.items()}

    return Library(save, resume)


def ignite() -> Library:
    import torch
    from ignite.engine import Engine
    from ignite.handlers import Checkpoint, DiskSaver

    class Held(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.held = torch.nn.ParameterDict(tensors(state(number)))

    def files(folder: Path) -> list[Path]:
        return sorted(folder.glob("*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]))

    def save(folder: Path, number: int) -> None:
        engine = Engine(lambda *_: None)
        saver = DiskSaver(str(folder), require_empty=False)
        epoch: Callable[..., int] = lambda *_: number  # noqa: E731
        handler = Checkpoint({"model": Held(number)}, saver, n_saved=2, global_step_transform=epoch)
        handler(engine)
        for old in files(folder)[:-2]:
            old.unlink()

    def resume(folder: Path) -> State | None:
        if not files(folder):
            return None
        saved = torch.load(files(folder)[-1], weights_only=True)
        return {name.removeprefix("held."): array for name, array in saved.items()}

    return Library(save, resume)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "stopctl": ours,
    "torch.save": torch_same_name,
    "torch.save, os.replace": torch_replaced,
    "safetensors": safetensors,
    "torch DCP": dcp,
    "orbax CheckpointManager": orbax,
    "tf CheckpointManager": tf_manager,
    "Keras ModelCheckpoint": keras_model_checkpoint,
    "Keras BackupAndRestore": keras_backup,
    "Lightning ModelCheckpoint": lightning,
    "ignite Checkpoint": ignite,
}


# Processes: each save and each look is a fork of one that has imported the library.


def forked(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> int:
    """Begin a process that writes what ``call`` returns, or its error, to its standard output's pipe."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        before()
        call()
        code = 0
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def answered(call: Callable[[], Any]) -> Any:
    """What a call returns in a process of its own, as JSON; RuntimeError for any error in it."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:

        def ask() -> None:
            try:
                told = {"value": call()}
            except BaseException as error:
                told = {"error": f"{type(error).__name__}: {error}"[:300]}
            Path(answer.name).write_text(json.dumps(told))

        pid = forked(ask)
        until = time.monotonic() + PATIENCE
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise RuntimeError("it hangs")
            time.sleep(0.005)
        told = json.loads(Path(answer.name).read_text() or '{"error": "it died"}')
    if "error" in told:
        raise RuntimeError(told["error"])
    return told["value"]


def look(library: Library, folder: Path, right: Sequence[int]) -> str:
    """The class of what a process resumes with."""

    def resumed() -> int | str | None:
        arrays = library.resume(folder)
        return "nothing" if arrays is None else number_of(arrays)

    try:
        found = answered(resumed)
    except RuntimeError:
        return "refused"
    if found in ("nothing", 0):
        return "nothing"
    return "WRONG" if found is None else "right" if found in right else "older"


def saved(library: Library, folder: Path, numbers: Sequence[int]) -> None:
    """Save these states, each from a process of its own."""
    for number in numbers:
        answered(lambda number=number: library.save(folder, number) and None)


# Kills: the system calls that change a file, counted by ptrace.

FILE, PATH, AT = "file", "path", "at"
CALLS = {
    1: FILE, 18: FILE, 20: FILE, 296: FILE, 328: FILE,  # write, pwrite64, writev, pwritev, pwritev2
    40: FILE, 74: FILE, 75: FILE, 77: FILE, 277: FILE, 285: FILE,  # sendfile, fsync, ftruncate, ...
    2: PATH, 76: PATH, 82: PATH, 83: PATH, 84: PATH, 85: PATH, 86: PATH, 87: PATH, 88: PATH,  # open ...
    257: AT, 258: AT, 263: AT, 264: AT, 265: AT, 266: AT, 316: AT,  # openat, mkdirat, unlinkat, renameat, ...
}  # fmt: skip
"""Of Linux on x86_64, by number."""
SECOND = {82: 1, 86: 1, 264: 3, 265: 3, 316: 3}
"""Where those that rename and link have the other path."""
OPENS = {2: 1, 257: 2}
"""Where those that open have their flags."""

TRACEME, CONTINUE, SET_OPTIONS, GET_INFO = 0, 24, 0x4200, 0x420E
OPTIONS = 1 | 2 | 4 | 8 | 0x100000  # syscall stops are marked; fork, vfork and clone are followed; exit kills
WALL = 0x40000000


class CallInfo(ctypes.Structure):
    """ptrace_syscall_info, as far as it is needed."""

    _fields_ = [
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]  # fmt: skip


def ptrace(request: int, pid: int, at: Any = None, data: Any = None) -> int:
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return int(libc.ptrace(request, pid, at, data))


def traced(call: Callable[[], object], folder: Path, before: Callable[[int], bool]) -> tuple[int, bool]:
    """Run a process; before each of its calls that changes a file below the folder, ask whether to kill it.

    Args:
        before: is given the call's number, from 0.

    Returns:
        How many such calls it made, and whether it ended without an error.
    """

    def begin() -> None:
        signal.alarm(int(PATIENCE))
        os.setpgid(0, 0)  # a group of its own: what else this process has begun is not waited for
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)

    first = forked(call, begin)
    os.waitpid(first, 0)
    ptrace(SET_OPTIONS, first, None, OPTIONS)
    ptrace(CONTINUE, first)
    count, info, known, alive, well = 0, CallInfo(), {first}, True, False
    while True:
        try:
            pid, status = os.waitpid(-first, WALL)
        except ChildProcessError:
            return count, well
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            well = well or (pid == first and status == 0)
            continue
        stopped, deliver = os.WSTOPSIG(status), 0
        if stopped == signal.SIGTRAP | 0x80:
            ptrace(GET_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
            if alive and info.op == 1 and _changes(pid, info, folder):
                if before(count):
                    alive = False
                    os.kill(first, signal.SIGKILL)
                count += 1
        elif not status >> 16 and (pid in known or stopped != signal.SIGSTOP):
            deliver = stopped
        known.add(pid)
        if alive:
            ptrace(CONTINUE, pid, None, deliver)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # a process of its own that it had begun goes with it


def _changes(pid: int, info: CallInfo, folder: Path) -> bool:
    """Whether a call is about to change a file below the folder."""
    kind = CALLS.get(info.nr)
    if kind is None:
        return False
    if info.nr in OPENS and not info.args[OPENS[info.nr]] & (os.O_CREAT | os.O_TRUNC):
        return False
    try:
        if kind == FILE:
            return _below(os.readlink(f"/proc/{pid}/fd/{info.args[0]}"), folder)
        places = [1 if kind == AT else 0, *([SECOND[info.nr]] if info.nr in SECOND else ())]
        return any(_below(_path(pid, info, kind, place), folder) for place in places)
    except OSError:
        return False


def _path(pid: int, info: CallInfo, kind: str, place: int) -> str:
    """The path that an argument of a call names, absolute."""
    path = _text(pid, info.args[place])
    if path.startswith("/"):
        return path
    at = ctypes.c_int(info.args[place - 1]).value if kind == AT else -100
    return os.path.join(os.readlink(f"/proc/{pid}/{'cwd' if at == -100 else f'fd/{at}'}"), path)


def _below(path: str, folder: Path) -> bool:
    return path.removesuffix(" (deleted)").startswith(f"{folder}/")


def _text(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        data = memory.read(4096 - address % 4096)
        data = data if b"\0" in data else data + memory.read(4096)
    return os.fsdecode(data.partition(b"\0")[0])


# The faults: each gives the outcomes, one a position.


def spread(total: int, positions: int) -> list[int]:
    """At most so many of ``range(total)``, evenly."""
    return list(range(total)) if total <= positions else [i * total // positions for i in range(positions)]


def kills(library: Library, scratch: Path, positions: int) -> Iterator[tuple[str, str]]:
    (before := scratch / "before").mkdir()
    saved(library, before, range(1, STATES))
    folder = scratch / "at"
    total = calls(library, before, folder, lambda _: False)[0]
    if look(library, folder, [STATES]) != "right":
        raise Skipped("what it saves under ptrace cannot be resumed")
    for at in spread(total, positions):
        calls(library, before, folder, lambda count, at=at: count == at)
        yield f"of {total}", look(library, folder, [STATES - 1, STATES])


def calls(
    library: Library, before: Path, folder: Path, ask: Callable[[int], bool], number: int = STATES
) -> tuple[int, bool]:
    """Have the library make its last save into a copy of ``before``, traced."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Skipped("needs Linux on x86_64")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    return traced(lambda: library.save(folder, number), folder, ask)


@contextlib.contextmanager
def mounted(at: Path, *words: str) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", *words, str(at)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skipped(f"cannot mount: {error}") from error
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True, capture_output=True)


def full(library: Library, scratch: Path, positions: int) -> Iterator[tuple[str, str]]:
    (before := scratch / "before").mkdir()
    saved(library, before, range(1, STATES))
    tmpfs = ("-t", "tmpfs", "-o", "size=4m", "none")
    with mounted(scratch / "disk", *tmpfs) as disk:
        total = calls(library, before, disk / "folder", lambda _: False)[0]
    for at in spread(total, positions):
        with mounted(scratch / "disk", *tmpfs) as disk:
            folder, filler = disk / "folder", disk / "filler"

            def fill(count: int, at: int = at, filler: Path = filler) -> bool:
                if count >= at:
                    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                        while file.write(bytes(1 << 16)):
                            pass
                return False

            _, well = calls(library, before, folder, fill)
            filler.unlink(missing_ok=True)
            found = look(library, folder, [STATES - 1, STATES])
            lost = well and look(library, folder, [STATES]) != "right"
        yield "silent" if lost else f"of {total}", found


def flips(library: Library, scratch: Path, positions: int) -> Iterator[tuple[str, str]]:
    (before := scratch / "before").mkdir()
    saved(library, before, range(1, STATES + 1))
    draw, folder = Random(0), scratch / "at"
    for _ in range(positions):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        path = draw.choice(files)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        yield "", look(library, folder, [STATES])


def power_cuts(library: Library, scratch: Path, positions: int) -> Iterator[tuple[str, str]]:
    for seconds in spread(7, min(positions, 3)):
        image, copy = scratch / "disk.img", scratch / "copy.img"
        with image.open("wb") as file:
            file.truncate(24 << 20)
        try:
            subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skipped(f"cannot make an ext4: {error}") from error
        with mounted(scratch / "disk", "-o", "loop", str(image)) as disk:
            (folder := disk / "folder").mkdir()
            os.sync()
            saved(library, folder, range(1, STATES + 1))
            time.sleep(seconds)
            shutil.copyfile(image, copy)
        with mounted(scratch / "disk", "-o", "loop", str(copy)) as disk:  # the same path as before
            yield "", look(library, disk / "folder", [STATES]) if (disk / "folder").exists() else "nothing"


class Skipped(Exception):
    """A fault that cannot be made here, and why."""


MAKERS = {"kill": kills, "disk full": full, "flip": flips, "power cut": power_cuts}


# The table.


@dataclass(slots=True)
class Row:
    """What came of one fault with one library."""

    outcomes: Counter[str]
    notes: Counter[str]
    skipped: str = ""

    def told(self) -> str:
        """``"12 of 40 positions: right 10, refused 2"``."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        silent = self.notes.get("silent", 0)
        parts = [f"{name} {self.outcomes[name]}" for name in CLASSES if self.outcomes[name]]
        return ", ".join(parts + [f"silent {silent}"] * bool(silent))


def measured(library: Library, fault: str, positions: int, label: str = "") -> Row:
    """Make a fault at so many positions, and count what is left."""
    row = Row(Counter(), Counter())
    with tempfile.TemporaryDirectory() as folder:
        try:
            for note, outcome in MAKERS[fault](library, Path(folder).resolve(), positions):
                row.outcomes[outcome] += 1
                row.notes[note] += 1
                _show(f"{label}{fault}: {row.outcomes.total()} positions, {row.told()}")
        except (Skipped, RuntimeError) as error:
            row.skipped = str(error)
    return row


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def work(name: str, faults: Sequence[str], positions: int) -> dict[str, Any]:
    """All faults of one library, in this process."""
    warnings.simplefilter("ignore")
    try:
        library = LIBRARIES[name]()
        if name.startswith("Keras"):  # whose first save imports more than all the rest takes
            with tempfile.TemporaryDirectory() as folder:
                library.save(Path(folder), 1)
    except ImportError as error:
        return {fault: {"skipped": str(error)} for fault in faults}
    rows = {fault: measured(library, fault, positions, f"{name}, ") for fault in faults}
    return {
        fault: {"outcomes": row.outcomes, "notes": row.notes, "skipped": row.skipped}
        for fault, row in rows.items()
    }


def table(rows: Mapping[str, Mapping[str, Row]], faults: Sequence[str], *, markdown: bool) -> str:
    """A line for each library, a column for each fault."""
    head = ["library", *faults]
    lines = [[name, *(_cell(by[fault]) for fault in faults)] for name, by in rows.items()]
    if markdown:
        rule = ["---"] * len(head)
        return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    )


def _cell(row: Row) -> str:
    if row.skipped:
        return row.told()
    total = next((note for note in row.notes if note.startswith("of ")), "")
    return f"{row.outcomes.total()} {total}".rstrip() + f": {row.told()}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXPLAINED, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), metavar="NAME")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--positions", type=int, default=60, help="of each fault at most (default: 60)")
    parser.add_argument("--quick", action="store_true", help="8 positions each")
    parser.add_argument("--markdown", action="store_true", help="a table for the documentation")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    positions = 8 if given.quick else given.positions
    if given.worker:
        Path(given.worker).write_text(json.dumps(work(given.libraries[0], given.faults, positions)))
        return
    rows: dict[str, dict[str, Row]] = {}
    began = time.monotonic()
    for done, name in enumerate(given.libraries):
        _show(f"{done} of {len(given.libraries)} libraries; {name} is imported")
        with tempfile.NamedTemporaryFile(suffix=".json") as answer:
            words = ["--worker", answer.name, "--libraries", name, "--positions", str(positions)]
            command = [sys.executable, __file__, *words, "--faults", *given.faults]
            output = None if sys.stderr.isatty() else subprocess.PIPE
            ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=output, text=True)
            if ended.returncode:
                why = f"its worker ended with {ended.returncode}"
                sys.exit(f"{ended.stderr or ''}{name} was not finished: {why}")
            told = json.loads(Path(answer.name).read_text())
        rows[name] = {
            fault: Row(Counter(one.get("outcomes")), Counter(one.get("notes")), one["skipped"])
            for fault, one in told.items()
        }
        _show("")
        if not sys.stderr.isatty():
            told_now = "; ".join(f"{fault}: {_cell(row)}" for fault, row in rows[name].items())
            print(f"{name}: {told_now}", file=sys.stderr, flush=True)
    print(table(rows, given.faults, markdown=given.markdown))
    print(f"\n{platform.system()} {platform.machine()}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
