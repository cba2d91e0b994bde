"""Random kernels in PTX text, whose results depend on no order of threads: any two executors must agree on every bit.

A kernel is drawn from a seed: arithmetic on integers and floats, nested branches that part a warp, jumps out of them,
loops with data-dependent counts, collectives of whole warps and of the lanes of one branch, barriers, shared and local
memory, vector and predicated accesses, atomics whose order cannot show, and early exits. Every thread writes all of its
registers in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

INTEGERS, FLOATS, LONGS = 8, 6, 3  # registers that statements compute with
WORDS = 256  # of the input, a power of two
HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"

BINARY = (
    "add.s32", "sub.s32", "mul.lo.s32", "mul.hi.u32", "mul.hi.s32", "and.b32", "or.b32", "xor.b32", "min.s32",
    "max.u32", "min.u32", "max.s32", "div.u32", "rem.u32", "div.s32", "rem.s32", "mul.wide.u16",
)  # fmt: skip
UNARY = ("not.b32", "neg.s32", "abs.s32", "brev.b32", "popc.b32", "clz.b32", "bfind.u32", "bfind.s32")
TERNARY = ("mad.lo.s32", "mad.hi.u32", "prmt.b32", "bfe.u32", "bfe.s32", "sad.u32", "dp4a.u32.u32", "shf.l.wrap.b32")
FLOAT_BINARY = (
    "add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32", "min.f32", "max.f32", "add.rz.f32", "mul.rm.f32",
    "add.rp.ftz.f32", "mul.rn.sat.f32", "copysign.f32",
)  # fmt: skip
FLOAT_UNARY = (
    "sqrt.rn.f32", "rcp.rn.f32", "ex2.approx.f32", "lg2.approx.f32", "rsqrt.approx.f32", "sin.approx.f32",
    "cos.approx.f32", "tanh.approx.f32", "neg.f32", "abs.f32", "rcp.approx.ftz.f32", "cvt.rni.f32.f32",
)  # fmt: skip
COMPARE = ("eq.s32", "ne.s32", "lt.s32", "ge.u32", "hi.u32", "ls.u32", "gt.s32")
FLOAT_COMPARE = ("lt.f32", "geu.f32", "neu.f32", "num.f32", "gt.ftz.f32")
SHUFFLES = ("up", "down", "bfly", "idx")
REDUCTIONS = ("add.s32", "min.s32", "max.u32", "and.b32", "or.b32", "xor.b32")


@dataclass
class Drawn:
    """A kernel under construction. full: the register with the mask of the warp's lanes that have not exited."""

    chance: random.Random
    threads: int
    lines: list[str] = field(default_factory=list)
    labels: int = 0
    predicates: int = 0
    masks: int = 1
    full: str = "%m0"
    counters: int = 0

    def emit(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self) -> str:
        self.labels += 1
        return f"$L{self.labels}"

    def predicate(self) -> str:
        self.predicates += 1
        return f"%p{self.predicates}"

    def mask(self) -> str:
        self.masks += 1
        return f"%m{self.masks}"

    def integer(self) -> str:
        return f"%r{self.chance.randrange(INTEGERS)}"

    def value(self) -> str:
        """A register or a constant."""
        if self.chance.random() < 0.25:
            return str(
                self.chance.choice((0, 1, 2, 3, 7, 31, 32, 255, 65535, -1, 0x7FFFFFFF, self.chance.getrandbits(31)))
            )
        return self.integer()

    def real(self) -> str:
        return f"%f{self.chance.randrange(FLOATS)}"

    def long(self) -> str:
        return f"%d{self.chance.randrange(LONGS)}"

    def test(self) -> str:
        """A new predicate that compares two registers."""
        p = self.predicate()
        if self.chance.random() < 0.3:
            self.emit(f"setp.{self.chance.choice(FLOAT_COMPARE)} {p}, {self.real()}, {self.real()};")
        elif self.chance.random() < 0.4:
            self.emit(f"and.b32 %t0, {self.integer()}, {self.chance.choice((1, 2, 3, 5, 8))};")
            self.emit(f"setp.ne.s32 {p}, %t0, 0;")
        else:
            self.emit(f"setp.{self.chance.choice(COMPARE)} {p}, {self.integer()}, {self.value()};")
        return p


Statement = Callable[[Drawn], None]


