"""The proof that what is saved once is equal on all ranks: digests of its arrays, compared by all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence

from stopctl.core.errors import TeamError, TreeError
from stopctl.state.data import DATA
from stopctl.state.protocols import Proved, State
from stopctl.store import Leaf, Tree, flatten
from stopctl.store.task import Task
from stopctl.store.tree import raw
from stopctl.team.inputs import digest
from stopctl.team.ranks import Ranks

NAMED = 3
"""So many arrays are named in an error."""


def outline(components: Mapping[str, Tree], per_rank: Collection[str]) -> str:
    """Names, dtypes and shapes of all arrays that ranks share, as one digest."""
    shared = {name: tree for name, tree in components.items() if name not in {DATA, *per_rank}}
    arrays = [[name, leaf.dtype, leaf.shape] for name, leaf in sorted(flatten(shared)[1].items())]
    return digest({"components": sorted(shared), "arrays": arrays})


def check_outlines(outlines: Sequence[str], per_rank: Collection[str]) -> None:
    """Raise TreeError, on all ranks, where one has arrays of other names, dtypes or shapes than rank 0."""
    for rank, arrays in enumerate(outlines):
        if arrays != outlines[0]:
            raise TreeError(
                f"rank {rank} has other arrays than rank 0, in what all ranks share (all but "
                f"{sorted(per_rank)}): a checkpoint holds one model, of which every rank has all, or "
                "pieces of the same arrays"
            )


class Proof:
    """What one rank knows of the arrays that are saved once.

    Args:
        state: what says which of them may differ; of one that does not, nothing is compared.
        components: as they are captured.
        per_rank: those that every rank has for itself.
    """

    def __init__(self, state: State, components: Mapping[str, Tree], per_rank: Collection[str]) -> None:
        self._state = state if isinstance(state, Proved) else None
        self._digests: dict[str, str] = {}
        self._arrays: dict[str, Leaf] = {}
        if self._state is not None:
            shared = {name: tree for name, tree in components.items() if name not in {DATA, *per_rank}}
            arrays = flatten(shared)[1]
            loose = self._state.loose(arrays)
            whole = {name: array for name, array in arrays.items() if isinstance(array, Leaf)}
            self._arrays = {name: array for name, array in whole.items() if name not in loose}

    def digest(self) -> str:
        """Of all of them; in any thread, as long as their memory stands."""
        for name, leaf in self._arrays.items():
            self._digests[name] = hashlib.sha256(raw(leaf)).hexdigest()[:32]
        self._arrays = {}
        return digest(self._digests)

    def beside(self, work: Callable[[], None]) -> str:
        """The digest, made in another thread while this one works."""
        task = Task(self.digest, "stopctl-proof")
        task.start()
        try:
            work()
        finally:
            found = task.result()
        return found

    def compare(self, ranks: Ranks, where: str, digests: Sequence[str]) -> None:
        """Raise TeamError, on all ranks, where an array differs; every rank gives the digests of all."""
        if len(set(digests)) == 1:
            return
        assert self._state is not None
        loose = sorted(self._state.loose(self._digests, search=True))
        fields = {"digests": self._digests, "loose": loose}
        told = [each["fields"] for each in ranks.exchange("proof", where, fields=fields)]
        free = {name for each in told for name in each["loose"]}
        for rank, each in enumerate(told):
            names = [name for name, ours in told[0]["digests"].items() if each["digests"].get(name) != ours]
            if names := [name for name in names if name not in free]:
                ranks.over = True  # all raise the same, and wait for nobody
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                verb = "differs" if len(names) == 1 else "differ"
                raise TeamError(
                    f"{', '.join(names[:NAMED])}{more} {verb} on ranks 0 and {rank}, but saved once, as on "
                    f"rank 0: {self._state.remedy(names)}"
                )


def prove_shared(ranks: Ranks, state: State, per_rank: Collection[str]) -> None:
    """Compare what the ranks have when a run is opened.

    Raises:
        TreeError, TeamError: names or shapes, or values, differ; on all ranks alike.
    """
    if not ranks.several or not isinstance(state, Proved):
        return
    where = "comparing what the ranks begin with"

    def look() -> tuple[Proof, str]:
        components = state.shared()
        return Proof(state, components, per_rank), outline(components, per_rank)

    looked = ranks.agree(where, look, tell=lambda pair: pair[1])
    check_outlines(looked.results, per_rank)
    proof = looked.mine[0]
    proof.compare(ranks, where, ranks.work(where, proof.digest, lambda text: text).results)
