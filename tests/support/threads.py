"""TensorFlow on one thread, as tests have it: set before anything makes a tensor, also while modules are imported."""

from __future__ import annotations

import tensorflow as tf


def one_thread() -> None:
    """Have operations run on one thread, one after the other."""
    threads = tf.config.threading
    if threads.get_intra_op_parallelism_threads() != 1:
        threads.set_intra_op_parallelism_threads(1)
    if threads.get_inter_op_parallelism_threads() != 1:
        threads.set_inter_op_parallelism_threads(1)
