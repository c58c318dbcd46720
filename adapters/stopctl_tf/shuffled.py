"""Data in an order that is a function of (seed, epoch): a resumed run sees what it would have seen."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stopctl import SettingError


def epoch_shuffled(*arrays: Any, seed: int, epoch: Any, batch_size: int, drop_remainder: bool = False) -> Any:
    """Batches of all rows, in an order that ``(seed, epoch)`` alone decides.

    ``tf.data``'s own ``shuffle`` hides its position, and ``model.fit`` opens two iterators an epoch, so
    counting does not bring it back. Here each pass over the dataset reads ``epoch`` when it begins and draws
    ``tf.random.experimental.stateless_shuffle(range(n), [seed, epoch])``: a run that resumes at epoch 7 gets
    epoch 7's order. In the middle of an epoch, ``.skip(batches_done)`` goes on at the next batch. To
    ``model.fit`` pass ``shuffle=False`` with it: Keras warns otherwise, though it does not shuffle datasets.

    Args:
        arrays: Arrays or tensors with the same number of rows n (the first axis); at least one.
        seed: Any int64.
        epoch: An integer ``tf.Variable`` of shape (), assigned at the beginning of each epoch.
        batch_size: Rows a batch; the last one is smaller, or left out with ``drop_remainder=True``.
        drop_remainder: Only whole batches; gives them a static shape.

    Returns:
        A ``tf.data.Dataset`` of known cardinality: tensors for one array, tuples for several.

    Raises:
        SettingError: arrays of different lengths, an ``epoch`` that is no integer variable, a batch size
            below 1.

    Examples:
        >>> import numpy as np, tensorflow as tf
        >>> epoch = tf.Variable(1, dtype=tf.int64)
        >>> data = epoch_shuffled(np.arange(6), seed=0, epoch=epoch, batch_size=3)
        >>> first = [batch.numpy().tolist() for batch in data]
        >>> first == [batch.numpy().tolist() for batch in data]
        True
        >>> _ = epoch.assign(2)
        >>> first == [batch.numpy().tolist() for batch in data]
        False
    """
    if not isinstance(epoch, tf.Variable) or not epoch.dtype.is_integer or epoch.shape.rank != 0:
        raise SettingError(f"epoch is {epoch!r}: pass tf.Variable(1, dtype=tf.int64) and assign to it")
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}: it counts rows, from 1")
    tensors = [tf.convert_to_tensor(array) for array in arrays]
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) != 1:
        raise SettingError(f"arrays of {sorted(lengths)} rows: pass at least one, all of the same length")
    (rows,) = lengths

    def order(_: Any) -> Any:
        seeds = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
        numbers = tf.range(rows, dtype=tf.int64)
        shuffled = tf.random.experimental.stateless_shuffle(numbers, seeds, alg="philox")
        return tf.data.Dataset.from_tensor_slices(shuffled)

    def take(chosen: Any) -> Any:
        batch = tuple(tf.gather(tensor, chosen) for tensor in tensors)
        return batch if len(batch) > 1 else batch[0]

    data = tf.data.Dataset.range(1).flat_map(order).batch(batch_size, drop_remainder=drop_remainder).map(take)
    batches = rows // batch_size if drop_remainder else -(-rows // batch_size)
    return data.apply(tf.data.experimental.assert_cardinality(batches))
