"""The copies of a variable: what they are worth together, which are saved by themselves, how they come back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.distribute import values

from stopctl.ports import leaf_array
from stopctl_keras.table import compare, rows
from stopctl_tf import replicas, strategies
from stopctl_tf.table import assign, encode, unfit
from stopctl_tf.walk import slots_of

KINDS = tf.VariableAggregation


def copied(kind: Any, *numbers: Any, on_read: bool = True, dtype: Any = np.float32) -> Any:
    """A variable with a copy for each number, all of them on one device, as TensorFlow makes it on several."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    made = values.SyncOnReadVariable if on_read else values.MirroredVariable
    policy = values.OnReadPolicy(kind) if on_read else values.OnWritePolicy(kind)
    kinds = {"aggregation": kind, "trainable": False}
    if on_read:
        kinds["synchronization"] = tf.VariableSynchronization.ON_READ
    copies = [tf.Variable(np.asarray(number, dtype), **kinds) for number in numbers]
    return made(strategy, copies, kind, var_policy=policy)


def mirrored(*numbers: Any, dtype: Any = np.float32) -> Any:
    return copied(KINDS.NONE, *numbers, on_read=False, dtype=dtype)


def now(variable: Any) -> list[Any]:
    return [copy.numpy().tolist() for copy in replicas.copies(variable)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [(KINDS.SUM, 6.0), (KINDS.MEAN, 3.0), (KINDS.ONLY_FIRST_REPLICA, 1.0), (KINDS.NONE, 1.0)],
)
def test_a_variable_read_from_several_copies_is_worth_what_tensorflow_reads(kind: Any, value: float) -> None:
    variable = copied(kind, 1.0, 5.0)
    leaf = replicas.worth(variable, "v")
    assert leaf_array(leaf).item() == value
    assert leaf.key == ("tf.Variable", id(variable))
    assert [leaf_array(each).item() for each in replicas.apart(variable, "v").values()] == [1.0, 5.0]


def test_copies_of_a_mirrored_variable_are_saved_where_any_bit_differs() -> None:
    assert replicas.apart(mirrored([1.0, np.nan], [1.0, np.nan]), "v") == {}
    assert replicas.apart(mirrored([], []), "v") == {}
    assert set(replicas.apart(mirrored([0.0], [-0.0]), "v")) == {"0", "1"}
    assert set(replicas.apart(mirrored([1.0], [1.5], dtype=ml_dtypes.bfloat16), "v")) == {"0", "1"}
    assert replicas.apart(tf.Variable(1.0), "v") == {}


@pytest.mark.parametrize("kind", [KINDS.SUM, KINDS.MEAN, KINDS.ONLY_FIRST_REPLICA, KINDS.NONE])
def test_as_many_copies_come_back_each_with_its_own_value(kind: Any) -> None:
    for variable in (copied(kind, 1.0, 5.0), mirrored(1.0, 5.0)):
        leaf, each = replicas.worth(variable, "v"), replicas.apart(variable, "v")
        for copy in replicas.copies(variable):
            copy.assign(9.0)
        assert replicas.misfit(variable, leaf, {**each}) is None
        replicas.put(variable, leaf, each)
        assert now(variable) == [1.0, 5.0]


def test_another_number_of_copies_gets_the_value_that_stands_for_all() -> None:
    leaf = replicas.worth(tf.Variable(6.0), "v")
    for kind, found in (
        (KINDS.SUM, [6.0, 0.0]),
        (KINDS.MEAN, [6.0] * 2),
        (KINDS.ONLY_FIRST_REPLICA, [6.0] * 2),
    ):
        variable = copied(kind, 1.0, 5.0)
        replicas.put(variable, leaf, {})
        assert now(variable) == found
        assert leaf_array(replicas.worth(variable, "v")).item() == 6.0
    variable, three = mirrored(1.0, 5.0), mirrored(6.0, 7.0, 8.0)
    replicas.put(variable, replicas.worth(three, "v"), replicas.apart(three, "v"))
    assert now(variable) == [6.0, 6.0]


def test_what_nothing_stands_for_is_refused_in_another_number() -> None:
    variable, three = copied(KINDS.NONE, 1.0, 5.0), copied(KINDS.NONE, 1.0, 2.0, 3.0)
    leaf, each = replicas.worth(three, "v"), replicas.apart(three, "v")
    told = replicas.misfit(variable, leaf, {**each})
    assert told is not None
    assert told.startswith("saved in 3 replicas, given 2, and aggregation=NONE")
    assert replicas.misfit(mirrored(1.0, 2.0), leaf, {**each}) is None


def test_copies_that_are_no_arrays_of_that_variable_are_told() -> None:
    variable = mirrored(1.0, 5.0)
    leaf, each = replicas.worth(variable, "v"), replicas.apart(variable, "v")
    assert replicas.misfit(variable, leaf, "copies") == "saved copies are no table"
    wrong = replicas.worth(tf.Variable([1.0]), "v")
    assert replicas.misfit(variable, leaf, {**each, "1": wrong}) == "saved copy 1 is no F32 ()"
    assert replicas.misfit(variable, leaf, {**each, "1": None}) == "saved copy 1 is no F32 ()"


def test_a_list_of_variables_takes_its_copies_along() -> None:
    things = [mirrored(1.0, 5.0), tf.Variable(2.0), copied(KINDS.SUM, 3.0, 4.0)]
    slots = slots_of(things, "extra")
    tree = encode(slots, "extra")
    assert list(tree) == ["0.[0]", "1.[1]", "2.[2]", "paths", "replicas"]
    assert set(tree["replicas"]) == {"0.[0]", "2.[2]"}  # type: ignore[arg-type]
    for slot in slots:
        replicas.put(slot.raw, replicas.worth(tf.Variable(9.0), "v"), {})
    saved = rows(tree)
    assert saved is not None
    assert compare(saved, slots, "extra") == unfit(tree, slots, "extra") == []
    assign(tree, slots)
    assert [now(thing) for thing in things] == [[1.0, 5.0], [2.0], [3.0, 4.0]]
    assert unfit({**tree, "replicas": {"0.[0]": []}}, slots, "extra") == [
        "extra/0: [0] [extra[0]]: saved copies are no table"
    ]
    assign({**tree, "replicas": None}, slots)
    assert [now(thing) for thing in things] == [[1.0, 1.0], [2.0], [7.0, 0.0]]


def test_the_share_of_one_worker_is_marked_and_goes_to_as_many_workers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = slots_of([copied(KINDS.SUM, 3.0), copied(KINDS.ONLY_FIRST_REPLICA, 3.0), mirrored(1.0)], "extra")
    assert "shares" not in encode(slots, "extra")
    monkeypatch.setattr(strategies, "workers_of", lambda variable: 2)
    tree = encode(slots, "extra")
    assert tree["shares"] == {"workers": 2, "names": ["0.[0]"]}
    assert unfit(tree, slots, "extra") == []
    monkeypatch.setattr(strategies, "workers_of", lambda variable: 3)
    assert unfit(tree, slots, "extra") == [
        "extra/0: [0] [extra[0]]: each of 2 workers has saved its share alone, and 3 cannot put them together: "
        "start as many, or leave it out with allow_missing={'extra'}"
    ]
