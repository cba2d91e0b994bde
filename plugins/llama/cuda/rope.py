"""Rotary positions on CUDA: a pair a thread, and a table of angles for a thread block. Kernels: rope.cu.

The frequencies come from the reference, as a table that the kernels are compiled with, in 2^-64 turns a position:
position * step wraps around with each turn, so that an angle is exact at any position.
"""

import math

import numpy as np

from core import Variant, cdiv, i32, u64
from core.kernels.width import defined, width

from ..rope import frequencies

THREADS = 128


def table(t):
    """The macros of angle.cuh: the frequencies as an initializer of a C array of u64, and the form of a head."""
    turns = [round(w / (2 * math.pi) * 2**64) % 2**64 for w in frequencies(t).tolist()]
    define = {"STEPS": "{" + ",".join(f"{turn}ull" for turn in turns) + "}"}
    if t.width != t.D:
        define["COLUMNS"] = t.D
    if t.pairs == "neighbours":
        define["NEIGHBOURS"] = 1
    if t.gain != 1:
        define["GAIN"] = f"{float(np.float32(t.gain))!r}f"
    return define


class RopeNaive(Variant):
    op, name, priority = "rope", "naive", 0
    can_add = ("qkv",)
    inplace = {"dqkv": "dy"}

    def forward(self, t, launch):
        self.turn(t, launch, t.y, t.qkv, t.start, i32(1), i32(0))

    def backward(self, t, launch):
        self.turn(t, launch, t.dqkv, t.dy, None, i32(-1), i32(t.add_dqkv))

    def turn(self, t, launch, y, x, *how):
        pairs = t.B * t.T * t.E // 2
        arguments = (y, x, *how, u64(pairs), i32(t.T), i32(t.heads + t.kv_heads), i32(t.E // t.D))
        launch("naive_turn", *arguments, grid=cdiv(pairs, THREADS), block=THREADS, define=table(t))


class RopeToken(RopeNaive):
    name, priority = "token", 10
    examples = [
        {"qkv": (2, 3, 5 * 80), "heads": 3, "kv_heads": 1},
        {"qkv": (1, 3, 3 * 48), "heads": 1, "width": 16},  # 16 bytes of columns that pass through
    ]

    def turn(self, t, launch, y, x, *how):
        arguments = (y, x, *how, i32(t.T), i32(t.heads + t.kv_heads), i32(t.E // t.D))
        wide = 1 if t.pairs == "neighbours" else math.gcd(t.D // 2, t.width // 2)
        define = {**table(t), **defined(width(wide, x))}
        launch("token_turn", *arguments, grid=t.B * t.T, block=THREADS, define=define)
