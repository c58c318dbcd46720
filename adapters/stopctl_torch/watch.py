"""The watch: what a loop trains with that its run was not given, and so does not save.

It is seen where that costs next to nothing: in the hook that PyTorch calls after every step of any optimizer,
and once among all objects that the garbage collector knows. Nothing is told before it has moved in two
passes: a probe that is trained for one evaluation is nobody's state.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch.amp import GradScaler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from stopctl import SettingError
from stopctl.ports import Notice
from stopctl_torch import accelerate
from stopctl_torch.marks import last_epoch, leaves, slots_of
from stopctl_torch.sharding import is_sharded

How = Literal["warn", "raise", "off"]

SCANS = 3
"""How often an opening goes through all objects, at most: a scheduler may be made later than the run."""

_lock = threading.Lock()
_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


class Given(NamedTuple):
    """What a run was given, by component name; ``extras`` are those that are no modules."""

    models: Mapping[str, torch.nn.Module]
    modules: Mapping[str, torch.nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedulers: Mapping[str, Any]
    scalers: Mapping[str, Any]
    extras: Mapping[str, Any]

    def holders(self) -> dict[str, Any]:
        """Those that may hold others, and save them or not."""
        return {**self.optimizers, **self.schedulers, **self.scalers, **self.extras}


class Stranger:
    """An optimizer that is not given: in how many passes it stepped, and which was the last of them."""

    def __init__(self) -> None:
        self.passes, self.last = 0, -1


class Suspect(NamedTuple):
    """Another object that is not given, but belongs to what is; told as soon as it moves on from ``at``.

    Attributes:
        thing: it.
        holder: the name of the given object that it lies in, if it does.
        serves: what it works on, in words.
    """

    thing: weakref.ref[Any]
    at: int
    holder: str
    serves: str


class Watch:
    """Looks for what is missing among the given objects.

    Args:
        given: they.
        how: "warn" tells what is missing, "raise" ends the run for it, "off" looks for nothing.

    Attributes:
        notices: what is to be told.
        counters: how far the given optimizers and schedulers are.
    """

    counters: Callable[[], Mapping[str, int]]

    def __init__(self, given: Given, how: How) -> None:
        if how not in ("warn", "raise", "off"):
            raise SettingError(f"watch={how!r}: write 'warn', 'raise' or 'off'")
        self.notices: list[Notice] = []
        self._given = given
        self._how = how
        self._ids = {id(thing) for things in given for thing in things.values()}
        self._ids |= {id(part) for module in given.modules.values() for part in module.modules()}
        self._thread = threading.get_ident()
        self._passes = 0
        self._scans = 0
        self._idle: int | None = None  # the weights' versions since only strangers step
        self._counters: Mapping[str, int] = {}
        self._rates: list[Any] = []
        self._due: list[weakref.ref[Any]] = []  # strangers that have stepped in a second pass
        self._strangers: weakref.WeakKeyDictionary[Any, Stranger] = weakref.WeakKeyDictionary()
        self._suspects: list[Suspect] = []
        self._scalers: list[Suspect] = []  # those of them that are scalers
        self._scaling: set[weakref.ref[Any]] = set()  # scalers that have scaled the step of a given optimizer
        self._failed = False
        with _lock:
            _watches.add(self)

    def close(self) -> None:
        """Remember nothing of what was seen."""
        self._strangers.clear()
        self._due.clear()
        self._suspects.clear()
        self._scalers.clear()
        self._passes = self._scans = 0
        self._idle = None

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has stepped, one of the given ones or another."""
        if id(optimizer) in self._ids:
            for suspect in self._scalers:
                if id(optimizer) in getattr(suspect.thing(), "_per_optimizer_states", ()):
                    self._scaling.add(suspect.thing)
            return
        if threading.get_ident() != self._thread:
            return
        try:
            stranger = self._strangers.setdefault(optimizer, Stranger())
        except TypeError:  # one with an __eq__ of its own
            return
        if stranger.last != self._passes:
            stranger.last = self._passes
            stranger.passes += 1
            if stranger.passes == 2:
                self._due.append(weakref.ref(optimizer))

    def passed(self, *, epoch: bool) -> None:
        """Look around: an epoch is over, or a step, or a batch of an epoch."""
        if self._failed:
            return
        try:
            if epoch:
                self._look_at_epoch()
            if not self._scans:
                self._thread = threading.get_ident()
                self._scan()
            if self._due:
                due, self._due = self._due, []
                for each in due:
                    self._judge_optimizer(each())
            if self._suspects:
                self._judge_suspects()
        except Exception as error:  # the user's objects may be of any kind, and training goes on
            self._failed = True
            self.notices.append(Notice(f"the watch has ended here: {type(error).__name__}: {error}"))
        self._passes += 1

    def _look_at_epoch(self) -> None:
        """Whether strangers alone have stepped for two epochs, or something unknown has set the rates."""
        counters = self.counters()
        before, self._counters = self._counters, counters
        rates = [_rate(group) for group in self._groups()]
        earlier, self._rates = self._rates, rates
        schedulers = [f"{name}.step()" for name in self._given.schedulers]
        rested = all(counters.get(name) == before.get(name) for name in schedulers)
        if earlier and rates != earlier and rested and self._scans < SCANS:
            self._scan()
        optimizers = [f"{name}.step()" for name in self._given.optimizers]
        stepped = [o for o, stranger in self._strangers.items() if stranger.last == self._passes]
        if not optimizers or any(counters[name] != before.get(name, 0) for name in optimizers) or not stepped:
            self._idle = None
            return
        strangers = [o for o in stepped if not (self._is_others(o) or id(o) in self._contents())]
        weights = _versions(self._given.models.values())
        if strangers and weights == self._idle:
            self._due.clear()
            self._notice(
                f"nothing that is given has moved for two epochs, while {_a(strangers[0])} that is not given "
                "stepped: the loop trains other objects than those that are saved: write model=..., "
                "optimizer=... with what it trains, or change the given objects in place"
            )
        self._idle = weights if strangers else None

    def _judge_optimizer(self, optimizer: Any) -> None:
        """Tell of an optimizer that has stepped in two passes, unless nothing of it is lost."""
        if optimizer is None or self._is_others(optimizer):
            return
        given, kind = self._given, type(optimizer).__name__
        if holder := self._contents().get(id(optimizer)):
            if not self._is_saved(optimizer, given.holders()[holder[0]]):
                self._notice(
                    f"{holder[0]} does not save the {kind} in it, and a resumed run would begin it anew: "
                    f"write {_line('optimizer', given.optimizers, kind)}"
                )
            return
        groups = {id(group) for group in self._groups()}
        if all(id(group) in groups for group in optimizer.param_groups) and any(
            self._is_saved(optimizer, each) for each in given.optimizers.values()
        ):
            return  # it is around a given one, and has nothing of its own
        params = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for component, module in given.modules.items():
            names = [name for name, p in module.named_parameters() if id(p) in params]
            if names:
                self._notice(
                    f"{_a(optimizer)} that is not given steps {component} ({names[0]}{_more(names)}), and a "
                    f"resumed run would begin it anew: write {_line('optimizer', given.optimizers, kind)}"
                )
                return
        shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
        self._notice(
            f"{_a(optimizer)} that is not given steps a model that is not given (its first parameter has "
            f"shape {shapes[0]}), and a resumed run would begin both anew: write "
            f"{_line('model', given.models, 'model')}, {_line('optimizer', given.optimizers, kind)}"
        )

    def _scan(self) -> None:
        """Find schedulers, scalers and averages that belong to given objects and are not given themselves."""
        self._scans += 1
        kinds = {kind for root in (LRScheduler, AveragedModel, GradScaler) for kind in _classes(root)}
        found = [thing for thing in gc.get_objects() if type(thing) in kinds]
        inner = {id(each) for thing in found for each in getattr(thing, "_schedulers", None) or ()}
        contents = self._contents()
        inside = [thing for *_, thing in contents.values() if not isinstance(thing, torch.optim.Optimizer)]
        known = {id(each.thing()) for each in self._suspects}
        known |= inner | self._ids
        for thing in (*found, *inside):
            if id(thing) in known or self._is_others(thing):
                continue
            known.add(id(thing))
            holder = contents[id(thing)][0] if id(thing) in contents else ""
            if serves := self._serves(thing, inside=bool(holder)):
                self._suspects.append(Suspect(weakref.ref(thing), _position(thing), holder, serves))
        self._scalers = [each for each in self._suspects if isinstance(each.thing(), GradScaler)]

    def _serves(self, thing: Any, *, inside: bool) -> str:
        """Which given object a thing works on, in words; empty where on none."""
        if isinstance(thing, GradScaler):
            return "given optimizers" if thing.is_enabled() else ""
        if isinstance(thing, LRScheduler):
            driven = accelerate.plain(getattr(thing, "optimizer", None))
            return next((name for name, each in self._given.optimizers.items() if each is driven), "")
        if inside:
            return "" if any(id(part) in self._ids for part in thing.modules()) else "the run"
        if not isinstance(thing, AveragedModel):
            return ""
        shapes = [p.shape for p in thing.module.parameters()]
        for name, module in self._given.models.items():
            if any([p.shape for p in part.parameters()] == shapes for part in module.modules()):
                return name
        return ""

    def _judge_suspects(self) -> None:
        """Those that are no more where they were; at large ones it looks ever more rarely."""
        rarely = self._passes & (self._passes - 1)
        for suspect in list(self._suspects):
            thing = suspect.thing()
            if isinstance(thing, GradScaler):
                moved = suspect.thing in self._scaling
            else:
                small = isinstance(thing, LRScheduler | AveragedModel)
                moved = thing is None or ((small or not rarely) and _position(thing) != suspect.at)
            if moved:
                self._suspects.remove(suspect)
                self._judge(suspect)
        self._scalers = [each for each in self._suspects if isinstance(each.thing(), GradScaler)]

    def _judge(self, suspect: Suspect) -> None:
        """Tell of a thing that has moved, unless it is saved, by this run or by another one."""
        thing, given = suspect.thing(), self._given
        if thing is None or self._is_others(thing):
            return
        if suspect.holder and self._is_saved(thing, given.holders()[suspect.holder]):
            return
        kind = type(thing).__name__
        if isinstance(thing, LRScheduler):
            does, line = "drives", _line("scheduler", given.schedulers, kind)
        elif isinstance(thing, GradScaler):
            does, line = "scales the loss of", _line("scaler", given.scalers, kind)
        else:
            extras = [name for name in (*given.modules, *given.extras) if name not in given.models]
            does, line = "averages", _line("extra", extras, kind)
        what = f"{_a(thing)} that is not given {does} {suspect.serves}"
        if suspect.holder:
            what = f"{suspect.holder} does not save the {kind} in it"
        self._notice(f"{what}, and a resumed run would begin it anew: write {line}")

    def _contents(self) -> dict[int, tuple[str, Any]]:
        """What given objects hold and were not given: the name of the holder, and the thing, by its id."""
        found: dict[int, tuple[str, Any]] = {}
        for name, holder in self._given.holders().items():
            for thing in _inside(holder):
                if id(thing) not in self._ids:
                    found.setdefault(id(thing), (name, thing))
        return found

    def _is_others(self, thing: object) -> bool:
        """Whether it belongs to another run of this process."""
        with _lock:
            others = [watch for watch in _watches if watch is not self]
        return any(id(thing) in watch._ids or id(thing) in watch._contents() for watch in others)

    def _is_saved(self, thing: Any, holder: Any) -> bool:
        """Whether the state of a holder has all tensors and numbers of the thing's."""
        try:
            held, mine = list(leaves(holder.state_dict())), list(leaves(thing.state_dict()))
        except Exception:  # the user's class does not tell it now
            return True
        numbers = {(key, value) for key, value in held if not isinstance(value, torch.Tensor)}
        tensors = [value for _, value in held if isinstance(value, torch.Tensor)]
        return all(
            any(_same(value, each) for each in tensors)
            if isinstance(value, torch.Tensor)
            else (key, value) in numbers
            for key, value in mine
        )

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for each in self._given.optimizers.values() for group in each.param_groups)

    def _notice(self, text: str) -> None:
        self.notices.append(Notice(text, logging.ERROR if self._how == "raise" else logging.WARNING))


