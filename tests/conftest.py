"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """An ExitStack that closes what a test opens: the folder of a run."""
    with ExitStack() as opened:
        yield opened
