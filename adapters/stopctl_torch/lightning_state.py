"""What a fit of Lightning's is saved of: what its Trainer collects, the positions of loaders, generators."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

import torch

from stopctl import MismatchError, SettingError
from stopctl.ports import FROZEN, Notice, Structure, Tree, flatten, has_state
from stopctl_torch.config import differ, structure
from stopctl_torch.leaves import Encoder, decode
from stopctl_torch.order import subset
from stopctl_torch.parts import METADATA, ModulePart, kind_of
from stopctl_torch.resumable import ResumableLoader
from stopctl_torch.rng import shared_parts
from stopctl_torch.state import versions

SAME = (
    *("accumulate_grad_batches", "gradient_clip_val", "precision", "limit_train_batches"),
    *("limit_val_batches", "check_val_every_n_epoch"),
)
"""What of a Trainer decides on each step and each report, beside what is saved."""


class FitState:
    """What a Trainer would write into a checkpoint, where its loaders stand, and the shared generators.

    Args:
        trainer: its ``save_checkpoint(path)`` collects, its ``fit(ckpt_path=path)`` puts back.

    Attributes:
        path: stands for this run; there is no file of that name.
        given: the checkpoint that Lightning has collected last.
        found: the components that the run goes on from, by name; generators as they were written.
        loaders: those that Lightning iterates, by ``"train.0"``, ``"val.0"``.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.path = trainer, ""
        self.given: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.loaders: dict[str, Any] = {}
        self._model: Tree = None
        self._begun = False
        self._kept: dict[
            str, str
        ] = {}  # what optimizers and schedulers were made with, which saved ones bring back
        self.notices: list[Notice] = []
        self._rngs = shared_parts()

    def take(self, loader: Any) -> Any:
        """What Lightning is to iterate in place of a loader: one that tells its position."""
        if isinstance(loader, torch.utils.data.DataLoader):
            loader = ResumableLoader(loader)
        stage = "train" if self.trainer.training else "val"
        name = f"{stage}.{sum(each.startswith(stage) for each in self.loaders)}"
        self.loaders[name] = loader
        if self._begun or stage == "train":  # else it is used to set up, and put back after that
            self._put(name)
        if stage == "train" and not getattr(loader, "sized", True):  # Lightning draws its first batch at once
            self._put_generators()
        return loader

    def _put(self, name: str) -> None:
        state = self.found.get("loaders", {}).get(name)
        if state is not None and has_state(self.loaders[name]):
            self.loaders[name].load_state_dict(state)

    def _put_generators(self) -> None:
        for name, part in self._rngs.items():
            if name in self.found:
                part.load(self.found.pop(name))

    def begin(self) -> None:
        """Put validation loaders and generators where they were saved, after what setting up has drawn."""
        self._begun = True
        for name in self.loaders:
            self._put(name)
        self._same |= self._data()
        self._tell("same", self._same, "it ends otherwise than a run that nobody has disturbed")
        if FROZEN in (fit := self.found.get("fit", {})) and self._unfreezes():
            for name, parameter in self.trainer.lightning_module.named_parameters():
                parameter.requires_grad_(name not in fit[FROZEN])
        for i, metric in self.found.get("scheduler", {}).get("owed", {}).items():
            scheduler = self.trainer.lr_scheduler_configs[int(i)].scheduler
            self.trainer.lightning_module.lr_scheduler_step(scheduler, metric)
        self._put_generators()
        if not self.found:
            flatten(dict(self._captured(Encoder("none"))), data=False)  # what cannot be saved is told now

    def leave(self, stage: str) -> None:
        """End the pass over the loaders of ``"train"`` or ``"val"``: not all batches may be wanted."""
        for name, loader in self.loaders.items():
            if name.startswith(stage) and isinstance(loader, ResumableLoader):
                loader.leave()

    def outline(self) -> dict[str, Tree]:
        """Nothing: what a module trains with is made when it is fitted."""
        return {}

    def capture(self) -> dict[str, Tree]:
        """Every component as it is now."""
        return self._captured(Encoder())

    def _captured(self, encode: Encoder) -> dict[str, Tree]:
        self.trainer.save_checkpoint(self.path, weights_only=False)
        rest, self.given = self.given, {}
        model = rest.pop("state_dict")
        rest["loops"] = {"fit_loop": rest["loops"]["fit_loop"]}
        rest["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)  # among the loaders below
        for key in [key for key in rest if key.startswith(("hyper_parameters", "hparams"))]:
            del rest[key]  # a fit restores none
        optimizer = {"classes": self._optimizers(), "states": rest.pop("optimizer_states")}
        scheduler = {"classes": self._schedulers(), "states": rest.pop("lr_schedulers"), "owed": self._owed()}
        loaders = {name: each.state_dict() for name, each in self.loaders.items() if has_state(each)}
        metadata = encode(dict(getattr(model, METADATA, {})), f"model/{METADATA}")
        return {
            "model": {**encode(dict(model), "model"), METADATA: metadata},
            "optimizer": encode(optimizer, "optimizer"),
            "scheduler": encode(scheduler, "scheduler"),
            "lightning": encode(rest, "lightning"),
            "loaders": encode(loaders, "loaders"),
            "fit": {"kept": self._kept, "same": self._same, FROZEN: self._frozen()},
            **{name: part.capture(encode, name) for name, part in self._rngs.items()},
        }

    def _optimizers(self) -> list[str]:
        sizes = [[len(group["params"]) for group in each.param_groups] for each in self.trainer.optimizers]
        return [f"{kind_of(one)} of {n}" for one, n in zip(self.trainer.optimizers, sizes, strict=True)]

    def _schedulers(self) -> list[str]:
        return [kind_of(config.scheduler) for config in self.trainer.lr_scheduler_configs]

    def _owed(self) -> dict[str, Any]:
        """The metrics of those that Lightning steps after the end of an epoch, by their number."""
        trainer = self.trainer
        owed: dict[str, Any] = {}
        for i, config in enumerate(trainer.lr_scheduler_configs):
            due = trainer.is_last_batch and (trainer.current_epoch + 1) % config.frequency == 0
            if config.reduce_on_plateau and config.interval == "epoch" and due:
                owed |= {str(i): v for k, v in trainer.callback_metrics.items() if k == config.monitor}
        return owed

    def _given(self) -> dict[str, str]:
        """What the optimizers and schedulers of the module were made with, before they are restored."""
        groups = [
            (f"optimizer{i or ''}", each.param_groups) for i, each in enumerate(self.trainer.optimizers)
        ]
        states = [each.scheduler.state_dict() for each in self.trainer.lr_scheduler_configs]
        groups += [(f"scheduler{i or ''}", [state]) for i, state in enumerate(states)]
        return {
            f"{name}/{j}/{key}" if j else f"{name}/{key}": str(value)
            for name, parts in groups
            for j, part in enumerate(parts)
            for key, value in part.items()
            if _is_plain(value) and not key.startswith("_")
        }

    def _data(self) -> dict[str, str]:
        """What of the training data decides on each step."""
        found = {}
        for name, loader in self.loaders.items():
            if name.startswith("train"):
                rows: Any = getattr(loader, "dataset", None)
                found[f"batch_size of {name}"] = str(getattr(loader, "batch_size", None))
                found[f"rows of {name}"] = str(len(rows)) if hasattr(rows, "__len__") else "unknown"
                if (drawn := subset(rows)) is not None:
                    found[f"subset of {name}"] = drawn
        return found

    def _frozen(self) -> list[str]:
        named = self.trainer.lightning_module.named_parameters()
        return [name for name, each in named if not each.requires_grad]

    def _unfreezes(self) -> bool:
        """Whether a callback unfreezes parameters, which Lightning does not do again when it resumes."""
        kinds = (kind for each in self.trainer.callbacks for kind in type(each).__mro__)
        return any(kind.__name__ == "BaseFinetuning" for kind in kinds)

    def _tell(self, kind: str, now: Mapping[str, str], what_follows: str) -> None:
        saved = self.found.get("fit", {}).get(kind, now)
        saved = {**now, **saved} if kind == "same" else saved  # which an earlier version knew less of
        if others := "; ".join(differ(saved, now, "{} {} before, {} now")):
            self.notices.append(Notice(f"{others}: {what_follows}"))

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Keep what was saved until Lightning asks for it.

        Raises:
            MismatchError: it was not saved by a fit.
        """
        names = {"model", "optimizer", "scheduler", "lightning", "loaders", "fit"}
        if names - components.keys():
            raise MismatchError(
                f"this run was not saved by stopctl_torch.lightning.fit, it has {', '.join(components)}: "
                "write another directory"
            )
        self._model = components["model"]
        self.found = {name: decode(components[name]) for name in names}
        self.found |= {name: tree for name, tree in components.items() if name in self._rngs}

    def checkpoint(self) -> dict[str, Any]:
        """What was saved, as Lightning has collected it.

        Raises:
            MismatchError: it does not fit the module.
        """
        module, saved = self.trainer.lightning_module, self.found["model"]
        lines = ModulePart(module).check(self._model, "model") if module.strict_loading else []
        if lines:
            raise MismatchError("the saved state does not fit the module given:\n  " + "\n  ".join(lines))
        model = OrderedDict((name, tensor) for name, tensor in saved.items() if name != METADATA)
        model._metadata = OrderedDict(saved[METADATA])  # type: ignore[attr-defined]
        states = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}
        states = {key: self.found[name]["states"] for key, name in states.items()}
        return {**self.found["lightning"], **states, "state_dict": model}

    def check(self) -> None:
        """Raise MismatchError where the module has made other optimizers or schedulers than were saved."""
        for name, given in (("optimizer", self._optimizers()), ("scheduler", self._schedulers())):
            saved = self.found.get(name, {}).get("classes", given)
            averaged = saved == ["SWALR"] and not given  # StochasticWeightAveraging makes it as it goes on
            if saved != given and not averaged:
                was, now = (", ".join(each) or "none" for each in (saved, given))
                raise MismatchError(f"{name}: saved {was}, given {now}")
        self._same = {name: str(getattr(self.trainer, name)) for name in SAME}  # before callbacks change it
        self._kept = self._given()
        if not self._unfreezes():  # whose groups are those that it has added, too
            self._tell(
                "kept", self._kept, "what was saved stays; to train by the new, give another directory"
            )
        self._kept = self.found.get("fit", {}).get("kept", self._kept)

    def structure(self) -> Structure:
        """The layers of the module, and what of it is frozen; nothing before it is fitted."""
        module = self.trainer.lightning_module
        return {} if module is None else structure({"model": module}, {})

    def version(self) -> Mapping[str, int]:
        """Nothing: the counters that are told say where the training stands."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Those of PyTorch's state, and Lightning."""
        package = package_of(self.trainer)
        return {**versions(), package: str(import_module(package).__version__)}

    def close(self) -> None:
        """Give nothing back: the objects have no hooks."""


class FitIO:
    """The CheckpointIO of a fit: takes what is the run's, and leaves other paths to the trainer's own.

    Args:
        state: of the run.
        inner: the trainer's own.
    """

    def __init__(self, state: FitState, inner: Any) -> None:
        self._state, self._inner = state, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Keep it for the run's save."""
        if path != self._state.path:
            self._inner.save_checkpoint(checkpoint, path, storage_options=storage_options)
        else:
            self._state.given = checkpoint

    def load_checkpoint(self, path: Any, *args: Any, **settings: Any) -> Any:
        """What the run goes on from."""
        if path != self._state.path:
            return self._inner.load_checkpoint(path, *args, **settings)
        return self._state.checkpoint()


def package_of(trainer: Any) -> str:
    """The import name that a Trainer is of: both are in use, and know nothing of each other.

    Raises:
        SettingError: it is none of Lightning's.
    """
    names = [each.__module__.partition(".")[0] for each in type(trainer).__mro__]
    found = next((name for name in names if name in ("lightning", "pytorch_lightning")), None)
    if found is None:
        text = f"a {type(trainer).__name__}: give a Trainer of lightning.pytorch or pytorch_lightning"
        raise SettingError(f"stopctl_torch.lightning got {text}")
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
