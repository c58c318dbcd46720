"""What samplers and datasets keep from epoch to epoch: a ``state_dict()``, or plain counters in ``vars()``.

What moved while an epoch was iterated is saved and restored; what stood still meanwhile is the script's, such
as an epoch number that it gives by ``set_epoch()`` before each epoch.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils import data

from stopctl import MismatchError, SettingError
from stopctl.ports import Leaf, Notice, Tree, detached, has_state, tree_map
from stopctl_torch import rng
from stopctl_torch.leaves import Encoder, decode

KNOWN = (
    data.BatchSampler,
    data.RandomSampler,
    data.SequentialSampler,
    data.SubsetRandomSampler,
    data.WeightedRandomSampler,
    data.distributed.DistributedSampler,
)
"""Samplers that draw when they are iterated, and then only from generators of their own."""

DISTRIBUTED = data.distributed.DistributedSampler

Names = dict[Any, Tree]
"""What one sampler or dataset keeps, by name."""


class History:
    """What a run has seen of the samplers and the dataset of one loader, by the attributes that lead there.

    Attributes:
        moved: names that moved while an epoch was iterated, up to its report.
        given: names that moved between two epochs: by the script, which does so again when it is resumed.
        last: what all kept at the newest save between two epochs.
        first: what all kept before they were iterated at all.
        ahead: those whose epoch the script sets before it iterates, which it then does after a resume, too.
        left: the epochs of all at the end of the epoch before.
        stood: the run's epoch that was begun last, and what its order followed from.
        all: those of the other loaders, too.
        begun: epochs of it.
    """

    def __init__(self, all: Histories) -> None:
        self.all = all
        self.begun = 0
        self.moved: dict[str, set[Any]] = defaultdict(set)
        self.given: dict[str, set[Any]] = defaultdict(set)
        self.last: dict[str, Names] = {}
        self.first: dict[str, Names] = {}
        self.ahead: set[str] = set()
        self.left: dict[str, Tree] = {}
        self.stood: tuple[int, Any] | None = None


class Histories:
    """Those of all loaders of a run.

    Args:
        notices: what there is to tell.

    Attributes:
        kept: a loader was used for a second epoch.
        told: that a sampler stands still.
    """

    def __init__(self, notices: list[Notice] | None = None) -> None:
        self.kept = self.told = False
        self.notices = [] if notices is None else notices
        self._of: WeakKeyDictionary[Any, History] = WeakKeyDictionary()
        self._made = 0

    def of(self, loader: data.DataLoader[Any]) -> History:
        """That of one loader."""
        if loader not in self._of:
            self._of[loader] = History(self)
            self._made += 1
        return self._of[loader]

    @property
    def anew(self) -> bool:
        """Whether each epoch has loaders of its own: none was used twice, and those before are gone."""
        return not self.kept and self._made > len(self._of)

    def resume(self, *, anew: bool) -> None:
        """What is known of the run: as if one was gone already, or none."""
        self._made = len(self._of) + anew


class Samplers:
    """The samplers and the dataset of a loader, and what they are made of."""

    def __init__(self, loader: data.DataLoader[Any], history: History) -> None:
        things = {k: v for k, v in rng.parts_in(loader).items() if not isinstance(v, rng.KINDS)}
        self._keepers: dict[str, Keeper] = {}
        for path, thing in things.items():
            stateful = type(thing) not in KNOWN and tells_state(thing)
            if stateful:
                self._keepers[path] = Stateful(thing)
            if not stateful or hasattr(thing, "set_epoch"):
                own = stateful or type(thing) in KNOWN
                self._keepers[f"{path}.epoch" if stateful else path] = Keeper(thing, epoch_alone=own)
        self._history = history
        self._began: dict[str, Names] = {}

    def begin(self) -> None:
        """Remember what they keep before an epoch is iterated."""
        self._began = self._now()
        self._history.begun += 1
        self._history.all.kept |= self._history.begun > 1
        self._history.first = {**self._began, **self._history.first}
        for path, before in self._history.last.items():
            self._history.given[path] |= _moved(before, self._began.get(path, {}))
        self._history.last = {}
        for path, epoch in self._epochs(self._began).items():
            if epoch != self._history.left.get(path, 0):
                self._history.ahead.add(path)

    def leave(self) -> None:
        """Remember what epochs they were given by the end of one."""
        self._history.left = self._epochs(self._by_hand())

    def look(self, epoch: int) -> None:
        """Tell once if a DistributedSampler gives the epoch that begins the order of the one before."""
        for keeper in self._keepers.values():
            thing = keeper.thing
            if getattr(type(thing), "__iter__", None) is DISTRIBUTED.__iter__ and thing.shuffle:
                then, self._history.stood = self._history.stood, (epoch, (thing.epoch, thing.seed))
                still = then is not None and then[0] != epoch and then[1] == self._history.stood[1]
                if still and not self._history.all.told:
                    self._history.all.told = True
                    text = (
                        f"the DistributedSampler of run.batches() still stands at epoch {thing.epoch}, so "
                        f"epoch {epoch} has the order of the one before: write sampler.set_epoch(epoch) "
                        "before run.batches()"
                    )
                    self._history.all.notices.append(Notice(text))

    def check(self, saved: Tree) -> None:
        """Raise MismatchError where the script has set another epoch than the one that is to go on."""
        for path, epoch in self._epochs(self._by_hand()).items():
            each = saved.get(path, {})
            was = (each.get("began") or {}).get("epoch", epoch)
            if each.get("ahead") and was != epoch:
                raise MismatchError(
                    f"the run was saved inside an epoch of another order: {path}.epoch {was} when saved, "
                    f"{epoch} now: call set_epoch(epoch) with the number that run.epochs() gives "
                    "(allow_missing={'run.data'} begins that epoch anew)"
                )

    def _epochs(self, now: Mapping[str, Names]) -> dict[str, Tree]:
        """Those that a script may set, by the path to where it does, of what they keep now."""
        moved = self._history.moved
        return {
            path: names["epoch"]
            for path, names in now.items()
            if self._keepers[path].by_hand and "epoch" in names and "epoch" not in moved[path]
        }

    def _by_hand(self) -> dict[str, Names]:
        return {path: keeper.now() for path, keeper in self._keepers.items() if keeper.by_hand}

    def capture(self, done: int) -> Tree:
        """What they kept when this epoch began, and what they keep now; of a counter only if it moves.

        Raises:
            SettingError: a counter moves that nobody can set.
        """
        now = self._now()
        tree: dict[str, dict[str, Tree]] = {}
        for path, keeper in self._keepers.items():
            moved = self._history.moved[path]
            new = _moved(self._began.get(path, now[path]), now[path]) - moved
            keeper.check(new)
            moved |= new
            began, kept = keeper.chosen(self._began.get(path, {}), moved), keeper.chosen(now[path], moved)
            if began or kept:
                tree[path] = {
                    "kind": keeper.kind,
                    "began": began if done else None,
                    "now": kept,
                    "moved": sorted(moved - self._history.given[path], key=str),
                }
                if path in self._history.ahead and "epoch" not in moved:
                    tree[path]["ahead"] = True
                if keeper.kind == Stateful.kind:
                    tree[path]["first"] = self._history.first.get(path, kept)
        self._history.last = {} if done else now
        return dict(tree)

    def load_began(self, saved: Tree) -> None:
        """Put them where they were when the epoch began."""
        for keeper, each in self._each(saved):
            keeper.load({**keeper.now(), **each["began"]}, each.get("first"))

    def load_now(self, saved: Tree) -> None:
        """Inside an epoch that was found again: what is not there yet where it was when it was saved."""
        for keeper, each in self._each(saved):
            now = {**keeper.now(), **each["now"]}
            if _moved(keeper.now(), now):
                keeper.load(now, each.get("first"))

    def load_moved(self, saved: Tree) -> None:
        """Between two epochs: what has moved."""
        for keeper, each in self._each(saved):
            moved = {k: v for k, v in each["now"].items() if k in each["moved"]}
            keeper.load({**keeper.now(), **moved}, each.get("first"))

    def _each(self, saved: Tree) -> list[tuple[Keeper, Any]]:
        self._history.last = {}
        pairs = []
        for path, each in saved.items():
            keeper = self._keepers.get(path)
            if keeper is None or keeper.kind != each["kind"]:
                is_now = "has none" if keeper is None else f"it has {keeper.kind}"
                raise MismatchError(
                    f"the data was saved with the {each['kind']} of its {path}, which now {is_now}"
                )
            self._history.moved[path].update(each["moved"])
            self._history.ahead |= {path} if each.get("ahead") else set()
            if "epoch" in (then := each["began"] or each["now"]):
                self._history.left[path] = then["epoch"]
            if "first" in each:
                self._history.first[path] = detached(each["first"])
            pairs.append((keeper, each))
        return pairs

    def _now(self) -> dict[str, Names]:
        return {path: keeper.now() for path, keeper in self._keepers.items()}


class Keeper:
    """A sampler or dataset without ``state_dict()``: plain numbers in its ``vars()``.

    Args:
        thing: the sampler or dataset.
        epoch_alone: nothing but what was given to its ``set_epoch()``.
    """

    kind = "counters"

    def __init__(self, thing: Any, *, epoch_alone: bool = False) -> None:
        self.thing = thing
        self._epoch_alone = epoch_alone
        self.by_hand = {"epoch"} if callable(getattr(thing, "set_epoch", None)) else set()

    def now(self) -> Names:
        """The numbers, by attribute."""
        numbers = {k: v for k, v in vars_of(self.thing).items() if type(v) in (int, float)}
        if self._epoch_alone:
            numbers = {k: v for k, v in numbers.items() if k in self.by_hand}
        return numbers

    def chosen(self, names: Names, moved: set[Any]) -> Names:
        """Those to save: settings stay the script's."""
        return {k: v for k, v in names.items() if k in moved or k in self.by_hand}

    def check(self, moved: set[Any]) -> None:
        """Raise SettingError unless all that moves can be set."""
        for name in sorted(moved & vars_of(self.thing).keys()):
            try:
                setattr(self.thing, name, vars_of(self.thing)[name])
            except Exception as error:
                raise SettingError(
                    f"the {type(self.thing).__name__} of run.batches() counts in {name!r} while it is "
                    "iterated, which cannot be set when the run is resumed: "
                    "give it set_epoch() or state_dict()"
                ) from error

    def load(self, names: Names, first: Any) -> None:
        """Set the numbers that are not there yet."""
        for name, value in names.items():
            if vars_of(self.thing).get(name) != value:
                setattr(self.thing, name, value)


