"""Arrays that lie in pieces, read by one process; what several ranks do is in tests/adapters/ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stopctl import MismatchError
from stopctl.ports import Leaf, Piece, Sharded
from stopctl_torch import Run, load
from stopctl_torch.leaves import DTYPES, Encoder, decode
from stopctl_torch.sharding import _is_clear, _rows, fill, is_sharded, reshard


def cut(tensor: torch.Tensor, *spans: tuple[slice, ...], key: object = None) -> Sharded:
    """These blocks of it, as several ranks have saved them."""
    leaf = Encoder("none")(tensor, "x")
    blocks = [tensor[span] for span in spans]
    pieces = [
        Piece(tuple(s.start for s in span), tuple(block.shape), Encoder("copy")(block, "x").data)
        for span, block in zip(spans, blocks, strict=True)
    ]
    return Sharded(leaf.dtype, leaf.shape, pieces, key=key)


QUARTERS = [(a, b) for a in (slice(0, 3), slice(3, 5)) for b in (slice(0, 1), slice(1, 4))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_make_up_the_array_of_every_dtype(dtype: str, same: Callable[[Any, Any], bool]) -> None:
    numbers = torch.arange(20).reshape(5, 4)
    tensor = (numbers % 2 == 0) if dtype == "BOOL" else numbers.to(DTYPES[dtype])
    assert same(decode(cut(tensor, *QUARTERS)), tensor)


def test_pieces_are_copied_into_memory_of_its_own() -> None:
    memory = bytearray(torch.arange(4.0).numpy().tobytes())
    found = decode(Sharded("F32", (4,), [Piece((0,), (4,), memoryview(memory))]))
    memory[:] = bytes(16)
    assert found.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_one_number_and_no_numbers_have_pieces_too() -> None:
    assert decode(cut(torch.tensor(2.5), ())) == 2.5
    assert decode(Sharded("F32", (0, 3), [])).shape == (0, 3)
    assert decode(cut(torch.ones(0, 3), (slice(0, 0), slice(0, 3)))).shape == (0, 3)


def test_tied_arrays_in_pieces_are_one_tensor_again() -> None:
    tensor = torch.arange(20.0).reshape(5, 4)
    one, other = decode([cut(tensor, *QUARTERS, key=1), cut(tensor, *QUARTERS, key=1)])
    assert one is other


def test_what_lacks_a_piece_is_refused() -> None:
    tensor = torch.arange(20.0).reshape(5, 4)
    with pytest.raises(MismatchError, match="the pieces that were saved make up 16 of 20 numbers"):
        decode(
            cut(
                tensor,
                *QUARTERS[:1],
                *QUARTERS[1:3],
                *[(slice(3, 5), slice(1, 2)), (slice(3, 5), slice(2, 2))],
            )
        )
    with pytest.raises(MismatchError, match="make up 0 of 1 numbers"):
        decode(Sharded("F32", (), []))


def test_a_whole_array_fills_a_tensor_as_pieces_do() -> None:
    tensor = torch.empty(2, 3)
    fill(tensor, Leaf("F32", (2, 3), torch.arange(6.0).numpy().tobytes()), torch.float32)
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


class Unasked(list[Piece]):
    """Pieces that nobody may look at."""

    def __iter__(self) -> Any:
        raise AssertionError("other ranks' pieces were asked for")

    __getitem__ = __len__ = __iter__  # type: ignore[assignment]


def test_pieces_are_asked_for_around_what_the_rank_has_and_no_others() -> None:
    own = Piece((0, 0), (2, 3), torch.arange(6.0).numpy().tobytes())
    tensor, asked = torch.empty(2, 3), []

    def around(block: Any) -> list[Piece]:
        asked.append(block)
        return [own]

    fill(tensor, Sharded("F32", (2, 3), Unasked(), around=around), torch.float32)
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert asked == [((0, 0), (2, 3))]
    fill(torch.empty(0, 3), Sharded("F32", (0, 3), Unasked()), torch.float32)
    half = Piece((0, 0), (1, 3), own.data[:12])
    with pytest.raises(MismatchError, match="the pieces that were saved make up 3 of 6 numbers"):
        fill(tensor, Sharded("F32", (2, 3), Unasked(), around=lambda block: [half]), torch.float32)
    with pytest.raises(AssertionError, match="were asked for"):
        fill(tensor, Sharded("F32", (2, 3), Unasked()), torch.float32)


def test_a_plain_tensor_is_not_sharded() -> None:
    assert not is_sharded(torch.ones(2))
    assert not is_sharded(None)
    reshard(nn.Linear(2, 2))


class Strided:
    def __init__(self, dim: int, split_factor: int) -> None:
        self.dim = dim
        self.split_factor = split_factor


class Cut:
    def __init__(self, dim: int) -> None:
        self.dim = dim


class Placed:
    """A DTensor as far as its rows are concerned, as the rank at ``at`` of a 2-D mesh sees it."""

    def __init__(self, rows: int, mesh: tuple[int, int], at: tuple[int, int]) -> None:
        self.shape = (rows,)
        self.placements = (Strided(0, mesh[1]), Cut(0))
        self.device_mesh = type("Mesh", (), {"shape": mesh, "get_coordinate": lambda _: list(at)})()


def test_an_axis_that_is_cut_twice_evenly_is_in_blocks_that_make_it_up() -> None:
    for mesh in [(2, 2), (2, 4), (4, 2), (3, 2)]:
        for rows in range(0, 5 * mesh[0] * mesh[1], mesh[0] * mesh[1]):
            found = []
            for at in [(i, j) for i in range(mesh[0]) for j in range(mesh[1])]:
                placed = Placed(rows, mesh, at)
                mine = _rows(placed, 0)[0].tolist()
                found += mine
                assert _is_clear(placed, mine[:1])
                assert not mine or not _is_clear(placed, [mine[0] + 1])
            assert sorted(found) == list(range(rows))


def test_an_axis_that_is_cut_twice_is_refused_where_two_say_different_rows() -> None:
    assert all(
        _is_clear(Placed(9, (2, 4), (i, j)), [first]) for i, j, first in [(0, 0, 0), (1, 0, 2), (0, 1, 3)]
    )
    told, given = _rows(Placed(9, (4, 2), (0, 0)), 0)  # five rows and four, each cut in four
    assert (told.tolist(), given.tolist()) == ([0, 1], [0, 1])
    told, given = _rows(Placed(9, (4, 2), (3, 0)), 0)
    assert (told.tolist(), given.tolist()) == ([8], [])
    assert not _is_clear(Placed(9, (4, 2), (3, 0)), [8])


def test_fsdp_on_one_rank_saves_whole_arrays_and_resumes(one_rank: None, tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    def run(seed: int, epochs: int, *, sharded: bool) -> list[list[float]]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        if sharded:
            fully_shard(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        with Run(tmp_path / "run", model=model, optimizer=optimizer, stop=None) as run:
            for epoch in run.epochs(epochs):
                model(torch.full((4, 3), float(epoch))).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                run.report(val_loss=1 / epoch)
        return [p.full_tensor().tolist() if sharded else p.tolist() for p in model.parameters()]

    run(0, 1, sharded=True)
    run(1, 2, sharded=False)
    left = run(2, 3, sharded=True)
    bare = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    info = load(tmp_path / "run", model=bare)
    assert (info.epoch, info.ranks) == (3, 1)
    assert [p.tolist() for p in bare.parameters()] == left
