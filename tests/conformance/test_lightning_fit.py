"""stopctl_torch.lightning.fit with the real Trainer: broken off anywhere, it ends bitwise as undisturbed."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.program import assert_same_bits, play, programs
from stopctl import After, Every, Minimize, MismatchError, ReportError, SettingError

torch = pytest.importorskip("torch", reason="torch is not installed")
pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch import callbacks  # noqa: E402

from conformance import lightning_program  # noqa: E402
from conformance.lightning_program import Net, Noisy, train  # noqa: E402
from stopctl_torch import Run, lightning, load  # noqa: E402

# Lightning warns about so small a training, and uses what PyTorch calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger, threads = logging.getLogger("lightning.pytorch"), torch.get_num_threads()
    level, generators = logger.level, (torch.get_rng_state(), random.getstate(), np.random.get_state())
    logger.setLevel(logging.ERROR)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)  # seed_everything() leaves its seed there
    logger.setLevel(level)
    torch.set_num_threads(threads)
    torch.set_rng_state(generators[0])
    random.setstate(generators[1])
    np.random.set_state(generators[2])


class Broken(Exception):
    """The process ends here."""


class Break(pl.Callback):
    """Ends a fit after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Broken


def broken(directory: Any, kind: str, *steps: int) -> str:
    """Broken off after these steps, with another seed in each process, and ended."""
    for seed, step in enumerate(steps, 1):
        with pytest.raises(Broken):
            train(str(directory), seed, kind, extra=[Break(step)])
    return train(str(directory), 9, kind)[0]


def test_a_fit_goes_on_bitwise_inside_an_epoch_and_at_its_end(tmp_path):
    straight = train(str(tmp_path / "straight"), 1, "inside")[0]
    assert broken(tmp_path / "broken", "inside", 5, 12, 25) == straight
    module = Net("inside")
    assert load(tmp_path / "broken", model=module).is_best


KINDS = ("plain", "plateau", "generator", "accumulate", "limited", "rarely", "counting", "stream", "workers")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inside", *KINDS])
def test_killed_twice_also_in_a_save_it_ends_bitwise(tmp_path, kind):
    def start(directory: Path, seed: int, kill: str) -> str:
        words = [sys.executable, lightning_program.__file__, str(directory), str(seed), kill, kind]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == (0 if kill == "never" else -signal.SIGKILL), done.stderr
        return done.stdout

    straight = start(tmp_path / "straight", 1, "never")
    start(tmp_path / "killed", 1, "step:13")
    start(tmp_path / "killed", 2, "save:2")
    assert start(tmp_path / "killed", 3, "never") == straight


def test_a_fit_that_a_rule_has_stopped_trains_nothing_and_says_so(tmp_path, caplog):
    found, run = train(str(tmp_path), 1, stop=After(epochs=2))
    assert (run.progress.epoch, str(run.stopped)) == (2, "the limit of 2 epochs is reached")
    caplog.set_level(logging.INFO, "stopctl")
    again, run = train(str(tmp_path), 2, stop=After(epochs=2))
    assert again.split()[:3] == found.split()[:3]  # model, optimizer, scheduler; setting up draws
    assert "finished before: stopped at epoch 2" in caplog.text
    assert train(str(tmp_path), 2, stop=None, epochs=3)[1].progress.epoch == 3


def trainer(**settings: Any) -> Any:
    return pl.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", **settings}, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def loaders() -> Any:
    return [torch.utils.data.DataLoader(Noisy(16), 8, shuffle=i == 0) for i in range(2)]


class Other(Net):
    """Another module."""

    def __init__(self, optimizer: Any = None) -> None:
        super().__init__("plain")
        self.optimizer = optimizer
        if optimizer is None:
            self.net[0] = torch.nn.Linear(8, 12)

    def configure_optimizers(self) -> Any:
        return (self.optimizer or torch.optim.Adam)(self.parameters(), lr=0.1)