class Stateful(Keeper):
    """One with ``state_dict()`` and ``load_state_dict()``."""

    kind = "state"

    def now(self) -> Names:
        """Its state, by key."""
        state = detached(Encoder("copy")(self.thing.state_dict(), "run.data/samplers"))
        return dict(state) if isinstance(state, dict) else {"": state}

    def chosen(self, names: Names, moved: set[Any]) -> Names:
        """All of it."""
        return names

    def check(self, moved: set[Any]) -> None:
        """Nothing: whoever tells a state takes it."""

    def load(self, names: Names, first: Any) -> None:
        """Load a state, unless it is a place from where the next iteration goes on.

        That shows itself, as the object does not tell it back. The place in the epoch is found by iterating
        from its beginning, so that such an object must begin there: as in its ``first`` state.
        """
        try:
            self._put(names)
            if _moved(self.now(), names):
                self._put(first)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(
                f"{type(self.thing).__name__}.load_state_dict() refused the saved state: {error!r}"
            ) from error

    def _put(self, names: Names) -> None:
        whole = decode({k: v for k, v in names.items() if k != "" or len(names) == 1})
        self.thing.load_state_dict(whole.get("") if whole.keys() == {""} else whole)


def tells_state(thing: Any) -> bool:
    """Whether it has ``state_dict()`` without arguments, and ``load_state_dict()``."""
    if not has_state(thing):
        return False
    try:
        inspect.signature(thing.state_dict).bind()
        thing.state_dict()
    except (TypeError, NotImplementedError):
        return False
    return True


def vars_of(thing: Any) -> dict[str, Any]:
    """Its attributes."""
    return getattr(thing, "__dict__", None) or {}


def _moved(before: Names, now: Names) -> set[Any]:
    """The names of ``now`` that have another value, or had none, before."""
    return {k for k, v in now.items() if k not in before or _shown(before[k]) != _shown(v)}


def _shown(tree: Tree) -> str:
    """A text that tells trees apart, which finds NaN equal to itself."""

    def shown(leaf: Any, _: str, __: Any) -> Any:
        whole = isinstance(leaf, Leaf)
        return (leaf.dtype, leaf.shape, bytes(leaf.data), leaf.note) if whole else leaf

    return repr(tree_map(shown, tree))
