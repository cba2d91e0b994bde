"""Hopper's instructions in the machine: barriers with phases, clusters, bulk and tensor copies, wgmma."""

from __future__ import annotations

import re

from core.sim.native.allocation import OpRecord
from core.sim.native.composed import made
from core.sim.native.forms import address
from core.sim.native.translation import FormFamily, Translation
from core.sim.native.warp_forms import registers
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.effects import elements
from core.sim.ptx.register_types import TYPES
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Address, Immediate, Instruction, Operand, Register, Vector

FAMILY = FormFamily()
WGMMA_KINDS = {"bf16": 0, "f16": 1, "tf32": 2}


def place(draft: Translation, operand: Operand) -> tuple[int, int]:
    """(the 64-bit register of an address, its offset)."""
    width, base, offset = address(draft, operand)
    return (base if width == "[b64]" else made(draft, "wide", base)), offset


def summed(draft: Translation, operand: Operand) -> int:
    """The 64-bit register of an address with its offset added."""
    base, offset = place(draft, operand)
    return made(draft, "add.u64", base, draft.constant(offset & (1 << 64) - 1, wide=True)) if offset else base


def of_cluster(draft: Translation, ins: Instruction) -> bool:
    return any(n.partition(":")[0] == "shared" for n in ins.names)


# --------------------------------------------------------------------------- mbarriers
@FAMILY.form("mbarrier.init", "mbarrier.inval")
def _init(draft: Translation, ins: Instruction) -> None:
    base, offset = place(draft, ins.operands[0])
    counts = [draft.source(o, "b32") for o in ins.operands[1:]]
    draft.emit(".".join(ins.names[:2]), [base, *counts], imm=offset)


@FAMILY.form("mbarrier.arrive", "mbarrier.arrive_drop", "mbarrier.expect_tx", "mbarrier.complete_tx")
def _arrive(draft: Translation, ins: Instruction) -> None:
    """mbarrier.arrive{.expect_tx} state, [mbarrier]{, count or bytes}."""
    arrives = ins.names[1] in ("arrive", "arrive_drop")
    returns = arrives and len(ins.operands) > 1 and not isinstance(ins.operands[0], Address)
    operands = ins.operands[1:] if returns else ins.operands
    base, offset = place(draft, operands[0])
    amount = draft.source(operands[1], "b32") if len(operands) > 1 else draft.constant(1)
    name = ".".join(ins.names[:2]) + (".expect_tx" if arrives and "expect_tx" in ins.names else "")
    wanted = returns and isinstance(ins.operands[0], Register)
    number, after = draft.target(ins.operands[0], "b64") if wanted else (draft.fresh(wide=True), lambda: None)
    draft.emit(name, [number, base, amount], imm=offset)
    after()


@FAMILY.form("mbarrier.test_wait", "mbarrier.try_wait")
def _wait(draft: Translation, ins: Instruction) -> None:
    base, offset = place(draft, ins.operands[1])
    parity = draft.source(ins.operands[2], "b64")
    draft.emit(".".join(ins.names[:2]), [draft.target(ins.operands[0], "p")[0], base, parity], imm=offset)


@FAMILY.form("cp.async.mbarrier")
def _copies_arrive(draft: Translation, ins: Instruction) -> None:
    base, offset = place(draft, ins.operands[0])
    draft.emit("cp.async.mbarrier.arrive", [base], imm=offset << 1 | ("noinc" in ins.names))


# --------------------------------------------------------------------------- clusters
@FAMILY.form("barrier.cluster")
def _cluster_barrier(draft: Translation, ins: Instruction) -> None:
    draft.emit(".".join(ins.names[:3]), [])


@FAMILY.form("mapa")
def _mapa(draft: Translation, ins: Instruction) -> None:
    bits = TYPES[ins.names[-1]].bits
    own, rank = draft.source(ins.operands[1], f"b{bits}"), draft.source(ins.operands[2], "b32")
    wide = own if bits == 64 else made(draft, "wide", own)
    mapped = draft.fresh(wide=True)
    draft.emit("mapa", [mapped, wide, rank], imm=0 if of_cluster(draft, ins) else spaces.SHARED_WINDOW)
    number, after = draft.target(ins.operands[0], f"b{bits}")
    draft.emit("mov.b64" if bits == 64 else "low.b32", [number, mapped])
    after()


@FAMILY.form("getctarank")
def _getctarank(draft: Translation, ins: Instruction) -> None:
    bits = TYPES[ins.names[-1]].bits
    address = draft.source(ins.operands[1], f"b{bits}")
    number, after = draft.target(ins.operands[0], "b32")
    own = draft.special("%cluster_ctarank", wide=False)
    draft.emit("getctarank", [number, address if bits == 64 else made(draft, "wide", address), own])
    after()


