"""Ranks that are lost inside an epoch: the others go on without them, and every row of it is trained once."""

from __future__ import annotations

from collections import Counter

import pytest

from adapters.distributed.work import Work
from stopctl.store import Reader

ROWS, EPOCHS = 24, 3  # of the program
FOUND = "cannot go on there, as nobody knows which rows are left"


def starts(fleet, work, *sizes, at="batch 2 3"):
    """Start so many ranks after one another; the last of all but the last start is killed at a place of its epoch."""
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        plan = [] if last else [{"start": number, "rank": size - 1, "at": at, "do": "kill"}]
        start = fleet.start(work, size, plan)
        codes = start.finish()
        assert last or codes[size - 1] == -9, start.output()
    return codes, start.output()


def resumed(work):
    return [line for line in Reader(work.path / "run").journal() if line["event"] == "resume"]


def trained(work, *, counted=True):
    """How often each row was trained, by epoch, without what a later start has done again."""
    steps = [int(line["checkpoint"].split("-step-")[1][:9]) for line in resumed(work)]
    rows = {epoch: Counter() for epoch in range(1, EPOCHS + 1)}
    for start in range(work.starts):
        kept = min([*steps[start:], 10**9])
        for rank, told in work.told("rows", start).items():
            for epoch, _, batch, _ in [each for each in told if each[1] < kept]:
                rows[epoch].update(batch if counted or not rank else [])
    return rows


ONCE = {epoch: Counter(range(ROWS)) for epoch in range(1, EPOCHS + 1)}


@pytest.mark.parametrize("sizes", [(2, 1), (2, 3, 1), (1, 2)], ids=str)
def test_ranks_of_another_number_go_on_inside_the_epoch_with_the_rows_that_are_left(fleet, tmp_path, sizes):
    work = Work(tmp_path, program="share_program")
    codes, output = starts(fleet, work, *sizes)
    assert set(codes.values()) == {0}, output
    assert trained(work) == ONCE
    assert all("given_up" not in line for line in resumed(work))
    assert "WARNING" not in output


@pytest.mark.parametrize(
    ("kind", "sizes", "at"),
    [
        ("accelerate", (2, 1, 1, 2), "batch 2 3"),
        ("accelerate seedable", (2, 1, 1, 2), "batch 2 3"),
        ("accelerate split", (3, 2), "batch 2 2"),
        ("accelerate", (1, 2), "batch 2 3"),
        ("accelerate seedable", (1, 2), "batch 2 1"),  # between two epochs: a new rank counts as rank 0 does
    ],
    ids=str,
)
def test_loaders_of_accelerates_share_out_what_is_left(fleet, tmp_path, kind, sizes, at):
    work = Work(tmp_path, {"SOURCE": kind}, program="share_program")
    codes, output = starts(fleet, work, *sizes, at=at)
    assert set(codes.values()) == {0}, output
    assert trained(work) == ONCE
    assert all("given_up" not in line for line in resumed(work))
    assert "WARNING" not in output


def test_a_new_rank_draws_what_nobody_has_drawn(fleet, tmp_path):
    work = Work(tmp_path, program="share_program")
    starts(fleet, work, 1, 2)
    first = {each[3] for each in work.told("rows", 0)[0]}
    zero, one = ({each[3] for each in told} for told in work.told("rows", 1).values())
    assert len(zero) == len(one) > 0
    assert not one & (zero | first)


def test_indices_go_on_with_any_number_of_ranks(fleet, tmp_path):
    work = Work(tmp_path, {"SOURCE": "indices"}, program="share_program")
    codes, output = starts(fleet, work, 2, 1)
    assert codes == {0: 0}, output
    assert trained(work, counted=False) == ONCE


def test_where_nobody_knows_the_rows_the_newest_checkpoint_between_two_epochs_is_used(fleet, tmp_path):
    work = Work(tmp_path, {"SOURCE": "random", "EVERY": "4"}, program="share_program")
    codes, output = starts(fleet, work, 2, 1, at="batch 2 11")
    assert codes == {0: 0}, output
    (line,) = resumed(work)
    assert line["checkpoint"].startswith("epoch-0001-step-000000012-")
    assert FOUND in line["given_up"]
    assert line["given_up"].startswith("epoch-0001-step-000000020-")
    aside = [line for line in Reader(work.path / "run").journal() if line["event"] == "set_aside"]
    assert [line["name"][:25] for line in aside] == ["epoch-0001-step-000000020", "epoch-0001-step-000000016"]
    assert "is left for epoch-0001-step-000000012" in output
    assert trained(work)[1] == ONCE[1] + ONCE[1]  # two ranks, each with an order of its own


@pytest.mark.parametrize("allow", ["", "1"])
def test_without_one_it_is_refused_unless_the_position_is_given_up(fleet, tmp_path, allow):
    work = Work(tmp_path, {"SOURCE": "random"}, program="share_program")
    start = fleet.start(work, 2, [{"start": 0, "rank": 1, "at": "batch 1 4", "do": "kill"}])
    start.finish()
    work.settings["ALLOW"] = allow
    start = fleet.start(work, 1)
    codes = start.finish()
    if not allow:
        assert codes == {0: 1}
        assert work.told("error", 1)[0][0] == "MismatchError"
        assert (
            f"2 ranks inside epoch 1, after batch 3 of each; 1 {FOUND}, and none was saved" in start.output()
        )
        return
    assert codes == {0: 0}, start.output()
    assert [line["given_up"] for line in resumed(work)] == ["after batch 3 of epoch 1"]
