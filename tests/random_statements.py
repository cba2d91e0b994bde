"""Random statements in PTX, of a thread, of the lanes in a mask, and of a thread block, for random_kernels.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

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