@FAMILY.form("isspacep")
def _isspacep(draft: Translation, ins: Instruction) -> None:
    window = {"shared": 1, "local": 2}.get(space_of(ins.names), 0)
    number, _ = draft.target(ins.operands[0], "p")
    draft.emit("isspacep", [number, draft.source(ins.operands[1], "b64")], imm=window)


@FAMILY.form("createpolicy")
def _policy(draft: Translation, ins: Instruction) -> None:
    """A hint to the caches, which the machine does not have."""
    number, _ = draft.target(ins.operands[0], "b64")
    draft.emit("mov.b64", [number, draft.constant(0, wide=True)])


# --------------------------------------------------------------------------- bulk copies
def copy(draft: Translation, name: str, slots: list[int], listed: list[int], imm: int) -> None:
    """A record that reads registers and a list of more of them."""
    number, _ = draft.row(name)
    record = OpRecord(number, [*slots, *[-1] * (4 - len(slots))], draft.pc, imm=imm)
    record.plain, record.list_slot, record.listed = frozenset({3}), 3, listed
    record.reads = [*slots, *listed]
    draft.records.append(record)


def _mask(draft: Translation, ins: Instruction, at: int) -> tuple[int, bool]:
    """(the mask of a multicast, whether there is one)."""
    many = any(n.startswith("multicast") for n in ins.names)
    return (draft.source(ins.operands[at], "b16") if many else draft.constant(0)), many


@FAMILY.form("cp.async.bulk")
def _bulk(draft: Translation, ins: Instruction) -> None:
    if ins.names[3] in ("commit_group", "wait_group", "prefetch"):
        return  # a copy is carried out where it is issued
    ends = [n.partition(":")[0] for n in ins.names if n.partition(":")[0] in ("shared", "global")][:2]
    if len(ends) != 2:
        raise draft.missing()
    target, source = (summed(draft, o) for o in ins.operands[:2])
    size = draft.source(ins.operands[2], "b32")
    inwards = ends[0] == "shared"
    barrier = summed(draft, ins.operands[3]) if inwards else draft.constant(0, wide=True)
    mask, many = _mask(draft, ins, 4)
    flags = (ends[1] == "global") | (not inwards) << 1 | many << 2
    copy(draft, "cp.async.bulk", [target, source, size], [barrier, mask], flags)


@FAMILY.form("cp.async.bulk.tensor")
def _tensor(draft: Translation, ins: Instruction) -> None:
    """Tensor copies: [dst], [map, {coordinates}], [mbarrier] in; [map, {coordinates}], [src] out."""
    loads = not isinstance(ins.operands[0], Address) or ins.operands[0].coordinates is None
    tensor, near = (ins.operands[1], ins.operands[0]) if loads else (ins.operands[0], ins.operands[1])
    assert isinstance(tensor, Address) and tensor.coordinates is not None
    coordinates = [draft.source(o, "b32") for o in elements(tensor.coordinates)]
    barrier = summed(draft, ins.operands[2]) if loads else draft.constant(0, wide=True)
    mask, many = _mask(draft, ins, 3)
    base, offset = place(draft, Address(tensor.base, tensor.offset, None))
    imm = len(coordinates) | many << 4 | offset << 8
    name = f"cp.async.bulk.tensor.{'load' if loads else 'store'}"
    copy(draft, name, [base, summed(draft, near)], [barrier, mask, *coordinates], imm)


# --------------------------------------------------------------------------- warpgroups
@FAMILY.form("wgmma.fence", "wgmma.commit_group", "wgmma.wait_group")
def _in_order(draft: Translation, ins: Instruction) -> None:
    """A product is computed where it is issued."""


@FAMILY.form("wgmma.mma_async")
def _wgmma(draft: Translation, ins: Instruction) -> None:
    """wgmma.mma_async.sync.aligned.m64nNk.f32.kind.kind d, a, b, scale-d, signs, transposes."""
    shape, kind = re.match(r"m64n(\d+)k(\d+)$", ins.names[4]), ins.names[6]
    if shape is None or ins.names[5] != "f32" or kind not in WGMMA_KINDS:
        raise draft.missing()
    held = isinstance(ins.operands[1], Vector)
    sums = registers(draft, ins.operands[0])
    a = registers(draft, ins.operands[1]) if held else [draft.source(ins.operands[1], "b64")]
    b, keep = draft.source(ins.operands[2], "b64"), draft.source(ins.operands[3], "p")
    flags = [o.bits for o in ins.operands[4:] if isinstance(o, Immediate)]
    minus = sum(bits in (-1, 0xFFFFFFFF) for bits in flags[:2]) % 2
    turns = flags[2:]
    a_turned, b_turned = bool(turns[0]) if len(turns) == 2 else False, bool(turns[-1]) if turns else False
    imm = int(shape[1]) | WGMMA_KINDS[kind] << 10 | held << 12 | a_turned << 13 | b_turned << 14 | minus << 15
    copy(draft, "wgmma.mma_async", [], [*sums, *a, b, keep], imm)
    draft.records[-1].writes = sums
    draft.records[-1].kills = False
