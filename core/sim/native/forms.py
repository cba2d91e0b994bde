"""PTX instructions that the machine spells otherwise, and the records that each becomes.

Any other opcode is spelled as in PTX: its full name is the name of the machine's row.
"""

from __future__ import annotations

from core.sim.native.allocation import OpRecord
from core.sim.native.translation import FormFamily, Translation
from core.sim.ptx.effects import elements
from core.sim.ptx.register_types import TYPES, Type
from core.sim.ptx.state_spaces import PARAMETER_BYTES, PARAMETERS, space_of
from core.sim.ptx.syntax import Address, Instruction, Operand, Pair, Register, Symbol, Vector

FAMILY = FormFamily()


# --------------------------------------------------------------------------- control
@FAMILY.form("bra")
def _bra(draft: Translation, ins: Instruction) -> None:
    label = ins.operands[-1]
    assert isinstance(label, Symbol)
    to = draft.program.target(label.name)
    if ins.predicate is None:
        draft.emit("bra", [], target=to, ends=True)
    else:
        draft.emit("bra.unless" if ins.negated else "bra.if", [draft.source(ins.predicate, "p")], target=to)


@FAMILY.form("brx")
def _brx(draft: Translation, ins: Instruction) -> None:
    table = ins.operands[1]
    assert isinstance(table, Symbol)
    targets = tuple(draft.program.target(name) for name in draft.program.tables[table.name])
    number, _ = draft.row("brx.idx")
    record = draft.put(number, "b32", [draft.source(ins.operands[0], "b32")], targets=targets, ends=True)
    record.slots[2] = len(targets)
    record.list_slot, record.plain = 1, frozenset({1, 2})


@FAMILY.form("exit", "ret")
def _exit(draft: Translation, ins: Instruction) -> None:
    draft.emit("exit", [], ends=True)


@FAMILY.form("bar.warp")
def _bar_warp(draft: Translation, ins: Instruction) -> None:
    draft.by_row("bar.warp.sync", ins.operands)


@FAMILY.form("bar", "barrier")
def _bar(draft: Translation, ins: Instruction) -> None:
    if "red" in ins.names:
        _bar_red(draft, ins)
    else:
        names = [n for n in ins.names[1:] if n not in ("cta", "aligned")]
        draft.by_row(".".join(("bar", *names)), ins.operands)


def _bar_red(draft: Translation, ins: Instruction) -> None:
    """bar.red.{popc,and,or} d, a, p."""
    if len(ins.operands) != 3 or ins.predicate is not None:
        raise draft.missing("a reduction over part of a thread block")
    kind = next(n for n in ins.names if n in ("popc", "and", "or"))
    number = draft.source(ins.operands[1], "b32")
    draft.emit("bar.red", [number, draft.source(ins.operands[2], "p")])
    to, after = draft.target(ins.operands[0], "b32" if kind == "popc" else "p")
    draft.emit(f"bar.took.{kind}", [to, number])
    after()


# --------------------------------------------------------------------------- moves
@FAMILY.form("mov")
def _mov(draft: Translation, ins: Instruction) -> None:
    kind = TYPES[ins.names[-1]]
    target, source = ins.operands
    if isinstance(source, Vector):
        _pack(draft, target, [draft.source(p, f"b{kind.bits // len(source.parts)}") for p in source.parts], kind.bits)
    elif isinstance(target, Vector):
        _unpack(draft, target.parts, draft.source(source, f"b{kind.bits}"), kind.bits)
    else:
        draft.by_row(draft.name, ins.operands, floating=True)


def _pack(draft: Translation, target: Operand, parts: list[int], bits: int) -> None:
    """d = {a, b, ...}: a is the lowest part."""
    while len(parts) > 2:
        half = 2 * bits // len(parts)
        joined = []
        for low, high in zip(parts[::2], parts[1::2], strict=True):
            joined.append(draft.fresh(half == 64))
            draft.emit(f"pack.b{half}", [joined[-1], low, high])
        parts = joined
    number, after = draft.target(target, f"b{bits}")
    draft.emit(f"pack.b{bits}", [number, *parts])
    after()


