"""Opcodes: the forms of each that the simulator knows, and the builder that decodes an instruction.

To add an opcode, write a builder in the module of its family under `@opcode("name", "forms")`: it takes an instruction
apart once and returns the function that runs it; `@control` is for opcodes that end a block of instructions. Rows go
into the module's own Family; table.py puts all families into the one table that kernels are bound by (binding.py).
Opcodes are looked up by their longest known prefix, so that "cp.async.bulk" and "cp.async" are different rows. An
instruction that no form lists is refused: a modifier that was dropped silently would be a wrong result.

A form lists the modifiers after the name, as the PTX manual does: items in their order, "a/b" for a choice, "?" for an
optional item, "|" between forms; $name is one of GROUPS.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from core.errors import did_you_mean
from core.sim.faults import PtxError
from core.sim.instructions.operands import Step
from core.sim.ptx.block import End
from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Instruction

Builder = Callable[[Program, Instruction], Step]
ControlBuilder = Callable[[Program, Instruction, int], End]
B = TypeVar("B")
LONGEST = 5  # names in a row's key
KEPT = 4096  # opcodes whose row is known
TEXTURES = "textures", "a pointer to the array in place of the texture, with the index computed in the kernel"
SURFACES = "surfaces", "a pointer to the array in place of the surface, with the index computed in the kernel"
VIDEO = "video instructions", "ordinary integer arithmetic"
LACKING = {  # opcode -> (the family that the simulator does not have, a hint)
    **dict.fromkeys(("tex", "tld4", "txq", "istypep"), TEXTURES),
    **dict.fromkeys(("suld", "sust", "sured", "suq"), SURFACES),
    **{f"v{name}{n}": VIDEO for name in ("add", "sub", "absdiff", "min", "max", "set", "avrg") for n in ("", 2, 4)},
    **dict.fromkeys(("vshl", "vshr", "vmad"), VIDEO),
    "tcgen05": ("tensor memory of Blackwell", "wgmma or mma"),
}
LOOSE = {"atom", "red", "ld", "st", "ldmatrix", "stmatrix", "shfl", "vote", "match", "redux"}  # modifiers in any order

GROUPS = {
    "int": "u16/u32/u64/s16/s32/s64",
    "signed": "s16/s32/s64",
    "any_int": "u8/u16/u32/u64/s8/s16/s32/s64",
    "bits": "b16/b32/b64",
    "logic": "pred/b16/b32/b64",
    "plain": "b16/b32/b64/u16/u32/u64/s16/s32/s64/f32/f64",
    "stored": "b8/b16/b32/b64/u8/u16/u32/u64/s8/s16/s32/s64/f32/f64",
    "float": "f16/bf16/f32/f64",
    "half": "f16/f16x2/bf16/bf16x2",
    "round": "rn/rz/rm/rp",
    "whole": "rni/rzi/rmi/rpi",
    "scope": "cta/cluster/gpu/sys",
    "shared": "shared/shared::cta",
    "cluster": "shared/shared::cta/shared::cluster",
    "space": "global/const/local/shared/shared::cta/shared::cluster/param/param::entry/param::func",
    "vector": "v2/v4/v8",
    "rank": "1d/2d/3d/4d/5d",
    "reduce": "add/min/max/and/or/xor/inc/dec",
    "compare": "eq/ne/lt/le/gt/ge",
    "compare_unsigned": "lo/ls/hi/hs",
    "compare_float": "eq/ne/lt/le/gt/ge/equ/neu/ltu/leu/gtu/geu/num/nan",
    "logical": "and/or/xor",
    "hint": "L1::evict_normal/L1::evict_unchanged/L1::evict_first/L1::evict_last/L1::no_allocate",
    "hint2": "L2::evict_normal/L2::evict_first/L2::evict_last",
    "ahead": "L2::64B/L2::128B/L2::256B",
    "wgmma16": "/".join(f"m64n{n}k16" for n in range(8, 257, 8)),
    "wgmma8": "/".join(f"m64n{n}k8" for n in range(8, 257, 8)),
}


@dataclass(frozen=True)
class OpcodeRow(Generic[B]):
    """The forms of an opcode. pure: it computes registers of registers, and nothing else."""

    builder: B
    forms: str
    pure: bool = False


@dataclass
class Family:
    """The opcodes of one module. pure: as of OpcodeRow."""

    pure: bool = False
    rows: dict[str, OpcodeRow[Builder]] = field(default_factory=dict)
    controls: dict[str, OpcodeRow[ControlBuilder]] = field(default_factory=dict)

    def opcode(self, name: str, forms: str) -> Callable[[Builder], Builder]:
        """A row for the builder below it."""

        def add(builder: Builder) -> Builder:
            self.rows[name] = OpcodeRow(builder, forms, self.pure)
            return builder

        return add

    def control(self, name: str, forms: str) -> Callable[[ControlBuilder], ControlBuilder]:
        """A row for the builder of an opcode that ends a block of instructions."""

        def add(builder: ControlBuilder) -> ControlBuilder:
            self.controls[name] = OpcodeRow(builder, forms)
            return builder

        return add


class OpcodeTable:
    """All opcodes of some families."""

    def __init__(self, *families: Family) -> None:
        self.rows = {name: row for family in families for name, row in family.rows.items()}
        self.controls = {name: row for family in families for name, row in family.controls.items()}

    def is_control(self, instruction: Instruction) -> bool:
        """Whether the longest row of an opcode's name is one of control: bra is, cp.async.bulk.wait_group is not."""
        every = beginnings(instruction.names)
        return next((name in self.controls for name, _ in every if name in self.controls or name in self.rows), False)

    def row(self, instruction: Instruction) -> OpcodeRow[Builder]:
        """The row of an instruction. Raises PtxError, with its text and source line, for an unknown one."""
        row = find(self.rows, instruction)
        if row is not None:
            return row
        if (lacking := LACKING.get(instruction.names[0])) is not None:
            family, hint = lacking
            raise PtxError(f"the simulator has no {family}: `{instruction.text}` ({instruction.location})", hint=hint)
        raise PtxError(
            f"the simulator does not know `{instruction.text}` ({instruction.location})"
            f"{did_you_mean(instruction.names[0], self.rows)}",
            hint="add a row to the table in core/sim/instructions for it",
        )

    def end(self, program: Program, instruction: Instruction, pc: int) -> End:
        """The function of a control instruction at `pc`."""
        row = find(self.controls, instruction)
        assert row is not None
        return row.builder(program, instruction, pc)


