from __future__ import annotations

import tracemalloc

import pytest

from stopctl import Run
from stopctl.core.errors import DamagedError
from stopctl.runs.checkpoints import check
from stopctl.store import Reader
from stopctl.store.hashed import CHUNK
from support.ran import ran


def test_what_is_as_it_was_written_is_told_in_bytes(tmp_path):
    (*_, info) = Reader(ran(tmp_path / "run")).list().good
    told = []
    check(info, told.append)
    assert sum(told) == info.bytes


def test_each_damage_names_its_file(tmp_path):
    first, second, third = Reader(ran(tmp_path / "run")).list().good
    (first.path / "state.json").write_bytes(b"{}")
    (second.path / "state.safetensors").unlink()
    (third.path / "manifest.json").write_bytes((first.path / "manifest.json").read_bytes())
    for info, said in (
        (first, "state.json: what was read back is not what was written"),
        (second, "state.safetensors: No such file or directory"),
        (third, f"manifest.json: it is that of {first.name}"),
    ):
        with pytest.raises(DamagedError, match=said):
            check(info)


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    np = pytest.importorskip("numpy")
    with Run(tmp_path / "run", state={"w": np.zeros(6 * CHUNK, np.uint8)}, durability="process") as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    (info,) = Reader(tmp_path / "run").list().good
    tracemalloc.start()
    check(info)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert info.bytes > 6 * CHUNK
    assert peak < 2 * CHUNK
