"""Instructions of whole warps that take lists of registers or several addresses: tensor cores, asynchronous copies."""

from __future__ import annotations

import re

from core.sim.native.allocation import OpRecord
from core.sim.native.composed import made
from core.sim.native.forms import address
from core.sim.native.translation import FormFamily, Translation
from core.sim.ptx.effects import elements
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Immediate, Instruction, Operand, Pair, Register

FAMILY = FormFamily()


def registers(draft: Translation, operand: Operand) -> list[int]:
    """The 32-bit registers of a fragment that is read."""
    return [draft.source(part, "b32") for part in elements(operand)]


def listed(draft: Translation, name: str, written: list[int], read: list[int], slots: list[int], imm: int) -> OpRecord:
    """A record with a list of registers in slot 3, those that it writes first."""
    number, _ = draft.row(name)
    record = OpRecord(number, [*slots, *[-1] * (4 - len(slots))], draft.pc, imm=imm)
    record.plain, record.list_slot, record.listed = frozenset({2, 3}), 3, [*written, *read]
    record.writes, record.reads = list(written), [*read, *(slots[1:2] if len(slots) > 1 else [])]
    draft.records.append(record)
    return record


ACCUMULATORS = {"f32": 0, "f16": 1, "s32": 2, "f64": 3}
FACTORS = {"bf16": 0, "f16": 1, "tf32": 2, "s8": 3, "u8": 4, "f64": 5}


@FAMILY.form("mma")
def _mma(draft: Translation, ins: Instruction) -> None:
    result, left, right, term = ins.names[-4:]
    if ins.names[4:6] != ("row", "col"):
        raise draft.missing()
    if result == "f64":
        sizes, name, width = ("b64",) * 4, "mma.f64", "b64"
        imm = len(elements(ins.operands[1]))
    else:
        sums = "mma.f32" if result == term == "f32" else "mma"
        sizes, name, width = ("b32",) * 4, f"{sums}.{ins.names[3]}.{left}.{right}", "b32"
        imm = ACCUMULATORS[result] | ACCUMULATORS[term] << 2 | ("satfinite" in ins.names) << 4
    results = [draft.target(part, width) for part in elements(ins.operands[0])]
    read = [
        draft.source(part, size, size == "b64")
        for operand, size in zip(ins.operands[1:4], sizes, strict=False)
        for part in elements(operand)
    ]
    listed(draft, name, [number for number, _ in results], read, [], imm)
    for _, after in results:
        after()


# --------------------------------------------------------------------------- wmma
SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)$")
BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "f32": 4, "s32": 4, "s8": 1, "u8": 1, "f64": 8}


def _sizes(ins: Instruction) -> dict[str, tuple[int, int]]:
    """Rows and columns of a, b, c and d."""
    shape = next(match for name in ins.names if (match := SHAPE.match(name)))
    m, n, k = (int(one) for one in shape.groups())
    return {"a": (m, k), "b": (k, n), "c": (m, n), "d": (m, n)}


def _spread(operand: Operand, kind: str, size: tuple[int, int], by_row: bool = True) -> int:
    """The layout of a matrix in registers, for tensor_cores.c."""
    slots = len(elements(operand)) * (8 if kind == "f64" else 4) // BYTES[kind]
    return BYTES[kind] | size[0] << 4 | size[1] << 10 | slots << 16 | by_row << 21


def _register_width(kind: str) -> str:
    return "b64" if kind == "f64" else "b32"


@FAMILY.form("wmma.load", "wmma.store")
def _wmma_move(draft: Translation, ins: Instruction) -> None:
    stores, kind, name = ins.names[1] == "store", ins.names[-1], ins.names[2]
    held, at = (ins.operands[1], ins.operands[0]) if stores else (ins.operands[0], ins.operands[1])
    size, by_row, width = _sizes(ins)[name], "row" in ins.names, _register_width(kind)
    start, offset = address(draft, at)[1:]
    start = start if address_is_wide(draft, at) else made(draft, "wide", start)
    if offset:
        start = made(draft, "add.u64", start, draft.constant(offset & (1 << 64) - 1, wide=True))
    tight = size[1] if by_row else size[0]
    stride = draft.source(ins.operands[2], "b32") if len(ins.operands) > 2 else draft.constant(tight)
    slot, imm = draft.windows, _spread(held, kind, size, by_row) | stores << 22
    draft.windows += 1
    parts = elements(held)
    space = space_of(ins.names)
    if stores:
        record = listed(
            draft, f"wmma.move.{space}", [], [draft.source(p, width) for p in parts], [start, stride, slot], imm
        )
        record.reads += [start]
        return
    results = [draft.target(part, width) for part in parts]
    numbers = [number for number, _ in results]
    record = listed(draft, f"wmma.move.{space}", numbers, [], [start, stride, slot], imm)
    record.reads += [start, *numbers]
    record.kills = False
    for _, after in results:
        after()