def test_what_decides_on_the_steps_and_is_not_as_before_is_told(tmp_path, caplog):
    def adam(rate: float) -> Any:
        return Other(lambda parameters, lr: torch.optim.Adam(parameters, lr=rate))

    scheduled = [callbacks.GradientAccumulationScheduler({0: 1, 1: 2})]
    lightning.fit(trainer(max_epochs=2, callbacks=scheduled), adam(0.01), *loaders(), directory=tmp_path)
    lightning.fit(trainer(max_epochs=3, callbacks=scheduled), adam(0.01), *loaders(), directory=tmp_path)
    assert "before" not in caplog.text
    train = torch.utils.data.DataLoader(Noisy(16), 4, shuffle=True)
    other = trainer(max_epochs=4, gradient_clip_val=0.5, limit_val_batches=1)
    assert lightning.fit(other, adam(0.1), train, loaders()[1], directory=tmp_path).progress.epoch == 4
    assert "optimizer/lr 0.01 before, 0.1 now: what was saved stays" in caplog.text
    assert (
        "gradient_clip_val None before, 0.5 now; limit_val_batches 1.0 before, 1 now; batch_size of train.0 8 "
        "before, 4 now: it ends" in caplog.text
    )


def test_another_split_of_the_rows_is_told(tmp_path, caplog):
    for seed, epochs in ((0, 1), (0, 2), (1, 3)):
        assert "subset" not in caplog.text
        generator = torch.Generator().manual_seed(seed)
        parts = torch.utils.data.random_split(Noisy(16), [8, 8], generator=generator)
        both = [torch.utils.data.DataLoader(part, 4) for part in parts]
        lightning.fit(trainer(max_epochs=epochs), Net("plain"), *both, directory=tmp_path)
    assert re.search(r"subset of train.0 rows of CRC-32 \w{8} before, rows of CRC-32 \w{8} now", caplog.text)


def test_a_layer_that_is_another_one_is_told_once(tmp_path, caplog):
    def fit(epochs: int, dropout: float) -> None:
        module = Net("plain")
        module.net[2].p = dropout
        lightning.fit(trainer(max_epochs=epochs), module, *loaders(), directory=tmp_path)

    fit(1, 0.3)
    fit(4, 0.3)
    assert "the model is not what was saved" not in caplog.text
    fit(8, 0.5)
    assert caplog.text.count("the model is not what was saved") == 1
    assert "net.2: Dropout(p=0.3, inplace=False) when saved, Dropout(p=0.5, inplace=False) now" in caplog.text


def test_what_does_not_belong_to_the_directory_is_refused(tmp_path):
    train(str(tmp_path / "net"), 1, epochs=1)
    with pytest.raises(
        MismatchError, match=r"does not fit the module given:\s+model/net.0.weight: saved .*16"
    ):
        lightning.fit(trainer(), Other(), *loaders(), directory=tmp_path / "net")
    with pytest.raises(MismatchError, match=r"optimizer: saved Adam of \[4\], given SGD of \[4\]"):
        lightning.fit(trainer(), Other(torch.optim.SGD), *loaders(), directory=tmp_path / "net")
    with Run(tmp_path / "loop", model=torch.nn.Linear(2, 1)) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    with pytest.raises(MismatchError, match=r"not saved by stopctl_torch.lightning.fit, it has model, rng"):
        lightning.fit(trainer(), Net("plain"), *loaders(), directory=tmp_path / "loop")


def test_a_metric_that_the_module_does_not_log_is_named(tmp_path):
    with pytest.raises(ReportError, match="accuracy"):
        lightning.fit(trainer(), Net("plain"), *loaders(), directory=tmp_path, goal=Minimize("accuracy"))


class Unfreeze(callbacks.BaseFinetuning):
    """Trains the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)


class Unfrozen(Net):
    """Optimizes what is not frozen."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([each for each in self.parameters() if each.requires_grad], lr=0.01)


CALLBACKS = {
    "finetuning": (Unfreeze, Unfrozen),
    "averaging": (lambda: callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1), Net),
}


