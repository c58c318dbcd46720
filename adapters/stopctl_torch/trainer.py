"""What is saved of Hugging Face's Trainer: the folder that it writes, or its objects as they are."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stopctl import FolderState, MismatchError, SettingError
from stopctl.ports import Generators, Notice, Structure, Tree, detached
from stopctl_torch.accelerate import plain
from stopctl_torch.config import differ, structure
from stopctl_torch.order import subset
from stopctl_torch.state import TorchState

TRAINER = "trainer"
"""The component beside the Trainer's own: what it is to fit, and in "live" where the Trainer stands."""

SAME = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps"),
    *("seed", "data_seed", "dataloader_drop_last", "eval_strategy", "eval_steps", "max_grad_norm"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "label_smoothing_factor", "bf16", "fp16"),
    *("warmup_ratio", "neftune_noise_alpha"),
)
"""The arguments without which a resumed run ends otherwise; the rows of the data are told with them."""

MADE = ("optimizer", "lr_scheduler")
"""What the Trainer makes when it begins."""

KEPT = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
"""The arguments that the saved optimizer and scheduler bring back."""


class _Models:
    """What the model of a Trainer is beside its arrays: what `Structured` asks for."""

    _trainer: Any

    def structure(self) -> Structure:
        """Its layers, and what of it is frozen."""
        return structure({"model": self._trainer.model}, {})


class TrainerFolder(_Models, FolderState):
    """The folder that the Trainer writes at each evaluation, and when a save is due between two of them.

    Each one is removed once it is taken in; the one put back lies in ``output_dir``, too.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._is_written = self._is_ours = False
        self._classes: Mapping[str, str] = {}
        self.notices: list[Notice] = []
        super().__init__(self._newest, into=Path(trainer.args.output_dir) / "stopctl-resumed")

    def capture(self) -> dict[str, Tree]:
        """The folder, and what it is to fit."""
        try:
            return {**super().capture(), TRAINER: _described(self._trainer)}
        finally:
            if not self._is_written:
                shutil.rmtree(self._path(), ignore_errors=True)

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Check the model as well; then as every folder."""
        _check(self._trainer, components, "folder", self.notices)
        self._classes = components[TRAINER].get("classes", {})
        files = {name: tree for name, tree in components.items() if name != TRAINER}
        super().restore(files, allow_missing=allow_missing)

    def begin(self, optimizer: Any, scheduler: Any) -> None:
        """The Trainer has loaded the folder, whatever was saved there."""
        _check_made(self._trainer, self._classes)

    def draw(self) -> None:
        """The Trainer puts its generators back itself."""

    def evaluated(self, control: Any) -> bool:
        """Have the Trainer save after the evaluation, when scheduler and best metric have seen it."""
        if not control.should_save:  # else somebody else wants that folder, and keeps it
            shutil.rmtree(self._path(), ignore_errors=True)  # a process may have been killed as it wrote
            self._is_ours = control.should_save = True
        return True

    @contextmanager
    def written(self) -> Iterator[None]:
        """Around the report of what the Trainer has written."""
        self._is_written = True
        try:
            yield
        finally:
            self._is_written = False
            if self._is_ours:
                self._is_ours = False
                shutil.rmtree(self._path(), ignore_errors=True)

    @contextmanager
    def resuming(self) -> Iterator[str | None]:
        """The folder to resume from, None for a new run; the best one stays where it was put."""
        try:
            yield None if self.restored is None else str(self.restored)
        finally:
            if self.restored is not None and not self._trainer.args.load_best_model_at_end:
                shutil.rmtree(self.restored, ignore_errors=True)

    def _path(self) -> Path:
        return Path(self._trainer.args.output_dir) / f"checkpoint-{self._trainer.state.global_step}"

    def _newest(self) -> Path:
        if not self._is_written:
            shutil.rmtree(self._path(), ignore_errors=True)
            self._trainer._save_checkpoint(
                self._trainer.model, None
            )  # private in 5.24: nothing else writes all
        return self._path()


