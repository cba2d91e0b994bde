"""A kernel's PTX -> records of the machine.

An instruction becomes the record of the row that has its name, operands in the row's order. Where a register's width
is not the row's, a record that converts precedes or follows, as the interpreter's readers and writers do it. Opcodes
that are spelled otherwise in the machine have a function in a file of form_table.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import BuildError
from core.sim.instructions.opcodes import OpcodeTable
from core.sim.instructions.operands import immediate
from core.sim.machine.special import CLOCKS, SAME
from core.sim.machine.special import TABLE as SPECIALS
from core.sim.native.affine import straighten
from core.sim.native.allocation import HEAD, NARROW, WIDE, OpRecord, allocate
from core.sim.native.fusing import LONGEST, fuse
from core.sim.native.simplified import Rows, simplify
from core.sim.native.toolchain import Machine
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import FLOAT, TYPES, UNSIGNED
from core.sim.ptx.syntax import Immediate, Instruction, Negated, Operand, Pair, Register, Special, Symbol

OP = np.dtype([("run", "<u8"), ("o", "<u4", 4), ("imm", "<i8")])
ONE_LANE = {"b8": 8, "b16": 16, "b32": 32, "b64": 64, "s8": 8, "s16": 16, "s32": 32, "p": 1, "any": 0}
KINDS = ("tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid", "laneid",
         "warpid", "nwarpid", "smid", "nsmid", "gridid", "cluster_ctarank", "cluster_nctarank", "is_explicit_cluster",
         "dynamic_smem_size", "total_smem_size", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt",
         "lanemask_ge")  # fmt: skip


class Missing(BuildError):
    """A kernel needs an instruction that the machine lacks: the interpreter runs it."""


@dataclass
class Code:
    """A kernel for the machine. constants: (place, 64 bits, value or (variable, offset)); parameters: (place, 64 bits,
    address, bytes) of the launch's arguments; specials: (place, 64 bits, kind, axis); fresh: (place, bytes) of
    registers that may be read before they are written; entry: the first record of a thread block, after the prologue;
    pcs: record -> instruction; marks, loops: the first instructions of blocks, and branches back, that are counted."""

    ops: np.ndarray[Any, Any]
    lists: np.ndarray[Any, Any]
    constants: list[tuple[int, bool, int | tuple[str, int]]]
    parameters: list[tuple[int, bool, int, int]]
    specials: list[tuple[int, bool, int, int]]
    fresh: list[tuple[int, int]]
    size: int
    windows: int
    entry: int
    pcs: np.ndarray[Any, Any]
    marks: list[int] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)


Form = Callable[["Translation", Instruction], None]


class FormFamily(dict[str, Form]):
    """Opcode -> the function that makes its records, of one file. form_table.py has all of them."""

    def form(self, *names: str) -> Callable[[Form], Form]:
        """Rows for the function below it."""

        def add(made: Form) -> Form:
            self.update(dict.fromkeys(names, made))
            return made

        return add


@dataclass
class Translation:
    """Records of a kernel as they are made. Registers of the kernel keep their numbers; others follow them."""

    program: Program
    machine: Machine
    forms: dict[str, Form]
    before: Form | None = None  # makes records in front of an instruction's own
    records: list[OpRecord] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    wide: list[bool] = field(default_factory=list)
    constants: dict[tuple[bool, int | tuple[str, int]], int] = field(default_factory=dict)
    parameters: dict[tuple[bool, int, int], int] = field(default_factory=dict)
    specials: dict[tuple[str, bool], int] = field(default_factory=dict)
    windows: int = 0
    pc: int = 0
    ins: Instruction | None = None
    marks: list[int] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        ordered = sorted(self.program.numbers.items(), key=lambda item: item[1])
        self.wide = [self.program.kinds[name].bits == 64 for name, _ in ordered]

    # ------------------------------------------------------------------ registers
    def fresh(self, wide: bool = False) -> int:
        self.wide.append(wide)
        return len(self.wide) - 1

    def constant(self, value: int | tuple[str, int], wide: bool = False) -> int:
        key = (wide, value)
        if key not in self.constants:
            self.constants[key] = self.fresh(wide)
        return self.constants[key]

    def parameter(self, address: int, size: int) -> int:
        """The register with `size` bytes of the launch's parameters."""
        key = (size == 8, address, size)
        if key not in self.parameters:
            self.parameters[key] = self.fresh(size == 8)
        return self.parameters[key]

    def special(self, name: str, wide: bool) -> int:
        if name not in SPECIALS:
            raise self.missing(f"the register {name}")
        if name in CLOCKS:
            made = self.fresh(wide=True)
            self.emit("clock", [made])
            return self.resized(made, 64, 64 if wide else 32)
        if name in SAME:
            return self.constant(SAME[name], wide)
        if (name, wide) not in self.specials:
            self.specials[name, wide] = self.fresh(wide)
        return self.specials[name, wide]

    def missing(self, name: str = "") -> Missing:
        assert self.ins is not None
        return Missing(name or f"`{self.ins.text}`")

    # ------------------------------------------------------------------ operands
    def source(self, operand: Operand, width: str, floating: bool = False) -> int:
        """The register that holds an operand in a width ("b32", "p", ...), made by a conversion where need be."""
        bits = ONE_LANE[width]
        if isinstance(operand, Register):
            number, own = self.program.number(operand), self.program.kind(operand).bits
            return self.resized(number, own, bits)
        assert self.ins is not None
        bits = bits or TYPES[self.ins.names[-1]].bits
        if isinstance(operand, Negated):
            inner, made = self.source(operand.operand, "p"), self.fresh()
            self.emit("not.pred", [made, inner])
            return made
        if isinstance(operand, Special):
            return self.special(operand.name, bits == 64)
        if isinstance(operand, Symbol):
            return self.address_of(operand, 0, bits)
        if isinstance(operand, Immediate):
            if bits == 1:
                return self.constant(0xFFFFFFFF if operand.bits else 0)
            dtype = FLOAT[bits] if floating and bits in (32, 64) else UNSIGNED[bits]
            return self.constant(int(immediate(operand, dtype).view(UNSIGNED[bits])[0]), bits == 64)
        raise self.missing()

    def address_of(self, symbol: Symbol, offset: int, bits: int) -> int:
        space, place = self.program.place(symbol)
        if space == "global":
            return self.constant((symbol.name, symbol.offset + offset), bits == 64)
        return self.constant((place + symbol.offset + offset) & ((1 << bits) - 1), bits == 64)

    def resized(self, number: int, own: int, bits: int) -> int:
        """own, bits: widths of the register and of the use, 1 for predicates; 0 allows any up to 32."""
        if own == bits or (own < 64 and bits == 0) or (1 < own < bits < 64):
            return number
        if (own == 1) != (bits == 1):
            raise self.missing()
        made = self.fresh(bits == 64)
        if bits == 64:
            self.emit("wide", [made, number])
        elif own == 64:
            self.emit("low.b32", [made, number])
            return self.resized(made, 32, bits or 32)
        else:
            self.emit(f"low.b{bits}", [made, number])
        return made

    def target(self, operand: Operand, width: str) -> tuple[int, Callable[[], None]]:
        """(the register that an instruction of this width writes, the code after it)."""
        bits, signed = ONE_LANE[width], width[0] == "s"
        if not isinstance(operand, Register):
            raise self.missing()
        if operand.name == "_":
            return self.fresh(bits == 64), lambda: None
        number, own = self.program.number(operand), self.program.kind(operand).bits
        if own == bits or (own < 64 and bits == 0):
            return number, lambda: None
        if (own == 1) != (bits == 1):
            raise self.missing()
        made = self.fresh(bits == 64)

        def convert() -> None:
            value = made
            if signed and own > bits and bits < 32:
                value = self.fresh()
                self.emit(f"signed.b{bits}", [value, made])
                if own == 16:
                    value = self.resized(value, 32, 16)
            if own == 64:
                self.emit("wide.signed" if signed else "wide", [number, value])
            elif own < bits:
                value = self.resized(value, bits, own)
                self.emit("mov.b32", [number, value])
            else:
                self.emit("mov.b32", [number, value])

        return made, convert

    # ------------------------------------------------------------------ records
    @property
    def name(self) -> str:
        assert self.ins is not None
        return ".".join(self.ins.names).replace(":", "::") if self.ins.names else ""

    def row(self, name: str, fits: Callable[[str], bool] = lambda operands: True) -> tuple[int, str]:
        rows = [row for row in self.machine.rows.get(name, ()) if fits(row[1])]
        if not rows:
            raise self.missing()
        return rows[0]

    def emit(self, name: str, registers: Sequence[int], **more: Any) -> OpRecord:
        """A record whose operands are registers already."""
        number, spelled = self.row(name, lambda operands: len(_tokens(operands)) == len(registers))
        return self.put(number, spelled, registers, **more)

    def put(self, number: int, spelled: str, registers: Sequence[int], **more: Any) -> OpRecord:
        record = OpRecord(number, [-1] * 4, self.pc, **more)
        place = 0
        for token, register in zip(_tokens(spelled), registers, strict=True):
            if token.startswith("more:"):
                record.more = [*(record.more or []), register]
            else:
                record.slots[place] = register
                place += 1
            if register >= 0:
                (record.writes if "=" in token else record.reads).append(register)
        self.records.append(record)
        return record

    def by_row(self, name: str, operands: Sequence[Operand], floating: bool = False) -> OpRecord:
        """The record of a row, from the operands of an instruction."""
        number, spelled = self.row(name, lambda row: len(_tokens(row)) == len(operands))
        tokens = _tokens(spelled)
        after: list[Callable[[], None]] = []
        registers = [-1] * len(operands)
        for i, (token, operand) in enumerate(zip(tokens, operands, strict=True)):
            if "=" not in token:
                registers[i] = self.source(operand, token.removeprefix("more:"), floating)
        for i, (token, operand) in enumerate(zip(tokens, operands, strict=True)):
            if "=" in token:
                registers[i], convert = self.target(operand, token.removeprefix("more:")[1:])
                after.append(convert)
        record = self.put(number, spelled, registers)
        for convert in after:
            convert()
        return record

    # ------------------------------------------------------------------ instructions
    def instruction(self, ins: Instruction, control: bool) -> None:
        self.ins = ins
        if ins.predicate is None or ins.names[0] == "bra":
            self.form(ins)
        elif control:
            holds = self.source(ins.predicate, "p")
            self.emit("bra.if" if ins.negated else "bra.unless", [holds], target=self.pc + 1)
            self.form(ins)
        else:
            holds = self.source(ins.predicate, "p")
            record = self.emit("guard", [holds], plain=frozenset({1}), guards=True)
            record.slots[1] = int(ins.negated)
            first, temporary = len(self.records), len(self.wide)
            self.form(ins)
            record.imm = len(self.records) - first
            for one in self.records[first:]:
                one.kills = all(r >= temporary for r in one.writes)

    def form(self, ins: Instruction) -> None:
        if self.before is not None:
            self.before(self, ins)
        for parts in range(min(4, len(ins.names)), 0, -1):
            form = self.forms.get(".".join(ins.names[:parts]))
            if form is not None:
                return form(self, ins)
        operands = [part for o in ins.operands for part in ((o.first, o.second) if isinstance(o, Pair) else (o,))]
        floating = ins.names[-1] in ("f32", "f64")
        self.by_row(self.name, operands, floating)
        return None

    def code(self) -> Code:
        """The finished kernel."""
        chains = {n: self.machine.rows[f"chains.{n}.f32"][0][0] for n in range(1, LONGEST + 1)}
        defined = [*self.constants.values(), *self.parameters.values(), *self.specials.values()]
        varying = [r for (name, _), r in self.specials.items() if self.machine.varies(_kind(name)[0])]
        moves = frozenset(self.machine.rows[name][0][0] for name in ("mov.b32", "mov.b64"))
        rows = Rows(self.machine.lanewise, moves, self.machine.rows["prepared"][0][0])
        made = simplify(self.records, self.starts, rows, defined, varying)
        self.records, self.starts = fuse(made.records, made.starts, self.machine.rows["fma.rn.f32"][0][0], chains)
        self.records, self.starts, lines = straighten(self.records, self.starts, self.machine.lines, defined, self.wide)
        entry = next((i + 1 for i, record in enumerate(self.records) if record.row == rows.prepared), 0)
        places = allocate(self.records, self.starts, entry, self.wide, [*defined, *made.read_later], lines)
        ops, lists = np.zeros(len(self.records), OP), list[int]()
        for i, record in enumerate(self.records):
            slots = [0 if r < 0 else r if s in record.plain else places.at[r] for s, r in enumerate(record.slots)]
            imm = record.imm
            if record.more is not None:
                first, second = (*(places.at[r] for r in record.more), 0)[:2]
                imm = first | second << 32
            if record.target >= 0:
                imm = self.starts[record.target] - i
            if record.list_slot >= 0:
                slots[record.list_slot] = len(lists)
                lists += [*record.head, *(places.at[r] for r in record.listed)]
                lists += [self.starts[to] for to in record.targets]
            ops[i] = (record.row, slots, imm if imm < 1 << 63 else imm - (1 << 64))
        return Code(
            ops,
            np.array(lists or [0], np.uint32),
            [(places.at[r], wide, value) for (wide, value), r in self.constants.items()],
            [(places.at[r], wide, address, size) for (wide, address, size), r in self.parameters.items()],
            [(places.at[r], wide, *_kind(name)) for (name, wide), r in self.specials.items()],
            [
                (places.at[r] - HEAD * (r in lines), (WIDE if self.wide[r] else NARROW) + HEAD * (r in lines))
                for r in places.fresh
            ],
            places.size,
            max(1, self.windows),
            entry,
            np.array([r.pc for r in self.records], np.int64),
            self.marks,
            self.loops,
        )

    def mark(self) -> None:
        """Count from here on, and a branch back to here."""
        if self.pc in self.program.blocks:
            self.emit("mark", [], imm=len(self.marks))
            self.marks.append(self.pc)
        ins = self.ins
        if ins is None or ins.names[0] != "bra" or not isinstance(ins.operands[-1], Symbol):
            return
        if self.program.target(ins.operands[-1].name) <= self.pc:
            holds = self.source(ins.predicate, "p") if ins.predicate is not None else self.constant(0xFFFFFFFF)
            record = self.emit("looped", [holds], imm=len(self.loops), plain=frozenset({1}))
            record.slots[1] = int(ins.negated and ins.predicate is not None)
            self.loops.append(self.pc)


def _tokens(operands: str) -> list[str]:
    return [token for token in operands.split() if token != "@"]


def _kind(name: str) -> tuple[int, int]:
    """(kind, axis) of a special register, as blocks.c numbers them."""
    plain, _, axis = name[1:].partition(".")
    return KINDS.index("gridid" if plain == "clock_hi" else plain), "xyz".index(axis) if axis else 0


def translate(
    program: Program, machine: Machine, table: OpcodeTable, forms: dict[str, Form], marked: bool = False,
    before: Form | None = None,
) -> Code:  # fmt: skip
    """The records of a linked and bound kernel; marked: with counts; before: makes records in front of each
    instruction. Raises Missing for instructions that the machine does not have."""
    draft = Translation(program, machine, forms, before)
    for pc, ins in enumerate(program.instructions):
        draft.pc = pc
        draft.starts.append(len(draft.records))
        draft.ins = ins
        if marked:
            draft.mark()
        draft.instruction(ins, table.is_control(ins))
    draft.pc = len(program.instructions)
    draft.starts.append(len(draft.records))
    draft.ins = None
    if marked:
        draft.mark()
    draft.emit("exit", [], ends=True)
    return draft.code()
