"""lightning.pytorch.callbacks.EarlyStopping against ours; the real callback, driven by hand and by its Trainer."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import guide, mapping
from conformance.curves import (
    MANY,
    UNIT,
    Story,
    curves,
    deltas,
    modes,
    ours,
    patiences,
    signed,
    singles,
    stop,
    with_bad,
)
from stopctl import After, Controller, EarlyStopper, Patience, Reason, SettingError

torch = pytest.importorskip("torch", reason="torch is not installed")
pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
EarlyStopping = pytest.importorskip("lightning.pytorch.callbacks").EarlyStopping
FITTING = pytest.importorskip("lightning.pytorch.trainer.states").TrainerFn.FITTING

thresholds = st.none() | st.integers(-40, 40).map(lambda n: n / 16 + UNIT / 2)  # never met exactly: see below


def fit(curve: list[float], callback: Any) -> tuple[Story, list[bool]]:
    """What a Trainer does with the callback: its story, and ``should_stop`` after every validation."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=FITTING),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
        sanity_checking=False,
        fast_dev_run=False,
        should_stop=False,
        current_epoch=0,
        val_check_interval=0.5,  # so it is asked on_validation_end
        check_val_every_n_epoch=1,
    )
    callback.setup(trainer, None, "fit")
    standings: list[tuple[int, float | None]] = []
    flags = []
    for trainer.current_epoch, value in enumerate(curve):
        trainer.callback_metrics = {"val_loss": torch.tensor(value)}
        callback.on_validation_end(trainer, None)
        flags.append(trainer.should_stop)
        if not trainer.should_stop:
            best = callback.best_score.item()
            standings.append((callback.wait_count, best if math.isfinite(best) else None))
    return (standings, trainer.should_stop), flags


def theirs(curve: list[float], **settings: Any) -> Story:
    callback = EarlyStopping("val_loss", **settings)
    story, flags = fit(curve, callback)
    return story[0][: flags.index(True)] if True in flags else story[0], True in flags


class Module(pl.LightningModule):
    """Logs given losses, one an epoch."""

    def __init__(self, curve: list[float]) -> None:
        super().__init__()
        self.curve = curve
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        pass

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.curve[self.current_epoch], batch_size=1)

    def configure_optimizers(self) -> None:
        pass

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(1, 1))

    val_dataloader = train_dataloader


def epochs_of_a_real_trainer(curve: list[float], callback: Any, **settings: Any) -> int:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        max_epochs=len(curve), callbacks=[callback], num_sanity_val_steps=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(Module(curve))
    return trainer.current_epoch


# Lightning warns about itself and about so small a training.
real_trainer = pytest.mark.filterwarnings("ignore")


@MANY
@given(curves, deltas, patiences, modes)
def test_stops_at_the_same_validation(curve, min_delta, patience, mode):
    settings = {"min_delta": min_delta, "patience": patience, "mode": mode}
    curve = signed(curve, mode)
    assert theirs(curve, **settings) == ours(curve, **mapping.lightning(**settings))


@MANY
@given(with_bad([math.nan, math.inf]), deltas, patiences, modes, st.booleans(), thresholds, thresholds)
def test_nan_and_thresholds(curve, min_delta, patience, mode, check_finite, target, diverged):
    settings = {
        "min_delta": min_delta,
        "patience": patience,
        "mode": mode,
        "check_finite": check_finite,
        "stopping_threshold": target,
        "divergence_threshold": diverged,
    }
    curve = signed(curve, mode)
    assert theirs(curve, **settings) == ours(curve, **mapping.lightning(**settings))


@given(singles, patiences, modes)
def test_any_float32_without_min_delta(curve, patience, mode):
    settings = {"patience": patience, "mode": mode}
    assert theirs(curve, **settings) == ours(curve, **mapping.lightning(**settings))


@real_trainer
@pytest.mark.parametrize("curve", [[0.5, 0.25, 0.375, 0.25, 0.125], [0.5, 0.5, 0.25, 0.375, 0.375, 0.375]])
def test_the_real_trainer_stops_there_too(curve):
    epochs = epochs_of_a_real_trainer(curve, EarlyStopping("val_loss", patience=2))
    assert epochs == (stop(ours(curve, patience=2)) or len(curve))


