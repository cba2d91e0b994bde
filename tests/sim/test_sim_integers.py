"""Each integer opcode against what the PTX manual says, in hand-written PTX."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from core.testing.ptx import lanes

rng = np.random.default_rng(7)
U = rng.integers(0, 2**32, 64, dtype=np.uint32)
V = rng.integers(0, 2**32, 64, dtype=np.uint32)
W = rng.integers(0, 2**32, 64, dtype=np.uint32)
U[:6] = [0, 1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 5]
V[:6] = [0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 31, 0]


def signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


def c_div(a: int, b: int) -> int:
    return int(Fraction(abs(a), abs(b))) * (1 if (a < 0) == (b < 0) else -1)


# body -> Python on unsigned 32-bit integers
INTEGER = {
    "add.s32 %d, %a, %b;": lambda a, b, c: a + b,
    "sub.s32 %d, %a, %b;": lambda a, b, c: a - b,
    "mul.lo.s32 %d, %a, %b;": lambda a, b, c: a * b,
    "mul.hi.u32 %d, %a, %b;": lambda a, b, c: a * b >> 32,
    "mul.hi.s32 %d, %a, %b;": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %d, %a, %b, %c;": lambda a, b, c: a * b + c,
    "mad.hi.u32 %d, %a, %b, %c;": lambda a, b, c: (a * b >> 32) + c,
    "div.u32 %d, %a, %b;": lambda a, b, c: a // b if b else 0xFFFFFFFF,
    "rem.u32 %d, %a, %b;": lambda a, b, c: a % b if b else a,
    "div.s32 %d, %a, %b;": lambda a, b, c: c_div(signed(a), signed(b)) if b else -1,
    "rem.s32 %d, %a, %b;": lambda a, b, c: signed(a) - c_div(signed(a), signed(b)) * signed(b) if b else a,
    "min.u32 %d, %a, %b;": lambda a, b, c: min(a, b),
    "max.s32 %d, %a, %b;": lambda a, b, c: max(signed(a), signed(b)),
    "abs.s32 %d, %a;": lambda a, b, c: abs(signed(a)),
    "neg.s32 %d, %a;": lambda a, b, c: -a,
    "sad.u32 %d, %a, %b, %c;": lambda a, b, c: c + abs(a - b),
    "and.b32 %d, %a, %b;": lambda a, b, c: a & b,
    "or.b32 %d, %a, %b;": lambda a, b, c: a | b,
    "xor.b32 %d, %a, %b;": lambda a, b, c: a ^ b,
    "not.b32 %d, %a;": lambda a, b, c: ~a,
    "cnot.b32 %d, %a;": lambda a, b, c: int(a == 0),
    "popc.b32 %d, %a;": lambda a, b, c: a.bit_count(),
    "clz.b32 %d, %a;": lambda a, b, c: 32 - a.bit_length(),
    "brev.b32 %d, %a;": lambda a, b, c: int(f"{a:032b}"[::-1], 2),
    "bfind.u32 %d, %a;": lambda a, b, c: a.bit_length() - 1,
    "bfind.s32 %d, %a;": lambda a, b, c: (~signed(a) if signed(a) < 0 else a).bit_length() - 1,
    "shl.b32 %d, %a, %b;": lambda a, b, c: a << min(b, 32),
    "shr.u32 %d, %a, %b;": lambda a, b, c: a >> min(b, 32),
    "shr.s32 %d, %a, %b;": lambda a, b, c: signed(a) >> min(b, 31),
    "shl.b32 %d, %a, 7;": lambda a, b, c: a << 7,
    "shr.s32 %d, %a, 40;": lambda a, b, c: signed(a) >> 31,
    "shf.l.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: ((b << 32 | a) << (c & 31)) >> 32,
    "shf.r.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: (b << 32 | a) >> (c & 31),
    "shf.l.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: ((b << 32 | a) << min(c, 32)) >> 32,
    "shf.r.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: (b << 32 | a) >> min(c, 32),
    "lop3.b32 %d, %a, %b, %c, 0x96;": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 %d, %a, %b, %c, 0xe8;": lambda a, b, c: a & b | a & c | b & c,
    "lop3.b32 %d, %a, %b, %c, 0xca;": lambda a, b, c: a & b | ~a & c,
    "bfe.u32 %d, %a, 5, 9;": lambda a, b, c: a >> 5 & 511,
    "bfe.s32 %d, %a, 5, 9;": lambda a, b, c: signed(a >> 5 & 511, 9),
    "bfe.s32 %d, %a, 28, 9;": lambda a, b, c: signed(a) >> 28,
    "bfe.u32 %d, %a, 0, 32;": lambda a, b, c: a,
    "bfi.b32 %d, %a, %b, 8, 12;": lambda a, b, c: b & ~(0xFFF << 8) | (a & 0xFFF) << 8,
    "selp.b32 %d, %a, %b, 1;": lambda a, b, c: a,
    "mul24.lo.u32 %d, %a, %b;": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "mul.wide.u16 %d, %h0, %h1;": lambda a, b, c: (a & 0xFFFF) * (b >> 16),
    "setp.lt.s32 %q0, %a, %b; selp.b32 %d, %c, 9, %q0;": lambda a, b, c: c if signed(a) < signed(b) else 9,
    "setp.hi.u32 %q0, %a, %b; selp.b32 %d, %c, 9, %q0;": lambda a, b, c: c if a > b else 9,
    "set.ge.u32.u32 %d, %a, %b;": lambda a, b, c: 0xFFFFFFFF if a >= b else 0,
    "slct.b32.s32 %d, %a, %b, %c;": lambda a, b, c: a if signed(c) >= 0 else b,
    "add.cc.u32 %r0, %a, %b; addc.u32 %d, %c, 0;": lambda a, b, c: c + (a + b >> 32),
    "sub.cc.u32 %r0, %a, %b; subc.u32 %d, %c, 0;": lambda a, b, c: c - (a < b),
    "mov.b32 {%h2, %h3}, %a; mov.b32 %d, {%h3, %h2};": lambda a, b, c: a << 16 | a >> 16,
    "cvt.u32.u8 %d, %a;": lambda a, b, c: a & 255,
    "cvt.s32.s8 %d, %a;": lambda a, b, c: signed(a & 255, 8),
    "cvt.sat.s8.s32 %h2, %a; cvt.s32.s16 %d, %h2;": lambda a, b, c: max(-128, min(127, signed(a))),
    "cvt.sat.u8.s32 %h2, %a; cvt.u32.u16 %d, %h2;": lambda a, b, c: max(0, min(255, signed(a))),
    "prmt.b32 %d, %a, %b, 0x6521;": lambda a, b, c: sum(
        ((b << 32 | a) >> 8 * n & 255) << 8 * i for i, n in enumerate((1, 2, 5, 6))
    ),
    "prmt.b32 %d, %a, %b, 0xBA98;": lambda a, b, c: sum((255 if a >> 8 * n & 128 else 0) << 8 * n for n in range(4)),
    "dp4a.u32.u32 %d, %a, %b, %c;": lambda a, b, c: c + sum((a >> 8 * i & 255) * (b >> 8 * i & 255) for i in range(4)),
}


@pytest.mark.parametrize("body", INTEGER)
def test_integer_opcodes(body):
    head = "cvt.u16.u32 %h0, %a; shr.u32 %r0, %b, 16; cvt.u16.u32 %h1, %r0;\n" if "%h1" in body else ""
    by_small = "shl.b32" in body or "shr." in body
    b = np.where(np.arange(64) % 4 == 0, V, V % 40).astype(np.uint32) if by_small else V
    c = W % 40 if body.startswith("shf") else W
    got = lanes(head + body, U, b, c)
    wanted = [INTEGER[body](int(x), int(y), int(z)) & 0xFFFFFFFF for x, y, z in zip(U, b, c, strict=True)]
    assert got.tolist() == wanted


WIDE = {
    "mul.wide.s32 %d, %r0, %r1;": lambda a, b: signed(a & 0xFFFFFFFF) * signed(b & 0xFFFFFFFF),
    "mul.hi.u64 %d, %a, %b;": lambda a, b: a * b >> 64,
    "mul.hi.s64 %d, %a, %b;": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "mul.lo.s64 %d, %a, %b;": lambda a, b: a * b,
    "mad.wide.u32 %d, %r0, %r1, %b;": lambda a, b: (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) + b,
    "div.u64 %d, %a, %b;": lambda a, b: a // b,
    "rem.s64 %d, %a, %b;": lambda a, b: signed(a, 64) - c_div(signed(a, 64), signed(b, 64)) * signed(b, 64),
    "bfi.b64 %d, %a, %b, 32, 32;": lambda a, b: b & 0xFFFFFFFF | (a & 0xFFFFFFFF) << 32,
    "shr.s64 %d, %a, 70;": lambda a, b: signed(a, 64) >> 63,
    "cvt.s64.s32 %d, %r0;": lambda a, b: signed(a & 0xFFFFFFFF),
    "cvt.u64.u32 %d, %r0;": lambda a, b: a & 0xFFFFFFFF,
    "mov.b64 %d, {%r1, %r0};": lambda a, b: b & 0xFFFFFFFF | (a & 0xFFFFFFFF) << 32,
}


@pytest.mark.parametrize("body", WIDE)
def test_64_bit_opcodes(body):
    a, b = rng.integers(0, 2**64, (2, 64), dtype=np.uint64)
    got = lanes("cvt.u32.u64 %r0, %a; cvt.u32.u64 %r1, %b;\n" + body, a, b, out=np.uint64)
    assert got.tolist() == [WIDE[body](int(x), int(y)) & (2**64 - 1) for x, y in zip(a, b, strict=True)]
