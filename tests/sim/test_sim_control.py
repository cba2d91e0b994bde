"""Warps in hand-written PTX: shuffles, votes, predicates, divergence, branches, atomics."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.testing.ptx import HEAD, lanes

rng = np.random.default_rng(7)
U = rng.integers(0, 2**32, 64, dtype=np.uint32)
W = rng.integers(0, 2**32, 64, dtype=np.uint32)
LANE = np.arange(32)


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("bfly", 5, 0x1F, lambda i: i ^ 5),
        ("up", 3, 0, lambda i: i - 3 if i >= 3 else i),
        ("down", 4, 0x1F, lambda i: i + 4 if i + 4 < 32 else i),
        ("idx", 7, 0x1F, lambda i: 7),
        ("down", 1, 0x181F, lambda i: i + 1 if (i + 1) % 8 else i),  # segments of 8
        ("idx", 2, 0x181F, lambda i: i // 8 * 8 + 2),
    ],
)
def test_shuffles(mode, b, c, source):
    value = np.arange(100, 132, dtype=np.uint32)
    got = lanes(f"shfl.sync.{mode}.b32 %d|%q0, %a, {b}, {c}, -1;", value)
    assert got.tolist() == [100 + source(i) for i in range(32)]
    inside = lanes(f"shfl.sync.{mode}.b32 %r0|%q0, %a, {b}, {c}, -1; selp.b32 %d, 1, 0, %q0;", value)
    assert inside.tolist() == [int(source(i) != i or mode in ("bfly", "idx")) for i in range(32)]


def test_shuffle_with_a_source_of_each_lane():
    value, where = rng.integers(0, 99, 64, dtype=np.uint32), rng.integers(0, 32, 64, dtype=np.uint32)
    got = lanes("shfl.sync.idx.b32 %d, %a, %b, 31, -1;", value, where)
    assert got.tolist() == [value[i // 32 * 32 + where[i]] for i in range(64)]


def test_votes_and_ballots():
    value = (np.arange(64) % 3 == 0).astype(np.uint32)
    test = "setp.ne.u32 %q0, %a, 0;"
    words = [sum(int(value[w * 32 + i]) << i for i in range(32)) for w in (0, 1)]
    assert lanes(f"{test} vote.sync.ballot.b32 %d, %q0, -1;", value).tolist() == [words[i // 32] for i in range(64)]
    for mode, wanted in (("any", 1), ("all", 0), ("uni", 0)):
        got = lanes(f"{test} vote.sync.{mode}.pred %q1, %q0, -1; selp.b32 %d, 1, 0, %q1;", value)
        assert set(got.tolist()) == {wanted}


def test_votes_under_divergence_see_only_the_lanes_that_are_here():
    body = """
    setp.lt.u32 %q0, %a, 10;
    mov.u32 %d, 0;
    @!%q0 bra OTHER;
    activemask.b32 %d;
    bra JOIN;
    OTHER: vote.sync.ballot.b32 %d, 1, 0xfffffc00;
    JOIN:
    """
    got = lanes(body, LANE.astype(np.uint32))
    assert got.tolist() == [0x3FF] * 10 + [0xFFFFFC00] * 22


def test_match_redux_elect():
    value = np.array([i % 5 for i in range(32)], np.uint32)
    got = lanes("match.any.sync.b32 %d, %a, -1;", value)
    assert got.tolist() == [sum(1 << j for j in range(32) if j % 5 == i % 5) for i in range(32)]
    assert set(lanes("redux.sync.add.u32 %d, %a, -1;", value).tolist()) == {int(value.sum())}
    assert set(lanes("redux.sync.max.s32 %d, %a, -1;", value).tolist()) == {4}
    body = "setp.gt.u32 %q1, %a, 2; mov.u32 %d, 0; @%q1 elect.sync %r0|%q0, 0xfffffff8; @%q1 selp.b32 %d, 1, 0, %q0;"
    assert np.flatnonzero(lanes(body, LANE.astype(np.uint32))).tolist() == [3]


def test_predication_touches_only_its_lanes():
    got = lanes(
        "setp.gt.u32 %q0, %a, 4; mov.u32 %d, 7; @%q0 mov.u32 %d, 9; @!%q0 add.u32 %d, %d, 1;", LANE.astype(np.uint32)
    )
    assert got.tolist() == [8 if i <= 4 else 9 for i in range(32)]


def test_nested_divergence_and_loops_of_different_length():
    body = """
    mov.u32 %d, 0; mov.u32 %r0, 0;
    LOOP: setp.ge.u32 %q0, %r0, %a;
    @%q0 bra DONE;
    and.b32 %r1, %r0, 1; setp.eq.u32 %q1, %r1, 0;
    @%q1 bra EVEN;
    add.u32 %d, %d, 100;
    bra NEXT;
    EVEN: add.u32 %d, %d, 1;
    NEXT: add.u32 %r0, %r0, 1;
    bra.uni LOOP;
    DONE:
    """
    n = rng.integers(0, 20, 96, dtype=np.uint32)
    assert lanes(body, n).tolist() == [(i + 1) // 2 + 100 * (i // 2) for i in n.tolist()]


def test_indirect_branch():
    body = """
    and.b32 %r0, %a, 3;
    TABLE: .branchtargets L0, L1, L2, L2;
    brx.idx %r0, TABLE;
    L0: mov.u32 %d, 10; bra END;
    L1: mov.u32 %d, 11; bra END;
    L2: mov.u32 %d, 12;
    END:
    """
    assert lanes(body, LANE.astype(np.uint32)).tolist() == [[10, 11, 12, 12][i % 4] for i in range(32)]


def test_early_exit_leaves_the_others_running():
    ptx = (
        HEAD
        + """
