"""Registers that hold lines, base + lane * step: the interpreter's bits, whatever wraps around, parts or diverges."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from core.sim import run
from core.sim.launching.simulator import Simulator
from core.sim.machine.address_space import Memory
from core.sim.native.executor import Linked
from core.sim.native.toolchain import compiler, machine

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")
Array = np.ndarray[Any, Any]

NARROW, WIDE, HOLDS = range(8, 24), range(8, 24), range(1, 8)
HEAD = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 k_0, .param .u32 k_1, .param .u64 k_2) {
.reg .b32 %r<24>; .reg .b64 %rd<24>; .reg .pred %p<8>;
ld.param.u64 %rd0, [k_0];
ld.param.u32 %r0, [k_1];
ld.param.u64 %rd1, [k_2];
mov.u32 %r1, %ctaid.x;
mov.u32 %r2, %ntid.x;
mov.u32 %r3, %tid.x;
mov.u32 %r4, %laneid;
mad.lo.u32 %r5, %r1, %r2, %r3;
mul.wide.u32 %rd2, %r5, 8;
add.u64 %rd2, %rd0, %rd2;
"""
OUT = """mul.wide.u32 %rd3, %r2, 8;
mov.u32 %r6, %nctaid.x;
cvt.u64.u32 %rd4, %r6;
mul.lo.u64 %rd3, %rd3, %rd4;
"""
EDGES = (0, 1, 2, 3, 5, 31, 32, 255, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFE0, 0x10000000, 0x08000000)
SHIFTS = (0, 1, 2, 3, 5, 27, 31, 32, 33, 63, 64)


def both(text: str, blocks: int, threads: int, number: int) -> Array:
    """The 64-bit results of all threads, the same on both executors."""
    count = text.count("st.global")
    table = np.arange(64, dtype=np.uint32) * np.uint32(0x01000193)
    results = []
    for executor in ("interpreter", "native"):
        out = np.zeros(count * blocks * threads, np.uint64)
        args = [out, np.uint32(number), table.copy()]
        run(HEAD + OUT + text + "ret;\n}\n", "k", blocks, threads, args, strict=False, executor=executor)
        results.append(out.reshape(count, -1))
    assert (results[0] == results[1]).all(), text
    return results[1]


def stored(registers: list[str]) -> str:
    lines = []
    for name in registers:
        if name.startswith("%rd"):
            lines.append(f"st.global.u64 [%rd2], {name};")
        elif name.startswith("%p"):
            lines += [f"selp.u64 %rd5, 1, 2, {name};", "st.global.u64 [%rd2], %rd5;"]
        else:
            lines += [f"cvt.u64.u32 %rd5, {name};", "st.global.u64 [%rd2], %rd5;"]
        lines.append("add.u64 %rd2, %rd2, %rd3;")
    return "\n".join(lines) + "\n"


