"""Random kernels in PTX text, whose results depend on no order of threads: any two executors must agree on every bit.

A kernel is drawn from a seed: arithmetic on integers and floats, nested branches that part a warp, jumps out of them,
loops with data-dependent counts, collectives of whole warps and of the lanes of one branch, barriers, shared and local
memory, vector and predicated accesses, atomics whose order cannot show, and early exits. Every thread writes all of its
registers in the end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from random_statements import ALONE, FLOATS, HEAD, INTEGERS, LONGS, WORDS, Drawn, any_of_block, collective, exchange


# --------------------------------------------------------------------------- control flow
def statements(k: Drawn, amount: int, depth: int, mask: str | None, together: bool) -> None:
    """amount: how many; mask: of the lanes that are here for sure, if that is known; together: the block's threads are
    all here."""
    for _ in range(amount):
        draw = k.chance.random()
        if draw < 0.12 and depth:
            branch(k, depth - 1, mask)
        elif draw < 0.18 and depth:
            loop(k, depth - 1)
        elif draw < 0.22 and depth and together:
            counted(k, depth - 1, mask)
        elif draw < 0.26 and depth:
            tangle(k, depth - 1)
        elif draw < 0.36 and mask is not None:
            collective(k, mask)
        elif draw < 0.42 and together:
            k.chance.choice((exchange, exchange, any_of_block))(k)
        else:
            k.chance.choice(ALONE)(k)


def branch(k: Drawn, depth: int, mask: str | None) -> None:
    """if / else; where the lanes that come are known, so are those of either side, which then meet again."""
    p, other, end = k.test(), k.label(), k.label()
    yes = no = None
    if mask is not None:
        yes, no = k.mask(), k.mask()
        k.emit(f"vote.sync.ballot.b32 {yes}, {p}, {mask};")
        k.emit(f"not.b32 {no}, {yes};")
        k.emit(f"and.b32 {no}, {no}, {mask};")
    k.emit(f"@!{p} bra {other};")
    statements(k, k.chance.randrange(1, 5), depth, yes, False)
    k.emit(f"bra {end};")
    k.lines.append(f"{other}:")
    if k.chance.random() < 0.7:
        statements(k, k.chance.randrange(1, 5), depth, no, False)
    k.lines.append(f"{end}:")
    if mask is not None:
        k.emit(f"bar.warp.sync {mask};")


def loop(k: Drawn, depth: int) -> None:
    """As many turns as a register says, left early by some lanes."""
    top, end = k.label(), k.label()
    counter = f"%c{k.counters}"
    k.counters += 1
    k.emit(f"and.b32 {counter}, {k.integer()}, {k.chance.choice((1, 3, 7))};")
    k.lines.append(f"{top}:")
    statements(k, k.chance.randrange(1, 4), min(depth, 1), None, False)
    if k.chance.random() < 0.5:
        k.emit(f"@{k.test()} bra {end};")
        statements(k, 1, 0, None, False)
    p = k.predicate()
    k.emit(f"sub.s32 {counter}, {counter}, 1;")
    k.emit(f"setp.gt.s32 {p}, {counter}, 0;")
    k.emit(f"@{p} bra {top};")
    k.lines.append(f"{end}:")


def counted(k: Drawn, depth: int, mask: str | None) -> None:
    """A loop that all threads of the block take together."""
    top, counter, p = k.label(), f"%c{k.counters}", k.predicate()
    k.counters += 1
    k.emit(f"mov.u32 {counter}, {k.chance.randrange(1, 4)};")
    k.lines.append(f"{top}:")
    again = k.full
    statements(k, k.chance.randrange(1, 5), min(depth, 1), mask, True)
    assert k.full == again
    k.emit(f"sub.s32 {counter}, {counter}, 1;")
    k.emit(f"setp.gt.s32 {p}, {counter}, 0;")
    k.emit(f"@{p} bra {top};")


def tangle(k: Drawn, depth: int) -> None:
    """Jumps that no structured program has: into the other arm of a branch, and past the point where both meet."""
    first, second, end = k.label(), k.label(), k.label()
    k.emit(f"@{k.test()} bra {first};")
    statements(k, k.chance.randrange(1, 3), depth, None, False)
    k.emit(f"@{k.test()} bra {second};")
    statements(k, 1, 0, None, False)
    k.emit(f"@{k.test()} bra {end};")
    k.lines.append(f"{first}:")
    statements(k, k.chance.randrange(1, 3), depth, None, False)
    k.emit(f"@{k.test()} bra {end};")
    k.lines.append(f"{second}:")
    statements(k, k.chance.randrange(1, 3), depth, None, False)
    k.lines.append(f"{end}:")


def leave(k: Drawn) -> None:
    """Some threads exit; the mask of those that stay is the warp's from now on."""
    p, stay = k.test(), k.mask()
    q = k.predicate()
    k.emit(f"not.pred {q}, {p};")
    k.emit(f"vote.sync.ballot.b32 {stay}, {q}, {k.full};")
    k.emit(f"@{p} {k.chance.choice(('exit', 'ret'))};")
    k.full = stay


