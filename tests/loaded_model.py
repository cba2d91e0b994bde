"""A GPT-2 of two layers in f64, and a batch for it."""

from __future__ import annotations

import numpy as np

import core

DIMS = {"B": 2, "T": 9, "S": 16, "V": 50, "P": "pad(V, 64)", "C": 24, "H": 4, "L": 2}
RNG = np.random.default_rng(1)
TOKENS = RNG.integers(0, 50, (2, 9))
TARGETS = np.where(RNG.random((2, 9)) < 0.2, -1, RNG.integers(0, 50, (2, 9)))


def tiny(**options):
    return core.load("gpt2_124m", **{"dims": DIMS, "precision": "f64", **options})


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
