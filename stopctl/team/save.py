"""A save of several ranks: every one writes its part, rank 0 looks that all are there and makes it appear."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from stopctl.state.data import DATA
from stopctl.state.protocols import State
from stopctl.store import CheckpointInfo, Files, Store, Tree
from stopctl.store.draft import Draft
from stopctl.store.parts import PartFact, write_part
from stopctl.store.rundir import CHECKPOINTS
from stopctl.team.follower import Follower, info_from_json, info_to_json
from stopctl.team.inputs import digest
from stopctl.team.proof import Proof, check_outlines, outline
from stopctl.team.ranks import Ranks


class JointSave:
    """One save of all ranks: begun and captured together, written by each, looked at and published together.

    Every rank makes it, with the same facts, and calls `finish`, or `withdraw`.

    Args:
        store: rank 0 writes to it.
        ranks: all of them.
        objects: whose arrays these are.
        capture: what this rank has; called in this thread, without any collective.
        facts: what `Store.commit` takes besides.
        per_rank: the components that every rank has for itself.
        files: the file operations. verify: read every file back.

    Raises:
        SaveError, TreeError: there will be no such checkpoint, whichever rank it failed on.
        TeamError: a rank is lost.
    """

    def __init__(
        self,
        store: Store | Follower,
        ranks: Ranks,
        objects: State,
        capture: Callable[[], dict[str, Tree]],
        facts: dict[str, Any],
        per_rank: Collection[str],
        *,
        files: Files,
        verify: bool,
    ) -> None:
        self._store, self._ranks, self._files, self._verify = store, ranks, files, verify
        self._drafts: list[Draft] = []  # rank 0's, as long as nothing of it has appeared
        same = {name: facts[name] for name in ("epoch", "step", "label", "pinned")}
        same["state"] = digest(facts["state"])

        def look() -> tuple[dict[str, Tree], Proof, str]:
            trees = capture()
            return trees, Proof(objects, trees, per_rank), outline(trees, per_rank)

        captured = ranks.agree("the capture of a save", look, same, lambda found: found[2])
        check_outlines(captured.results, per_rank)
        self._components, self._proof, _ = captured.mine
        self._separate = {DATA, *per_rank} & self._components.keys()
        self._state = facts["state"]
        others = {name: fact for name, fact in facts.items() if name != "state"}

        def begin() -> str:
            self._drafts.append(writer(store).draft(components=tuple(self._components), **others))
            return self._drafts[0].directory.name

        try:
            self._directory = ranks.lead("beginning a save", begin, lambda name: name).results[0]
        except BaseException:
            self.withdraw()
            raise

    def write(self) -> tuple[PartFact, str]:
        """Write this rank's part, in any thread; what it tells the others of that."""
        fact: list[PartFact] = []
        components, separate = self._components, self._separate

        def put() -> None:
            for draft in self._drafts:
                draft.write(components, state=self._state, per_rank=separate)
            directory = self._store.path / CHECKPOINTS / self._directory
            here = () if self._ranks.leads else separate  # rank 0's stand beside the state
            fact.append(
                write_part(self._files, directory, self._ranks.rank, components, here, verify=self._verify)
            )

        try:
            same_here = self._proof.beside(put)
        finally:
            self._components = {}  # what was copied for it is free
        return fact[0], same_here

    def finish(self, write: Callable[[], tuple[PartFact, str]]) -> CheckpointInfo:
        """Wait until all have written, and let the checkpoint appear; every rank calls it.

        Args:
            write: `write` itself, or what waits for it where it has been begun.

        Raises:
            SaveError, TreeError: there is no such checkpoint, whichever rank it failed on.
            TeamError: a rank is lost, or an array that is saved once differs from rank to rank.
        """
        ranks = self._ranks

        def publish() -> CheckpointInfo:
            told = [PartFact(*fact) for fact, _ in written.results]
            info = self._drafts[0].publish(told, ranks=ranks.size)
            self._drafts.clear()  # whatever comes now, it is there
            return info

        try:
            written = ranks.work("writing a save", write, lambda pair: [list(pair[0]), pair[1]])
            self._proof.compare(ranks, "writing a save", [shared for _, shared in written.results])
            published = ranks.lead("committing a save", publish, info_to_json)
        except BaseException:
            self.withdraw()
            raise
        return published.mine or info_from_json(published.results[0], self._store.path)

    def withdraw(self) -> None:
        """Take it back, as far as that goes; on rank 0 alone there is something to take."""
        while self._drafts:
            self._drafts.pop().withdraw()


def writer(store: Store | Follower) -> Store:
    """The store of the rank that writes."""
    assert isinstance(store, Store)
    return store
