"""The table of what strict mode finds, and of what it does not, in docs/checks.md: a kernel for every row of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.sim import KernelError
from core.sim.faults import KINDS

PAGE = (Path(__file__).parents[2] / "docs/checks.md").read_text("utf-8")
HEAD = """
__device__ unsigned count;
__device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
extern "C" __global__ void k(float* y, float* x) {
    __shared__ alignas(128) float s[64], other[64];
    __shared__ struct { float a[32], b[32]; } pair;
    __shared__ float rows[2][32];
    __shared__ bool last;
    int t = threadIdx.x, i = blockIdx.x * 64 + threadIdx.x;
"""
SET = "s[t] = t; other[t] = t; if (t < 32) pair.a[t] = pair.b[t] = 1; rows[t / 32][t % 32] = t; __syncthreads();"
FILL = 'asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(s + t)), "l"(x + t) : "memory");'
BULK = (
    'if (t == 0) { asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 128;" :: "l"(y), "r"(at(s)) '
    ': "memory"); asm volatile("cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;" ::: "memory"); }'
)
# words of a row -> (what 64 threads of each of two thread blocks do, the kind; "" where it is not found)
ROWS = {
    "that no barrier, mbarrier, or flag": (f"{SET} s[t] = 2; y[i] = s[63 - t];", "race"),
    "lanes of one warp without": (f"{SET} s[t] += s[t ^ 1]; __syncthreads(); y[i] = s[t];", "race"),
    "write different values": (f"{SET} s[t / 2] = t; __syncthreads(); y[i] = s[t];", "race"),
    "that nothing has written": ("y[i] = s[t];", "uninitialised"),
    "from one shared variable": (f"{SET} y[i] = s[t + 1] + other[t];", "out of bounds"),
    "half a thread block, or half": (f"{SET} if (t < 40) {{ __syncthreads(); }} y[i] = s[t];", "divergent"),
    "part of a warp at a barrier": (
        f'{SET} if (t % 32 < 16) asm volatile("bar.sync 1, 32;" ::: "memory"); y[i] = s[t];', "divergent"),
    "depends on the order": ("atomicAdd(y, x[i]);", "order"),
    "still fills or reads": (f"{FILL} y[i] = s[t];", "in flight"),
    "that has `griddepcontrol.wait`": (
        'y[i] = x[i]; asm volatile("griddepcontrol.wait;" ::: "memory");', "early access"),
    "written by stores and read by a bulk": (f"{SET} if (blockIdx.x == 0) {BULK}", "proxy fence"),
    "that exits while its own copy": (f"{SET} {FILL}", "exit in flight"),
    "over the end of a row": (f"{SET} y[i] = rows[0][t] + pair.a[t];", ""),
    "leaves a buffer by so much": ("if (t == 0 && blockIdx.x == 0) y[x - y] = 1;", ""),
    "unordered `volatile` accesses of different": (
        f"{SET} ((volatile float*)s)[t] = 1; y[i] = ((volatile float*)s)[t ^ 32];", ""),
    "a fence by one lane": (
        "if (t < 32) x[i] = t; if (t == 0) { __threadfence(); last = atomicAdd(&count, 1); __threadfence(); } "
        "__syncthreads(); if (last && t < 32) y[t] = x[t] + x[64 + t];", ""),
    "the first guess of a loop": (
        "int *p = (int*)y, old = *p, was; do { was = old; old = atomicCAS(p, was, was + 1); } while (was != old);", ""),
    "in different iterations of a loop": (
        "\n#pragma unroll 1\nfor (int k = 0; k < int(x[0]) + 40; k++) if (k % 2 == t / 32) __syncthreads();", ""),
    "read before anything wrote": ("y[i] += 1;", ""),
}  # fmt: skip
ELSEWHERE = {  # rows that other files prove, with a test that does
    "a `wgmma` without `wgmma.fence`": "test_sim_async.py: test_a_wgmma_needs_a_fence_after_any_access",
    "registers of a `wgmma`": "test_sim_async.py: test_a_broken_asynchronous_kernel_is_reported",
    "PTX without its source": "test_sim_barriers.py: test_without_its_source",
    "beyond the rules of PTX": "",
}


def rows() -> list[str]:
    section = PAGE.split("## Faults that the simulator detects")[1].split("## ")[0]
    heads = ("fault that strict mode", "--")
    return [row for row in re.findall(r"^\| (.*) \|$", section, re.M) if not row.startswith(heads)]


def test_every_row_of_the_table_has_its_kernel():
    for words in (*ROWS, *ELSEWHERE):
        assert sum(words in row for row in rows()) == 1, words
    assert len(rows()) == len(ROWS) + len(ELSEWHERE)
    for row in rows():
        kind = re.search(r"\| `([\w ]+)`$", row)
        told = next((k for words, (_, k) in ROWS.items() if words in row), None)
        assert told in (None, kind[1] if kind else ""), row
    for proof in filter(None, ELSEWHERE.values()):
        file, _, test = proof.partition(": ")
        assert f"def {test}" in next(Path(__file__).parents[1].rglob(file)).read_text("utf-8"), proof


@pytest.mark.parametrize("words", ROWS)
def test_strict_mode_finds_what_the_table_says_and_nothing_else(words):
    body, kind = ROWS[words]
    x = (np.random.default_rng(0).standard_normal(128) * 10.0 ** (np.arange(128) % 8)).astype(np.float32)
    arguments = [np.zeros(128, np.float32), x]
    if not kind:
        core.sim.run(f"{HEAD}    {body}\n}}", "k", 2, 64, arguments)
        return
    with pytest.raises(KernelError) as caught:
        core.sim.run(f"{HEAD}    {body}\n}}", "k", 2, 64, arguments)
    assert caught.value.kind == kind, str(caught.value)


# the argument of a call that is its fault's kind
PLACES = {"fault": 1, "_fault": 2, "report": 2, "hopeless": 1, "_said": 0}


def raised() -> set[str]:
    """The kinds that the simulator's sources raise, as far as they are written out."""
    calls = (
        node
        for path in (Path(core.sim.__file__).parent).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    )
    kinds = []
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        kinds += [word.value for word in call.keywords if word.arg == "kind" and name == "KernelError"]
        kinds += call.args[PLACES[name] :][:1] if name in PLACES else []
    return {one.value for one in kinds if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_every_kind_of_fault_is_in_the_list_of_kinds() -> None:
    on_page = set(re.findall(r"^\|.*\| `([a-z ]+)` \|$", PAGE, re.M))
    assert on_page and on_page <= set(KINDS)
    assert raised() - {""} == set(KINDS)  # "" of a function that has the kind itself