def _unpack(draft: Translation, targets: tuple[Operand, ...], value: int, bits: int) -> None:
    """{a, b, ...} = value."""
    if len(targets) == 1:
        number, after = draft.target(targets[0], f"b{bits}")
        draft.emit("mov.b32", [number, value])
        after()
        return
    half = bits // 2
    low, high = draft.fresh(), draft.fresh()
    draft.emit(f"low.b{half}", [low, value])
    draft.emit(f"high.b{bits}", [high, value])
    middle = len(targets) // 2
    _unpack(draft, targets[:middle], low, half)
    _unpack(draft, targets[middle:], high, half)


@FAMILY.form("cvta")
def _cvta(draft: Translation, ins: Instruction) -> None:
    space = space_of(ins.names)
    if space in ("shared", "local"):
        draft.by_row(f"cvta.to.{space}" if "to" in ins.names else f"cvta.{space}", ins.operands)
    else:
        draft.by_row("mov.b64", ins.operands)


# --------------------------------------------------------------------------- memory
def address(draft: Translation, operand: Operand) -> tuple[str, int, int]:
    """(the width of an address, its register, its offset)."""
    if not isinstance(operand, Address):
        raise draft.missing()
    if isinstance(operand.base, Symbol):
        return "[b64]", draft.address_of(operand.base, operand.offset, 64), 0
    if isinstance(operand.base, Register) and draft.program.kind(operand.base).bits == 64:
        return "[b64]", draft.source(operand.base, "b64"), operand.offset
    return "[b32]", draft.source(operand.base, "b32"), operand.offset


def accessed(draft: Translation, ins: Instruction, place: int) -> tuple[str, str]:
    """(space, ".v4.b32" or ".b8") of a load or store whose address is operand `place`."""
    kind = TYPES[ins.names[-1]]
    vector = next((f".{n}" for n in ins.names if n in ("v2", "v4", "v8")), "")
    space, at = space_of(ins.names), ins.operands[place]
    if space == "param" and isinstance(at, Address) and isinstance(at.base, Symbol):
        space = draft.program.place(at.base)[0]
    return ("global" if space == "param" else space), f"{vector}.b{kind.bits}"


@FAMILY.form("ld", "ldu")
def _ld(draft: Translation, ins: Instruction) -> None:
    kind = TYPES[ins.names[-1]]
    space, suffix = accessed(draft, ins, 1)
    width, base, offset = for_space(draft, space, address(draft, ins.operands[1]))
    if space_of(ins.names) == "param" and space == "global" and _launch_constants(draft, ins):
        return
    number, spelled = draft.row(f"ld.{space}{suffix}", lambda row: row.endswith(width))
    if not {"acquire", "relaxed", "volatile"}.isdisjoint(ins.names):
        draft.emit("polls", [])
    parts = [draft.target(o, _spelled(kind)) for o in elements(ins.operands[0])]
    record = draft.put(number, f"=b {width}", [parts[0][0], base], imm=offset)
    slots(draft, record, [number for number, _ in parts], record.writes)
    for _, after in parts:
        after()


def _spelled(kind: Type) -> str:
    """A load's result, as a row spells it."""
    return f"{'s' if kind.kind == 's' and kind.bits < 64 else 'b'}{kind.bits}"


def _launch_constants(draft: Translation, ins: Instruction) -> bool:
    """Parameters of the kernel, by name: the same in the whole launch. False where an access is none of them."""
    at, kind = ins.operands[1], TYPES[ins.names[-1]]
    assert isinstance(at, Address) and isinstance(at.base, Symbol)
    start, size, targets = draft.program.address(at.base) + at.offset, kind.bits // 8, elements(ins.operands[0])
    end = start + size * len(targets)
    if start % (size * len(targets)) or start < PARAMETERS or end > PARAMETERS + PARAMETER_BYTES:
        return False
    for i, operand in enumerate(targets):
        number, after = draft.target(operand, _spelled(kind))
        draft.emit("mov.b64" if size == 8 else "mov.b32", [number, draft.parameter(start + i * size, size)])
        after()
    return True