# --------------------------------------------------------------------------- kernels
@dataclass(frozen=True)
class RandomKernel:
    """PTX text and a launch of it: `kernel(words, out, sums)`."""

    seed: int
    text: str
    grid: int
    threads: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(the input's words, what the threads write, 16 sums), fresh."""
        rng = np.random.default_rng(self.seed)
        words = rng.integers(0, 2**32, WORDS, np.uint64).astype(np.uint32)
        words[::5] %= 64
        words[1::7] = rng.standard_normal(len(words[1::7])).astype(np.float32).view(np.uint32)
        width = INTEGERS + FLOATS + 2 * LONGS
        return words, np.zeros((self.grid * self.threads, width), np.uint32), np.zeros(16, np.uint32)


def random_kernel(seed: int) -> RandomKernel:
    """The kernel of a seed."""
    chance = random.Random(seed)
    threads, grid = chance.choice((32, 32, 64, 96, 40)), chance.choice((1, 2, 5))
    k = Drawn(chance, threads)
    whole = threads % 32 == 0
    k.full = "%m0" if whole else "%m1"
    mask: str | None = k.full
    for _ in range(chance.randrange(2, 5)):
        statements(k, chance.randrange(2, 8), 2, mask, True)
    if chance.random() < 0.3:
        leave(k)
        statements(k, chance.randrange(1, 6), 2, k.full, False)
    return RandomKernel(seed, _text(k), grid, threads)


def _text(k: Drawn) -> str:
    setup = [
        "ld.param.u64 %in, [in];", "cvta.to.global.u64 %in, %in;", "ld.param.u64 %out, [out];",
        "cvta.to.global.u64 %out, %out;", "ld.param.u64 %sums, [sums];", "cvta.to.global.u64 %sums, %sums;",
        "mov.u32 %tid0, %tid.x;", "mov.u32 %t0, %ctaid.x;", f"mad.lo.s32 %r0, %t0, {k.threads}, %tid0;",
        "mov.u32 %t1, %ntid.x;", "mov.u32 %words, shared_words;", "mov.u32 %counts, shared_counts;",
        "shl.b32 %t2, %tid0, 2;", "add.s32 %mine, %words, %t2;", "mov.u64 %own, own_words;",
        "mov.u32 %m0, -1;", "activemask.b32 %m1;",
        f"mul.wide.u32 %a, %r0, {4 * (INTEGERS + FLOATS + 2 * LONGS)};", "add.s64 %out, %out, %a;",
    ]  # fmt: skip
    setup += [f"st.local.u32 [%own+{4 * i}], {i * 1000003};" for i in range(8)]
    setup += ["and.b32 %t2, %r0, 127;", "mul.wide.u32 %a, %t2, 4;", "add.s64 %a, %a, %in;"]
    setup += [f"ld.global.u32 %r{i}, [%a+{4 * 16 * i}];" for i in range(1, INTEGERS)]
    setup += [f"ld.global.f32 %f{i}, [%a+{4 + 28 * i}];" for i in range(FLOATS)]
    setup += [f"mul.wide.s32 %d{i}, %r{i + 1}, %r{i + 2};" for i in range(LONGS)]
    ends = [f"st.global.u32 [%out+{4 * i}], %r{i};" for i in range(INTEGERS)]
    ends += [f"st.global.f32 [%out+{4 * (INTEGERS + i)}], %f{i};" for i in range(FLOATS)]
    ends += [f"st.global.u64 [%out+{4 * (INTEGERS + FLOATS + 2 * i)}], %d{i};" for i in range(LONGS)]
    zeroed = ["setp.lt.u32 %p0, %tid0, 16;", "shl.b32 %t2, %tid0, 2;", "add.s32 %t2, %t2, %counts;"]
    zeroed += ["@%p0 st.shared.u32 [%t2], 0;", "bar.sync 0;"]
    declared = [
        f".reg .pred %p<{k.predicates + 1}>;", f".reg .b32 %r<{INTEGERS}>, %t<3>, %m<{k.masks + 1}>;",
        f".reg .b32 %c<{k.counters + 1}>, %tid0, %words, %counts, %mine;", f".reg .f32 %f<{FLOATS}>;",
        f".reg .b64 %d<{LONGS}>, %a, %in, %out, %sums, %own;", ".reg .b16 %h<2>;",
        f".shared .align 4 .b8 shared_words[{4 * k.threads}];", ".shared .align 4 .b8 shared_counts[64];",
        ".local .align 4 .b8 own_words[32];",
    ]  # fmt: skip
    lines = [f"  {line}" for line in [*declared, *setup, *zeroed]]
    tail = [f"  {line}" for line in [*ends, "ret;"]]
    head = f"{HEAD}.visible .entry kernel(.param .u64 in, .param .u64 out, .param .u64 sums)\n{{\n"
    return head + "\n".join([*lines, *k.lines, *tail]) + "\n}\n"
