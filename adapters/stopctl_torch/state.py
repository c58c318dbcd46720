"""TorchState: what Run sees of a PyTorch program."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from stopctl import MismatchError, SettingError
from stopctl.ports import (
    Batches,
    Described,
    Held,
    Notice,
    NumpyRng,
    PythonRng,
    Structure,
    Team,
    Tree,
    flatten,
    has_state,
)
from stopctl_torch import arguments, config, loaders, rates
from stopctl_torch.attributes import Attributes
from stopctl_torch.leaves import Encoder
from stopctl_torch.marks import Marks
from stopctl_torch.optimizers import OptimizerPart
from stopctl_torch.overlap import Overlapping
from stopctl_torch.parts import (
    GeneratorPart,
    ModulePart,
    ObjectPart,
    Part,
    SettingsPart,
    gathered,
    load_checked,
    outline,
)
from stopctl_torch.replicas import RANK, Globs, Replicas, merged
from stopctl_torch.resumable import ResumableLoader
from stopctl_torch.rng import CUDA, KINDS, CudaRng, PartGenerators, SharedRng, TorchRng, cuda_in_use
from stopctl_torch.samplers import Histories
from stopctl_torch.team import find_team
from stopctl_torch.values import ValuesPart, held
from stopctl_torch.watch import Given, How, Watch


class TorchState:
    """A model and all that training it needs, captured, checked and restored as one (`stopctl.ports.State`).

    Args:
        model: the module, or a dict of several by name. DistributedDataParallel and torch.compile are looked
            through; what ``fully_shard`` or ``parallelize_module`` has distributed is saved in pieces.
        optimizer: one, or a dict of several by name. In PyTorch its settings (learning rate, ...) are part of
            its state: on restoring, the saved ones win. So it is with the two below.
        scheduler: one, or a dict of several by name.
        scaler: one, or a dict of several by name.
        extra: anything else that moves while training, by name: objects with ``state_dict()`` and
            ``load_state_dict()`` (an AveragedModel, a StatefulDataLoader), tensors and Parameters, NumPy
            arrays, generators of PyTorch, NumPy and Python, and dicts and lists of these, of numbers, strings
            and None. On restoring all these are filled in place; what cannot be (numbers, tuples) is replaced
            in its dict or list, where None and empty containers are places to fill.
        watch: "warn" tells what the program trains with and has not given, "raise" ends it for that, "off"
            does not look; see docs/resume.md.
        per_rank: of several ranks, the arrays that each has for itself though they are saved once otherwise:
            globs of names (``{"model/*.running_*"}``), or True for all.

    The global generators of Python, NumPy and PyTorch (CPU and CUDA) are always included. Of several ranks
    each has its own of all in ``extra`` that are no modules; all else is saved once, and compared.

    Raises:
        SettingError: an object that is no model, optimizer, ..., or that does not belong to the others.
    """

    JOIN = "call torch.distributed.init_process_group(...) before Run is opened"

    def __init__(
        self,
        *,
        model: torch.nn.Module | Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None = None,
        scheduler: Any = None,
        scaler: Any = None,
        extra: Mapping[str, Any] | None = None,
        watch: How = "warn",
        per_rank: bool | Collection[str] = (),
    ) -> None:
        models, extras = arguments.models(model), arguments.extras(extra)
        modules = {**models, **{k: v for k, v in extras.items() if isinstance(v, torch.nn.Module)}}
        values = {k: v for k, v in extras.items() if not has_state(v)}
        names = partial(arguments.param_names, modules, values)
        self._optimizers = arguments.optimizers(optimizer, names())
        self._schedulers = arguments.schedulers(scheduler, self._optimizers)
        scalers = arguments.scalers(scaler)

        tensors = partial(_tensors_in, modules.values())
        generators = {k: v for k, v in values.items() if isinstance(v, KINDS)}
        others = {k: v for k, v in extras.items() if k not in modules and k not in generators}
        self._parts: dict[str, Part] = {  # in the order of loading: generators last, nothing draws after them
            **{k: ModulePart(v) for k, v in models.items()},
            **{k: OptimizerPart(v, names) for k, v in self._optimizers.items()},
            **{k: SettingsPart(v) for k, v in {**self._schedulers, **scalers}.items()},
            **{k: ModulePart(v) for k, v in modules.items() if k not in models},
            **{k: ValuesPart(v, k, tensors) if k in values else ObjectPart(v) for k, v in others.items()},
            **{
                k: GeneratorPart(v) if isinstance(v, torch.Generator) else ValuesPart(v, k, tensors)
                for k, v in generators.items()
            },
            "rng.python": SharedRng(PythonRng()),
            "rng.numpy": SharedRng(NumpyRng()),
            "rng.torch": TorchRng(),
            CUDA: CudaRng(),
        }
        self._values = values
        self._per_rank = frozenset(
            k for k in self._parts if k in others or k in generators or k.startswith("rng.")
        )
        given = Given(models, modules, self._optimizers, self._schedulers, scalers, others)
        self._watch = None if watch == "off" else Watch(given, watch)
        self._marks = Marks(modules, self._optimizers, self._schedulers, others, self._watch)
        self.notices: list[Notice] = [] if self._watch is None else self._watch.notices
        self.version, self.mark, self.moved = self._marks.version, self._marks.mark, self._marks.moved
        self.passed: Callable[..., None] = _looked_nowhere if self._watch is None else self._watch.passed
        if self._watch is not None:
            self._watch.counters = self.version
        self._histories = Histories(self.notices)
        self._modules = modules
        self._globs = Globs(per_rank, self._parts.keys() - self._per_rank)
        things = model.values() if isinstance(model, Mapping) else [model]
        self._replicas = Replicas(modules, [*things, *extras.values()])
        self._rank: int | None = None  # of several
        looked_at = {**modules, **{k: v for k, v in others.items() if k not in values}}
        self._attributes = None if watch == "off" else Attributes(looked_at)
        self._overlapping = Overlapping(modules.values(), self._optimizers.values())

    def capture(self) -> dict[str, Tree]:
        """Every component as it is now; CPU tensors are not copied, so write it before training goes on.

        Raises:
            TreeError: something in a state dict that a checkpoint cannot hold, with its path.
        """
        encode = Encoder()
        parts = self._parts if cuda_in_use() else _without_cuda(self._parts)
        trees = {name: part.capture(encode, name) for name, part in parts.items()}
        if self._globs and self._rank is not None:  # rank 0's stand in the components themselves
            shared = {name: tree for name, tree in trees.items() if name not in self._per_rank}
            own = self._globs.chosen(shared) if self._rank else {}
            trees[RANK] = {name: {**arrays} for name, arrays in own.items()}
        return trees

    def shared(self) -> dict[str, Tree]:
        """What is saved once, as far as it is built and can tell its state."""
        parts = {name: part for name, part in self._parts.items() if name not in self._per_rank}
        return gathered(parts, Encoder(unbuilt=True), [])

    def loose(self, names: Collection[str], *, search: bool = False) -> Collection[str]:
        """Buffers that DistributedDataParallel takes from rank 0, averages of them, and what is by rank."""
        return {*self._replicas.loose(names, search=search), *self._globs.names(names)}

    def remedy(self, names: Collection[str]) -> str:
        """What to write where these arrays differ."""
        return self._replicas.remedy(names)

    def outline(self) -> dict[str, Tree]:
        """`capture()` without bytes; lazy parameters, those on the meta device, and loaders are left out.

        Raises:
            TreeError: something that a checkpoint cannot hold, with its path.
        """
        return outline(self._parts if cuda_in_use() else _without_cuda(self._parts), self.notices)

    def overlap(self, components: Mapping[str, Tree], wait: Callable[[], None]) -> Held:
        """Let training go on before parameters and moments are copied; steps and loads then ``wait``."""
        self._overlapping.attach(wait)
        return self._overlapping.held(components)

    def settings(self) -> Described:
        """What the script gave optimizers and schedulers."""
        return config.settings(self._optimizers, self._schedulers)

    def structure(self) -> Structure:
        """The layers of the modules, and which parameters are frozen.

        Where training has begun, ``notices`` tell once what else of them moves and is saved nowhere.
        """
        if self._attributes is not None and any(self._marks.steps.values()):
            self.notices.extend(self._attributes.moved())
            self._attributes = None
        return config.structure(self._modules, self._schedulers)

    def restore(
        self,
        components: Mapping[str, Tree],
        *,
        allow_missing: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        """Load all components, or change nothing.

        A key that the groups of an optimizer, a scheduler or a scaler gained or lost since is no misfit: one
        that was saved is loaded, one that was not stays as it is, and ``notices`` tell of them.

        Raises:
            MismatchError: every difference between what was saved and the objects given.
            TreeError: something in them that a checkpoint cannot hold, with its path.
        """
        self._marks.kept = []
        if RANK in components:
            components = self._with_own(components, RANK in allow_missing)
        if new := {k: self._parts[k] for k in self._parts.keys() & allow_missing if k not in components}:
            flatten(outline(new, self.notices), data=False)
        things = (self._optimizers, self._schedulers)
        if anew:
            components = config.anew_components(components, *things, anew)
        keys = load_checked(self._parts, components, {*allow_missing, CUDA}, undo=Encoder("copy"))
        if anew:
            config.follow(*things, anew)
        if keys.saved:
            text = f"saved, but not given, so loaded: {', '.join(keys.saved)}"
            self.notices.append(Notice(text, logging.INFO))
        if keys.given:
            why = "given, but not saved, so kept as given (if the run was trained otherwise, give that value)"
            self.notices.append(Notice(f"{why}: {', '.join(keys.given)}"))

    def _with_own(self, components: Mapping[str, Tree], left_out: bool) -> dict[str, Tree]:
        """The components with this rank's own arrays in them."""
        taken = {name: tree for name, tree in components.items() if name != RANK}
        own = components[RANK]
        if left_out or not own or self._rank is None:
            return taken
        if not self._globs:
            raise MismatchError(
                f"{RANK}: saved by rank, but per_rank= is not given: write it as when the run was saved, or "
                f"allow_missing={{{RANK!r}}}, with which every rank goes on with the arrays of rank 0"
            )
        return merged(taken, own)

    def batches(self, source: Any, steps: int | None) -> Batches | None:
        """The batches of a DataLoader.

        Raises:
            SettingError: one whose position cannot be saved.
        """
        source = source.loader if isinstance(source, ResumableLoader) else source
        if not isinstance(source, torch.utils.data.DataLoader):
            return None
        self._replicas.refuse_join()
        return loaders.batches(source, self.generators(), self._histories.of(source))

    def generators(self) -> PartGenerators:
        """The shared generators, and those in ``extra``, also in its dicts and lists."""
        parts = {k: v for k, v in self._parts.items() if k.startswith("rng.") or isinstance(v, GeneratorPart)}
        own: list[Any] = []
        for name, value in self._values.items():
            inside = held(value, name, KINDS)
            own += inside.values()
            parts |= {k: ValuesPart(v, k, tuple) for k, v in inside.items() if k not in parts}
        return PartGenerators(parts if cuda_in_use() else _without_cuda(parts), own)

    def team(self, timeout: float) -> Team | None:
        """The ranks of torch.distributed's default process group, None without one or with one of size 1.

        Raises:
            TeamError: not all ranks came within ``timeout`` seconds.
        """
        team = find_team(timeout)
        self._rank = None if team is None else team.rank
        return team

    def per_rank(self) -> Collection[str]:
        """All generators, and whatever in ``extra`` is no module; what ``per_rank=`` names."""
        return self._per_rank | {RANK} if self._globs else self._per_rank

    def check_lr(self) -> None:
        """Raise SettingError unless the learning rate is Run's to lower."""
        if not self._optimizers or self._schedulers:
            what = "no optimizer=" if not self._optimizers else "a scheduler= that sets the rate as well"
            raise SettingError(
                f"lr=ReduceOnPlateau(...) with {what}: give an optimizer, and lr= or scheduler="
            )

    def scale_lr(self, factor: float, min_lr: float) -> None:
        """Every group of every optimizer goes on at min(rate, max(rate * factor, min_lr))."""
        for optimizer in self._optimizers.values():
            rates.scale(optimizer, factor, min_lr)

    def can_lower(self, factor: float, min_lr: float) -> bool:
        """Whether a group's rate would fall by that."""
        return any(rates.can_lower(each, factor, min_lr) for each in self._optimizers.values())

    def lr_drops(self, passes: int, planned: int) -> tuple[int, ...] | range:
        """The passes before the planned end after which the rate drops by a step, past ones too."""
        return rates.lr_drops(self._schedulers.values(), passes, planned)

    def too_short(self, passes: int, before: int, planned: int) -> list[str]:
        """A sentence for each schedule that was as long as the plan and no longer is."""
        return rates.too_short(self._schedulers, passes, before, planned)

    def versions(self) -> Mapping[str, str]:
        """PyTorch, its threads, NumPy, Python, and the CUDA devices in use."""
        return versions()

    def close(self) -> None:
        """Take all hooks off."""
        config.leave(self._optimizers, self._schedulers)
        self._overlapping.close()
        self._marks.close()
        if self._watch is not None:
            self._watch.close()


def versions() -> dict[str, str]:
    """PyTorch, its threads, NumPy, Python, and the CUDA devices in use."""
    found = {
        "torch": str(torch.__version__),
        "torch threads": str(torch.get_num_threads()),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if cuda_in_use():
        devices = range(torch.cuda.device_count())
        found["cuda devices"] = ", ".join(torch.cuda.get_device_name(i) for i in devices)
    return found


def _tensors_in(modules: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()


def _without_cuda(parts: Mapping[str, Part]) -> dict[str, Part]:
    return {name: part for name, part in parts.items() if name != CUDA}


def _looked_nowhere(*, epoch: bool) -> None:
    """The watch is off."""