def instruction(chance: random.Random) -> str:
    """One of those with a form with lines, of registers written before and edges of their types."""

    def narrow() -> str:
        kept = f"%r{chance.choice([0, 1, 3, 4, 5, *NARROW])}"
        return chance.choice([kept, kept, str(chance.choice(EDGES))])

    def wide() -> str:
        return f"%rd{chance.choice(WIDE)}"

    d, e, p = f"%r{chance.choice(NARROW)}", f"%rd{chance.choice(WIDE)}", f"%p{chance.choice(HOLDS)}"
    q, order = f"%p{chance.choice(HOLDS)}", chance.choice(["lt", "le", "gt", "ge", "eq", "ne"])
    a, shift = f"%r{chance.choice([3, 4, 5, *NARROW])}", chance.choice(SHIFTS)
    kind = chance.choice(["u32", "s32"])
    guard = chance.choice(["", "", "", f"@{q} ", f"@!{q} "])
    return guard + chance.choice([
        f"{chance.choice(['add', 'sub', 'mul.lo', 'min', 'max', 'div', 'rem'])}.{kind} {d}, {a}, {narrow()};",
        f"{chance.choice(['add', 'sub', 'mul.lo'])}.s64 {e}, {wide()}, {wide()};",
        f"mad.lo.{kind} {d}, {a}, {narrow()}, {narrow()};",
        f"mul.wide.{kind} {e}, {a}, {narrow()};",
        f"mad.wide.{kind} {e}, {a}, {narrow()}, {wide()};",
        f"cvt.{chance.choice('us')}64.{kind} {e}, {a};",
        f"cvt.u32.u64 {d}, {wide()};",
        f"{chance.choice(['and', 'or', 'xor'])}.b32 {d}, {a}, {narrow()};",
        f"and.b64 {e}, {wide()}, {chance.choice(EDGES)};",
        f"{chance.choice(['not.b32', 'neg.s32', 'mov.u32'])} {d}, {a};",
        f"{chance.choice(['shl.b32', 'shr.u32', 'shr.s32'])} {d}, {a}, {shift};",
        f"{chance.choice(['shl.b64', 'shr.u64'])} {e}, {wide()}, {shift};",
        f"setp.{order}.{kind} {p}, {a}, {narrow()};",
        f"setp.{order}.{chance.choice('us')}64 {p}, {wide()}, {wide()};",
        f"{chance.choice(['and', 'or', 'xor'])}.pred {p}, {q}, {p};",
        f"selp.b32 {d}, {a}, {narrow()}, {q};",
        f"selp.b64 {e}, {wide()}, {wide()}, {q};",
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_lines_by_chance(seed: int) -> None:
    """Straight code, loops of a few turns, and branches that part a warp."""
    chance = random.Random(seed)
    text = [f"mul.lo.u32 %r{r}, %r{chance.choice([3, 4, 5])}, {chance.choice(EDGES)};" for r in NARROW]
    text += [f"mul.wide.s32 %rd{r}, %r{chance.choice(NARROW)}, {chance.choice(EDGES)};" for r in WIDE]
    text += [f"setp.lt.u32 %p{p}, %r{chance.choice(NARROW)}, %r0;" for p in HOLDS]
    for part in range(6):
        label, around = f"L{part}", chance.choice(["", "loop", "branch"])
        if around == "loop":
            text += ["mov.u32 %r7, 0;", f"{label}:"]
        if around == "branch":
            text.append(f"@%p{chance.choice(HOLDS)} bra {label};")
        text += [instruction(chance) for _ in range(6)]
        if around == "loop":
            text += ["add.u32 %r7, %r7, 1;", "setp.lt.u32 %p0, %r7, 3;", f"@%p0 bra {label};"]
        if around == "branch":
            text.append(f"{label}:")
    text.append(stored([*(f"%r{r}" for r in NARROW), *(f"%rd{r}" for r in WIDE), *(f"%p{p}" for p in HOLDS)]))
    both("\n".join(text), 3, chance.choice([32, 64, 71]), chance.choice([7, 40]))


def test_an_index_costs_no_lanes() -> None:
    """Of y[i] = x[i] the whole index is a line, as is the branch: nothing has to be spread."""
    body = "setp.ge.u32 %p1, %r5, %r0;\n@%p1 bra E;\nst.global.u64 [%rd2], %rd2;\nE:\n"
    kernel = Simulator(HEAD + body + "ret;\n}\n", Memory()).native("k")
    assert isinstance(kernel, Linked)
    names = {number: name for name, rows in machine().rows.items() for number, _ in rows}
    forms = [names[int(op["run"])] for op in kernel.code.ops]
    assert forms.count("spread.b64") == 1  # the stored value
    assert {"bra.if.line", "st.global.b64.line"} <= set(forms)
    text = "setp.ge.u32 %p1, %r5, %r0;\n@%p1 bra E;\nst.global.u64 [%rd2], 7;\nE:\n"
    assert both(text, 2, 48, 70)[0].tolist() == [7] * 70 + [0] * 26


def test_a_value_that_all_lanes_load_or_take_from_one_lane_is_a_line() -> None:
    text = """add.u64 %rd8, %rd1, 12;
    ld.global.u32 %r8, [%rd8];
    and.b32 %r8, %r8, 63;
    add.u32 %r9, %r4, 5;
    mul.lo.u32 %r9, %r9, %r9;
    mov.u32 %r7, 0;
    mov.u32 %r11, 0;
    LOOP:
    shfl.sync.idx.b32 %r10|%p2, %r9, %r7, 31, -1;
    add.u32 %r11, %r11, %r10;
    add.u32 %r7, %r7, 1;
    setp.lt.u32 %p1, %r7, %r8;
    @%p1 bra LOOP;
    """
    got = both(text + stored(["%r8", "%r10", "%r11", "%p2"]), 1, 32, 0)
    turns = int(np.uint32(3) * np.uint32(0x01000193)) & 63
    assert got[0].tolist() == [turns] * 32
    assert got[1].tolist() == [((turns - 1) % 32 + 5) ** 2] * 32


def test_what_a_thread_block_leaves_in_a_line_is_gone_in_the_next() -> None:
    """A register that is read before it is written is 0, though its place held a line before."""
    text = """setp.eq.u32 %p1, %r1, 0;
    @%p1 mov.u32 %r8, %r3;
    add.u32 %r8, %r8, 1;
    """
    got = both(text + stored(["%r8"]), 3, 32, 0)[0].reshape(3, 32)
    assert (got[0] == np.arange(32) + 1).all()
    assert (got[1:] == 1).all()
