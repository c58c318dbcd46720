"""The proof: what is saved once is equal on all ranks, bit by bit, or all raise the same error."""

from __future__ import annotations

import pytest

from stopctl.core.errors import TeamError, TreeError
from stopctl.store import Leaf, Piece, Sharded
from stopctl.team.proof import prove_shared
from stopctl.team.ranks import Ranks
from support.teams import together


class Held:
    """Arrays by name, of which some may differ."""

    def __init__(self, arrays, loose=(), found=()):
        self.arrays = arrays
        self.known, self.found = set(loose), set(found)

    def __getattr__(self, name):  # all of the rest of a State; nobody calls it
        return None

    def shared(self):
        return {"model": self.arrays, "left": None}

    def loose(self, names, *, search=False):
        return self.known | (self.found if search else set())

    def remedy(self, names):
        return f"wrap {len(names)}"


def leaf(*values):
    return Leaf("U8", (len(values),), bytes(values))


def piece(rank, value):
    return Sharded("U8", (2,), [Piece((rank,), (1,), bytes([value]))])


def proved(*states):
    """What each rank raises, None where the proof holds."""
    return together(len(states), lambda team: prove_shared(Ranks(team), states[team.rank], ()))


@pytest.mark.parametrize(
    "states",
    [
        [Held({"a": leaf(1, 2)}), Held({"a": leaf(1, 2)})],
        [Held({"a": leaf(1)}, loose={"model/a"}), Held({"a": leaf(2)}, loose={"model/a"})],
        [Held({"a": leaf(1)}), Held({"a": leaf(2)}, found={"model/a"})],
        [Held({"a": piece(0, 1)}), Held({"a": piece(1, 2)})],
        [Held({}), Held({})],
    ],
    ids=["equal", "loose", "found to be loose", "in pieces", "nothing"],
)
def test_what_is_equal_or_may_differ_is_heard_of_by_nobody(states):
    assert proved(*states) == [None, None]


def test_what_differs_is_named_on_all_ranks_alike():
    ours, theirs = ({name: leaf(value) for name in "abcde"} for value in (1, 2))
    found = proved(Held(ours), Held(ours), Held(theirs | {"e": leaf(1)}))
    assert {type(error) for error in found} == {TeamError}
    assert {str(error) for error in found} == {
        "model/a, model/b, model/c and 1 more differ on ranks 0 and 2, but saved once, as on rank 0: wrap 4"
    }
    one = proved(Held({"a": leaf(1)}), Held({"a": leaf(3)}))
    assert str(one[1]).startswith("model/a differs on ranks 0 and 1, ")


@pytest.mark.parametrize("other", [{"b": leaf(1)}, {"a": leaf(1, 1)}, {}], ids=["name", "shape", "none"])
def test_other_names_and_shapes_are_refused(other):
    found = proved(Held({"a": leaf(1)}), Held(other))
    assert [type(error) for error in found] == [TreeError, TreeError]
    assert "rank 1 has other arrays than rank 0" in str(found[0])


def test_one_process_and_a_state_that_cannot_tell_prove_nothing():
    assert prove_shared(Ranks(), Held({"a": 1}), ()) is None
    assert together(2, lambda team: prove_shared(Ranks(team), object(), ())) == [None, None]
