"""The chain of operations by which a checkpoint appears and goes; faults/ cuts and kills it at each of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from stopctl.core.errors import StopctlError
from stopctl.store import CheckpointInfo, Store
from support.recorder import Hook, Recorder

Save = Callable[..., CheckpointInfo]

ONE = "epoch-0001-step-000000010-w0001"
TWO = "epoch-0002-step-000000020-w0001"
THREE = "epoch-0003-step-000000030-w0002"


def commit_of(name: str) -> list[str]:
    temporary = f"run/checkpoints/.tmp-{name}-*"
    files = [
        f"{op} {temporary}/{file}"
        for file in ("state.safetensors", "state.json", "manifest.json")
        for op in ("create", "write", "sync")
    ]
    return [
        f"mkdir {temporary}",
        *files,
        f"sync_directory {temporary}",
        f"rename {temporary} run/checkpoints/{name}",
        "sync_directory run/checkpoints",
    ]


LOCK = ["open_lock run/run.lock", "lock run/run.lock", "write run/run.lock", "truncate run/run.lock"]
RUN_JSON = [
    "unlink run/.tmp-run.lock",
    "unlink run/.tmp-run.json",
    "create run/.tmp-run.json",
    "write run/.tmp-run.json",
    "sync run/.tmp-run.json",
    "rename run/.tmp-run.json run/run.json",
    "open_append run/journal.jsonl",
    "sync_directory run",
]
CLOSE = ["sync run/journal.jsonl", "unlock run/run.lock"]
TRASH = f"run/checkpoints/.trash-{ONE}-*"
DELETE = [
    f"rename run/checkpoints/{ONE} {TRASH}",
    "sync_directory run/checkpoints",
    *[f"unlink {TRASH}/{file}" for file in ("manifest.json", "state.json", "state.safetensors")],
    f"rmdir {TRASH}",
]
CHAIN = [
    *("mkdir run", "sync_directory ."),
    *LOCK,
    "mkdir run/checkpoints",
    *RUN_JSON,
    "sync_directory .",
    *commit_of(ONE),
    *commit_of(TWO),
    *CLOSE,
    *LOCK,
    *RUN_JSON,
    *commit_of(THREE),
    *DELETE,
    *CLOSE,
]


def life(root: Path, save: Save, hook: Hook | None = None) -> list[str]:
    """What two openings, three commits and one delete do, in words."""
    files = Recorder(hook)
    store = opened(root / "run", files)
    save(store, 1)
    save(store, 2)
    store.close()
    store = opened(root / "run", files)
    save(store, 3)
    store.delete([ONE], guarded=())
    store.close()
    return files.told(root)


def opened(run: Path, files: Recorder) -> Store:
    store = Store.lock(run, files=files)
    store.begin({})
    return store


def test_the_chain_of_operations_is_the_one_that_was_promised(tmp_path: Path, save: Save) -> None:
    assert life(tmp_path, save) == CHAIN


def test_sweeping_syncs_before_it_empties_what_a_power_cut_could_bring_back(run: Path, save: Save) -> None:
    store = opened(run, Recorder())
    info = save(store, 1)
    store.close()
    unfinished, trash = ".tmp-epoch-0009-step-000000090-w0001-0a1b2c3d", f".trash-{info.name}-0a1b2c3d"
    info.path.rename(info.path.parent / trash)  # as a delete that was killed leaves it
    (info.path.parent / unfinished).mkdir()
    files = Recorder()
    store = opened(run, files)
    told = [told for told in files.told(run) if "checkpoints" in told]
    store.close()
    assert told == [
        f"rename checkpoints/{unfinished[:-8]}* checkpoints/.trash-{unfinished}-*",
        "sync_directory checkpoints",
        f"rmdir checkpoints/.trash-{unfinished}-*",
        *[
            f"unlink checkpoints/{trash[:-8]}*/{name}"
            for name in ("manifest.json", "state.json", "state.safetensors")
        ],
        f"rmdir checkpoints/{trash[:-8]}*",
    ]


def test_a_chain_that_lacks_any_one_sync_or_rename_is_noticed(tmp_path: Path, save: Save) -> None:
    places = [i for i, told in enumerate(CHAIN) if told.startswith(("sync", "rename"))]
    assert len(places) == 30
    for place in places:
        root = tmp_path / str(place)
        root.mkdir()
        told = dropping(root, save, place)
        assert told != CHAIN, f"without {CHAIN[place]}, nobody would notice"
        shutil.rmtree(root)


def dropping(root: Path, save: Save, place: int) -> list[str]:
    """The chain where the operation at this place of it is left out."""
    changing = itertools.count()
    try:
        return life(root, save, lambda index, op: Recorder.changes(op) and next(changing) == place)
    except StopctlError:
        return ["an error"]
