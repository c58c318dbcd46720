"""Tensors and arrays become leaves and come back as what they were, bit by bit."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopctl import MismatchError, TreeError
from stopctl.ports import Leaf, Tree, Typed
from stopctl.store.tree import flatten
from stopctl_torch.leaves import TENSORS, Encoder, decode

Reload = Callable[[dict[str, Tree]], dict[str, Tree]]
Same = Callable[[Any, Any], bool]

DTYPES = [*TENSORS, torch.complex64, torch.complex128]


def bits(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random bits of this dtype: every pattern, NaNs of all kinds included."""
    size = torch.empty(0, dtype=dtype).element_size()
    high = 2 if dtype is torch.bool else 256
    raw = torch.randint(0, high, (*shape[:-1], shape[-1] * size), dtype=torch.uint8)
    return raw.view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_by_bit(dtype: torch.dtype, reloaded: Reload, same: Same) -> None:
    value = {
        "matrix": bits((3, 5), dtype),
        "number": bits((1,), dtype)[0],
        "none": torch.empty(2, 0, dtype=dtype),
    }
    assert value["number"].shape == ()
    assert same(decode(reloaded({"x": Encoder()(value, "x")})["x"]), value)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.permute(1, 0, 2, 3),
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3),
        lambda t: t.permute(3, 1, 0, 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_dense_tensors_keep_their_memory_order(
    view: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype, reloaded: Reload, same: Same
) -> None:
    value = view(torch.randn(2, 3, 4, 5, dtype=dtype))
    back = decode(reloaded({"x": Encoder()(value, "x")})["x"])
    assert same(back, value)  # strides included


@pytest.mark.parametrize("view", [lambda t: t[:, ::2], lambda t: t[:, :1].expand(4, 3), lambda t: t[1:, 1:]])
def test_other_views_come_back_contiguous(
    view: Callable[[torch.Tensor], torch.Tensor], reloaded: Reload
) -> None:
    value = view(torch.randn(4, 6))
    back = decode(reloaded({"x": Encoder()(value, "x")})["x"])
    assert back.is_contiguous()
    assert torch.equal(back, value)


@given(data=st.data())
def test_any_view_of_any_tensor_comes_back(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), max_size=4))
    dtype = data.draw(
        st.sampled_from([torch.bool, torch.int64, torch.bfloat16, torch.float32, torch.complex64])
    )
    order = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.integers(1, 2)) for _ in shape]
    value = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype).permute(order)
    value = value[tuple(slice(None, None, step) for step in steps)]
    leaf = Encoder()(value, "x")
    flatten({"x": leaf})  # the store agrees that dtype, shape and data belong together
    back = decode(leaf)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert torch.equal(back, value)


def test_lazy_conjugates_and_negatives_are_saved_as_what_they_show(reloaded: Reload) -> None:
    base = torch.randn(4, dtype=torch.complex64)
    value = {"plain": base, "conj": base.conj(), "neg": base.conj().imag}
    assert value["conj"].is_conj()
    assert value["neg"].is_neg()
    back = decode(reloaded({"x": Encoder()(value, "x")})["x"])
    for name, tensor in value.items():
        assert torch.equal(back[name], tensor), name
    one = torch.randn(1, dtype=torch.complex64).conj().imag
    assert one.is_neg()
    assert one.is_contiguous()
    assert torch.equal(decode(reloaded({"x": Encoder()(one, "x")})["x"]), one)


def test_a_contiguous_tensor_is_not_copied() -> None:
    tensor = torch.zeros(4)
    leaf = Encoder()(tensor, "x")
    tensor[0] = 1.0
    assert bytes(leaf.data) == bytes(tensor.numpy().tobytes())


def test_a_copy_is_not_moved_by_what_comes_after() -> None:
    tensor, array = torch.zeros(4), np.zeros(4)
    copies = [Encoder("copy")(value, "x") for value in (tensor, array)]
    tensor[0], array[0] = 1.0, 1.0
    assert not any(any(bytes(leaf.data)) for leaf in copies)


def test_shapes_and_dtypes_can_be_had_without_the_data() -> None:
    for value in (torch.zeros(2, 3), np.zeros((2, 3), np.float32)):
        leaf = Encoder("none")(value, "x")
        assert (leaf.dtype, leaf.shape, bytes(leaf.data)) == ("F32", (2, 3), b"")


def test_restored_tensors_live_in_aligned_memory_of_their_own(reloaded: Reload) -> None:
    tree = reloaded({"x": Encoder()([torch.randn(3) for _ in range(9)], "x")})
    one, other = decode(tree["x"]), decode(tree["x"])
    for a, b in zip(one, other, strict=True):
        assert a.data_ptr() % 64 == 0
        assert a.data_ptr() != b.data_ptr()
        a.zero_()
        assert b.any()


def test_tied_tensors_are_stored_once_and_come_back_tied(reloaded: Reload) -> None:
    tensor = torch.randn(3)
    tree = {"x": Encoder()({"one": tensor, "same": tensor.detach(), "other": tensor.clone()}, "x")}
    assert len(flatten(tree)[1]) == 2
    back = decode(reloaded(tree)["x"])
    assert back["one"] is back["same"]
    assert back["other"] is not back["one"]


@pytest.mark.parametrize(
    "views",
    [
        lambda t: (t, t.view(torch.int32)),
        lambda t: (t[:8], t[8:]),
        lambda t: (t, t.reshape(4, 4)),
        lambda t: (t.reshape(4, 4), t.reshape(4, 4).t()),
    ],
)
def test_the_same_memory_seen_otherwise_is_not_tied(views: Any, reloaded: Reload, same: Same) -> None:
    value = list(views(torch.randn(16)))
    tree = {"x": Encoder()(value, "x")}
    assert len(flatten(tree)[1]) == 2
    assert same(decode(reloaded(tree)["x"]), value)


