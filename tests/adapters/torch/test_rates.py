"""When torch's schedulers will drop the rate by a step, and lowering it."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as s

from stopctl import Every, OnBest, Patience, ReduceOnPlateau, SettingError
from stopctl_torch import Run, TorchState
from stopctl_torch.rates import last_drop, scale


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
    # make, passes done, planned, the pass of the last drop
    (STEP, 5, 50, 40),
    (STEP, 39, 50, 40),
    (STEP, 40, 50, 0),
    (STEP, 5, 10, 0),  # the drop after the last pass changes nothing
    (STEP, 5, 11, 10),
    (MULTI, 1, 100, 60),
    (MULTI, 30, 100, 60),
    (MULTI, 60, 100, 0),
    (MULTI, 1, 50, 30),
    (lambda o: s.StepLR(o, 10, gamma=1.5), 5, 50, 0),
    (lambda o: s.MultiStepLR(o, [30], gamma=1.0), 5, 50, 0),
    (warm(STEP, 5), 2, 50, 45),
    (warm(STEP, 5), 45, 50, 0),
    (warm(MULTI, 5), 2, 100, 65),
    (lambda o: s.SequentialLR(o, [s.StepLR(o, 4), s.ConstantLR(o)], [10]), 2, 50, 8),
    (lambda o: s.SequentialLR(o, [s.StepLR(o, 4), s.ConstantLR(o)], [10]), 9, 50, 0),
    (lambda o: s.ChainedScheduler([s.StepLR(o, 10), s.MultiStepLR(o, [45])]), 5, 50, 45),
    (lambda o: s.ExponentialLR(o, 0.9), 5, 50, 0),
    (lambda o: s.CosineAnnealingLR(o, 50), 5, 50, 0),
    (lambda o: s.OneCycleLR(o, 1.0, total_steps=50), 5, 50, 0),
    (lambda o: s.LambdaLR(o, lambda e: 0.1 ** (e // 10)), 5, 50, 0),
]


@pytest.mark.parametrize(("make", "done", "planned", "expected"), CASES)
def test_the_last_drop_that_is_still_to_come(make, done, planned, expected):
    assert last_drop([moved(make, done)], done, planned) == expected


@pytest.mark.parametrize(("make", "done", "planned", "expected"), CASES)
def test_the_answer_is_true(make, done, planned, expected):
    """Go on to the planned end and look at the rate: the last pass after which it is lower is the answer."""
    if type(make(optimizer())) not in (s.StepLR, s.MultiStepLR):
        pytest.skip("other schedules move the rate in other ways, too")
    scheduler = moved(make, done)
    drops = []
    for number in range(done + 1, planned):
        before = scheduler.get_last_lr()[0]
        scheduler.step()
        if scheduler.get_last_lr()[0] < before:
            drops.append(number)
    assert (drops[-1] if drops else 0) == expected


def test_steps_within_a_pass_are_counted_by_their_rate():
    scheduler = moved(lambda o: s.MultiStepLR(o, [95]), 3, per_pass=10)
    assert last_drop([scheduler], 3, 20) == 10  # step 95 lies in pass 10
    assert last_drop([scheduler], 3, 9) == 0


def test_before_its_first_step_a_scheduler_counts_passes():
    assert last_drop([s.StepLR(optimizer(), 10)], 1, 50) == 40


def test_what_is_no_scheduler_says_nothing():
    assert last_drop([object()], 1, 50) == 0
    assert last_drop([], 1, 50) == 0


def test_scaling_reaches_every_group_and_stops_at_the_floor():
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    both = torch.optim.Adam([{"params": [a], "lr": 0.5}, {"params": [b], "lr": torch.tensor(0.004)}])
    kept = both.param_groups[1]["lr"]
    scale(both, 0.1, 0.001)
    assert both.param_groups[0]["lr"] == pytest.approx(0.05)
    assert both.param_groups[1]["lr"] is kept
    assert kept.item() == pytest.approx(0.001)


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
                assert "held until pass 8" in run.explain()
    assert run.progress.epoch == 8


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
    assert str(run.stopped) == "no improvement over 1 for 6 reports"


def test_the_rate_is_run_s_to_lower_only_without_a_scheduler(tmp_path):
    model = torch.nn.Linear(1, 1)
    driven = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(SettingError, match="with a scheduler= that sets the rate as well"):
        Run(tmp_path, model=model, optimizer=driven, scheduler=s.StepLR(driven, 3), lr=ReduceOnPlateau(0.1))
    with pytest.raises(SettingError, match="with no optimizer=: give an optimizer"):
        Run(tmp_path, model=model, lr=ReduceOnPlateau(0.1), save=OnBest())
    assert TorchState(model=model).lr_drop_pending(1, 5) == 0
