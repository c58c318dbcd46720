"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.distributed.harness import Fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as opened:
        yield opened
