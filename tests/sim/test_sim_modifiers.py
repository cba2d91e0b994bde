"""A modifier that is not understood stops with the text and the line; the order of modifiers is free."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.sim import PtxError, Simulator
from core.testing.ptx import HEAD, lanes

rng = np.random.default_rng(7)
LANE = np.arange(32)
STRANGE = [
    ("add.sat.u32 %0, %0, 1;", "this form"),
    ("shl.wide.b32 %0, %0, 1;", ".wide"),
    ("cvt.rn.satfinite.s32.f32 %0, 1.0;", "this form"),
    ("cp.async.ca.shared.global.L2::cache_hint [%0], [%1], 4, %1;", ".L2::cache_hint"),
    ("ld.global.sideways.u32 %0, [%1];", ".sideways"),
    ("st.async.relaxed.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %0, [%0];", ".relaxed"),
    ("mbarrier.arrive.relaxed.cluster.shared::cta.b64 _, [%0];", ".relaxed"),
    ("cp.async.bulk.tensor.2d.shared::cta.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%0, %0}], [%0];",
     ".im2col"),
    ("shfl.sync.b32.up %0, %0, 1, 0, -1;", "this form"),
    ("bar.sync.aligned 0;", ".aligned"),
    ("bra.sometimes L;", ".sometimes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "named"), STRANGE, ids=[s[0].split()[0] for s in STRANGE])
def test_a_modifier_that_is_not_understood_stops_with_text_and_line(text, named):
    ptx = HEAD + ".visible .entry k() {\n.reg .b32 %r0; .reg .b64 %r1;\n.loc 1 12 0\nL: "
    ptx = ptx.replace(".visible", '.file 1 "/x/kernel.cu"\n.visible')
    text = text.replace("%0", "%r0").replace("%1", "%r1")
    with pytest.raises(core.sim.PtxError) as caught:
        core.sim.run(f"{ptx}{text}\nret; }}", "k", 1, 32, [])
    said = str(caught.value)
    assert f"does not have {named} of `{text.rstrip(';')}` (/x/kernel.cu:12)" in said
    assert text.split(".")[0] in said.split("it has")[1]


ORDERS = {  # what ptxas takes as well -> how the manual writes it
    "atom.add.release.gpu.u32 %r1, [%p], 1;": "atom.release.gpu.add.u32",
    "atom.global.sys.add.u32 %r1, [%p], 1;": "atom.sys.global.add.u32",
    "red.and.release.cta.b32 [%p], %r1;": "red.release.cta.and.b32",
    "ldmatrix.sync.aligned.x4.m8n8.shared.b16 {%r1, %r2, %r3, %r4}, [%r5];": "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
    "ldmatrix.sync.aligned.trans.x1.m8n8.shared.b16 {%r1}, [%r5];": "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16",
    "stmatrix.sync.aligned.x2.m8n8.shared.b16 [%r5], {%r1, %r2};": "stmatrix.sync.aligned.m8n8.x2.shared.b16",
    "ld.global.relaxed.gpu.u32 %r1, [%p];": "ld.relaxed.gpu.global.u32",
    "shfl.down.sync.b32 %r1, %r2, %r3, 31, -1;": "shfl.sync.down.b32",
    "vote.ballot.sync.b32 %r1, 1, -1;": "vote.sync.ballot.b32",
}


@pytest.mark.parametrize("text", ORDERS)
def test_modifiers_of_memory_and_warp_instructions_come_in_any_order(text):
    head = f"{HEAD}.visible .entry k(.param .u64 q) {{ .reg .b64 %p; .reg .b32 %r<9>; .shared .align 16 .b8 s[512];"
    program = Simulator(f"{head} ld.param.u64 %p, [q]; mov.u32 %r5, s; {text} ret; }}").program("k")
    assert all(block.steps is not None for block in program.blocks.values())  # made at their first use
    assert ".".join(program.instructions[2].names) == ORDERS[text]


def test_an_order_does_not_let_a_strange_modifier_in():
    with pytest.raises(PtxError, match=r"does not have \.gentle of"):
        lanes("atom.add.gentle.gpu.u32 %d, [%p], 1;", LANE.astype(np.uint32))


def test_the_size_of_a_warp_is_a_constant():
    assert lanes("mov.u32 %r0, WARP_SZ; add.u32 %d, %r0, WARP_SZ;", LANE.astype(np.uint32)).tolist() == [64] * 32
    assert lanes("vote.sync.ballot.b32 %d, 1, -1;", LANE.astype(np.uint32)).tolist() == [2**32 - 1] * 32
