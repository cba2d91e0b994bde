"""Instructions of whole warps that take lists of registers or several addresses: tensor cores, asynchronous copies."""

from __future__ import annotations

from core.sim.native.allocation import OpRecord
from core.sim.native.composed import made
from core.sim.native.forms import FORMS as FORMS
from core.sim.native.forms import address, form
from core.sim.native.translation import Translation
from core.sim.ptx.effects import elements
from core.sim.ptx.parser import Immediate, Instruction, Operand, Pair, Register
from core.sim.ptx.state_spaces import space_of


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


@form("mma")
def _mma(draft: Translation, ins: Instruction) -> None:
    kinds = ins.names[6:10]
    name = f"mma.{ins.names[3]}.{kinds[1]}"
    if kinds[0] != "f32" or kinds[3] != "f32" or kinds[1] != kinds[2] or ins.names[4:6] != ("row", "col"):
        raise draft.missing()
    results = [draft.target(part, "b32") for part in elements(ins.operands[0])]
    read = [number for operand in ins.operands[1:4] for number in registers(draft, operand)]
    listed(draft, name, [number for number, _ in results], read, [], 0)
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


@form("ldmatrix")
def _ldmatrix(draft: Translation, ins: Instruction) -> None:
    name, width, slots, imm = _matrices(draft, ins, 1)
    results = [draft.target(part, "b32") for part in elements(ins.operands[0])]
    record = listed(draft, f"ldmatrix.{name}", [number for number, _ in results], [], slots, imm)
    _spelled(draft, record, f"ldmatrix.{name}", width)
    for _, after in results:
        after()


@form("stmatrix")
def _stmatrix(draft: Translation, ins: Instruction) -> None:
    name, width, slots, imm = _matrices(draft, ins, 0)
    record = listed(draft, f"stmatrix.{name}", [], registers(draft, ins.operands[1]), slots, imm)
    _spelled(draft, record, f"stmatrix.{name}", width)


def _spelled(draft: Translation, record: OpRecord, name: str, width: str) -> None:
    """The row for this width of an address."""
    record.row, _ = draft.row(name, lambda row: row.endswith(width))


@form("cp.async")
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
    limit = _read(draft, ins, size.bits)
    number, _ = draft.row(f"cp.async.{size.bits}")
    record = OpRecord(number, [*addresses, draft.windows, limit], draft.pc)
    record.plain, record.reads = frozenset({2}), [*addresses, limit]
    record.imm = (offsets[0] & 0xFFFFFFFF) | (offsets[1] & 0xFFFFFFFF) << 32
    draft.windows += 1
    draft.records.append(record)


def _read(draft: Translation, ins: Instruction, size: int) -> int:
    """The register with the bytes that are read: all, as many as operand 3 says, or none where it is true."""
    if len(ins.operands) < 4:
        return draft.constant(size)
    given = ins.operands[3]
    if isinstance(given, Register) and draft.program.kind(given).bits == 1:
        return made(draft, "selp.b32", draft.constant(0), draft.constant(size), draft.source(given, "p"), wide=False)
    return draft.source(given, "b32")


@form("match")
def _match(draft: Translation, ins: Instruction) -> None:
    target = ins.operands[0]
    if isinstance(target, Pair):
        draft.by_row(draft.name, [target.first, *ins.operands[1:], target.second])
    else:
        draft.by_row(draft.name, ins.operands if "any" in ins.names else [*ins.operands, Register("_")])