class LiveTrainer(_Models):
    """The model, optimizer, scheduler, scaler and generators of a Trainer, and where it stands.

    What is restored before the Trainer has made its objects is put into them when it begins, the generators
    when it draws its next batch.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._objects: TorchState | None = None
        self._saved: Mapping[str, Tree] | None = None
        self._generators: tuple[Generators, Tree] | None = None
        self.notices: list[Notice] = []
        self.restored: Path | None = None

    def capture(self) -> dict[str, Tree]:
        """All of it as it is now."""
        assert self._objects is not None
        self._trainer.store_flos()
        stands = json.dumps(dataclasses.asdict(self._trainer.state), default=_listed)
        return {**self._objects.capture(), TRAINER: {**_described(self._trainer), "state": stands}}

    def outline(self) -> dict[str, Tree]:
        """Nothing yet: the Trainer makes its objects when it begins."""
        return {} if self._objects is None else self._objects.outline()

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Check the model, and keep the rest until there is what it belongs to."""
        _check(self._trainer, components, "live", self.notices)
        if self._objects is None:
            self._saved = components
        else:
            self._put(components)

    def version(self) -> Mapping[str, int]:
        """The Trainer calls everything itself, at its time."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """PyTorch's."""
        return TorchState(model=self._trainer.model, watch="off").versions()

    def close(self) -> None:
        """Give back what was hooked into the objects."""
        if self._objects is not None:
            self._objects.close()

    def begin(self, optimizer: Any, scheduler: Any) -> None:
        """Take the objects that the Trainer has made, and put into them what was saved."""
        kind = type(plain(scheduler)).__name__
        if kind in ("ReduceLROnPlateau", "GreedyLR"):
            raise SettingError(
                f"mode='live' with {kind}: the Trainer steps it after the last moment at which its objects "
                "can be saved: write mode='folder'"
            )
        scaler = self._trainer.accelerator.scaler
        self._objects = TorchState(
            model=self._trainer.model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, watch="off"
        )
        if self._saved is not None:
            saved, self._saved = self._saved, None
            self._put(saved)
            shared = self._objects.generators()
            self._generators = shared, detached(shared.capture())

    def draw(self) -> None:
        """Put the generators back: the Trainer is about to draw, or has loaded what it passes over."""
        if self._generators is not None:
            shared, saved = self._generators
            shared.load(saved)
            self._generators = None

    def evaluated(self, control: Any) -> bool:
        """The objects are whole as they are."""
        return False

    @contextmanager
    def resuming(self) -> Iterator[str | None]:
        """A folder that tells the Trainer where to begin; its weights are those that the model has now."""
        if self._saved is None:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "trainer_state.json").write_text(self._saved[TRAINER]["state"])
            self._trainer.save_model(folder)
            yield folder

    def _put(self, components: Mapping[str, Tree]) -> None:
        assert self._objects is not None
        self._objects.restore({name: tree for name, tree in components.items() if name != TRAINER})


def _listed(value: Any) -> Any:
    """An array among the metrics, as the log has it after a resume."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def _described(trainer: Any) -> dict[str, Any]:
    """The arrays of the model, and what the order of the batches depends on."""
    arrays = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in trainer.model.state_dict().items()}
    length = len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else None
    same, kept = ({name: _told(trainer.args, name) for name in names} for names in (SAME, KEPT))
    made = {name: plain(getattr(trainer, name)) for name in MADE}
    classes = {name: type(each).__name__ for name, each in made.items() if each is not None}
    rows = {"rows": length, "subset": subset(trainer.train_dataset)}
    return {"model": arrays, "same": {**same, **rows}, "kept": kept, "classes": classes}


def _told(args: Any, name: str) -> Any:
    value = getattr(args, name, None)
    value = getattr(value, "value", value)
    return value if value is None or isinstance(value, int | float | str) else repr(value)


def _check(trainer: Any, components: Mapping[str, Tree], mode: str, notices: list[Notice]) -> None:
    """Whether what was saved is of such a run and fits the model; what differs otherwise is told."""
    saved, now = components.get(TRAINER), _described(trainer)
    if saved is None or ("files" in components) != (mode == "folder"):
        other = "live" if mode == "folder" else "folder"
        found = f"of mode={other!r}" if saved is not None else "none of train()"
        raise MismatchError(f"the run here is {found}, not of mode={mode!r}: give that, or another directory")
    wrong = list(differ(saved["model"], now["model"], "model/{}: saved {}, given {}"))
    if wrong:
        raise MismatchError("the saved state does not fit the Trainer's model:\n  " + "\n  ".join(wrong))
    texts = {
        "same": "it ends otherwise than a run that nobody has disturbed",
        "kept": "what was saved goes on; begin in another directory to train with what is given now",
    }
    for key, text in texts.items():
        before = {name: value for name, value in saved.get(key, {}).items() if name in now[key]}
        given = {name: value for name, value in now[key].items() if name in before}  # an older run has fewer
        others = "; ".join(differ(before, given, "{} {} before, {} now"))
        if others:
            notices.append(Notice(f"{others}: {text}"))


def _check_made(trainer: Any, saved: Mapping[str, str]) -> None:
    """Whether the Trainer has made an optimizer and a scheduler such as were saved."""
    made = _described(trainer)["classes"]
    now = {name: made.get(name, "nothing") for name in saved}
    lines = list(differ(saved, now, "{}: saved from {}, given {}"))
    if lines:
        raise MismatchError(
            "the saved state does not fit what the Trainer has made:\n  " + "\n  ".join(lines)
        )
