"""What ranks check of states that lie in parts on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

from adapters.ranks.models import OPTIMIZERS, Net, digest, full, mesh, net, sharded, train, trainable
from stopctl import MismatchError, TreeError
from stopctl.ports import Leaf, Piece, Sharded
from stopctl_torch import TorchState
from stopctl_torch.leaves import Encoder, decode

Make = Callable[[int], nn.Module]


def merged(components: dict[str, Any]) -> dict[str, Any]:
    """What every rank captured as one checkpoint: rank 0's, with the pieces of all."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, _bytes(components))
    return _merge(found)


def _bytes(tree: Any) -> Any:
    if isinstance(tree, Leaf):
        return (
            "leaf",
            tree.dtype,
            tree.shape,
            bytes(tree.data),
            tree.note,
            tree.key is not None and str(tree.key),
        )
    if isinstance(tree, Sharded):
        pieces = [(p.offsets, p.shape, bytes(p.data)) for p in tree.pieces]
        return ("sharded", tree.dtype, tree.shape, pieces, tree.note, tree.key is not None and str(tree.key))
    if isinstance(tree, dict):
        return {key: _bytes(value) for key, value in tree.items()}
    return type(tree)(map(_bytes, tree)) if isinstance(tree, list | tuple) else tree


def _merge(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, tuple) and first[:1] in (("leaf",), ("sharded",)):
        kind, dtype, shape, data, note, key = first
        if kind == "leaf":
            return Leaf(dtype, shape, bytearray(data), note=note, key=key or None)
        pieces = [
            Piece(offsets, lengths, bytearray(data)) for tree in trees for offsets, lengths, data in tree[3]
        ]
        assert sum(math.prod(piece.shape) for piece in pieces) == math.prod(shape)  # none twice
        return Sharded(dtype, shape, pieces, note=note, key=key or None)
    if isinstance(first, dict):
        return {key: _merge([tree[key] for tree in trees]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(_merge(list(items)) for items in zip(*trees, strict=True))
    return first


def whole(tree: Any) -> Any:
    """As one process reads it: every array in one piece."""
    if isinstance(tree, Sharded):
        tensor = decode(replace(tree, key=None))
        return replace(Encoder("copy")(tensor, ""), key=tree.key)
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    return type(tree)(map(whole, tree)) if isinstance(tree, list | tuple) else tree


class Program:
    """A model, its optimizer, and the state that is saved of them."""

    def __init__(self, model: nn.Module, make: str = "adamw") -> None:
        self.model = model
        self.different = isinstance(model, FSDPModule | nn.parallel.DistributedDataParallel)
        """Whether each rank has data of its own."""
        self.optimizer = OPTIMIZERS[make](trainable(model))
        self.state = TorchState(model=model, optimizer=self.optimizer)

    def train(self, steps: int, start: int = 0) -> None:
        rank = distributed.get_rank() if self.different else 0
        train(self.model, self.optimizer, steps, start, rank)

    def capture(self) -> dict[str, Any]:
        found = self.state.capture()
        return {name: found[name] for name in ("model", "optimizer")}

    def restore(self, components: dict[str, Any]) -> None:
        rng = [name for name in self.state.capture() if name.startswith("rng.")]
        self.state.restore(components, allow_missing=rng)

    def digest(self) -> str:
        """Of all parameters and moments, whole; the buffers are each rank's own."""
        inside = getattr(self.model, "module", self.model)
        return digest(full([dict(inside.named_parameters()), self.optimizer.state_dict()]))


def plain(seed: int) -> nn.Module:
    return net(seed)


def ddp(seed: int) -> nn.Module:
    """DDP whose first step adds gradients up in the same order as all later ones: of three or more ranks the sum
    depends on it, and otherwise DDP orders its buckets anew after a process's first step."""
    return nn.parallel.DistributedDataParallel(net(seed), find_unused_parameters=True)


def fsdp(seed: int) -> nn.Module:
    return sharded(seed)


def by_columns(seed: int) -> nn.Module:
    """FSDP2 that cuts along the last axis, where that has enough to cut."""
    size = distributed.get_world_size()
    return sharded(seed, shard_placement_fn=lambda p: Shard(p.dim() - 1) if p.shape[-1] % size == 0 else None)


def hybrid(seed: int) -> nn.Module:
    """FSDP2 over half of the ranks, each half with a copy."""
    size = distributed.get_world_size()
    return sharded(seed, mesh=mesh(2, size // 2, names=("copies", "shards")))


def tensor_parallel(seed: int) -> nn.Module:
    return parallel(net(seed), mesh(distributed.get_world_size(), names=("tp",)))


def parallel(model: Net, over: Any) -> Net:
    """The first layer by rows and the last one by columns of its weight; 7 rows divide by no number of ranks."""
    plan = {
        "first": ColwiseParallel(output_layouts=Replicate()),
        "last": RowwiseParallel(input_layouts=Replicate()),
    }
    parallelize_module(model, over, plan)
    return model


def both(seed: int) -> nn.Module:
    """FSDP2 over tensor parallelism: an axis is cut twice."""
    size = distributed.get_world_size()
    over = mesh(size // 2, 2, names=("dp", "tp"))
    return fully_shard(parallel(net(seed), over["tp"]), mesh=over["dp"])


def copied(seed: int) -> nn.Module:
    """Tensor parallelism over pairs of ranks, each pair with a copy on a mesh of its own."""
    over = mesh(distributed.get_world_size() // 2, 2, names=("copies", "tp"))
    return parallel(net(seed), over["tp"])


KINDS: dict[str, Make] = {
    check.__name__: check for check in (plain, ddp, fsdp, by_columns, hybrid, tensor_parallel, both, copied)
}


def the_pieces_of_all_ranks_are_restored_bitwise(rank: int, size: int, shared: Path) -> None:
    _restored_bitwise(["adamw", "sgd momentum"])


def with_every_optimizer_the_pieces_are_restored_bitwise(rank: int, size: int, shared: Path) -> None:
    _restored_bitwise(list(OPTIMIZERS))


def _restored_bitwise(makes: list[str]) -> None:
    for make in makes:
        one = Program(fsdp(0), make)
        one.train(2)
        saved, expected = merged(one.capture()), one.digest()
        assert all(isinstance(v, Sharded) for k, v in saved["model"].items() if k.startswith("first."))
        other = Program(fsdp(1), make)
        assert other.digest() != expected
        other.restore(saved)
        assert other.digest() == expected, make
        one.train(2, start=2)
        other.train(2, start=2)
        assert other.digest() == one.digest(), make


def every_kind_of_parallel_training_reads_what_another_saved(rank: int, size: int, shared: Path) -> None:
    kinds = ["plain", "ddp", "fsdp", "tensor_parallel"]
    _read_each_other(dict(zip(kinds, [[kind] for kind in [*kinds[1:], kinds[0]]], strict=True)))


def every_kind_of_parallel_training_reads_what_every_other_saved(rank: int, size: int, shared: Path) -> None:
    _read_each_other({kind: list(KINDS) for kind in KINDS})


def _read_each_other(pairs: dict[str, list[str]]) -> None:
    for saving, kinds in pairs.items():
        one = Program(KINDS[saving](0))
        one.train(2)
        saved, expected = merged(one.capture()), one.digest()
        for loading in kinds:
            other = Program(KINDS[loading](1))
            assert other.digest() != expected
            other.restore(saved)
            assert other.digest() == expected, (saving, loading)
            other.restore(whole(saved))
            assert other.digest() == expected, (saving, loading)
        other = Program(KINDS[saving](1))
        other.restore(saved)
        one.train(2, start=2)
        other.train(2, start=2)
        assert other.digest() == one.digest(), saving


def an_optimizer_that_has_moved_is_restored_as_a_fresh_one_is(rank: int, size: int, shared: Path) -> None:
    for make_model in (fsdp, tensor_parallel):
        one, other = Program(make_model(0)), Program(make_model(1))
        fresh, at_start = merged(one.capture()), one.digest()
        one.train(1)
        other.train(3)
        saved, expected = merged(one.capture()), one.digest()
        other.restore(saved)
        assert other.digest() == expected
        other.restore(fresh)
        assert other.digest() == at_start
        assert not other.optimizer.state


def no_rank_waits_for_another(rank: int, size: int, shared: Path) -> None:
    one = Program(fsdp(0))
    one.train(1)
    saved = merged(one.capture())
    if rank == size - 1:  # the others do nothing
        one.restore(one.state.capture() | saved)
        one.capture()


def what_an_evaluation_leaves_unsharded_is_saved_as_ever(rank: int, size: int, shared: Path) -> None:
    one = Program(fsdp(0))
    one.train(1)
    before = _bytes(one.capture())
    one.model.eval()
    with torch.no_grad():
        one.model(torch.ones(2, 6))
    assert not isinstance(one.model.second.bias, DTensor)
    assert _bytes(one.capture()) == before
    with torch.no_grad():
        one.model(torch.ones(2, 6))
    one.restore(merged(one.capture()))
    other = TorchState(model=one.model, optimizer=one.optimizer)
    other.capture()


def mixed_precision_keeps_what_is_saved_exact(rank: int, size: int, shared: Path) -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    one = Program(sharded(0, nn.LayerNorm, mp_policy=policy))
    one.train(2)
    saved, expected = merged(one.capture()), one.digest()
    assert saved["model"]["first.weight"].dtype == "F32"
    other = Program(sharded(1, nn.LayerNorm, mp_policy=policy))
    other.restore(saved)
    assert other.digest() == expected
    one.train(2, start=2)
    other.train(2, start=2)
    assert other.digest() == one.digest()


def low_precision_moments_and_parameters_keep_their_dtypes(rank: int, size: int, shared: Path) -> None:
    def half(seed: int) -> Program:
        model = net(seed).to(torch.bfloat16)
        return Program(fully_shard(model))

    one, other = half(0), half(1)
    for part in (one, other):
        for param in part.model.parameters():
            param.grad = torch.ones_like(param) * 1e-3
        part.optimizer.step()
    wide = {k: v.double() for k, v in one.optimizer.state[one.model.first.weight].items()}
    one.optimizer.state[one.model.first.weight] = wide
    expected = digest(full(one.optimizer.state_dict()))
    other.restore(merged(one.capture()))
    assert digest(full(other.optimizer.state_dict())) == expected


def what_does_not_fit_is_told_before_anything_changes(rank: int, size: int, shared: Path) -> None:
    one = Program(fsdp(0))
    one.train(1)
    saved, before = merged(one.capture()), one.digest()
    wrong = {**saved, "model": {**saved["model"], "first.weight": Leaf("F32", (7, 5), bytes(140))}}
    del wrong["model"]["last.bias"]
    with pytest.raises(MismatchError) as raised:
        one.restore(wrong)
    assert "model/first.weight: saved F32 (7, 5), given F32 (7, 6) in pieces" in str(raised.value)
    assert "model/last.bias: given, but not saved" in str(raised.value)
    assert one.digest() == before

    state = {**saved["optimizer"]["state"]["state"]}
    rows = Sharded("F32", (7, 1), (Piece((0, 0), (7, 1), bytes(28)),))
    state[0] = {**state[0], "row_var": rows}
    odd = {**saved["optimizer"], "state": {**saved["optimizer"]["state"], "state": state}}
    with pytest.raises(
        MismatchError, match=r"optimizer/state/0/row_var: saved F32 \(7, 1\), for which a fresh"
    ):
        one.restore({**saved, "optimizer": odd})
    assert one.digest() == before


def pieces_that_do_not_make_up_their_array_are_refused_and_undone(rank: int, size: int, shared: Path) -> None:
    one, other = Program(fsdp(0)), Program(fsdp(1))
    one.train(1)
    other.train(1)
    before, saved = other.digest(), merged(one.capture())
    bias = saved["optimizer"]["state"]["state"][3]["exp_avg"]
    saved["optimizer"]["state"]["state"][3]["exp_avg"] = replace(bias, pieces=bias.pieces[:1])
    if rank == 0:
        other.restore(saved)  # its own piece is there: the store tells of what lacks elsewhere
        with pytest.raises(MismatchError):
            Program(net(0)).restore(saved)
    else:
        with pytest.raises(
            MismatchError, match=r"the pieces that were saved make up 0 of \d numbers"
        ) as raised:
            other.restore(saved)
        assert "everything was put back as it was" in raised.value.__notes__[0]
    distributed.barrier()
    found = digest(sharding_locals(other))
    other.restore(merged(one.capture()))
    assert other.digest() == one.digest() != before
    assert (found == digest(sharding_locals(other))) == (rank == 0)


def sharding_locals(program: Program) -> Any:
    return [p.to_local() for p in program.model.parameters()]


def of_copies_one_is_written(rank: int, size: int, shared: Path) -> None:
    over = mesh(size, names=("all",))
    tensor = distribute_tensor(torch.arange(6.0), over, [Replicate()])
    leaf = Encoder()(tensor, "x")
    assert isinstance(leaf, Sharded)
    assert [bytes(p.data) for p in leaf.pieces] == (
        [torch.arange(6.0).numpy().tobytes()] if rank == 0 else []
    )
    assert (leaf.dtype, leaf.shape) == ("F32", (6,))
    assert len(Encoder("copy")(tensor, "x").pieces) == 1  # what restoring would undo with
    zero = distribute_tensor(torch.tensor(2.5), over, [Replicate()])
    found = merged({"x": Encoder()(zero, "x")})["x"]
    assert full(decode(found, like=zero)) == decode(found) == 2.5
    assert isinstance(decode(found, like=zero), DTensor)


def what_is_no_array_yet_is_refused(rank: int, size: int, shared: Path) -> None:
    over = mesh(size, names=("all",))
    partial = DTensor.from_local(torch.ones(2), over, [Partial()])
    with pytest.raises(TreeError, match=r"^x: the ranks hold summands of it .*redistribute"):
        Encoder()(partial, "x")
    apart = DTensor.from_local(torch.ones(4), over, [_StridedShard(0, split_factor=2)])
    with pytest.raises(TreeError, match=r"^x: an axis of \(\d+,\) is cut twice, and not evenly"):
        Encoder()(apart, "x")
    numbers = distribute_tensor(torch.ones(4, dtype=torch.complex64), over, [Shard(0)])
    with pytest.raises(TreeError, match="^x: a DTensor of complex numbers has no place in a checkpoint"):
        Encoder()(numbers, "x")


def every_rank_has_its_own_generators_and_data(rank: int, size: int, shared: Path) -> None:
    class Position:
        def state_dict(self) -> dict[str, int]:
            return {"at": rank}

        def load_state_dict(self, state: dict[str, int]) -> None: ...

    model = net(0)
    extra = {
        "data": Position(),
        "noise": torch.Generator(),
        "ema": torch.optim.swa_utils.AveragedModel(model),
    }
    state = TorchState(model=model, extra=extra)
    own = {"extra.data", "extra.noise", "rng.python", "rng.numpy", "rng.torch", "rng.cuda"}
    assert set(state.per_rank()) == own
    team = state.team(30)
    assert team is not None
    assert team.share(b"%d" % rank) == [b"%d" % other for other in range(size)]
    team.close()


CHECKS = [
    the_pieces_of_all_ranks_are_restored_bitwise,
    every_kind_of_parallel_training_reads_what_another_saved,
    an_optimizer_that_has_moved_is_restored_as_a_fresh_one_is,
    no_rank_waits_for_another,
    what_an_evaluation_leaves_unsharded_is_saved_as_ever,
    mixed_precision_keeps_what_is_saved_exact,
    low_precision_moments_and_parameters_keep_their_dtypes,
    what_does_not_fit_is_told_before_anything_changes,
    pieces_that_do_not_make_up_their_array_are_refused_and_undone,
    of_copies_one_is_written,
    what_is_no_array_yet_is_refused,
    every_rank_has_its_own_generators_and_data,
]

SLOW = [
    with_every_optimizer_the_pieces_are_restored_bitwise,
    every_kind_of_parallel_training_reads_what_every_other_saved,
]
