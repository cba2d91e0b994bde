"""Records -> records with lines: registers whose lanes are base + lane * step (lines.h), and records that spread them.

A register can hold a line where each record that writes it has a form with lines, and reads only such registers,
constants, parameters and special registers. Any other record that reads it follows a record that writes its lanes
out. A loaded value may be a line (the same in all lanes) where only forms with lines read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from core.sim.native.allocation import OpRecord


@dataclass(frozen=True)
class LineRows:
    """Row numbers of the machine. lined: row -> its form with lines; loads, stores: those whose only line is the
    address, operand 1; shuffles: those of which operand 1 is read by lanes; spread: (of 32 bits, of 64 bits) writes the
    lanes of a line."""

    lined: dict[int, int]
    loads: frozenset[int]
    stores: frozenset[int]
    shuffles: frozenset[int]
    spread: tuple[int, int]

    def by_line(self, record: OpRecord) -> list[int]:
        """The registers that a record's form with lines reads as lines; none where it has no such form."""
        if record.row not in self.lined:
            return []
        if record.row in self.loads or record.row in self.stores:
            return [record.slots[1]]
        if record.row in self.shuffles:
            return [*record.slots[2:], *(record.more or [])[:1]]
        return record.reads

    def writes_lines(self, record: OpRecord, register: int, elsewhere: Collection[int]) -> bool:
        """Whether a record's form with lines can write one. elsewhere: registers that are read by lanes."""
        if record.row not in self.lined:
            return False
        if record.row in self.loads:
            return register not in elsewhere and len(record.writes) == 1
        return record.row not in self.shuffles or register not in elsewhere


def line_rows(rows: dict[str, list[tuple[int, str]]]) -> LineRows:
    """rows: the machine's, by name."""
    lined = {
        number: form
        for name, forms in rows.items()
        for number, operands in forms
        for form, spelled in rows.get(f"{name}.line", ())
        if spelled == operands
    }

    def named(kind: str) -> frozenset[int]:
        return frozenset(n for name, forms in rows.items() if name.startswith(kind) for n, _ in forms)

    spread = rows["spread.b32"][0][0], rows["spread.b64"][0][0]
    return LineRows(lined, named("ld."), named("st."), named("shfl."), spread)


def straighten(
    records: Sequence[OpRecord], starts: Sequence[int], rows: LineRows, defined: Collection[int], wide: Sequence[bool]
) -> tuple[list[OpRecord], list[int], set[int]]:
    """(the records, where each instruction's begin, the registers that may hold lines). defined: registers that have
    their lanes and their line from the start."""
    lines = _lines(records, rows, set(defined))
    may = lines | set(defined)
    cuts = {starts[to] for record in records for to in (record.target, *record.targets) if to >= 0}
    made, moved = list[OpRecord](), list[int]()
    guard, end = -1, -1  # the place among `made` of the guard at hand; the record after the guarded ones
    out = set[int]()  # registers whose lanes this block has written out
    for place, record in enumerate(records):
        moved.append(len(made))
        if place in cuts:
            out.clear()
        form, by_line = rows.lined.get(record.row, -1), rows.by_line(record)
        whole = record.row in rows.loads or lines.issuperset(record.writes)
        if not (whole and may.issuperset(by_line)):
            form, by_line = -1, []
        spread = [
            r
            for r in dict.fromkeys(record.reads)
            if r in lines and r not in out and (r not in by_line or _by_lanes(record, r, rows))
        ]
        for r in spread:
            made.append(OpRecord(rows.spread[wide[r]], [r, -1, -1, -1], record.pc, reads=[r]))
        if place < end:
            made[guard].imm += len(spread)
        else:
            out.update(spread)
        if record.guards:
            guard, end = len(made), place + 1 + record.imm
            record = replace(record)
        if form >= 0:
            record = replace(record, row=form)
            if record.row in rows.loads and lines.issuperset(record.writes):
                record.slots = [*record.slots[:3], 1]
        made.append(record)
        out.difference_update(record.writes)
        if record.target >= 0 or record.targets or record.ends:
            out.clear()
    moved.append(len(made))
    return made, [moved[place] for place in starts], lines


def _by_lanes(record: OpRecord, register: int, rows: LineRows) -> bool:
    """Whether a form with lines reads a register by its lanes too."""
    place = 0 if record.row in rows.stores else 1 if record.row in rows.shuffles else -1
    return place >= 0 and register in (record.slots[place], *record.listed)


def _lines(records: Sequence[OpRecord], rows: LineRows, defined: set[int]) -> set[int]:
    """The registers that may hold lines: the most that keep each other so."""
    writers: dict[int, list[OpRecord]] = {}
    elsewhere = set[int]()  # read by lanes
    for record in records:
        for r in record.writes:
            writers.setdefault(r, []).append(record)
        by_line = rows.by_line(record)
        elsewhere.update(r for r in record.reads if r not in by_line)
    affine = {
        r for r, those in writers.items()
        if r not in defined and all(rows.writes_lines(one, r, elsewhere) for one in those)
    }  # fmt: skip
    changed = True
    while changed:
        sources = affine | defined
        gone = {
            r for r in affine if not all(sources.issuperset([*rows.by_line(one), *one.writes]) for one in writers[r])
        }
        affine -= gone
        changed = bool(gone)
    return affine
