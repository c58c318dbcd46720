"""Numbers that come in: what counts as one reported value, as a setting, as a cost."""

from __future__ import annotations

import math

from stopctl.core.errors import MetricError, ReportError, SettingError

MAX_COUNT = 1 << 53
"""No saved counter is larger: up to here float64 holds every whole number."""


def number(value: object, name: str) -> float:
    """``value`` as a float64, or a MetricError that says what to write.

    Accepted: int, float, Fraction, Decimal, and objects whose ``shape`` is ``()`` and whose ``item()``
    (or ``numpy().item()``) is an int or a float: NumPy, PyTorch, TensorFlow and JAX scalars.
    """
    if isinstance(value, bool) or not hasattr(value, "as_integer_ratio"):  # as int, float and their kin have
        value = _item(value, name)
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise MetricError(f"{name} is too large for a float64: report a smaller unit") from error
    except ValueError as error:  # a signalling NaN
        raise MetricError(f"{name}={value!r} is no number: report float('nan') for a missing one") from error


def _item(value: object, name: str) -> int | float:
    kind = type(value).__name__
    if isinstance(value, bool):
        raise MetricError(f"{name}={value} is a bool: report a number, such as float({name})")
    if isinstance(value, str | bytes):
        raise MetricError(f"{name}={value!r} is text: report a number, such as float({name})")
    shape = getattr(value, "shape", None)
    if shape is None:
        raise MetricError(f"{name} is a {kind}: report one number, such as float({name})")
    if tuple(shape) != ():
        raise MetricError(
            f"{name} is a {kind} of shape {tuple(shape)}: report one number, such as {name}.mean() or "
            f"{name}.item()"
        )
    try:
        item = value.item() if hasattr(value, "item") else value.numpy().item()  # type: ignore[attr-defined]
    except Exception as error:
        raise MetricError(f"{name} is a {kind} without a value of its own: report one number") from error
    if isinstance(item, bool) or not isinstance(item, int | float):
        raise MetricError(f"{name} is a {kind} of {type(item).__name__}: report one real number")
    return item


def setting(value: object, where: str, *, positive: bool = False) -> float:
    """A finite float parameter of a rule, or a SettingError naming ``where``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingError(f"{where}={value!r}: write a finite number")
    if positive and value <= 0:
        raise SettingError(f"{where}={value!r}: write a number > 0")
    return float(value)


def cost(value: object, where: str) -> float:
    """Seconds that something took, or a ReportError naming ``where``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
        raise ReportError(f"{where}={value!r}: give the finite number of seconds it took, >= 0")
    return float(value)


def count(value: object, where: str, *, least: int) -> int:
    """An int parameter >= ``least``, or a SettingError naming ``where``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingError(f"{where}={value!r}: write a whole number >= {least}")
    return value