@pytest.mark.filterwarnings("ignore:To get the last learning rate computed:UserWarning")
@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_callback_that_changes_what_is_optimized_goes_on_bitwise(tmp_path, kind):
    callback, module = CALLBACKS[kind]

    def fitted(directory: Path, *extra: Any) -> Any:
        pl.seed_everything(1, verbose=False)
        host = trainer(max_epochs=4, callbacks=[callback(), *extra])
        net = module("plain")
        lightning.fit(host, net, *loaders(), directory=directory, stop=None)
        return lightning_program.digest(net.state_dict(), host.optimizers[0].state_dict())

    straight = fitted(tmp_path / "straight")
    for step in (3, 7):
        with pytest.raises(Broken):
            fitted(tmp_path / "broken", Break(step))
    assert fitted(tmp_path / "broken") == straight
    if kind == "averaging":
        host = trainer(callbacks=[callback()])
        with pytest.raises(
            SettingError, match="StochasticWeightAveraging makes its schedule as an epoch begins"
        ):
            lightning.fit(host, Net("plain"), *loaders(), directory=tmp_path / "in", save=Every(steps=1))


class Late(Net):
    """Does something after each batch."""

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen = True


@pytest.mark.parametrize(
    ("settings", "module", "text"),
    [
        ({"max_steps": 5}, Net, r"max_steps; write max_epochs"),
        ({"min_epochs": 2}, Net, r"train on after a stop; write stop=Patience\(3\) & After"),
        ({"val_check_interval": 0.5}, Net, "validation inside an epoch"),
        ({"reload_dataloaders_every_n_epochs": 1}, Net, "leave it out"),
        ({"strategy": "ddp", "devices": 1}, Net, r"DDPStrategy; write Trainer\(devices=1\)"),
        ({"fast_dev_run": True}, Net, r"fast_dev_run; call trainer.fit"),
        ({}, Late, r"save=Every\(steps=2\) .*Late.on_train_batch_end\(\) comes after the save; move it"),
    ],
)
def test_what_would_not_be_exact_is_refused_with_what_to_write(tmp_path, settings, module, text):
    with pytest.raises(SettingError, match=text):
        lightning.fit(trainer(**settings), module("x"), *loaders(), directory=tmp_path, save=Every(steps=2))


class Plain:
    """Batches that come in any way."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter(loaders()[0])


def test_a_loader_that_does_not_tell_its_position_is_saved_between_epochs_alone(tmp_path):
    with pytest.raises(SettingError, match="a Plain does not tell its position; give a DataLoader; or write"):
        lightning.fit(trainer(), Net("x"), Plain(), loaders()[1], directory=tmp_path, save=Every(minutes=1))
    run = lightning.fit(trainer(), Net("x"), Plain(), loaders()[1], directory=tmp_path / "epochs")
    assert run.progress.step == 2
    with pytest.raises(SettingError, match="got a Linear: give a Trainer of"):
        lightning.fit(torch.nn.Linear(1, 1), Net("x"), directory=tmp_path)


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_fit_of_ones_own_with_either_import_name(tmp_path, package):
    named = pytest.importorskip(package)
    theirs = import_module(f"{package}.callbacks")

    class Small(named.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.net(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fitted(epochs: int) -> Any:
        kept = theirs.ModelCheckpoint(tmp_path / "own", save_last=True)  # goes to the trainer's own IO
        fitting = named.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[kept], enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        rows = torch.utils.data.DataLoader(torch.ones(4, 1), 2)
        with lightning.control_of(fitting, tmp_path / "run", goal=Minimize("loss")) as control:
            fitting.fit(Small(), rows, ckpt_path=control.ckpt_path)
        return fitting, control.run

    fitted(1)
    fitting, run = fitted(3)
    assert (run.progress.epoch, run.progress.step, fitting.current_epoch) == (3, 6, 3)
    assert (tmp_path / "own" / "last.ckpt").exists()
    assert type(fitting.strategy.checkpoint_io).__name__ == "TorchCheckpointIO"


def test_the_program_of_the_page_killed_twice_ends_as_undisturbed(tmp_path):
    (program,) = programs("lightning")
    play(tmp_path / "straight", program)
    play(tmp_path / "killed", program, "9")
    play(tmp_path / "killed", program, "14")
    assert "goes on after epoch" in play(tmp_path / "killed", program)
    assert_same_bits(tmp_path / "straight" / "runs" / "net", tmp_path / "killed" / "runs" / "net")
    assert "nothing was trained" in play(tmp_path / "killed", program)
