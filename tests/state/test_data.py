"""The component that tells where a run stands inside its data; what run.batches() does is in test_passes.py."""

from __future__ import annotations

import numpy as np
import pytest

from stopctl import Run, SettingError, StateError
from stopctl.ports import Leaf
from stopctl.state.arrays import array_leaf, detached
from stopctl.state.data import DATA, Feed, Position, Rows
from stopctl.state.rng import SharedGenerators
from stopctl.store import Reader


def feed(number=3, done=0):
    made = Feed(Rows([1, 2, 3]), SharedGenerators(), source="list", number=number, limit=None)
    made.begin()
    made.done = done
    return made


def test_inside_a_pass_it_names_the_next_batch_and_where_the_generators_stand():
    tree = feed(done=2).tree()
    position = Position.of(tree, 2)
    assert (position.epoch, position.done, position.source, position.length) == (3, 2, "list", 3)
    assert (position.saved, set(position.generators)) == (None, {"python", "numpy"})
    assert position.tree().keys() == tree.keys()
    assert Position.of({**tree, "drop": 7}, 2).tree().keys() == tree.keys()  # as the first versions wrote it


def test_between_two_passes_it_names_the_next_one():
    left = feed(done=3)
    left.leave()
    position = Position.of(left.tree(), 3)
    assert (position.epoch, position.done, position.generators) == (4, 0, None)


def test_a_frozen_position_stays():
    stopped = feed(done=1)
    stopped.freeze()
    stopped.done = 2
    assert (stopped.tree()["done"], list(stopped)) == (1, [])


class Shared(Rows):
    """Whose rest is another number of batches, as where other ranks go on."""

    elastic = True

    def __init__(self, source, left):
        super().__init__(source)
        self.left = left

    def resume(self, epoch, done, saved):
        self.length = done + self.left
        return iter(range(self.left))


@pytest.mark.parametrize("left", [1, 2, 4, 5])
def test_a_pass_whose_rest_is_shared_out_anew_ends_with_the_last_batch_of_it(left):
    batches = Shared([0] * 6, left)
    made = Feed(batches, SharedGenerators(), source="list", number=1, limit=None, group=4)
    made.resume(Position(1, 2, "list", 6, None, detached(SharedGenerators().capture()), elastic=True))
    ends = []
    for _ in made:
        made.done += 1
        ends.append((made.ended, made.whole(made.done)))
    assert ends == [(n == 2 + left, n == 2 + left or n % 4 == 0) for n in range(3, 3 + left)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"done": -1}, "no position inside the data"),
        ({"done": True}, "no position inside the data"),
        ({"epoch": "3"}, "no position inside the data"),
        ({"length": 1.5}, "no position inside the data"),
        ({"source": None}, "no position inside the data"),
        ({"more": 1}, "no position inside the data"),
        ({"epoch": 4}, "belongs to epoch 4, not to 3"),
    ],
)
def test_what_is_no_position_is_refused(change, text):
    with pytest.raises(StateError, match=text):
        Position.of({**feed(done=2).tree(), **change}, 2)
    with pytest.raises(StateError, match="no position"):
        Position.of([change], 2)


def test_a_detached_tree_is_in_memory_of_its_own_and_tied_to_nothing():
    array = np.arange(3)
    leaf = Leaf("I64", (3,), array.data, key="tied")
    tree = detached({"a": [leaf, (leaf, 1)], "b": "text"})
    array[:] = 9
    assert bytes(tree["a"][0].data) == np.arange(3).tobytes()
    assert (tree["a"][0].key, type(tree["a"][1]), tree["b"]) == (None, tuple, "text")
    assert array_leaf(array, "x").shape == (3,)


def test_the_component_is_there_only_where_batches_are_used(tmp_path):
    for name, used in (("one", False), ("two", True)):
        with Run(tmp_path / name, state={"w": 0}, durability="process") as run:
            for _ in run.epochs(1):
                if used:
                    list(run.batches([1, 2]))
                run.report(val_loss=1.0)
        (info,) = Reader(tmp_path / name).list().good
        assert (DATA in info.components) == used


def test_a_run_from_before_goes_on_where_batches_are_new(tmp_path):
    with Run(tmp_path, state={"w": 0}, durability="process") as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    with Run(tmp_path, state={"w": 0}, durability="process") as run:
        for epoch in run.epochs(2):
            assert (epoch, list(run.batches([1, 2]))) == (2, [1, 2])
            run.report(val_loss=1.0)


def test_the_names_of_the_run_are_reserved(tmp_path):
    with pytest.raises(SettingError, match="'run.data'.*'rng.' and 'run.' are reserved"):
        Run(tmp_path, state={"run.data": 1})
