"""The verdicts of a release: `python -m core.testing.release` brings the files up to date.

Each plugin's folder has a verdicts.json with the findings of the op check on its variants: kernels in the simulator,
the rest on the cpu. An entry is keyed by the code that it was made from, so that only variants whose code has changed
are checked, and those whose entry has no smallest sizes; a whole check in this machine's cache (`core check --all
--no-time`) is reused. Of the other kernels, those without a record of their compilations by this version of NVRTC are
compiled. The files are written after each variant: an interrupted command continues with the rest. A variant of corelm
that fails, or has lines or loops that no example reaches and that it does not declare, gets no entry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.discovery import BUILT_IN, GIVEN, SHIPPED
from core.errors import CoreError
from core.loader import load_registry
from core.op import Reference, Variant
from core.registry import Registry
from core.testing.check import check_variant
from core.testing.check_report import VariantReport
from core.testing.compiles import compiler
from core.testing.processes import processes, registry_of
from core.testing.records import as_row, verdicts_of, write_rows
from core.threads import cores
from core.variant_sources import key_of
from core.verdicts import (
    Row,
    Verdict,
    Verdicts,
    plugin_of,
    release_file,
    rows_in,
    ships,
    verdict_of,
)

COMMAND = "python -m core.testing.release"
WHOLE, REACHED = "schema", "coverage"  # sub-checks: one that only a whole check makes; no line or loop without example
DECLARE = "give the variant an example that reaches this, or declare it: uncovered = {line: reason}"


@dataclass(frozen=True)
class ReleaseEntry:
    """A variant that has to be in a plugin's file, and the rows that are there for it and count.

    required: sub-checks that each row must have passed. Kernels of corelm leave no line or loop without an
    example, unless they declare it; kernels of plugins get a note.
    """

    variant: Variant
    path: Path
    key: str
    rows: tuple[Row, ...]
    required: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.variant.op}.{self.variant.name}"

    @property
    def current(self) -> bool:
        """Whether there is a row for each dtype, made from the code as it is now."""
        whole = all(self.required <= set(row.get("checks", ())) for row in self.rows)
        return whole and {row.get("dtype") for row in self.rows} == set(self.variant.dtypes)

    @property
    def has_ranges(self) -> bool:
        """Whether each row has the smallest size of each dim that it covers, and not the largest alone."""
        return all((verdict := verdict_of(row)) is not None and verdict.has_range for row in self.rows)

    @property
    def compiled(self) -> bool:
        """Whether its compilations by the NVRTC at hand are recorded, or it has no kernels."""
        begin = f"{compiler()}:" if self.variant.sources else ""
        return all(str(row.get("compiled", "")).startswith(begin) for row in self.rows)


def entries_of(registry: Registry, kinds: Sequence[str] = (BUILT_IN, SHIPPED)) -> list[ReleaseEntry]:
    """One for each variant of the plugins of these kinds; variants that call a vendor's library are left out, since
    they run on a GPU only, and those that need several ranks."""
    entries: list[ReleaseEntry] = []
    files: dict[Path, list[Row]] = {}
    for variant in (v for variants in registry.variants.values() for v in variants.values()):
        record = plugin_of(variant, registry)
        path = release_file(record) if record is not None and record.kind in kinds else None
        several = bool(registry.op(variant.op).collective) and not isinstance(variant, Reference)
        if path is None or variant.library or several or variant.substitute:
            continue
        files.setdefault(path, rows_in(path))
        key = key_of(variant, registry)
        own = [row for row in files[path] if (row.get("op"), row.get("variant")) == (variant.op, variant.name)]
        current = tuple(row for row in own if row.get("sources") == key and row.get("passed") is True)
        entries.append(ReleaseEntry(variant, path, key, current, required_of(variant, ships(variant, registry))))
    return sorted(entries, key=lambda entry: entry.name)


def required_of(variant: Variant, shipped: bool) -> frozenset[str]:
    """The sub-checks that a variant must have passed for a verdict of a release."""
    return frozenset((WHOLE, REACHED) if variant.sources and shipped else (WHOLE,))


def stale(registry: Registry, kinds: Sequence[str] = (BUILT_IN, SHIPPED)) -> list[str]:
    """The variants without a current entry, and the entries without a variant."""
    entries = entries_of(registry, kinds)
    lacking = [entry.name for entry in entries if not entry.current]
    named = {(entry.path, entry.name) for entry in entries}
    files = {entry.path for entry in entries}
    rows = [(path, f"{row.get('op')}.{row.get('variant')}") for path in files for row in rows_in(path)]
    return lacking + sorted({name for path, name in rows if (path, name) not in named})


def incomplete(registry: Registry, kinds: Sequence[str]) -> list[str]:
    """The variants whose entry counts, and is an older one that has the largest sizes alone, or was made with another
    compiler."""
    entries = [entry for entry in entries_of(registry, kinds) if entry.current]
    lines = [f"{entry.name}: smallest sizes not recorded" for entry in entries if not entry.has_ranges]
    return lines + [f"{entry.name}: no compilations with {compiler()}" for entry in entries if not entry.compiled]


def known_here(entry: ReleaseEntry, verdicts: Verdicts) -> list[Verdict]:
    """The verdicts of a whole check on this machine; none unless there is one for each dtype."""
    place = verdicts.registry.home(entry.variant).name
    verdicts_here = [verdicts.at(entry.variant, place, dtype) for dtype in entry.variant.dtypes]
    held = [v for v in verdicts_here if v is not None and v.passed and v.has_range and entry.required <= set(v.checks)]
    return held if len(held) == len(verdicts_here) else []


def write(entry: ReleaseEntry, verdicts: Sequence[Verdict], keep: Sequence[str]) -> None:
    """Replace a variant's rows in its file by these verdicts. keep: names of the variants that are to stay."""
    rows = [row for row in rows_in(entry.path) if f"{row.get('op')}.{row.get('variant')}" in keep]
    rows = [row for row in rows if f"{row.get('op')}.{row.get('variant')}" != entry.name]
    head = {"op": entry.variant.op, "variant": entry.variant.name, "sources": entry.key}
    rows += [{**head, **{k: v for k, v in as_row(verdict).items() if k != "tried"}} for verdict in verdicts]
    write_rows(entry.path, sorted(rows, key=lambda row: (row["op"], row["variant"], row["dtype"])))


