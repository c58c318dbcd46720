"""Loaders of other frameworks are refused with what to write in a JAX program."""

from __future__ import annotations

import pytest

from stopctl import Indices, SettingError

jax = pytest.importorskip("jax")

from stopctl_jax import JaxState  # noqa: E402


def tf_dataset():
    return type(
        "MapDataset",
        (),
        {"__module__": "tensorflow.python.data.ops.map_op", "__iter__": lambda self: iter(())},
    )()


def torch_loader():
    return pytest.importorskip("torch").utils.data.DataLoader([1, 2])


@pytest.mark.parametrize(("make", "told"), [(tf_dataset, "tf.data"), (torch_loader, "StatefulDataLoader")])
def test_a_loader_of_another_framework_is_refused_with_advice(make, told):
    state = JaxState({"w": jax.numpy.ones(2)})
    with pytest.raises(SettingError, match=told) as caught:
        state.batches(make(), None)
    assert "stopctl.Indices(len(x), batch_size=64, seed=0)" in str(caught.value)
    assert "grain" in str(caught.value)


def test_what_every_run_takes_is_left_to_it():
    state = JaxState({"w": jax.numpy.ones(2)})
    assert [state.batches(each, None) for each in (Indices(4), [1, 2], range(3))] == [None] * 3
