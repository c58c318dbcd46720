from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors as library
from hypothesis import given
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError
from stopctl.store import Leaf
from stopctl.store.safetensors import decode, encode
from stopctl.store.tree import ITEMSIZE
from support.trees import leaf, leaves

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name != "__metadata__"
)


def written(tensors: dict[str, Leaf]) -> bytes:
    return b"".join(encode(tensors))


def facts(tensors: dict[str, Leaf]) -> dict[str, Any]:
    return {name: (leaf.dtype, tuple(leaf.shape), bytes(leaf.data)) for name, leaf in tensors.items()}


@given(st.dictionaries(NAMES, leaves(), max_size=6))
def test_our_files_are_read_by_the_library_and_by_us(tensors: dict[str, Leaf]) -> None:
    data = written(tensors)
    assert facts(decode(data)) == facts(tensors)
    found = {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in library.deserialize(data)
    }
    assert found == facts(tensors)


@given(
    st.dictionaries(NAMES, leaves(), max_size=6),
    st.none() | st.dictionaries(NAMES, NAMES, min_size=1, max_size=2),
)
def test_the_librarys_files_are_read_by_us(tensors: dict[str, Leaf], metadata: Any) -> None:
    alive = {name: bytes(tensor.data) for name, tensor in tensors.items()}
    specs = {
        name: library.TensorSpec(
            dtype=LIBRARY[tensor.dtype],
            shape=tensor.shape,
            data_ptr=ctypes.cast(alive[name], ctypes.c_void_p).value,
            data_len=len(alive[name]),
        )
        for name, tensor in tensors.items()
    }
    assert facts(decode(library.serialize(specs, metadata=metadata))) == facts(tensors)


LIBRARY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16", "U32": "uint32", "I32": "int32",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
}  # fmt: skip


def test_every_dtype_of_ours_is_the_librarys() -> None:
    assert LIBRARY.keys() == ITEMSIZE.keys()


def test_torch_opens_our_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    weights = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    data = weights.view(torch.uint8).numpy().tobytes()
    (tmp_path / "f").write_bytes(written({"w": Leaf("BF16", (2, 3), data), "e": Leaf("F32", (0, 3), b"")}))
    found = load_file(tmp_path / "f")
    assert torch.equal(found["w"], weights)
    assert found["e"].shape == (0, 3)


def test_the_header_is_padded_with_spaces_to_eight() -> None:
    for length in range(1, 10):
        head = bytes(encode({"n" * length: leaf(b"x")})[0])
        size = int.from_bytes(head[:8], "little")
        assert len(head) == 8 + size
        assert size % 8 == 0
        assert head[8:].rstrip(b" ").endswith(b"}")


def test_tensors_are_uncopied_in_order_and_aligned() -> None:
    data = bytearray(b"12345678")
    parts = encode(
        {"a": Leaf("U8", (3,), b"abc"), "b": Leaf("F64", (1,), data), "c": Leaf("F16", (1,), b"xy")}
    )
    assert [bytes(part) for part in parts[1:]] == [b"12345678", b"xy", b"abc"]
    data[0] = 0
    assert bytes(parts[1])[0] == 0


def test_loaded_leaves_are_views_into_the_one_buffer() -> None:
    buffer = bytearray(written({"a": leaf(b"abc")}))
    found = decode(buffer)["a"]
    buffer[-3:] = b"xyz"
    assert isinstance(found.data, memoryview)
    assert bytes(found.data) == b"xyz"


def file(header: Any, body: bytes = b"", *, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def entry(begin: int, end: int, **more: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]} | more


