"""The values of Keras variables as NumPy arrays, on every backend."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np


def array_of(variable: Any) -> Any:
    """What a variable or tensor is now, in memory of its own; an array of shape () where it is a scalar.

    Under a strategy of TensorFlow it is the first copy. Later steps write to the memory of PyTorch's tensors.
    An optimizer's ``iterations`` are a tensor where it accumulates gradients.
    """
    backend = keras.backend.backend()
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if backend == "tensorflow":
        value = value.numpy()
    elif backend == "torch":
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not know; float32 holds it exactly
            return value.float().numpy().astype(ml_dtypes.bfloat16)
        value = value.numpy()
    return np.array(np.asarray(value), order="C")  # np.array alone warns of arrays that are not NumPy's