KINDS = (torch.optim.Optimizer, LRScheduler, GradScaler, torch.nn.Module)


def _inside(holder: Any, depth: int = 3) -> Iterator[Any]:
    """The objects of these kinds in the attributes of another one, and in the attributes of those."""
    things = holder.values() if isinstance(holder, dict) else holder
    if not isinstance(holder, dict | list | tuple):
        state = ("state", "param_groups") if isinstance(holder, torch.optim.Optimizer) else ()
        things = [value for name, value in getattr(holder, "__dict__", {}).items() if name not in state]
    for value in list(things):
        if issubclass(type(value), KINDS):
            yield value
        if depth and issubclass(type(value), (dict, list, tuple, *KINDS[:3])):
            yield from _inside(value, depth - 1)


def _classes(root: Any) -> Iterator[type]:
    yield root
    for kind in root.__subclasses__():
        yield from _classes(kind)


def _position(thing: Any) -> int:
    """A number that changes when the thing moves."""
    if isinstance(thing, LRScheduler):
        return last_epoch(thing) or 0
    if isinstance(thing, AveragedModel):
        return thing.n_averaged._version
    return _versions([thing]) if isinstance(thing, torch.nn.Module) else 0


def _versions(modules: Collection[torch.nn.Module]) -> int:
    """How often their parameters and buffers have been written, all together."""
    tensors = (slots[key] for module in modules for _, slots, key in slots_of(module))
    return sum(t._version for t in tensors if t is not None and not t.is_inference())


def _rate(group: Mapping[str, Any]) -> Any:
    rate = group.get("lr")
    return rate._version if isinstance(rate, torch.Tensor) else rate


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if is_sharded(one) or is_sharded(other):  # comparing them would be for all ranks together
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _a(thing: object) -> str:
    name = type(thing).__name__
    spelled = name[:2].isupper() and name[0] in "FHLMNRSX"  # an SGD
    return f"{'an' if spelled or name[:1] in 'AEIOU' else 'a'} {name}"


def _more(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _line(argument: str, given: Collection[str], kind: str) -> str:
    """The argument as it should be: ``optimizer={"optimizer": ..., "adam": <the Adam>}``."""
    names = [name.partition(".")[2] or name for name in given]
    if not names and argument != "extra":
        return f"{argument}=<the {kind}>"
    entries = [*(f'"{name}": ...' for name in names), f'"{kind.lower()}": <the {kind}>']
    return f"{argument}={{{', '.join(entries)}}}"
