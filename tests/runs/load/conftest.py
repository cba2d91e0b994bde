"""The model of the tests of `core.load`."""

from __future__ import annotations

import numpy as np
import pytest
from loaded_model import tiny


@pytest.fixture(scope="module")
def model():
    """A model whose parameters are no round numbers: nothing is 0 or 1."""
    made = tiny()
    for name, value in made.params.items():
        value += 0.1 * np.random.default_rng(len(name)).standard_normal(value.shape)
    return made
