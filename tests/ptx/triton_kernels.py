"""Compiles four kernels by Triton, without a GPU, and writes their PTX beside this file."""

# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import re
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    tl.store(z + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def softmax(x, y, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    m = i < columns
    v = tl.load(x + row * columns + i, mask=m, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * columns + i, e / tl.sum(e, 0), mask=m)


@triton.jit
def matmul(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    r = tl.program_id(0) * M + tl.arange(0, M)
    s = tl.program_id(1) * N + tl.arange(0, N)
    t = tl.arange(0, K)
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, k, K):
        d = start + t
        left = tl.load(a + r[:, None] * k + d[None, :], mask=(r[:, None] < m) & (d[None, :] < k), other=0.0)
        right = tl.load(b + d[:, None] * n + s[None, :], mask=(d[:, None] < k) & (s[None, :] < n), other=0.0)
        total = tl.dot(left, right, total)
    tl.store(c + r[:, None] * n + s[None, :], total, mask=(r[:, None] < m) & (s[None, :] < n))


@triton.jit
def histogram(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    tl.atomic_add(y + tl.load(x + i, mask=m, other=0), 1, mask=m)


FLOATS = dict.fromkeys("xyz", "*fp32")
JOBS = (
    (add, {**FLOATS, "n": "i32"}, {"BLOCK": 256}),
    (softmax, {"x": "*fp32", "y": "*fp32", "columns": "i32"}, {"BLOCK": 256}),
    (
        matmul,
        {"a": "*fp16", "b": "*fp16", "c": "*fp32", "m": "i32", "n": "i32", "k": "i32"},
        {"M": 64, "N": 64, "K": 32},
    ),
    (histogram, {"x": "*i32", "y": "*i32", "n": "i32"}, {"BLOCK": 256}),
)

if __name__ == "__main__":
    for kernel, types, constants in JOBS:
        source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constexprs=constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 2})
        text = re.split(r"\n\s*\.section\s+\.debug", made.asm["ptx"])[0]
        text = re.sub(
            r"^\s*\.(?:file|loc)\b.*$\n?|^\$L__tmp\d+:\n?|[ \t]+// [^\n]*\.py[^\n]*|[ \t]+$", "", text, flags=re.M
        )
        Path(__file__).with_name(f"triton_{made.metadata.name}.ptx").write_text(text)
