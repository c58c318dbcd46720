"""The watch: every omission is told once with the line to write, and a complete program hears nothing."""

from __future__ import annotations

import copy
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils
from torch.optim.optimizer import _global_optimizer_post_hooks  # type: ignore[attr-defined]

from stopctl import SettingError
from stopctl.store import Reader
from stopctl_torch import Run, TorchState

EPOCHS = 6
QUICK: dict[str, Any] = {"stop": None, "save": None, "durability": "process"}


def step(model: Any, *optimizers: Any, scale: Callable[[Any], Any] = lambda loss: loss) -> None:
    """A step of each."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    scale((model(torch.ones(1, 2)) - 5).square().sum()).backward()
    for optimizer in optimizers:
        optimizer.step()


def adam(model: Any) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.1)


def epochs(directory: Path, body: Callable[[int], object], watch: Any = "warn", **given: Any) -> None:
    """A loop of epochs of this body."""
    with Run(directory, watch=watch, **QUICK, **given) as run:
        for epoch in run.epochs(EPOCHS):
            body(epoch)
            run.report(val_loss=1.0)


def noticed(directory: Path) -> list[tuple[int, str]]:
    """What the journal has: the epoch, and the text."""
    lines = [line for line in Reader(directory).journal() if line["event"] == "noticed"]
    return [(line["epoch"], line["text"]) for line in lines]


# The pairs: each program is run as it should be, and with something that it does not give.


def optimizer(whole: bool) -> Any:
    model = nn.Linear(2, 1)
    o = adam(model)
    return {"model": model, **({"optimizer": o} if whole else {})}, lambda epoch: step(model, o)


def model_too(whole: bool) -> Any:
    net, head = nn.Linear(2, 2), nn.Linear(2, 1)
    o, p = adam(net), adam(head)
    both = {"model": {"net": net, "head": head}, "optimizer": {"net": o, "head": p}}
    one = {"model": {"net": net}, "optimizer": {"net": o}}
    return both if whole else one, lambda epoch: step(nn.Sequential(net, head), o, p)


def scheduler(whole: bool, since: int = 0) -> Any:
    """Which is made at once, or after an epoch; another one is given in any case."""
    model = nn.Linear(2, 1)
    o = adam(model)
    s: list[Any] = [lr_scheduler.ExponentialLR(o, 0.9)]
    rest = lr_scheduler.LambdaLR(o, lambda epoch: 1.0)
    if not since:
        s.append(lr_scheduler.StepLR(o, 2))

    def body(epoch: int) -> None:
        step(model, o)
        if epoch == since:
            s.append(lr_scheduler.StepLR(o, 1))
        s[0 if whole or epoch <= since else 1].step()

    return {"model": model, "optimizer": o, "scheduler": {"a": s[0], "rest": rest}}, body


def replaced(whole: bool) -> Any:
    now: list[Any] = [nn.Linear(2, 1)]
    now.append(adam(now[0]))

    def body(epoch: int) -> None:
        if epoch == 3 and not whole:
            now[0] = copy.deepcopy(now[0])
            now[1] = adam(now[0])
        step(*now)

    return {"model": now[0], "optimizer": now[1]}, body


class Around(torch.optim.Optimizer):
    """Steps another optimizer, and saves its state if it is told to."""

    def __init__(self, base: torch.optim.Optimizer, whole: bool) -> None:
        super().__init__(base.param_groups, {})
        self.inner = [base]
        self.whole = whole

    def step(self, closure: Any = None) -> Any:
        """Of the inner one."""
        return self.inner[0].step(closure)

    def state_dict(self) -> Any:
        """With the inner one's, or without."""
        return {**super().state_dict(), **({"inner": self.inner[0].state_dict()} if self.whole else {})}


def inner_optimizer(whole: bool) -> Any:
    model = nn.Linear(2, 1)
    o = Around(adam(model), whole)
    return {"model": model, "optimizer": o}, lambda epoch: step(model, o)