.visible .entry k(.param .u64 k_0)
{ .reg .b64 %p; .reg .b32 %t<4>; .reg .pred %q; .shared .align 4 .b8 s[256];
mov.u32 %t0, %tid.x; setp.ge.u32 %q, %t0, 40; @%q exit;
shl.b32 %t1, %t0, 2; mov.u32 %t2, s; add.u32 %t2, %t2, %t1; st.shared.u32 [%t2], %t0;
bar.sync 0;
xor.b32 %t1, %t0, 1; shl.b32 %t1, %t1, 2; mov.u32 %t2, s; add.u32 %t2, %t2, %t1; ld.shared.u32 %t3, [%t2];
ld.param.u64 %p, [k_0]; mad.wide.u32 %p, %t0, 4, %p; st.global.u32 [%p], %t3; ret; }"""
    )
    out = np.full(64, 99, np.uint32)
    core.sim.run(ptx, "k", 1, 64, [out], strict=False)  # strict mode asks all threads to the barrier
    assert out.tolist() == [i ^ 1 for i in range(40)] + [99] * 24


def test_atomics_return_what_was_there_in_lane_order():
    ptx = (
        HEAD
        + """.global .align 4 .b32 g;
.visible .entry k(.param .u64 k_0)
{ .reg .b64 %p<3>; .reg .b32 %t<4>;
mov.u32 %t0, %tid.x; mov.u64 %p0, g; atom.global.add.u32 %t1, [%p0], %t0;
ld.param.u64 %p1, [k_0]; mad.wide.u32 %p1, %t0, 4, %p1; st.global.u32 [%p1], %t1; ret; }"""
    )
    out = np.zeros(40, np.uint32)
    core.sim.run(ptx, "k", 1, 40, [out], strict=False)  # strict mode reports that these depend on the order
    assert out.tolist() == [sum(range(i)) for i in range(40)]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [("add.u32", 10 + 3 * 7), ("max.s32", 10), ("min.u32", 7), ("exch.b32", 7), ("xor.b32", 10 ^ 7), ("inc.u32", 0x3),
     ("and.b32", 2)],
)  # fmt: skip
def test_red_and_atom_forms(form, wanted):
    opcode = "atom" if form.startswith("exch") else "red"
    target = "%t2, " if opcode == "atom" else ""
    ptx = (
        HEAD
        + f"""
.visible .entry k(.param .u64 k_0)
{{ .reg .b64 %p; .reg .b32 %t<4>;
mov.u32 %t1, 7; ld.param.u64 %p, [k_0]; {opcode}.global.{form} {target}[%p], %t1; ret; }}"""
    )
    out = np.array([10], np.uint32)
    core.sim.run(ptx, "k", 1, 3, [out])
    if form == "inc.u32":
        wanted = 2  # 10 is past 7: 0, then 1, then 2
    assert out[0] == wanted


def test_compare_and_swap_lets_one_win():
    ptx = (
        HEAD
        + """
.visible .entry k(.param .u64 k_0, .param .u64 k_1)
{ .reg .b64 %p; .reg .b32 %t<4>;
mov.u32 %t0, %tid.x; add.u32 %t1, %t0, 100; ld.param.u64 %p, [k_0]; atom.global.cas.b32 %t2, [%p], 5, %t1;
ld.param.u64 %p, [k_1]; mad.wide.u32 %p, %t0, 4, %p; st.global.u32 [%p], %t2; ret; }"""
    )
    cell, old = np.array([5], np.uint32), np.zeros(32, np.uint32)
    core.sim.run(ptx, "k", 1, 32, [cell, old], strict=False)  # strict mode lets others win as well, and says so
    assert cell[0] == 100 and old.tolist() == [5] + [100] * 31


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
def test_atomic_sums_of_pairs_round_each_once(kind):
    one, more = {"f16x2": (0x3C00, 0x1200), "bf16x2": (0x3F80, 0x3BC0)}[kind]  # 1, and 3/4 of its last place
    y = np.array([one | one << 16], np.uint32)
    text = f"""{HEAD}.visible .entry k(.param .u64 q) {{ .reg .b64 %p; .reg .b32 %r;
    ld.param.u64 %p, [q]; atom.global.add.noftz.{kind} %r, [%p], %r;
    red.global.add.noftz.{kind} [%p], {more}; ret; }}"""
    core.sim.run(text, "k", 1, 1, [y])
    assert int(y[0]) == (one + 1) | one << 16