def reports(
    entries: Sequence[ReleaseEntry], registry: Registry, plugins: tuple[str, ...], jobs: int
) -> Iterator[VariantReport]:
    """The whole check of each, `jobs` at the same time."""
    if jobs == 1:
        yield from (check_variant(registry.op(e.variant.op), e.variant, registry, recorded=False) for e in entries)
        return
    with processes(jobs) as pool:
        yield from pool.map(partial(_report, plugins), [(e.variant.op, e.variant.name) for e in entries])


def _report(plugins: tuple[str, ...], name: tuple[str, str]) -> VariantReport:
    """In a process of its own."""
    registry = registry_of(plugins)
    return check_variant(registry.op(name[0]), registry.variant(*name), registry, recorded=False)


def release(registry: Registry, kinds: Sequence[str], plugins: tuple[str, ...], only: Sequence[str], jobs: int) -> int:
    """Bring the files up to date; the number of variants that failed. only: "op" or "op.variant"; () is all."""
    entries = entries_of(registry, kinds)
    keep = [entry.name for entry in entries]
    chosen = [e for e in entries if not only or e.name in only or e.variant.op in only]
    todo = [e for e in chosen if not (e.current and e.has_ranges)]
    verdicts, ask = Verdicts(registry), []
    for entry in todo:
        if held := known_here(entry, verdicts):
            write(entry, held, keep)
            print(f"{entry.name}: the verdict of this machine's own check", flush=True)
        else:
            ask.append(entry)
    rest = [entry for entry in chosen if entry not in todo and not entry.compiled]
    failed = sum(compile_kernels(entry, registry) for entry in rest)
    for number, (entry, report) in enumerate(zip(ask, reports(ask, registry, plugins, jobs), strict=True), 1):
        good = report.passed and entry.required <= set(report.checks)
        write(entry, verdicts_of(report, "") if good else [], keep)
        failed += not good
        print(f"{entry.name}: {outcome(report, good)} ({number} of {len(ask)})", flush=True)
    if not only:
        clean(entries)
    return failed


def compile_kernels(entry: ReleaseEntry, registry: Registry) -> int:
    """Compile the kernels of an entry that is current otherwise, and record that; the number of failures, 0 or 1."""
    report = check_variant(registry.op(entry.variant.op), entry.variant, registry, checks=(), recorded=False)
    if report.compiled:
        more = {"compiled": report.compiled}
        write_rows(entry.path, [{**row, **more} if row in entry.rows else row for row in rows_in(entry.path)])
    print(f"{entry.name}: {'compiled' if report.compiled else report.describe_failures()}", flush=True)
    return int(not report.compiled)


def outcome(report: VariantReport, good: bool) -> str:
    """The result of a whole check as text, lines and loops without an example included."""
    said = "passed" if good else "refused" if report.passed else report.describe_failures()
    return "\n  ".join([said, *report.gaps, *([DECLARE] if report.gaps and not good else [])])


def clean(entries: Sequence[ReleaseEntry]) -> None:
    """Take out the rows of variants that are no more."""
    for path in {entry.path for entry in entries}:
        names = {entry.name for entry in entries if entry.path == path}
        rows = rows_in(path)
        held = [row for row in rows if f"{row.get('op')}.{row.get('variant')}" in names]
        if len(held) < len(rows):
            write_rows(path, held)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=str(__doc__).splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="OP[.VARIANT]", help="these alone; all that are stale otherwise")
    parser.add_argument("--plugin", action="append", default=[], metavar="PATH", help="of this plugin, not of corelm")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="variants at the same time")
    parser.add_argument("--list", action="store_true", help="name stale verdicts, and check nothing")
    options = parser.parse_args(arguments)
    kinds = (GIVEN,) if options.plugin else (BUILT_IN, SHIPPED)
    try:
        registry = load_registry(options.plugin)
        if options.list:
            print("\n".join([*stale(registry, kinds), *incomplete(registry, kinds)]))
            return 0
        return int(release(registry, kinds, tuple(options.plugin), options.only, max(1, options.jobs)) > 0)
    except CoreError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
