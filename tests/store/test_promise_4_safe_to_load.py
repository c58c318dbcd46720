"""No code runs because of what a checkpoint contains, nothing beyond its size is allocated, no path leaves it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stopctl.store
from stopctl.core.errors import DamagedError
from stopctl.store import CheckpointInfo, Store

Save = Callable[..., CheckpointInfo]
SOURCES = sorted(Path(stopctl.store.__file__).parent.glob("*.py"))


def test_the_store_imports_and_calls_nothing_that_runs_what_it_reads() -> None:
    assert len(SOURCES) > 10
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {
                    "pickle",
                    "marshal",
                    "shelve",
                    "importlib",
                    "runpy",
                    "subprocess",
                    "ctypes",
                }
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__")


def test_the_store_is_standard_library_only() -> None:
    import sys

    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom):
                top = (node.module or "").split(".")[0]
                ours = (node.module or "").startswith(("stopctl.store", "stopctl.core"))
                assert top in sys.stdlib_module_names or ours
            if isinstance(node, ast.Import):
                more = (
                    {"zstandard"} if source.name == "packed.py" else set()
                )  # an extra, loaded when asked for
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names | more


def sign(path: Path, **changes: Any) -> None:
    """Rewrite a manifest, with a hash that is right for the changes."""
    body = json.loads(path.read_bytes()) | changes
    body.pop("sha256")
    canonical = {"sort_keys": True, "separators": (",", ":")}
    body["sha256"] = hashlib.sha256(json.dumps(body, **canonical).encode()).hexdigest()  # type: ignore[arg-type]
    path.write_text(json.dumps(body, **canonical))  # type: ignore[arg-type]


def test_a_declared_size_allocates_nothing(store: Store, save: Save) -> None:
    info = save(store, 1)
    files = json.loads((info.path / "manifest.json").read_bytes())["files"]
    for name in files:
        sign(info.path / "manifest.json", files=files | {name: files[name] | {"size": 2**50}})
        tracemalloc.start()
        with pytest.raises(
            DamagedError, match=rf"{name}: {2**50} bytes, more than|{name}: [0-9]+ bytes instead of {2**50}"
        ):
            store.load(info)
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()
        assert store.list().damaged[0].why.startswith(name)


def test_a_huge_header_length_allocates_nothing(store: Store, save: Save) -> None:
    info = save(store, 1)
    tensors = info.path / "state.safetensors"
    data = (2**62).to_bytes(8, "little") + tensors.read_bytes()[8:]
    tensors.write_bytes(data)
    files = json.loads((info.path / "manifest.json").read_bytes())["files"]
    fact = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sign(info.path / "manifest.json", files=files | {"state.safetensors": fact})
    tracemalloc.start()
    with pytest.raises(DamagedError, match="the header is longer than the file"):
        store.load(info)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "state.json/../../secret", "a\0b", "..", ""])
def test_a_manifest_cannot_name_another_file(store: Store, save: Save, name: str) -> None:
    info = save(store, 1)
    files = json.loads((info.path / "manifest.json").read_bytes())["files"]
    (store.path / "secret").write_bytes(b"")
    sign(
        info.path / "manifest.json", files=files | {name: {"size": 0, "sha256": hashlib.sha256().hexdigest()}}
    )
    assert store.list().damaged[0].why == "manifest.json: not the fields of a manifest"
    with pytest.raises(DamagedError):
        store.load(info)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_link_is_not_followed(store: Store, save: Save, tmp_path: Path, name: str) -> None:
    info = save(store, 1)
    (info.path / name).rename(tmp_path / name)
    (info.path / name).symlink_to(tmp_path / name)
    listing = store.list()
    assert listing.good == ()
    assert listing.damaged[0].why.startswith(f"{name}: ")
    with pytest.raises(DamagedError, match=name):
        store.load(info)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_pipe_does_not_hang_it(store: Store, save: Save, name: str) -> None:
    info = save(store, 1)
    (info.path / name).unlink()
    os.mkfifo(info.path / name)
    assert store.list().damaged[0].why == f"{name}: not a regular file"
    with pytest.raises(DamagedError, match=f"{name}: not a regular file"):
        store.load(info)


def test_a_manifest_of_any_length_is_not_read_in(store: Store, save: Save) -> None:
    info = save(store, 1)
    with (info.path / "manifest.json").open("ab") as file:
        file.truncate(10**9)
    tracemalloc.start()
    assert store.list().damaged[0].why == "manifest.json: 1000000000 bytes, more than 2048"
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