def address_is_wide(draft: Translation, operand: Operand) -> bool:
    return address(draft, operand)[0] == "[b64]"


@FAMILY.form("wmma.mma")
def _wmma(draft: Translation, ins: Instruction) -> None:
    kinds = [n for n in ins.names[5:] if n in BYTES]
    result, left, right, term = kinds if len(kinds) == 4 else [kinds[0], "f16", "f16", kinds[1]]
    sizes, of = _sizes(ins), (result, left, right, term)
    results = [draft.target(part, _register_width(result)) for part in elements(ins.operands[0])]
    groups = [[number for number, _ in results]]
    groups += [
        [draft.source(part, _register_width(kind)) for part in elements(operand)]
        for operand, kind in zip(ins.operands[1:4], of[1:], strict=True)
    ]
    imm = ACCUMULATORS[result] | ACCUMULATORS[term] << 2 | ("satfinite" in ins.names) << 4
    imm |= FACTORS[left] << 5 | FACTORS[right] << 8
    record = listed(draft, "wmma.mma", groups[0], [n for group in groups[1:] for n in group], [], imm)
    head: list[int] = []
    place = 2 * len(groups)
    for operand, kind, name, group in zip(ins.operands, of, "dabc", groups, strict=False):
        head += [_spread(operand, kind, sizes[name]), place]
        place += len(group)
    record.head = head
    record.reads += groups[0]
    record.kills = False
    for _, after in results:
        after()


def _matrices(draft: Translation, ins: Instruction, place: int) -> tuple[str, str, list[int], int]:
    """(the row's name without the opcode, how its address is spelled, slots, offset and transposition)."""
    count = next(n for n in ins.names if n in ("x1", "x2", "x4"))
    space, (width, base, offset) = space_of(ins.names), address(draft, ins.operands[place])
    if space == "generic" and width == "[b32]":
        base, width = made(draft, "wide", base), "[b64]"
    slot = draft.windows
    draft.windows += 1
    return f"{space}.{count}", width, [-1, base, slot], offset << 1 | ("trans" in ins.names)


@FAMILY.form("ldmatrix")
def _ldmatrix(draft: Translation, ins: Instruction) -> None:
    name, width, slots, imm = _matrices(draft, ins, 1)
    results = [draft.target(part, "b32") for part in elements(ins.operands[0])]
    record = listed(draft, f"ldmatrix.{name}", [number for number, _ in results], [], slots, imm)
    _spelled(draft, record, f"ldmatrix.{name}", width)
    for _, after in results:
        after()


@FAMILY.form("stmatrix")
def _stmatrix(draft: Translation, ins: Instruction) -> None:
    name, width, slots, imm = _matrices(draft, ins, 0)
    record = listed(draft, f"stmatrix.{name}", [], registers(draft, ins.operands[1]), slots, imm)
    _spelled(draft, record, f"stmatrix.{name}", width)


def _spelled(draft: Translation, record: OpRecord, name: str, width: str) -> None:
    """The row for this width of an address."""
    record.row, _ = draft.row(name, lambda row: row.endswith(width))


@FAMILY.form("cp.async")
def _cp_async(draft: Translation, ins: Instruction) -> None:
    if ins.names[2] in ("commit_group", "wait_group", "wait_all"):
        return  # a copy is carried out where it is issued
    size = ins.operands[2]
    if ins.names[2] not in ("ca", "cg") or not isinstance(size, Immediate):
        raise draft.missing()
    addresses, offsets = [], []
    for operand in ins.operands[:2]:
        width, base, offset = address(draft, operand)
        addresses.append(base if width == "[b64]" else made(draft, "wide", base))
        offsets.append(offset)
    limit = bytes_read(draft, ins, size.bits)
    number, _ = draft.row(f"cp.async.{size.bits}")
    record = OpRecord(number, [*addresses, draft.windows, limit], draft.pc)
    record.plain, record.reads = frozenset({2}), [*addresses, limit]
    record.imm = (offsets[0] & 0xFFFFFFFF) | (offsets[1] & 0xFFFFFFFF) << 32
    draft.windows += 1
    draft.records.append(record)


def bytes_read(draft: Translation, ins: Instruction, size: int) -> int:
    """The register with the bytes that a copy reads: all, the number of operand 3, or none where it is true."""
    if len(ins.operands) < 4:
        return draft.constant(size)
    operand = ins.operands[3]
    if isinstance(operand, Register) and draft.program.kind(operand).bits == 1:
        return made(draft, "selp.b32", draft.constant(0), draft.constant(size), draft.source(operand, "p"), wide=False)
    return draft.source(operand, "b32")


@FAMILY.form("match")
def _match(draft: Translation, ins: Instruction) -> None:
    target = ins.operands[0]
    if isinstance(target, Pair):
        draft.by_row(draft.name, [target.first, *ins.operands[1:], target.second])
    else:
        draft.by_row(draft.name, ins.operands if "any" in ins.names else [*ins.operands, Register("_")])