@FAMILY.form("st")
def _st(draft: Translation, ins: Instruction) -> None:
    space, suffix = accessed(draft, ins, 0)
    width, base, offset = for_space(draft, space, address(draft, ins.operands[0]))
    number, spelled = draft.row(f"st.{space}{suffix}", lambda row: row.endswith(width))
    bits = suffix.rpartition(".")[2]
    parts = [draft.source(o, bits) for o in elements(ins.operands[1])]
    record = draft.put(number, f"b {width}", [parts[0], base], imm=offset)
    slots(draft, record, parts, record.reads)


def for_space(draft: Translation, space: str, place: tuple[str, int, int]) -> tuple[str, int, int]:
    """Global and generic addresses have 64 bits."""
    width, base, offset = place
    if width == "[b64]" or space in ("shared", "local"):
        return place
    made = draft.fresh(wide=True)
    if offset:
        summed = draft.fresh()
        draft.emit("add.u32", [summed, base, draft.constant(offset & 0xFFFFFFFF)])
        base = summed
    draft.emit("wide", [made, base])
    return "[b64]", made, 0


def slots(draft: Translation, record: OpRecord, parts: list[int], concerned: list[int]) -> None:
    """The slot of the window, and a vector's registers."""
    record.slots[2] = draft.windows
    draft.windows += 1
    record.plain = frozenset({2, 3})
    if len(parts) > 1:
        record.listed, record.list_slot = parts, 3
        concerned += parts[1:]


ATOMIC = ("add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas")


@FAMILY.form("atom", "red")
def _atom(draft: Translation, ins: Instruction) -> None:
    kind, name = TYPES[ins.names[-1]], next(n for n in ins.names if n in ATOMIC)
    operands = ins.operands if ins.names[0] == "atom" else (Register("_"), *ins.operands)
    if any(n in ("v2", "v4", "v8") for n in ins.names):
        raise draft.missing()
    space = space_of(ins.names)
    width, base, offset = for_space(draft, space, address(draft, operands[1]))
    if offset:
        summed = draft.fresh(width == "[b64]")
        draft.emit(
            "add.u64" if width == "[b64]" else "add.u32",
            [summed, base, draft.constant(offset & (2**64 - 1 if width == "[b64]" else 2**32 - 1), width == "[b64]")],
        )
        base = summed
    number, _ = draft.row(f"atom.{space}.{name}.{kind.name}", lambda row: row == width)
    amount = draft.source(operands[2], f"b{kind.bits}", kind.kind == "f")
    other = draft.source(operands[3], f"b{kind.bits}") if name == "cas" else amount
    target, after = draft.target(operands[0], f"b{kind.bits}")
    record = draft.put(number, f"=b {width} slot b more:b", [target, base, -1, amount, other])
    record.slots[2], record.plain = draft.windows, frozenset({2})
    draft.windows += 1
    after()


# the unsigned comparisons of PTX, as the machine spells them
UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


# --------------------------------------------------------------------------- warps
@FAMILY.form("shfl")
def _shfl(draft: Translation, ins: Instruction) -> None:
    target = ins.operands[0]
    first, second = (target.first, target.second) if isinstance(target, Pair) else (target, Register("_"))
    draft.by_row(draft.name, [first, *ins.operands[1:], second])


@FAMILY.form("vote")
def _vote(draft: Translation, ins: Instruction) -> None:
    draft.by_row(".".join(ins.names[:3]), ins.operands)


@FAMILY.form("activemask")
def _activemask(draft: Translation, ins: Instruction) -> None:
    draft.by_row("activemask", ins.operands)


# --------------------------------------------------------------------------- nothing to do
@FAMILY.form(
    "prefetch", "prefetchu", "applypriority", "membar", "fence", "nanosleep", "pmevent", "setmaxnreg", "griddepcontrol"
)
def _nothing(draft: Translation, ins: Instruction) -> None:
    """Hints, time and order: the machine runs one instruction after the other."""