@real_trainer
def test_the_code_to_move_from_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = guide.blocks("Lightning")
    names = guide.run(before, **given_to_fit([0.5, 0.4, *[0.45] * 48]))
    assert (names["early"].stopped_epoch, names["trainer"].current_epoch) == (6, 7)
    names = guide.run(after, **given_to_fit([0.5, 0.4, *[0.45] * 48]))
    assert names["trainer"].current_epoch == 7
    names["trainer"].save_checkpoint("stopped.ckpt")
    again = pl.Trainer(max_epochs=50, callbacks=[names["Stopping"]("val_loss", patience=5)], logger=False)
    again.fit(names["module"], names["loader"], names["valid_loader"], ckpt_path="stopped.ckpt")
    assert again.current_epoch == 7
    more = pl.Trainer(max_epochs=50, callbacks=[names["Stopping"]("val_loss", patience=7)], logger=False)
    more.fit(names["module"], names["loader"], names["valid_loader"], ckpt_path="stopped.ckpt")
    assert more.current_epoch == 9


def given_to_fit(curve: list[float]) -> dict[str, Any]:
    loader = Module(curve).train_dataloader()
    return {"module": Module(curve), "loader": loader, "valid_loader": loader}


def test_differs_for_patience_0():
    curve = [0.5, 0.25, 0.25]
    assert stop(theirs(curve, patience=0)) == stop(theirs(curve, patience=1)) == 3
    with pytest.raises(SettingError, match=r"write Patience\(1\)"):
        EarlyStopper(patience=0)


def test_differs_when_a_threshold_is_met_exactly():
    curve = [0.5, 0.25, 0.125]
    assert stop(theirs(curve, stopping_threshold=0.25)) == 3  # strictly better
    assert stop(ours(curve, target=0.25)) == 2  # reached


def test_differs_when_infinity_looks_best():
    curve = [0.5, -math.inf, 0.25, 0.125]
    assert stop(theirs(curve, check_finite=False, patience=2)) == 4
    assert stop(theirs(curve, check_finite=False, patience=9, stopping_threshold=0.0)) == 2
    assert stop(ours(curve, nonfinite="wait", patience=2, target=0.0)) is None


@real_trainer
def test_differs_below_float32():
    curve = [1.00000001, 1.0, 0.99999999]  # self.log makes float32 of them
    assert epochs_of_a_real_trainer(curve, EarlyStopping("val_loss", patience=1)) == 2
    assert stop(ours(curve, patience=1)) is None


@real_trainer
def test_differs_when_it_improves_again_before_the_minimum_length():
    curve = [0.5, 0.6, 0.6, 0.4, 0.3, 0.2, 0.1]
    callback = EarlyStopping("val_loss", patience=2)
    assert epochs_of_a_real_trainer(curve, callback, min_epochs=5) == 5  # stops at 5 for what was at 3
    controller = Controller(stop=Patience(2) & After(epochs=5), save=None)
    stops = [controller.report({"val_loss": x}, epoch=i).stop for i, x in enumerate(curve, start=1)]
    assert stops == [None] * 7


def test_differs_when_the_saved_patience_is_another():
    saved = EarlyStopping("val_loss", patience=2).state_dict()
    callback = EarlyStopping("val_loss", patience=50)
    callback.load_state_dict(saved)
    assert callback.patience == 2
    stopper = EarlyStopper(patience=50)
    stopper.load_state_dict(EarlyStopper(patience=2).state_dict())
    assert stop(ours([0.5] * 60, patience=50)) == 51
    assert [i for i in range(1, 52) if stopper.update(0.5).stop] == [51]


def test_differs_when_several_rules_end_the_run():
    curve = [0.5, 11.0]
    callback = EarlyStopping("val_loss", patience=1, divergence_threshold=10.0)
    assert fit(curve, callback)[1] == [False, True]
    assert callback.stopping_reason_message.endswith("val_loss = 11.0 < 10.0. Signaling Trainer to stop.")
    stopper = EarlyStopper(patience=1, diverged=10.0)
    reasons = [[cause.reason for cause in stop.causes] for x in curve if (stop := stopper.update(x).stop)]
    assert reasons == [[Reason.PATIENCE, Reason.DIVERGED]]


def test_differs_for_a_negative_min_delta():
    curve = [0.5, 0.6, 0.7, 0.8]
    assert stop(theirs(curve, min_delta=-0.25, patience=1)) is None  # getting worse is improvement
    with pytest.raises(SettingError, match="write the gain as a number >= 0"):
        EarlyStopper(min_delta=-0.25)
