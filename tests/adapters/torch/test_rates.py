"""When torch's schedulers will drop the rate by a step, and lowering it."""

from __future__ import annotations

import json

import pytest
import torch
from torch.optim import lr_scheduler as s

from stopctl import Every, OnBest, Patience, ReduceOnPlateau, SettingError
from stopctl_torch import Run, TorchState
from stopctl_torch.rates import can_lower, lr_drops, scale


def optimizer(rate=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def moved(make, steps, per_pass=1):
    """The scheduler after so many passes."""
    driven = optimizer()
    scheduler = make(driven)
    driven.step()
    for _ in range(steps * per_pass):
        scheduler.step()
    return scheduler


def warm(inner, milestone):
    return lambda o: s.SequentialLR(o, [s.LinearLR(o, total_iters=milestone), inner(o)], [milestone])


STEP = lambda o: s.StepLR(o, 10)  # noqa: E731
MULTI = lambda o: s.MultiStepLR(o, [30, 60])  # noqa: E731
CASES = [
    # make, passes done, planned, the passes of all drops
    (STEP, 5, 50, range(10, 50, 10)),
    (STEP, 40, 50, range(10, 50, 10)),
    (STEP, 5, 10, ()),  # the drop after the last pass changes nothing
    (STEP, 5, 11, (10,)),
    (lambda o: s.StepLR(o, 1), 5, 9, range(1, 9)),
    (MULTI, 1, 100, (30, 60)),
    (MULTI, 60, 100, (30, 60)),
    (MULTI, 1, 50, (30,)),
    (lambda o: s.MultiStepLR(o, [60, 30, 30]), 1, 100, (30, 60)),
    (lambda o: s.StepLR(o, 10, gamma=1.5), 5, 50, ()),
    (lambda o: s.MultiStepLR(o, [30], gamma=1.0), 5, 50, ()),
    (warm(STEP, 5), 2, 50, range(15, 50, 10)),
    (warm(MULTI, 5), 2, 100, (35, 65)),
    (lambda o: s.SequentialLR(o, [s.StepLR(o, 4), s.ConstantLR(o)], [10]), 2, 50, (4, 8)),
    (lambda o: s.SequentialLR(o, [s.StepLR(o, 4), s.StepLR(o, 5)], [10]), 2, 21, (4, 8, 15, 20)),
    (lambda o: s.ChainedScheduler([s.StepLR(o, 10), s.MultiStepLR(o, [45])]), 5, 50, (10, 20, 30, 40, 45)),
    (lambda o: s.ExponentialLR(o, 0.9), 5, 50, ()),
    (lambda o: s.CosineAnnealingLR(o, 50), 5, 50, ()),
    (lambda o: s.OneCycleLR(o, 1.0, total_steps=50), 5, 50, ()),
    (lambda o: s.LambdaLR(o, lambda e: 0.1 ** (e // 10)), 5, 50, ()),
]


@pytest.mark.parametrize(("make", "done", "planned", "expected"), CASES)
def test_the_passes_after_which_the_rate_drops(make, done, planned, expected):
    assert tuple(lr_drops([moved(make, done)], done, planned)) == tuple(expected)


@pytest.mark.parametrize(("make", "done", "planned", "expected"), CASES)
def test_the_answer_is_true(make, done, planned, expected):
    """Train to the planned end and look at the rate: the passes after which it is lower are the answer."""
    if type(make(optimizer())) not in (s.StepLR, s.MultiStepLR):
        pytest.skip("other schedules move the rate in other ways, too")
    driven = optimizer()
    scheduler, drops = make(driven), []
    driven.step()
    for number in range(1, planned):
        before = scheduler.get_last_lr()[0]
        scheduler.step()
        if scheduler.get_last_lr()[0] < before:
            drops.append(number)
    assert drops == list(expected)


def test_steps_within_a_pass_are_counted_by_their_rate():
    scheduler = moved(lambda o: s.MultiStepLR(o, [95, 98]), 3, per_pass=10)
    assert lr_drops([scheduler], 3, 20) == (10,)  # steps 95 and 98 lie in pass 10
    assert lr_drops([scheduler], 3, 9) == ()
    for size, expected in ((20, range(2, 9, 2)), (10, range(1, 9)), (3, range(1, 9)), (25, (3, 5, 8))):
        found = lr_drops([moved(lambda o, size=size: s.StepLR(o, size), 3, per_pass=10)], 3, 9)
        assert tuple(found) == tuple(expected)
        assert type(found) is type(expected)


def test_before_its_first_step_a_scheduler_counts_passes():
    assert lr_drops([s.StepLR(optimizer(), 10)], 1, 50) == range(10, 50, 10)


def test_what_is_no_scheduler_says_nothing():
    assert lr_drops([object()], 1, 50) == ()
    assert lr_drops([], 1, 50) == ()


def test_the_drops_of_several_schedulers_are_one_sequence():
    both = [s.StepLR(optimizer(), 20), s.MultiStepLR(optimizer(), [20, 30])]
    assert lr_drops(both, 1, 50) == (20, 30, 40)


def test_scaling_reaches_every_group_stops_at_the_floor_and_never_raises():
    a, b, c = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    groups = [
        {"params": [a], "lr": 0.5},
        {"params": [b], "lr": torch.tensor(0.004)},
        {"params": [c], "lr": 0.0001},
    ]
    driven = torch.optim.Adam(groups)
    kept = driven.param_groups[1]["lr"]
    assert can_lower(driven, 0.1, 0.001)
    scale(driven, 0.1, 0.001)
    assert driven.param_groups[0]["lr"] == pytest.approx(0.05)
    assert driven.param_groups[1]["lr"] is kept
    assert kept.item() == pytest.approx(0.001)
    assert driven.param_groups[2]["lr"] == 0.0001
    for _ in range(2):
        scale(driven, 0.1, 0.001)
    assert not can_lower(driven, 0.1, 0.001)
    before = [float(group["lr"]) for group in driven.param_groups]
    scale(driven, 0.1, 0.001)
    assert [float(group["lr"]) for group in driven.param_groups] == before
    kept.fill_(0.0001)
    scale(driven, 0.1, 0.001)
    assert kept.item() == pytest.approx(0.0001)


def flat(path, *, lr, stop, epochs=60, rate=0.1):
    """A run that never improves; the rates after each epoch, and the run."""
    driven, rates = optimizer(rate), []
    model = torch.nn.ParameterList(driven.param_groups[0]["params"])
    with Run(path, model=model, optimizer=driven, stop=stop, lr=lr, save=None) as run:
        for _ in run.epochs(epochs):
            run.report(val_loss=1.0)
            rates.append(driven.param_groups[0]["lr"])
    return rates, run


def test_drops_that_would_change_nothing_hold_nobody(tmp_path):
    lr = ReduceOnPlateau(0.1, patience=5, min_lr=1e-2, max_drops=10)
    rates, run = flat(tmp_path / "floor", lr=lr, stop=Patience(6))
    _, once = flat(tmp_path / "once", lr=ReduceOnPlateau(0.1, patience=5, max_drops=1), stop=Patience(6))
    assert run.progress.epoch == once.progress.epoch == 7
    assert rates == [0.1] * 5 + [pytest.approx(0.01)] * 2
    lines = [json.loads(line) for line in (tmp_path / "floor" / "journal.jsonl").read_text().splitlines()]
    told = [line.get("can_lower", True) for line in lines if line["event"] == "report"]
    assert told == [True] * 6 + [False]
    assert sum("lr_factor" in line for line in lines) == 1


def test_what_waits_is_said_once_and_the_journal_has_the_drops(tmp_path, caplog):
    driven = optimizer()
    scheduler = s.StepLR(driven, 5)
    model = torch.nn.ParameterList(driven.param_groups[0]["params"])
    given = {"model": model, "optimizer": driven, "scheduler": scheduler, "stop": Patience(3)}
    with caplog.at_level("INFO", "stopctl"), Run(tmp_path, **given) as run:
        for _ in run.epochs(14):
            driven.step()
            scheduler.step()
            run.report(val_loss=1.0)
    assert run.progress.epoch == 13
    assert caplog.text.count("Patience(3) is held until epoch 10") == 1
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["lr_drops"] for line in lines if "lr_drops" in line] == [{"range": [5, 11, 5]}]


@pytest.mark.parametrize(
    ("make", "ended"),
    [
        (lambda o: s.ExponentialLR(o, 0.7), 4),
        (lambda o: s.LambdaLR(o, lambda e: 0.7**e), 4),
        (lambda o: s.StepLR(o, 1, 0.7), 4),
        (lambda o: s.StepLR(o, 2, 0.9), 4),
        (lambda o: s.MultiStepLR(o, [3, 6]), 4),
        (lambda o: s.MultiStepLR(o, [4, 6]), 7),
        (lambda o: s.StepLR(o, 5, 0.1), 13),
    ],
)
def test_a_step_in_every_epoch_is_a_smooth_schedule(tmp_path, make, ended):
    driven = optimizer()
    scheduler = make(driven)
    model = torch.nn.ParameterList(driven.param_groups[0]["params"])
    given = {"model": model, "optimizer": driven, "scheduler": scheduler, "stop": Patience(3)}
    with Run(tmp_path, **given, save=None) as run:
        for epoch in run.epochs(14):
            driven.step()
            scheduler.step()
            run.report(val_loss=float(epoch))
    assert run.progress.epoch == ended


def test_patience_waits_for_the_last_step(tmp_path):
    model = torch.nn.Linear(1, 1)
    driven = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = s.MultiStepLR(driven, [4, 8])
    settings = {"model": model, "optimizer": driven, "scheduler": scheduler}
    with Run(tmp_path, **settings, stop=Patience(2), save=None) as run:
        for _ in run.epochs(20):
            driven.step()
            scheduler.step()
            run.report(val_loss=1.0)
            if run.progress.epoch == 3:
                assert "held until epoch 8" in run.explain()
    assert run.progress.epoch == 10


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(("milestone", "per_batch"), [(3, False), (5, True)])
def test_inside_an_epoch_patience_waits_as_the_completed_epochs_tell(tmp_path, milestone, per_batch, crash):
    """Two reports an epoch that do not improve; the drop is over when three epochs are completed."""
    for left in (7, 99) if crash else (99,):
        driven = optimizer()
        scheduler = s.MultiStepLR(driven, [milestone])
        model = torch.nn.ParameterList(driven.param_groups[0]["params"])
        given = {"model": model, "optimizer": driven, "scheduler": scheduler, "stop": Patience(1)}
        with Run(tmp_path, **given, save=Every(steps=1), durability="process") as run:
            for _ in run.epochs(5):
                for _ in run.batches([1, 2]):
                    driven.step()
                    if per_batch:
                        scheduler.step()
                    if left == 0:
                        break
                    left -= 1
                    run.report(val_loss=1.0)
                else:
                    if not per_batch and not run.stopped:
                        scheduler.step()
                    continue
                break
    assert (run.progress.epoch, run.progress.step) == (3, 7)
    assert str(run.stopped) == "no improvement over 1 for 1 report"


def test_the_rate_is_run_s_to_lower_only_without_a_scheduler(tmp_path):
    model = torch.nn.Linear(1, 1)
    driven = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(SettingError, match="with a scheduler= that sets the rate as well"):
        Run(tmp_path, model=model, optimizer=driven, scheduler=s.StepLR(driven, 3), lr=ReduceOnPlateau(0.1))
    with pytest.raises(SettingError, match="with no optimizer=: give an optimizer"):
        Run(tmp_path, model=model, lr=ReduceOnPlateau(0.1), save=OnBest())
    assert TorchState(model=model).lr_drops(1, 5) == ()