# --------------------------------------------------------------------------- statements of one thread
def arithmetic(k: Drawn) -> None:
    kind = k.chance.randrange(8)
    if kind == 0:
        k.emit(f"{k.chance.choice(UNARY)} {k.integer()}, {k.integer()};")
    elif kind == 1:
        k.emit(f"{k.chance.choice(TERNARY)} {k.integer()}, {k.integer()}, {k.integer()}, {k.integer()};")
    elif kind == 2:
        k.emit(f"{k.chance.choice(('shl.b32', 'shr.u32', 'shr.s32'))} {k.integer()}, {k.integer()}, {k.value()};")
    elif kind == 3:
        k.emit(f"lop3.b32 {k.integer()}, {k.integer()}, {k.integer()}, {k.value()}, {k.chance.randrange(256)};")
    elif kind == 4:
        _long(k)
    else:
        _binary(k, k.chance.choice(BINARY))


def _binary(k: Drawn, name: str) -> None:
    if name == "mul.wide.u16":
        k.emit(f"cvt.u16.u32 %h0, {k.integer()};")
        k.emit(f"cvt.u16.u32 %h1, {k.integer()};")
        k.emit(f"mul.wide.u16 {k.integer()}, %h0, %h1;")
    elif name[:3] in ("div", "rem"):
        k.emit(f"or.b32 %t0, {k.value()}, 1;")  # zero has no defined quotient
        k.emit(f"and.b32 %t1, {k.integer()}, 2147483647;")
        k.emit(f"{name} {k.integer()}, %t1, %t0;")
    else:
        k.emit(f"{name} {k.integer()}, {k.integer()}, {k.value()};")


def _long(k: Drawn) -> None:
    d = k.long()
    k.emit(
        k.chance.choice((
            f"mul.wide.s32 {d}, {k.integer()}, {k.value()};", f"mad.wide.u32 {d}, {k.integer()}, 77, {k.long()};",
            f"add.s64 {d}, {k.long()}, {k.long()};", f"mul.lo.s64 {d}, {k.long()}, {k.long()};",
            f"shr.s64 {d}, {k.long()}, {k.chance.randrange(70)};", f"xor.b64 {d}, {k.long()}, {k.long()};",
            f"cvt.s64.s32 {d}, {k.integer()};", f"mul.hi.u64 {d}, {k.long()}, {k.long()};",
        ))
    )  # fmt: skip
    k.emit(f"cvt.u32.u64 {k.integer()}, {d};")


def floats(k: Drawn) -> None:
    kind = k.chance.randrange(7)
    if kind == 0:
        k.emit(f"{k.chance.choice(FLOAT_UNARY)} {k.real()}, {k.real()};")
    elif kind == 1:
        name = k.chance.choice(("fma.rn.f32", "fma.rz.f32", "fma.rn.ftz.f32"))
        k.emit(f"{name} {k.real()}, {k.real()}, {k.real()}, {k.real()};")
    elif kind == 2:
        k.emit(f"cvt.rn.f32.{k.chance.choice(('s32', 'u32'))} {k.real()}, {k.integer()};")
    elif kind == 3:
        k.emit(f"cvt.{k.chance.choice(('rni', 'rzi', 'rmi'))}.s32.f32 {k.integer()}, {k.real()};")
    elif kind == 4:
        k.emit(f"cvt.rn.bf16.f32 %h0, {k.real()};")
        k.emit(f"cvt.rn.f16.f32 %h1, {k.real()};")
        k.emit(f"mov.b32 {k.integer()}, {{%h0, %h1}};")
    else:
        k.emit(f"{k.chance.choice(FLOAT_BINARY)} {k.real()}, {k.real()}, {k.real()};")


def select(k: Drawn) -> None:
    p = k.test()
    if k.chance.random() < 0.5:
        k.emit(f"selp.b32 {k.integer()}, {k.integer()}, {k.value()}, {p};")
    else:
        not_ = k.chance.choice(("", "!"))
        k.emit(f"@{not_}{p} add.s32 {k.integer()}, {k.integer()}, {k.value()};")


def _place(k: Drawn, width: int) -> str:
    """%a: the address of `width` words of the input, drawn by a register."""
    k.emit(f"and.b32 %t0, {k.integer()}, {WORDS - width};")
    k.emit("mul.wide.u32 %a, %t0, 4;")
    k.emit("add.s64 %a, %a, %in;")
    return "[%a]"


def load(k: Drawn) -> None:
    width = k.chance.choice((1, 1, 2, 4))
    where = _place(k, width)
    if width == 1:
        guard = f"@{k.test()} " if k.chance.random() < 0.3 else ""
        if not guard:
            where = _place(k, width)
        k.emit(f"{guard}ld.global{k.chance.choice(('', '.nc'))}.u32 {k.integer()}, {where};")
        return
    targets = k.chance.sample(range(INTEGERS), width)
    k.emit(f"ld.global.v{width}.u32 {{{', '.join(f'%r{t}' for t in targets)}}}, {where};")


