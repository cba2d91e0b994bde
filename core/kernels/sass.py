"""SASS, the chip's own instructions, of a cubin: read with nvdisasm, which needs no GPU and no driver.

The upper bits of an instruction hold the compiler's schedule: the clocks until the warp's next instruction, the
barriers that it sets when its result is there or its operands are read, and those that it waits for. No manual has
their layout; it is that of Jia et al., arXiv:1804.06826, section 2.1, and still the one of Blackwell.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from core.errors import BuildError

PACKAGE = "nvidia-cuda-nvdisasm"
EXTRA = 'pip install "corelm[sass]"'
NO_BARRIER = 7

# Kinds of instructions, in the order of columns: the first pattern that matches from the opcode's start
KINDS = {
    "tensor": r"[HIQOD]MMA\b|HGMMA|QGMMA|UTC\w*MMA",
    "ldsm": r"LDSM",
    "lds": r"LDS\b",
    "sts": r"STS|STSM",
    "copy": r"LDGSTS|UBLKCP|UTMA",
    "ldg": r"LDG|LD\b|ATOM|RED\b|REDG",
    "stg": r"STG|ST\b",
    "spill": r"LDL|STL",
    "special": r"MUFU",
    "float": r"FFMA|FMUL|FADD|FMNMX|FSETP|FSEL|FSET|FCHK|F2F|F2FP|HFMA|HADD|HMUL|FRND|DFMA|DADD|DMUL|DSETP|FSWZ",
    "shuffle": r"SHFL|VOTE|MATCH",
    "barrier": r"BAR|DEPBAR|LDGDEPBAR|WARPSYNC|MEMBAR|ERRBAR|CCTL|SYNCS|ELECT",
    "branch": r"BRA|BRX|BSSY|BSYNC|BREAK|EXIT|CALL|RET|JMP|BMOV|NANOSLEEP|YIELD|BPT",
    "move": r"MOV\b|UMOV|IMAD\.MOV|R2UR|CS2R|S2R|S2UR|PRMT|R2P|P2R",
    "integer": r"",
}
KIND = {name: re.compile(pattern) for name, pattern in KINDS.items()}
LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?);\s*/\* 0x([0-9a-f]{16}) \*/")
MORE = re.compile(r"\s*/\* 0x([0-9a-f]{16}) \*/")
LABEL = re.compile(r"\s*(\.L_x?_?\w+):")
SECTION = re.compile(r"\.text\.([\w$]+):")
CONDITION = re.compile(r"(!?U?P\w+),")  # of a branch, in front of its target: BRA.U !UP0, `(.L_x_2)
TARGET = re.compile(r"`?\(?(\.L_x?_?\w+)\)?")


@dataclass(frozen=True)
class SassInstruction:
    """One instruction. predicate: "" where it always runs. target: the index of the instruction that it may jump to,
    -1 for none. stall: clocks until the warp's next one. written, read: the barrier (0 to 5) that its result, or the
    end of its reading, releases; NO_BARRIER for none. waits: a bit for each barrier that it waits for."""

    opcode: str
    operands: str
    predicate: str
    target: int
    stall: int
    written: int
    read: int
    waits: int

    @property
    def kind(self) -> str:
        return kind_of(self.opcode)


@cache
def kind_of(opcode: str) -> str:
    return next(name for name, pattern in KIND.items() if pattern.match(opcode))


def counts(code: Sequence[SassInstruction]) -> Counter[str]:
    """kind -> instructions."""
    return Counter(instruction.kind for instruction in code)


# --- nvdisasm ----------------------------------------------------------------------------------------------------


@cache
def nvdisasm() -> Path:
    """The program: the package's, or the one on PATH. Raises BuildError that names the extra."""
    for package in (PACKAGE, f"{PACKAGE}-cu12"):
        try:
            listed = files(package) or ()
        except PackageNotFoundError:
            continue
        for file in listed:
            if file.stem == "nvdisasm" and file.parent.name == "bin":
                return Path(str(file.locate()))
    if program := shutil.which("nvdisasm"):
        return Path(program)
    raise BuildError("SASS needs nvdisasm, which is not installed", hint=f"{EXTRA} (no GPU is needed)")


def has_nvdisasm() -> bool:
    try:
        return bool(nvdisasm())
    except BuildError:
        return False


def disassemble(cubin: bytes) -> dict[str, list[SassInstruction]]:
    """kernel -> its instructions, in the order of addresses. Raises BuildError with nvdisasm's own words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin)
        command = [str(nvdisasm()), "-c", "-hex", "-ndf", str(path)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise BuildError(f"nvdisasm refuses the code: {made.stderr.strip()[:500]}", hint=f"pip install -U {PACKAGE}")
    return parse(made.stdout)


def parse(listing: str) -> dict[str, list[SassInstruction]]:
    """kernel -> its instructions, of the output of `nvdisasm -c -hex`."""
    kernels: dict[str, list[SassInstruction]] = {}
    for name, lines in _sections(listing):
        rows: list[tuple[re.Match[str], int]] = []
        labels: dict[str, int] = {}
        for line in lines:
            if label := LABEL.match(line):
                labels[label[1]] = len(rows)
            elif row := LINE.match(line):
                rows.append((row, 0))
            elif (more := MORE.match(line)) and rows:
                rows[-1] = (rows[-1][0], int(more[1], 16))
        kernels[name] = [_instruction(row, control, labels) for row, control in rows]
    return kernels


def _sections(listing: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in listing.splitlines():
        if start := SECTION.match(line):
            if name:
                yield name, lines
            name, lines = start[1], []
        elif line.startswith("//-----") and name:
            yield name, lines
            name, lines = "", []
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def _instruction(row: re.Match[str], control: int, labels: dict[str, int]) -> SassInstruction:
    _, predicate, opcode, operands, _ = row.groups()
    to = TARGET.search(operands) if kind_of(opcode) == "branch" and not opcode.startswith("BSSY") else None
    if to and not predicate and (condition := CONDITION.match(operands)):
        predicate = condition[1]
    return SassInstruction(
        opcode, operands.strip(), predicate or "", labels.get(to[1], -1) if to else -1,
        control >> 41 & 15, control >> 46 & 7, control >> 49 & 7, control >> 52 & 63,
    )  # fmt: skip