class Box:
    """An object that holds another one and saves it, or not."""

    def __init__(self, held: Any, whole: bool) -> None:
        self.held = {"it": held}
        self.whole = whole

    def state_dict(self) -> dict[str, Any]:
        """Of what it holds, or nothing."""
        return {"it": self.held["it"].state_dict()} if self.whole else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is loaded here."""


def inner_module(whole: bool) -> Any:
    model = nn.Linear(2, 1)
    o, shadow = adam(model), copy.deepcopy(model)

    def body(epoch: int) -> None:
        step(model, o)
        with torch.no_grad():
            shadow.weight.lerp_(model.weight, 0.5)

    return {"model": model, "optimizer": o, "extra": {"box": Box(shadow, whole)}}, body


def inner_scheduler(whole: bool) -> Any:
    model = nn.Linear(2, 1)
    o = adam(model)
    s = lr_scheduler.StepLR(o, 2)

    def body(epoch: int) -> None:
        step(model, o)
        s.step()

    return {"model": model, "optimizer": o, "extra": {"box": Box(s, whole)}}, body


def scaler(whole: bool) -> Any:
    model = nn.Linear(2, 1)
    o, s = adam(model), torch.amp.GradScaler("cpu", init_scale=2.0)

    def body(epoch: int) -> None:
        o.zero_grad()
        s.scale(model(torch.ones(1, 2)).sum()).backward()
        s.step(o)
        s.update()

    return {"model": model, "optimizer": o, **({"scaler": s} if whole else {})}, body


def averaged(whole: bool, part: bool = False) -> Any:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    source = model[0] if part else model
    o, ema = adam(model), swa_utils.AveragedModel(source)

    def body(epoch: int) -> None:
        step(model, o)
        if epoch > 2:  # as averages that begin late
            ema.update_parameters(source)

    return {"model": model, "optimizer": o, **({"extra": {"ema": ema}} if whole else {})}, body


ANEW = ", and a resumed run would begin it anew: write "
PAIRS: dict[str, tuple[Callable[[bool], Any], int, str]] = {
    "an optimizer": (
        optimizer,
        2,
        f"an Adam that is not given steps model (weight and 1 more){ANEW}optimizer=<the Adam>",
    ),
    "an optimizer and its model": (
        model_too,
        2,
        "an Adam that is not given steps a model that is not given (its first parameter has shape (1, 2)), and a "
        'resumed run would begin both anew: write model={"net": ..., "model": <the model>}, '
        'optimizer={"net": ..., "adam": <the Adam>}',
    ),
    "a scheduler": (
        scheduler,
        2,
        f"a StepLR that is not given drives optimizer{ANEW}"
        'scheduler={"a": ..., "rest": ..., "steplr": <the StepLR>}',
    ),
    "a scheduler that is made later": (
        lambda whole: scheduler(whole, since=3),
        5,
        f"a StepLR that is not given drives optimizer{ANEW}"
        'scheduler={"a": ..., "rest": ..., "steplr": <the StepLR>}',
    ),
    "all objects, replaced": (
        replaced,
        4,
        "nothing that is given has moved for two epochs, while an Adam that is not given stepped: the loop trains "
        "other objects than those that are saved: write model=..., optimizer=... with what it trains, or change "
        "the given objects in place",
    ),
    "an optimizer in an optimizer": (
        inner_optimizer,
        2,
        f"optimizer does not save the Adam in it{ANEW}"
        'optimizer={"optimizer": ..., "adam": <the Adam>}',
    ),
    "a module in an extra": (
        inner_module,
        2,
        f'extra.box does not save the Linear in it{ANEW}extra={{"box": ..., "linear": <the Linear>}}',
    ),
    "a scheduler in an extra": (
        inner_scheduler,
        2,
        f"extra.box does not save the StepLR in it{ANEW}scheduler=<the StepLR>",
    ),
    "a scaler": (
        scaler,
        2,
        f"a GradScaler that is not given scales the loss of given optimizers{ANEW}scaler=<the GradScaler>",
    ),
    "averages": (
        averaged,
        3,
        f"an AveragedModel that is not given averages model{ANEW}"
        'extra={"averagedmodel": <the AveragedModel>}',
    ),
    "averages of a part": (
        lambda whole: averaged(whole, part=True),
        3,
        f"an AveragedModel that is not given averages model{ANEW}"
        'extra={"averagedmodel": <the AveragedModel>}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_what_is_omitted_is_told_once_and_the_complete_program_hears_nothing(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, told, text = PAIRS[case]
    given, body = make(False)
    epochs(tmp_path / "omitted", body, **given)
    assert noticed(tmp_path / "omitted") == [(told, text)]
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"{tmp_path / 'omitted'}: {text}"
    ]
    caplog.clear()
    given, body = make(True)
    epochs(tmp_path / "whole", body, watch="raise", **given)
    assert noticed(tmp_path / "whole") == caplog.records == []


# Programs that give all that they need: none may be told anything.


def swa(directory: Path) -> None:
    """PyTorch's own recipe: one of two schedulers rests, and the averages begin late."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    o, mean = adam(model), swa_utils.AveragedModel(model)
    cosine, swa_lr = lr_scheduler.CosineAnnealingLR(o, T_max=9), swa_utils.SWALR(o, swa_lr=0.05)

    def body(epoch: int) -> None:
        model.eval()
        step(model, o)
        if epoch > 3:
            mean.update_parameters(model)
            swa_lr.step()
        else:
            cosine.step()

    given = {"scheduler": {"cosine": cosine, "swa": swa_lr}, "extra": {"mean": mean}}
    epochs(directory, body, "raise", model=model, optimizer=o, **given)


