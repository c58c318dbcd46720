"""A save of several ranks: every one writes its part, rank 0 looks that all are there and makes it appear."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from stopctl.core.errors import TreeError
from stopctl.state.data import DATA
from stopctl.store import CheckpointInfo, Files, Store, Tree, flatten
from stopctl.store.draft import Draft
from stopctl.store.parts import PartFact, write_part
from stopctl.store.rundir import CHECKPOINTS
from stopctl.team.follower import Follower, info_from_json, info_to_json
from stopctl.team.inputs import digest
from stopctl.team.ranks import Ranks


def commit_together(
    store: Store | Follower,
    ranks: Ranks,
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
        capture: what this rank has; called in this thread, without any collective.
        facts: what `Store.commit` takes besides.
        per_rank: the components that every rank has for itself.
        files: the file operations. verify: read every file back.

    Raises:
        SaveError, TreeError: there is no such checkpoint, whichever rank it failed on.
        TeamError: a rank is lost.
    """
    same = {name: facts[name] for name in ("epoch", "step", "label", "pinned")}
    same["state"] = digest(facts["state"])

    def look() -> tuple[dict[str, Tree], str]:
        trees = capture()
        return trees, outline(trees, per_rank)

    captured = ranks.agree("the capture of a save", look, same, lambda pair: pair[1])
    for rank, arrays in enumerate(captured.results):
        if arrays != captured.results[0]:
            raise TreeError(
                f"rank {rank} has other arrays than rank 0, in what all ranks share (all but "
                f"{sorted(per_rank)}): a checkpoint holds one model, of which every rank has all, or "
                "pieces of the same arrays"
            )
    components = captured.mine[0]
    separate = {DATA, *per_rank} & components.keys()
    state, others = facts["state"], {name: fact for name, fact in facts.items() if name != "state"}
    drafts: list[Draft] = []

    def begin() -> str:
        drafts.append(writer(store).draft(components=tuple(components), **others))
        return drafts[0].directory.name

    def write() -> PartFact:
        for draft in drafts:
            draft.write(components, state=state, per_rank=separate)
        directory = store.path / CHECKPOINTS / begun.results[0]
        separate_here = () if ranks.leads else separate  # rank 0's stand beside the state
        return write_part(files, directory, ranks.rank, components, separate_here, verify=verify)

    def publish() -> CheckpointInfo:
        info = drafts[0].publish([PartFact(*fact) for fact in written.results], ranks=ranks.size)
        drafts.clear()  # whatever comes now, it is there
        return info

    try:
        begun = ranks.lead("beginning a save", begin, lambda name: name)
        written = ranks.work("writing a save", write, list)
        published = ranks.lead("committing a save", publish, info_to_json)
    except BaseException:
        for draft in drafts:
            draft.withdraw()
        raise
    return published.mine or info_from_json(published.results[0], store.path)


def outline(components: Mapping[str, Tree], per_rank: Collection[str]) -> str:
    """Names, dtypes and shapes of all arrays that ranks share, as one digest."""
    shared = {name: tree for name, tree in components.items() if name not in {DATA, *per_rank}}
    arrays = [[name, leaf.dtype, leaf.shape] for name, leaf in sorted(flatten(shared)[1].items())]
    return digest({"components": sorted(shared), "arrays": arrays})


def writer(store: Store | Follower) -> Store:
    """The store of the rank that writes."""
    assert isinstance(store, Store)
    return store
