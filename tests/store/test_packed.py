"""Compressed checkpoints: the same bytes come back, and what is hostile costs no more than it says."""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from stopctl import Run, SettingError
from stopctl.core.errors import DamagedError
from stopctl.store import Leaf, Reader, Store, frozen
from stopctl.store.packed import Packed, unpack
from support.trees import components as any_components
from support.trees import same

zstandard = pytest.importorskip("zstandard")
PACKED = "state.safetensors.zst"


@pytest.fixture
def packing(run: Path) -> Any:
    opened = Store.lock(run, compress="zstd")
    opened.begin({})
    yield opened
    opened.close()


def save(store: Store, number: int, components: Any) -> Path:
    return store.commit(components, state=number, epoch=number, step=number, seconds=0.0, value=None).path


def zeros(size: int) -> dict[str, Any]:
    return {"model": {"weight": Leaf("U8", (size,), bytes(size))}}


@settings(max_examples=40, deadline=None)
@given(any_components())
def test_whatever_is_saved_comes_back(tmp_path_factory: Any, components: Any) -> None:
    store = Store.lock(tmp_path_factory.mktemp("packed"), compress="zstd")
    store.begin({})
    save(store, 1, components)
    assert same(store.load(store.list().good[0])[0], components)
    store.close()


def test_the_file_is_one_that_zstd_opens_and_smaller(packing: Store) -> None:
    path = save(packing, 1, zeros(9_000_000))
    assert {file.name for file in path.iterdir()} == {PACKED, "state.json", "manifest.json"}
    (info,) = packing.list().good
    assert info.unpacked is not None
    assert info.unpacked > 9_000_000 > 100 * info.bytes
    plain = zstandard.ZstdDecompressor().decompress((path / PACKED).read_bytes())
    assert len(plain) == info.unpacked
    assert plain.endswith(bytes(9_000_000))


def test_one_run_may_have_compressed_and_other_checkpoints(run: Path) -> None:
    for number, compress in enumerate([None, "zstd", None], 1):
        store = Store.lock(run, compress=compress)
        store.begin({})
        save(store, number, zeros(100 * number))
        store.close()
    reader = Reader(run)
    for info in reader.list().good:
        components, _ = reader.load(info)
        assert len(components["model"]["weight"].data) == 100 * info.epoch
        assert (info.unpacked is None) == (info.epoch != 2)


def test_what_does_not_change_is_linked_and_not_compressed(packing: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(frozen, "LEAF", 64)
    monkeypatch.setattr(frozen, "TOTAL", 128)
    for number in range(1, 5):
        moving = Leaf("U8", (99,), bytes([number]) * 99)
        path = save(packing, number, {"model": {"base": Leaf("U8", (999,), bytes(999)), "head": moving}})
    names = {PACKED, "frozen.safetensors", "state.json", "manifest.json"}
    assert {file.name for file in path.iterdir()} == names
    assert (path / "frozen.safetensors").stat().st_nlink == 2
    for info in packing.list().good:
        model = packing.load(info)[0]["model"]
        assert bytes(model["head"].data) == bytes([info.epoch]) * 99
        assert bytes(model["base"].data) == bytes(999)


def test_a_flipped_bit_is_found(packing: Store) -> None:
    path = save(packing, 1, zeros(5000)) / PACKED
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=f"{PACKED}: its SHA-256 is not the one in the manifest"):
        packing.load(packing.list().good[0])


def signed(path: Path, data: bytes, unpacked: object) -> None:
    """Put `data` in the place of the arrays, and make the manifest fit."""
    (path / PACKED).write_bytes(data)
    body = json.loads((path / "manifest.json").read_bytes())
    body["files"][PACKED] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    body |= {"unpacked": unpacked}
    del body["sha256"]
    if unpacked is ...:
        del body["unpacked"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body, sort_keys=True, separators=(",", ":")))


