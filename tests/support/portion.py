"""A portion of many tests for whoever runs the suite; the others run where ``-m long`` asks for them, as CI does."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def mostly_long(values: Iterable[Any], few: Container[Any]) -> list[Any]:
    """Parameters of a test, those that are not among the ``few`` marked as long."""
    return [pytest.param(each, marks=[] if each in few else pytest.mark.long) for each in values]
