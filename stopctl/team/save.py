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


def commit_together(
    store: Store | Follower,
    ranks: Ranks,
    objects: State,
    capture: Callable[[], dict[str, Tree]],
    facts: dict[str, Any],
    per_rank: Collection[str],
    *,
    files: Files,
    verify: bool,
) -> CheckpointInfo:
    """Save one checkpoint; every rank calls it, with the same facts.

    Args:
        store: rank 0 writes to it.
        ranks: all of them.
        objects: whose arrays these are.
        capture: what this rank has; called in this thread, without any collective.
        facts: what `Store.commit` takes besides.
        per_rank: the components that every rank has for itself.
        files: the file operations. verify: read every file back.

    Raises:
        SaveError, TreeError: there is no such checkpoint, whichever rank it failed on.
        TeamError: a rank is lost, or an array that is saved once differs from rank to rank.
    """
    same = {name: facts[name] for name in ("epoch", "step", "label", "pinned")}
    same["state"] = digest(facts["state"])

    def look() -> tuple[dict[str, Tree], Proof, str]:
        trees = capture()
        return trees, Proof(objects, trees, per_rank), outline(trees, per_rank)

    captured = ranks.agree("the capture of a save", look, same, lambda found: found[2])
    check_outlines(captured.results, per_rank)
    components, proof, _ = captured.mine
    separate = {DATA, *per_rank} & components.keys()
    state, others = facts["state"], {name: fact for name, fact in facts.items() if name != "state"}
    drafts: list[Draft] = []

    def begin() -> str:
        drafts.append(writer(store).draft(components=tuple(components), **others))
        return drafts[0].directory.name

    def write() -> tuple[PartFact, str]:
        fact: list[PartFact] = []

        def put() -> None:
            for draft in drafts:
                draft.write(components, state=state, per_rank=separate)
            directory = store.path / CHECKPOINTS / begun.results[0]
            separate_here = () if ranks.leads else separate  # rank 0's stand beside the state
            fact.append(write_part(files, directory, ranks.rank, components, separate_here, verify=verify))

        same_here = proof.beside(put)
        return fact[0], same_here

    def publish() -> CheckpointInfo:
        info = drafts[0].publish([PartFact(*fact) for fact, _ in written.results], ranks=ranks.size)
        drafts.clear()  # whatever comes now, it is there
        return info

    try:
        begun = ranks.lead("beginning a save", begin, lambda name: name)
        written = ranks.work("writing a save", write, lambda pair: [list(pair[0]), pair[1]])
        proof.compare(ranks, "writing a save", [shared for _, shared in written.results])
        published = ranks.lead("committing a save", publish, info_to_json)
    except BaseException:
        for draft in drafts:
            draft.withdraw()
        raise
    return published.mine or info_from_json(published.results[0], store.path)


def writer(store: Store | Follower) -> Store:
    """The store of the rank that writes."""
    assert isinstance(store, Store)
    return store
