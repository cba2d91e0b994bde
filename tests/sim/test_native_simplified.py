"""Optimization of a kernel's records: copy propagation, dead-code elimination, and the prologue of invariant code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.sim import run
from core.sim.launching.simulator import Simulator
from core.sim.machine.address_space import Memory
from core.sim.native.executor import Linked
from core.sim.native.toolchain import compiler, machine
from core.sim.native.translation import Code

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")
Array = np.ndarray[Any, Any]

HEAD = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 k_0, .param .u32 k_1) {
.reg .b32 %r<20>; .reg .b64 %rd<9>; .reg .pred %p<5>;
"""
INDEX = """ld.param.u64 %rd0, [k_0];
ld.param.u32 %r1, [k_1];
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mov.u32 %r4, %tid.x;
mad.lo.u32 %r5, %r2, %r3, %r4;
mul.wide.u32 %rd1, %r5, 4;
add.u64 %rd2, %rd0, %rd1;
"""


def both(body: str, blocks: int, threads: int, number: int) -> Array:
    """out[i] of a kernel, the same bits on both executors."""
    results = []
    for executor in ("interpreter", "native"):
        out = np.zeros(blocks * threads, np.uint32)
        run(HEAD + body + "\n}\n", "k", blocks, threads, [out, np.uint32(number)], strict=False, executor=executor)
        results.append(out)
    assert results[0].tobytes() == results[1].tobytes()
    return results[1]


def code_of(body: str) -> Code:
    kernel = Simulator(HEAD + body + "\n}\n", Memory()).native("k")
    assert isinstance(kernel, Linked)
    return kernel.code


def names_of(code: Code) -> list[str]:
    names = {number: name.partition(".")[0] for name, rows in machine().rows.items() for number, _ in rows}
    return [names[int(op["run"])] for op in code.ops]


def test_only_what_differs_between_thread_blocks_runs_in_each() -> None:
    body = (
        INDEX
        + """mul.lo.u32 %r6, %r1, %r1;
        shl.b32 %r7, %r4, 3;
        add.u32 %r8, %r6, %r7;
        add.u32 %r9, %r8, %r2;
        mul.lo.u32 %r10, %r9, %r9;
        st.global.u32 [%rd2], %r9;
        ret;"""
    )
    code = code_of(body)
    names = names_of(code)
    assert not {"mov", "ld"}.intersection(names)
    assert [name for name in names[: code.entry - 1] if name != "wide"] == ["mul", "shl", "add"]
    assert names[code.entry :].count("mul") == 1  # that of %rd1: %r10 is dead
    i = np.arange(3 * 64)
    assert (both(body, 3, 64, 5) == 25 + 8 * (i % 64) + i // 64).all()


def test_registers_that_are_written_twice_keep_their_moves() -> None:
    body = (
        INDEX
        + """mov.u32 %r6, 1;
        mov.u32 %r7, 1;
        mov.u32 %r8, 0;
        LOOP:
        mov.u32 %r9, %r7;
        add.u32 %r7, %r6, %r7;
        mov.u32 %r6, %r9;
        add.u32 %r8, %r8, 1;
        setp.lt.u32 %p1, %r8, %r4;
        @%p1 bra LOOP;
        st.global.u32 [%rd2], %r7;
        ret;"""
    )
    assert both(body, 2, 40, 0)[[0, 1, 2, 9]].tolist() == [2, 2, 3, 89]


def test_a_copy_under_a_predicate_or_of_what_changes_stays() -> None:
    body = (
        INDEX
        + """add.u32 %r6, %r4, 7;
        mov.u32 %r7, %r6;
        mov.u32 %r8, 100;
        setp.gt.u32 %p1, %r4, 9;
        @%p1 mov.u32 %r8, %r4;
        @%p1 add.u32 %r6, %r6, 1000;
        add.u32 %r9, %r7, %r8;
        st.global.u32 [%rd2], %r9;
        ret;"""
    )
    t = np.arange(33)
    assert (both(body, 1, 33, 0) == t + 7 + np.where(t > 9, t, 100)).all()


def test_what_one_thread_block_leaves_in_a_register_is_gone_in_the_next() -> None:
    body = (
        INDEX
        + """mov.u32 %r6, %r5;
        setp.eq.u32 %p1, %r2, 0;
        @%p1 mov.u32 %r7, 5;
        add.u32 %r8, %r7, %r6;
        st.global.u32 [%rd2], %r8;
        ret;"""
    )
    i = np.arange(4 * 32)
    assert (both(body, 4, 32, 0) == i + 5 * (i < 32)).all()


def test_a_register_that_nothing_wrote_is_zero_and_leaves_the_next_warp_its_own() -> None:
    body = """ld.param.u64 %rd0, [k_0];
        st.global.u32 [%rd0], %r1;
        st.global.u32 [%rd0+128], %r1;
        ret;"""
    assert not both(body, 2, 64, 0).any()


def test_parameters_in_parts_and_signed() -> None:
    body = (
        INDEX
        + """ld.param.s8 %r6, [k_1];
        ld.param.u16 %r7, [k_1+2];
        ld.param.v2.u16 {%r8, %r9}, [k_1];
        ld.param.u8 %rd5, [k_1+1];
        cvt.u32.u64 %r10, %rd5;
        add.u32 %r6, %r6, %r7;
        add.u32 %r6, %r6, %r8;
        add.u32 %r6, %r6, %r9;
        add.u32 %r6, %r6, %r10;
        st.global.u32 [%rd2], %r6;
        ret;"""
    )
    assert (both(body, 1, 32, 0x1234_56FE) == -2 + 0x1234 + 0x56FE + 0x1234 + 0x56).all()


def test_a_load_of_32_bits_into_64_keeps_its_sign() -> None:
    """The compiler indexes by such a register: -1 must not become 2^32 - 1."""
    body = (
        INDEX
        + """st.global.u32 [%rd2], -7;
        ld.global.s32 %rd5, [%rd2];
        add.s64 %rd5, %rd5, 1;
        shr.u64 %rd5, %rd5, 32;
        st.global.u32 [%rd2], %rd5;
        ret;"""
    )
    assert (both(body, 1, 32, 0) == 2**32 - 1).all()