def small_load(k: Drawn) -> None:
    where = _place(k, 1)
    kind, register = k.chance.choice((("u8", "%t1"), ("s8", "%t1"), ("u16", "%h0"), ("s16", "%h0")))
    k.emit(f"ld.global.{kind} {register}, {where};")
    k.emit(f"cvt.u32.u16 {k.integer()}, %h0;" if register == "%h0" else f"mov.u32 {k.integer()}, %t1;")


def local(k: Drawn) -> None:
    """A thread's own array, written at one drawn place and read at another."""
    k.emit(f"and.b32 %t0, {k.integer()}, 7;")
    k.emit("mul.wide.u32 %a, %t0, 4;")
    k.emit("add.s64 %a, %a, %own;")
    k.emit(f"st.local.u32 [%a], {k.integer()};")
    k.emit(f"ld.local.u32 {k.integer()}, [%own+{4 * k.chance.randrange(8)}];")


def count(k: Drawn) -> None:
    """Atomics whose order cannot show."""
    k.emit(f"and.b32 %t0, {k.integer()}, 15;")
    if k.chance.random() < 0.5:
        k.emit("mul.wide.u32 %a, %t0, 4;")
        k.emit("add.s64 %a, %a, %sums;")
        k.emit(f"red.global.add.u32 [%a], {k.integer()};")
    else:
        k.emit("shl.b32 %t0, %t0, 2;")
        k.emit("add.s32 %t0, %t0, %counts;")
        k.emit(f"red.shared.add.u32 [%t0], {k.integer()};")


ALONE: tuple[Statement, ...] = (
    (arithmetic,) * 6 + (floats,) * 5 + (select,) * 2 + (load, load, small_load, local, count)
)


# --------------------------------------------------------------------------- statements of lanes together
def collective(k: Drawn, mask: str) -> None:
    """Of exactly the lanes in `mask`, which are all here."""
    kind = k.chance.randrange(6)
    if kind <= 1:
        mode, p = k.chance.choice(SHUFFLES), k.predicate()
        clamp = 0 if mode == "up" else 31
        k.emit(f"mov.u32 %t1, {k.integer()};")
        # The source must be a lane of the mask: only whole warps shuffle by distance.
        if mask == "%m0":
            by = k.chance.choice((1, 2, 4, 8, 16, 31, 3))
            k.emit(f"shfl.sync.{mode}.b32 {k.integer()}|{p}, %t1, {by}, {clamp}, {mask};")
        else:
            k.emit(f"brev.b32 %t2, {mask};")
            k.emit("clz.b32 %t2, %t2;")  # the lowest lane
            k.emit(f"shfl.sync.idx.b32 {k.integer()}|{p}, %t1, %t2, 31, {mask};")
        k.emit(f"@{p} add.s32 {k.integer()}, {k.integer()}, 1;")
    elif kind == 2:
        p = k.test()
        k.emit(f"vote.sync.ballot.b32 {k.integer()}, {p}, {mask};")
    elif kind == 3:
        p, q = k.test(), k.predicate()
        k.emit(f"vote.sync.{k.chance.choice(('any', 'all', 'uni'))}.pred {q}, {p}, {mask};")
        k.emit(f"selp.b32 {k.integer()}, 5, {k.integer()}, {q};")
    elif kind == 4:
        k.emit(f"redux.sync.{k.chance.choice(REDUCTIONS)} {k.integer()}, {k.integer()}, {mask};")
    else:
        k.emit(f"and.b32 %t1, {k.integer()}, 3;")
        k.emit(f"match.any.sync.b32 {k.integer()}, %t1, {mask};")


def exchange(k: Drawn) -> None:
    """Words through shared memory, between two barriers."""
    counted = () if k.threads % 32 else (f"bar.sync 1, {k.threads};",)  # a count is of whole warps
    kind = k.chance.choice(("bar.sync 0;", "barrier.sync 0;", *counted))
    k.emit(f"st.shared.u32 [%mine], {k.integer()};")
    k.emit(kind)
    k.emit(f"add.s32 %t0, %tid0, {k.chance.randrange(1, k.threads)};")
    k.emit(f"rem.u32 %t0, %t0, {k.threads};")
    k.emit("shl.b32 %t0, %t0, 2;")
    k.emit("add.s32 %t0, %t0, %words;")
    k.emit(f"ld.shared.u32 {k.integer()}, [%t0];")
    k.emit(kind)


def any_of_block(k: Drawn) -> None:
    """barrier.red: all threads of the block learn of a test."""
    p, q = k.test(), k.predicate()
    k.emit(f"barrier.red.{k.chance.choice(('or', 'and'))}.pred {q}, 0, {p};")
    k.emit(f"@{q} xor.b32 {k.integer()}, {k.integer()}, 99;")


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