def find(table: dict[str, OpcodeRow[B]], instruction: Instruction) -> OpcodeRow[B] | None:
    """The row of an opcode's longest known prefix; raises PtxError where none of its forms is the instruction's.

    The modifiers of LOOSE opcodes, which ptxas takes in any order, are put into the order of their form.
    """
    for name, rest in beginnings(instruction.names):
        if name in table:
            forms = table[name].forms
            arranged = rest if _fits(forms, rest) else _arranged(forms, rest) if name in LOOSE else None
            if arranged is None:
                raise _no_form(name, forms, rest, instruction)
            instruction.names = (*name.split("."), *arranged)
            return table[name]
    return None


@functools.lru_cache(maxsize=KEPT)
def beginnings(names: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """("a", "b", "c") -> ("a.b.c", ()), ("a.b", ("c",)), ("a", ("b", "c")): possible names of a row, and the rest."""
    return [(".".join(names[:n]), names[n:]) for n in range(min(len(names), LONGEST), 0, -1)]


def _no_form(name: str, forms: str, rest: tuple[str, ...], instruction: Instruction) -> PtxError:
    modifiers = set(re.findall(r"[^\s/?|]+", written_out(forms).replace("::", ":")))
    strange = [f".{one.replace(':', '::')}" for one in rest if one not in modifiers]
    part = f"{', '.join(strange)} of" if strange else "this form of"
    return PtxError(
        f"the simulator does not have {part} `{instruction.text}` ({instruction.location})",
        hint=f"it has {name} {forms or 'alone'} (in the notation of core/sim/instructions/opcodes.py)",
    )


@functools.lru_cache(maxsize=KEPT)
def _arranged(forms: str, rest: tuple[str, ...]) -> tuple[str, ...] | None:
    """Modifiers in the order of the first form that they are some order of; the type stays last. None: of no form."""
    for form in written_out(forms).replace("::", ":").split("|"):
        left, ordered = list(rest[:-1]), []
        *items, last = form.split()
        for item in items:
            word = next((w for w in left if w in item.rstrip("?").split("/")), None)
            if word is not None:
                left.remove(word)
                ordered.append(word)
            elif not item.endswith("?"):
                break
        else:
            if not left and rest[-1:] and rest[-1] in last.split("/"):
                return (*ordered, rest[-1])
    return None


@functools.lru_cache(maxsize=KEPT)
def _fits(forms: str, rest: tuple[str, ...]) -> bool:
    return _pattern(forms).fullmatch("".join(f".{one}" for one in rest)) is not None


def written_out(forms: str) -> str:
    """Forms with the groups spelled out."""
    return re.sub(r"\$(\w+)", lambda group: GROUPS[group[1]], forms)


@functools.cache
def _pattern(forms: str) -> re.Pattern[str]:
    """ "sync up/down b32" -> a pattern that matches ".sync.up.b32"."""

    def item(text: str) -> str:
        choices = "|".join(re.escape(one) for one in text.rstrip("?").replace("::", ":").split("/"))
        return rf"(?:\.(?:{choices}))" + ("?" if text.endswith("?") else "")

    return re.compile("|".join("".join(item(i) for i in form.split()) for form in written_out(forms).split("|")))
