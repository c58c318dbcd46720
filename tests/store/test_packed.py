"""Checkpoints that earlier versions compressed: the same bytes come back, and what is hostile costs little."""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from stopctl import EarlyStopper, Run, SettingError
from stopctl.core.errors import DamagedError
from stopctl.store import Leaf, Reader, Store, frozen, safetensors
from stopctl.store.packed import unpack
from support.trees import components as any_components
from support.trees import same

zstandard = pytest.importorskip("zstandard")
PACKED = "state.safetensors.zst"


def compressed(data: bytes, *, told: bool = True) -> bytes:
    stream = zstandard.ZstdCompressor(level=3).compressobj(size=len(data) if told else -1)
    return (
        b"".join(stream.compress(data[i : i + (1 << 20)]) for i in range(0, len(data), 1 << 20))
        + stream.flush()
    )


def save(store: Store, number: int, components: Any) -> Path:
    return store.commit(components, state=number, epoch=number, step=number, seconds=0.0, value=None).path


def signed(path: Path, unpacked: object, data: bytes | None = None) -> None:
    """Have the manifest say `unpacked`, and of the compressed file, where there is `data` for it, what fits."""
    body = json.loads((path / "manifest.json").read_bytes())
    if data is not None:
        (path / PACKED).write_bytes(data)
        body["files"].pop("state.safetensors", None)
        body["files"][PACKED] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    body |= {"unpacked": unpacked}
    del body["sha256"]
    if unpacked is ...:
        del body["unpacked"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body, sort_keys=True, separators=(",", ":")))


def packed(path: Path) -> Path:
    """A checkpoint, as it was written with ``compress="zstd"``."""
    plain = (path / "state.safetensors").read_bytes()
    signed(path, len(plain), compressed(plain))
    (path / "state.safetensors").unlink()
    return path


def zeros(size: int) -> dict[str, Any]:
    return {"model": {"weight": Leaf("U8", (size,), bytes(size))}}


def arrays(size: int, name: str = "model/weight") -> bytes:
    return b"".join(safetensors.encode({name: Leaf("U8", (size,), bytes(size))}))


@settings(max_examples=40, deadline=None)
@given(any_components())
def test_whatever_was_saved_comes_back(tmp_path_factory: Any, components: Any) -> None:
    store = Store.lock(tmp_path_factory.mktemp("packed"))
    store.begin({})
    packed(save(store, 1, components))
    assert same(store.load(store.list().good[0])[0], components)
    store.close()


def test_one_run_may_have_compressed_and_other_checkpoints(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(frozen, "LEAF", 64)
    monkeypatch.setattr(frozen, "TOTAL", 128)
    for number in range(1, 5):
        moving = Leaf("U8", (99,), bytes([number]) * 99)
        path = save(store, number, {"model": {"base": Leaf("U8", (999,), bytes(999)), "head": moving}})
        if number % 2 == 0:
            packed(path)
    assert {file.name for file in path.iterdir()} == {
        PACKED,
        "frozen.safetensors",
        "state.json",
        "manifest.json",
    }
    assert [info.unpacked is not None for info in store.list().good] == [False, True, False, True]
    for info in store.list().good:
        model = store.load(info)[0]["model"]
        assert bytes(model["head"].data) == bytes([info.epoch]) * 99
        assert bytes(model["base"].data) == bytes(999)


def test_a_flipped_bit_is_found(store: Store) -> None:
    path = packed(save(store, 1, zeros(5000))) / PACKED
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=f"{PACKED}: its SHA-256 is not the one in the manifest"):
        store.load(store.list().good[0])


MUCH, TOO_LONG = 1 << 26, 100_000_008