HOSTILE = {
    "empty file": (b"", "the header is longer than the file"),
    "short length": (b"\x01\x00", "the header is longer than the file"),
    "huge length": (file({}, size=2**64 - 1), "the header is longer than the file"),
    "length by one": (file({}, size=3), "the header is longer than the file"),
    "no JSON": (file(b"{]"), "Expecting"),
    "no object": (file([]), "no object"),
    "nesting": (file(b"[" * 100_000), "nested too deeply"),
    "duplicate": (file(b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 1)).encode(),) * 2), b"x"), "stands twice"),
    "not UTF-8": (file(b'{"\xff":1}'), "utf-8"),
    "metadata no object": (file({"__metadata__": 1}), "__metadata__ is no object of strings"),
    "metadata of numbers": (file({"__metadata__": {"a": 1}}), "__metadata__ is no object of strings"),
    "entry no object": (file({"a": 1}), "'a' is not described by data_offsets, dtype, shape"),
    "field missing": (file({"a": {"dtype": "U8", "shape": []}}), "is not described by"),
    "field too many": (file({"a": entry(0, 1, more=1)}, b"x"), "is not described by"),
    "unknown dtype": (file({"a": entry(0, 1, dtype="F4")}, b"x"), "has an unknown dtype"),
    "dtype no str": (file({"a": entry(0, 1, dtype=["U8"])}, b"x"), "has an unknown dtype"),
    "shape no list": (file({"a": entry(0, 1, shape=1)}, b"x"), "has no shape"),
    "shape of bools": (file({"a": entry(0, 1, shape=[True])}, b"x"), "has no shape"),
    "shape of floats": (file({"a": entry(0, 1, shape=[1.0])}, b"x"), "has no shape"),
    "negative shape": (file({"a": entry(0, 1, shape=[-1, -1])}, b"x"), "has no shape"),
    "rank": (file({"a": entry(0, 1, shape=[1] * 65)}, b"x"), "has no shape"),
    "huge shape": (file({"a": entry(0, 1, shape=[2**62, 2**62])}, b"x"), "does not fit its shape"),
    "offsets no list": (file({"a": entry(0, 1, data_offsets=1)}, b"x"), "has no pair of offsets"),
    "three offsets": (file({"a": entry(0, 1, data_offsets=[0, 1, 1])}, b"x"), "has no pair of offsets"),
    "negative offset": (file({"a": entry(0, 1, data_offsets=[-1, 0])}, b"x"), "has no pair of offsets"),
    "float offsets": (file({"a": entry(0, 1, data_offsets=[0.0, 1.0])}, b"x"), "has no pair of offsets"),
    "backwards": (file({"a": entry(1, 0, shape=[0])}, b"x"), "does not fit its shape"),
    "beyond the end": (file({"a": entry(0, 2)}, b"x"), "does not fit its shape"),
    "shape and size": (file({"a": entry(0, 2, dtype="F32", shape=[1])}, b"xy"), "does not fit its shape"),
    "overlap": (file({"a": entry(0, 2), "b": entry(1, 3)}, b"xyz"), "starts at 1, where 2 was due"),
    "same place": (file({"a": entry(0, 1), "b": entry(0, 1)}, b"x"), "starts at 0, where 1 was due"),
    "gap": (file({"a": entry(0, 1), "b": entry(2, 3)}, b"xyz"), "starts at 2, where 1 was due"),
    "gap at the start": (file({"a": entry(1, 2)}, b"xy"), "starts at 1, where 0 was due"),
    "more at the end": (file({"a": entry(0, 1)}, b"xy"), "the tensors end at 1 of 2 bytes"),
    "nothing but bytes": (file({}, b"x"), "the tensors end at 0 of 1 bytes"),
}


@pytest.mark.parametrize(("data", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_damaged(data: bytes, said: str) -> None:
    with pytest.raises(DamagedError, match=f"^safetensors header: .*{said}"):
        decode(data)


def test_empty_tensors_may_lie_anywhere_between_others() -> None:
    tensors = {"a": entry(0, 2), "b": entry(2, 2), "c": entry(2, 3), "d": entry(3, 3, shape=[0, 2**62])}
    found = decode(file(tensors, b"xyz"))
    assert {name: math.prod(leaf.shape) for name, leaf in found.items()} == {"a": 2, "b": 0, "c": 1, "d": 0}


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: file({"a": entry(0, 4)}, tail)))
def test_any_bytes_are_tensors_or_damage(data: bytes) -> None:
    try:
        found = decode(data)
    except DamagedError:
        return
    assert sum(len(leaf.data) for leaf in found.values()) <= len(data)
