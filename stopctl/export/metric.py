"""The user's own metric on the weights before and after: what rounding costs where it counts."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from stopctl.core.errors import SettingError, StopctlError
from stopctl.core.values import number
from stopctl.export.read import Arrays

Metric: TypeAlias = Callable[[Arrays], Any]
"""Weights by name (NumPy, floats as float32) -> one number, or a dict of numbers by name."""


def metric(spec: str) -> Metric:
    """The function that ``"module:function"`` names, looked for in the current directory first.

    Raises:
        SettingError: not of that form, no such module or function, or an error in the module.
    """
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise SettingError(f"{spec!r} is no module:function, such as judge:accuracy for a judge.py here")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise SettingError(f"{spec}: {module} cannot be imported: {error}") from error
        raise SettingError(f"{spec}: there is no module {module}, neither in {here} nor installed") from error
    except Exception as error:
        raise SettingError(f"{spec}: {module} cannot be imported: {_sentence(error)}") from error
    for part in name.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise SettingError(f"{spec}: {module} has no function {name}")
    function: Metric = target
    return function


def scores(function: Metric, arrays: Arrays, name: str = "") -> dict[str, float]:
    """What the function says of the weights, by name; one number is called ``name``.

    Raises:
        StopctlError: the function raised; says what and in which line.
        MetricError: something else than numbers.
    """
    try:
        result = function(arrays)
    except Exception as error:
        raise StopctlError(f"{name or 'the metric'} failed: {_sentence(error)}") from error
    by_name = result if isinstance(result, Mapping) else {name or "value": result}
    return {str(key): float(number(value, str(key))) for key, value in by_name.items()}


def _sentence(error: Exception) -> str:
    """``ValueError: text (judge.py, line 12)``: the user's own innermost line, where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path.cwd())
    for frame in reversed(frames):
        if frame.filename.startswith(here):
            return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {error}"