@pytest.mark.parametrize(
    ("data", "unpacked", "why"),
    [
        (lambda: compressed(arrays(5000), told=False), len(arrays(5000)), "it does not hold 5"),
        (lambda: compressed(bytes(MUCH), told=False), 5000, "it does not hold 5000 bytes"),
        (lambda: compressed(bytes(MUCH)), 5000, "it does not hold 5000 bytes"),
        (lambda: compressed(bytes(MUCH)), MUCH, "safetensors header"),
        (lambda: compressed(b"\xff" * MUCH), MUCH, "a header of 18446744073709551615 bytes"),
        (lambda: compressed(TOO_LONG.to_bytes(8, "little") + bytes(TOO_LONG)), TOO_LONG + 8, "a header of 1000"),
        (lambda: compressed(arrays(99) + bytes(MUCH)), len(arrays(99)) + MUCH, "the tensors end at 99 of 6710"),
        (lambda: compressed(arrays(MUCH, "other")), len(arrays(MUCH, "other")), "'other' is in no component"),
        (lambda: compressed(arrays(1 << 20))[:-5], len(arrays(1 << 20)), "it holds other than 1048"),
        (lambda: b"\x28\xb5\x2f\xfd" + b"\xff" * 30, 5000, PACKED),
        (lambda: b"", 5000, PACKED),
        (lambda: b"not compressed", 14, PACKED),
    ],
    ids=["silent", "quiet bomb", "bomb", "honest bomb", "long header", "beyond the format", "undescribed",
         "unneeded", "cut", "garbage", "empty", "plain"],
)  # fmt: skip
def test_what_is_not_as_it_says_is_damage_and_takes_little_memory(
    store: Store, data: Callable[[], bytes], unpacked: int, why: str
) -> None:
    signed(packed(save(store, 1, zeros(5000))), unpacked, data())
    (info,) = store.list().good
    tracemalloc.start()
    with pytest.raises(DamagedError, match=why):
        store.load(info)
    assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    tracemalloc.stop()


def test_a_frame_that_holds_other_than_it_says_is_stopped() -> None:
    frame = compressed(arrays(1 << 24))
    assert zstandard.frame_content_size(frame) == len(arrays(1 << 24))
    for i in range(4, 12):  # whichever byte of the header tells the size
        changed = bytearray(frame)
        changed[i] ^= 1
        with pytest.raises(DamagedError):
            unpack(
                changed,
                zstandard.frame_content_size(bytes(changed[:18])) % (1 << 24),
                PACKED,
                ["model/weight"],
            )


@pytest.mark.parametrize("unpacked", [..., None, -1, 1.5, True, "5000"])
def test_a_compressed_file_says_its_size(store: Store, unpacked: object) -> None:
    signed(packed(save(store, 1, zeros(5000))), unpacked)
    assert "unpacked is wrong" in store.list().damaged[0].why


def test_a_plain_checkpoint_says_no_such_size(store: Store) -> None:
    signed(save(store, 1, zeros(5000)), 5)
    assert store.list().damaged[0].why == "manifest.json: unpacked is wrong: 5"


def test_without_the_library_loading_says_what_to_install(run: Path, store: Store, monkeypatch: Any) -> None:
    packed(save(store, 1, zeros(500)))
    (info,) = store.list().good
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SettingError, match=r"is compressed: pip install 'stopctl\[zstd\]' to read it"):
        Reader(run).load(info)
    assert Reader(run).list().good == (info,)


def test_a_run_goes_on_from_one_and_says_that_it_compresses_no_more(tmp_path: Path) -> None:
    state = {"w": 0.0, "big": [0.0] * 1000}
    for last in (2, 4):
        with Run(tmp_path / "run", state=state, stop=None) as run:
            for epoch in run.epochs(last):
                state["w"] = float(epoch)
                run.report(val_loss=1.0 / epoch)
        packed(run.checkpoints[-1].path) if last == 2 else None
        state["w"] = 0.0
    assert run.resumed.epoch == 2
    with pytest.raises(
        SettingError, match=r"Run has no compress= any more: leave it out \(trained weights hardly"
    ):
        Run(tmp_path / "other", state=state, compress="zstd")
    with pytest.raises(SettingError, match="EarlyStopper has no argument 'compress'"):
        EarlyStopper(compress="zstd")
    assert not (tmp_path / "other").exists()