def sequential(directory: Path) -> None:
    """Schedulers inside a given one."""
    model = nn.Linear(2, 1)
    o = adam(model)
    parts = [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    s = lr_scheduler.SequentialLR(o, parts, milestones=[2])
    epochs(
        directory, lambda epoch: (step(model, o), s.step()), "raise", model=model, optimizer=o, scheduler=s
    )


def adversarial(directory: Path) -> None:
    """Steps of one and of the other in turn; the rates are the loop's own."""
    maker, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    o, p = adam(maker), adam(critic)
    given = {"model": {"maker": maker, "critic": critic}, "optimizer": {"maker": o, "critic": p}}
    with Run(directory, watch="raise", **QUICK, **given) as run:
        for number in run.steps(9):
            step(nn.Sequential(maker, critic), o if number % 3 == 0 else p)
            o.param_groups[0]["lr"] = 0.1 / number
            run.report(val_loss=1.0)


def accumulating(directory: Path) -> None:
    """Passes without a step, beside a probe that is trained for one evaluation each."""
    model = nn.Linear(2, 1)
    o = adam(model)
    with Run(directory, model=model, optimizer=o, watch="raise", **QUICK) as run:
        for number in run.steps(12):
            model(torch.ones(1, 2)).sum().backward()
            if number % 4 == 0:
                o.step()
                o.zero_grad()
            probe = nn.Linear(2, 1)
            tuner = adam(probe)
            for _ in range(3):
                step(probe, tuner)
            run.report(val_loss=1.0)


def inner_loops(directory: Path) -> None:
    """An optimizer anew in each pass has nothing to remember (Reptile)."""
    model = nn.Linear(2, 1)

    def body(epoch: int) -> None:
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        step(model, inner)
        step(model, inner)

    epochs(directory, body, "raise", model=model)


def resting(directory: Path) -> None:
    """Nothing steps at all, or by hand; there are an idle scaler, averages and a scheduler."""
    model = nn.Linear(2, 1)
    o, mean, s = adam(model), swa_utils.AveragedModel(model), torch.amp.GradScaler("cpu")
    other = lr_scheduler.StepLR(o, 2)

    def body(epoch: int) -> None:
        if epoch % 2:
            with torch.no_grad():
                model.weight.add_(1)

    epochs(directory, body, "raise", model=model, optimizer=o)
    del mean, s, other


def frozen(directory: Path) -> None:
    """A teacher in an extra that does not move, and one that the run has as a model."""
    teacher, model = nn.Linear(2, 1), nn.Linear(2, 1)
    o = adam(model)
    extra = {
        "teacher": Box(teacher, False),
        "student": Box(model, False),
        "both": Box(nn.ModuleList([model]), False),
    }
    epochs(directory, lambda epoch: step(model, o), "raise", model=model, optimizer=o, extra=extra)


def around_a_given_one(directory: Path) -> None:
    """The optimizer that the loop steps is around the given one, and has nothing of its own."""
    model = nn.Linear(2, 1)
    base = adam(model)
    around = Around(base, True)
    epochs(directory, lambda epoch: step(model, around), "raise", model=model, optimizer=base)


def disabled(directory: Path) -> None:
    """A scaler that is switched off."""
    model = nn.Linear(2, 1)
    o, s = adam(model), torch.amp.GradScaler("cpu", enabled=False)

    def body(epoch: int) -> None:
        o.zero_grad()
        s.scale(model(torch.ones(1, 2)).sum()).backward()
        s.step(o)
        s.update()

    epochs(directory, body, "raise", model=model, optimizer=o)


def several_runs(directory: Path) -> None:
    """Two runs in turn, one of them with all that moves, and folds one after the other inside a pass."""
    given, body = averaged(True)
    more, step_more = scheduler(True)
    wrapped, step_wrapped = inner_optimizer(True)
    with (
        Run(directory / "a", watch="raise", **QUICK, **given) as a,
        Run(directory / "b", watch="raise", **QUICK, **more) as b,
        Run(directory / "c", watch="raise", **QUICK, **wrapped) as c,
    ):
        for epoch, *_ in zip(a.epochs(EPOCHS), b.epochs(EPOCHS), c.epochs(EPOCHS), strict=True):
            body(epoch)
            step_more(epoch)
            step_wrapped(epoch)
            for run in (a, b, c):
                run.report(val_loss=1.0)
            fold, step_fold = scaler(True)
            epochs(directory / f"fold{epoch}", step_fold, "raise", **fold)


def threads(directory: Path) -> None:
    """A run in a thread each, and one thread that trains without any."""
    failures: list[BaseException] = []
    over = threading.Event()

    def each(number: int) -> None:
        try:
            given, body = optimizer(True)
            epochs(directory / str(number), body, "raise", **given)
        except BaseException as error:
            failures.append(error)

    def alone() -> None:
        _, body = optimizer(False)
        while not over.wait(0.001):
            body(1)

    others = [threading.Thread(target=each, args=(number,)) for number in range(3)]
    without = threading.Thread(target=alone)
    for thread in (*others, without):
        thread.start()
    for thread in others:
        thread.join()
    over.set()
    without.join()
    assert failures == []


COMPLETE = [
    *(swa, sequential, adversarial, accumulating, inner_loops, resting, frozen, around_a_given_one, disabled),
    *(several_runs, threads),
]


@pytest.mark.parametrize("program", COMPLETE, ids=lambda program: program.__name__)
def test_a_complete_program_hears_nothing(
    program: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program(tmp_path)
    heard = [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]
    assert [line for line in heard if "outside the main thread" not in line] == []


def test_raise_ends_the_run_at_the_boundary_and_what_it_has_done_is_there(tmp_path: Path) -> None:
    given, body = optimizer(False)
    with pytest.raises(SettingError, match="an Adam that is not given steps model"):
        epochs(tmp_path, body, "raise", **given)
    with Run(tmp_path, resume="require", **given) as run:
        assert run.progress.epoch == 2
        weight = given["model"].weight.clone()
        run.restore_latest()
        assert torch.equal(given["model"].weight, weight)


def test_batches_of_an_epoch_are_passes_enough(tmp_path: Path) -> None:
    for name, make in (("a", optimizer), ("b", averaged), ("c", scheduler)):
        given, body = make(False)
        with Run(tmp_path / name, **QUICK, **given) as run:
            for _ in run.epochs(1):
                for batch in run.batches([1, 2, 3, 4, 5]):
                    body(batch)
        assert len(noticed(tmp_path / name)) == 1


def test_off_looks_for_nothing_and_another_word_is_an_error(tmp_path: Path) -> None:
    for make, *_ in PAIRS.values():
        given, body = make(False)
        epochs(tmp_path / "run", body, "off", **given)
        assert noticed(tmp_path / "run") == []
        (tmp_path / "run").rename(tmp_path / str(id(make)))
    with pytest.raises(SettingError, match="watch='all': write 'warn', 'raise' or 'off'"):
        Run(tmp_path / "run", model=nn.Linear(1, 1), watch="all")  # type: ignore[arg-type]


def test_an_opening_later_looks_again_and_nothing_is_kept_alive(tmp_path: Path) -> None:
    gc.collect()  # what another test left in a cycle must not go while this one counts
    before = len(_global_optimizer_post_hooks)
    given, body = optimizer(False)
    run = Run(tmp_path, **QUICK, **given)
    for planned in (3, 6):
        with run:
            for epoch in run.epochs(planned):
                body(epoch)
                run.report(val_loss=1.0)
        assert len(_global_optimizer_post_hooks) == before
    assert [epoch for epoch, _ in noticed(tmp_path)] == [2, 5]

    seen = weakref.ref(given["model"])
    state = TorchState(model=given["model"])
    assert len(_global_optimizer_post_hooks) == before + 1
    del run, given, body, epoch, state
    gc.collect()
    assert seen() is None
    assert len(_global_optimizer_post_hooks) == before


def test_what_is_gone_or_cannot_tell_is_no_omission(tmp_path: Path) -> None:
    class Busy(Box):
        """Tells its state while it is saved, and at no other time."""

        busy = False

        def state_dict(self) -> dict[str, Any]:
            """Nothing of what it holds."""
            if self.busy:
                raise RuntimeError("not now")
            return {}

    given, body = inner_module(False)
    box = Busy(given["extra"]["box"].held["it"], False)
    dying = [torch.amp.GradScaler("cpu"), swa_utils.AveragedModel(given["model"])]
    with Run(tmp_path, watch="raise", **QUICK, **{**given, "extra": {"box": box}}) as run:
        for epoch in run.epochs(4):
            body(epoch)
            box.busy = False
            run.report(val_loss=1.0)
            box.busy = True
            dying = dying[:1] if epoch == 1 else []


def test_a_watch_that_fails_ends_itself_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(torch.optim.SGD):
        """Equal to others of its kind, so that it can be in no set."""

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Odd)

    def broken() -> Any:
        raise AttributeError("no such thing")

    given, body = averaged(False)
    odd = Odd(given["model"].parameters(), lr=0.1)
    monkeypatch.setattr("stopctl_torch.watch.gc.get_objects", broken)
    epochs(tmp_path, lambda epoch: (body(epoch), odd.step()), **given)
    assert noticed(tmp_path) == [(1, "the watch has ended here: AttributeError: no such thing")]