def test_empty_tensors_and_reused_addresses_are_not_taken_for_ties() -> None:
    encode = Encoder()
    leaves = [encode(torch.full((64, 64), float(i))[:, ::2], f"x/{i}") for i in range(20)]
    leaves += [encode(torch.empty(0), f"empty/{i}") for i in range(2)]
    _, stored = flatten({"x": leaves})
    assert len(stored) == 22
    assert [np.frombuffer(leaf.data, np.float32)[0] for leaf in leaves[:20]] == list(range(20))


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.array([True, False]),
        np.array(2.5),
        np.zeros((0, 3), np.int8),
        np.array([1 + 2j, 3 - 4j]),
        np.array([1.5, np.nan], np.float16),
        np.float64(0.1),
        np.float32("nan"),
        np.int64(-3),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.arange(4, dtype=">i4"),
        np.arange(12.0).reshape(3, 4)[:, ::2],
    ],
    ids=repr,
)
def test_numpy_values_come_back_as_what_they_were(value: Any, reloaded: Reload) -> None:
    back = decode(reloaded({"x": Encoder()({"v": value}, "x")})["x"])["v"]
    assert type(back) is type(value)
    assert back.dtype == value.dtype.newbyteorder("=")
    assert back.shape == value.shape
    assert np.array_equal(back, value, equal_nan=value.dtype.kind in "fc")


def test_plain_values_pass_through_with_their_types(reloaded: Reload, same: Same) -> None:
    value = {
        0: None,
        "betas": (0.9, 0.999),
        "milestones": Counter({3: 1, 7: 2}),
        "ordered": OrderedDict(b=1, a=[True, -0.0, float("inf"), float("nan"), b"\x00\xff", "text", 2**80]),
        "torch": [torch.Size([2, 3]), torch.Size([]), torch.float32, torch.float8_e8m0fnu],
        "others": [range(3), {1, "a"}, frozenset({2.5})],
        (0.9, "a"): {0.5: torch.ones(1)},
        "recent": deque([torch.zeros(2), 1], maxlen=3),
    }
    assert same(decode(reloaded({"x": Encoder()(value, "x")})["x"]), value)


def test_a_generator_comes_back_where_it_stood(reloaded: Reload) -> None:
    given = torch.Generator().manual_seed(3)
    saved = reloaded({"x": Encoder()(given, "x")})["x"]
    assert saved.kind == "torch.Generator(cpu)"
    assert torch.equal(torch.randn(2, generator=decode(saved)), torch.randn(2, generator=given))


@pytest.mark.parametrize(
    "saved",
    [
        Typed("torch.Size", 3), Typed("torch.dtype", "float3"), Typed("torch.dtype", "nn"), Typed("torch.dtype", 1),
        Typed("torch.Generator(cpu)", b"abc"), Typed("torch.Generator(moon)", b"abc"), Typed("torch.device", "cpu"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_value_of_this_torch_is_refused(saved: Typed) -> None:
    with pytest.raises(MismatchError, match=r"saved is no torch\.|a torch\.d\w+ was saved, which"):
        decode({"x": saved})


class Tagged(torch.Tensor):
    """A subclass that computes for itself."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.eye(2).to_sparse(),
            "x/w: a sparse tensor has no place in a checkpoint: save it as a dense one",
        ),
        (torch.empty(2, device="meta"), "x/w: a tensor on the meta device has no data: use to_empty() first"),
        (
            torch.nn.LazyLinear(2).weight,
            "x/w: a lazy layer has no shape yet: run one batch through the model first",
        ),
        (
            torch.empty(2, dtype=torch.float4_e2m1fn_x2),
            "x/w: torch.float4_e2m1fn_x2 has no place in a checkpoint",
        ),
        (
            torch.Tensor._make_subclass(Tagged, torch.zeros(2)),
            "x/w: a Tagged is not one plain tensor",
        ),
        (np.ma.masked_array([1, 2], [0, 1]), "x/w: a MaskedArray is not one plain array"),
    ],
    ids=["sparse", "meta", "lazy", "dtype", "subclass", "masked"],
)
def test_what_a_checkpoint_cannot_hold_is_named_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(TreeError) as caught:
        Encoder()({"w": value}, "x")
    assert str(caught.value) == message


def test_quantized_tensors_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.quint8)
    with pytest.raises(TreeError, match=r"^x: a quantized tensor has no place in a checkpoint"):
        Encoder()(value, "x")


def test_tensors_land_on_the_device_of_those_they_replace() -> None:
    tree = Encoder()({"a": [torch.ones(2), torch.ones(2)], "b": torch.ones(1)}, "x")
    like = {"a": [torch.ones(2), torch.ones(2, device="meta")], "c": 0}
    back = decode(tree, like)
    assert [t.device.type for t in (*back["a"], back["b"])] == ["cpu", "meta", "cpu"]


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), np.array("2020", "datetime64[Y]")])
def test_arrays_of_other_things_are_refused_with_their_path(value: Any) -> None:
    with pytest.raises(TreeError, match=r"^x/w\b"):
        Encoder()({"w": value}, "x")


def test_leaves_carry_the_safetensors_names() -> None:
    leaf = Encoder()(torch.zeros(2, 3, dtype=torch.bfloat16), "x")
    assert isinstance(leaf, Leaf)
    assert (leaf.dtype, leaf.shape, leaf.note) == ("BF16", (2, 3), "")
    leaf = Encoder()(torch.zeros(2, 3, dtype=torch.complex64), "x")
    assert (leaf.dtype, leaf.shape, leaf.note) == ("F32", (2, 3, 2), "complex")