def bomb(size: int, *, told: bool = True) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj(size=size if told else -1)
    zeros = bytes(1 << 20)
    return b"".join(stream.compress(zeros) for _ in range(size >> 20)) + stream.flush()


@pytest.mark.parametrize(
    ("data", "unpacked", "why"),
    [
        (bomb(1 << 28), 5000, "it does not hold 5000 bytes"),
        (bomb(1 << 28, told=False), 5000, "it does not hold 5000 bytes"),
        (bomb(1 << 20)[:-5], 1 << 20, "it holds other than 1048576 bytes"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 30, 5000, PACKED),
        (b"", 5000, PACKED),
        (b"not compressed", 14, PACKED),
    ],
    ids=["bomb", "quiet bomb", "cut", "garbage", "empty", "plain"],
)
def test_what_is_not_as_it_says_is_damage_and_takes_little_memory(
    packing: Store, data: bytes, unpacked: int, why: str
) -> None:
    signed(save(packing, 1, zeros(5000)), data, unpacked)
    (info,) = packing.list().good
    tracemalloc.start()
    with pytest.raises(DamagedError, match=why):
        packing.load(info)
    assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    tracemalloc.stop()


def test_a_frame_that_holds_more_than_it_says_is_stopped() -> None:
    frame = bytearray(bomb(1 << 24))
    assert zstandard.frame_content_size(bytes(frame)) == 1 << 24
    for i in range(4, 12):  # whichever byte of the header tells the size
        changed = bytearray(frame)
        changed[i] ^= 1
        with pytest.raises(DamagedError):
            unpack(changed, zstandard.frame_content_size(bytes(changed[:18])) % (1 << 24), PACKED)


@pytest.mark.parametrize("unpacked", [..., None, -1, 1.5, True, "5000"])
def test_a_compressed_file_says_its_size(packing: Store, unpacked: object) -> None:
    path = save(packing, 1, zeros(5000))
    signed(path, (path / PACKED).read_bytes(), unpacked)
    assert "unpacked is wrong" in packing.list().damaged[0].why


def test_a_plain_checkpoint_says_no_such_size(store: Store) -> None:
    path = save(store, 1, zeros(5000))
    body = json.loads((path / "manifest.json").read_bytes()) | {"unpacked": 5}
    del body["sha256"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body, sort_keys=True, separators=(",", ":")))
    assert store.list().damaged[0].why == "manifest.json: unpacked is wrong: 5"


def test_the_parts_may_be_taken_twice() -> None:
    packed = Packed([b"abc", memoryview(bytes(100))])
    assert b"".join(packed) == b"".join(packed)
    assert unpack(b"".join(packed), 103, "x") == b"abc" + bytes(100)


def test_without_the_library_saving_and_loading_say_what_to_install(
    run: Path, packing: Store, monkeypatch: Any
) -> None:
    save(packing, 1, zeros(500))
    (info,) = packing.list().good
    packing.close()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for attempt in (lambda: Reader(run).load(info), lambda: Store.lock(run, compress="zstd")):
        with pytest.raises(SettingError, match=r"pip install 'stopctl\[zstd\]'"):
            attempt()
    Store.lock(run).close()
    assert Reader(run).list().good == (info,)


def test_a_run_compresses_and_resumes(tmp_path: Path) -> None:
    state = {"w": 0.0, "big": [0.0] * 1000}
    for last in (2, 4):
        with Run(tmp_path / "run", state=state, compress="zstd", stop=None) as run:
            for epoch in run.epochs(last):
                state["w"] = float(epoch)
                run.report(val_loss=1.0 / epoch)
        assert run.checkpoints[-1].unpacked is not None
        state["w"] = 0.0
    assert run.resumed.epoch == 2
    with pytest.raises(SettingError, match="compress='gzip': write 'zstd' or None"):
        Run(tmp_path / "other", state=state, compress="gzip")
    with pytest.raises(SettingError, match="compress='gzip': write 'zstd' or None"):
        Store.lock(tmp_path / "other", compress="gzip")
