"""The suite of mutants: every known fault is put into a variant, one at a time, and each mutant is checked.

A mutant that the op check passes is a hole in the check or in the examples, unless a reviewed list
(mutants_equivalent.toml in the tests of this and of every other plugin) gives the reason why it computes the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import tomli

from core import Op, UsageError, Variant
from core.testing.mutation import Registry, outcomes_of, registry_of

from .bench import EQUIVALENT, NO_MUTANT, Bench, Mutant, in_order
from .kernels import KernelBench
from .launchers import LauncherBench, launchers_of

REVIEWED = "mutants_equivalent.toml"  # the reviewed list, in a folder tests/
PLUGINS = Path(__file__).parent.parent
BENCHES: Mapping[str, Callable[[Op, Variant, Registry], Bench]] = {"cpu": LauncherBench, "sim": KernelBench}
BREAKS = {"cpu": "cpu", "sim": "cuda"}  # --device -> the `Variant.device` whose variants are broken
SAMPLE = {"cpu": 0, "sim": 20}  # default number of mutants of each launcher, which ends in minutes

# (op.variant, its mutants' numbers) -> outcomes, by `caught`, each as soon as it is there
Judge = Callable[[str, Sequence[int]], Iterable[str]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a mutant: the sub-check that failed, "" for none, EQUIVALENT by the reviewed list, or the reason
    why it is no mutant."""

    mutant: Mutant
    said: str

    @property
    def counts(self) -> bool:
        return self.said not in NO_MUTANT


@dataclass
class Result:
    """The verdicts on the mutants of one variant.

    unbroken: sub-checks that the unchanged variant fails; their failures on a mutant do not count. A sample assumes
    that there are none.
    """

    name: str
    verdicts: list[Verdict] = field(default_factory=list)
    unbroken: list[str] = field(default_factory=list)

    @property
    def survivors(self) -> list[Mutant]:
        return [v.mutant for v in self.verdicts if v.said in ("", *self.unbroken)]

    @property
    def caught(self) -> list[Verdict]:
        return [v for v in self.verdicts if v.counts and v.said not in ("", *self.unbroken)]

    @property
    def held(self) -> int:
        """The number of mutants that the check must reject."""
        return sum(v.counts for v in self.verdicts)

    def launchers(self) -> dict[str, tuple[int, int]]:
        """launcher -> (caught, held)."""
        caught, held = Counter(v.mutant.method for v in self.caught), Counter[str]()
        held.update(v.mutant.method for v in self.verdicts if v.counts)
        return {method: (caught[method], held[method]) for method in held}

    def by_check(self) -> Counter[str]:
        """sub-check -> how many it was the first to catch."""
        return Counter(v.said for v in self.caught)

    def left_out(self) -> Counter[str]:
        """Why some do not count -> how many."""
        return Counter(v.said for v in self.verdicts if not v.counts)


# --- running them ------------------------------------------------------------------------------------------------


def run_mutants(
    registry: Registry,
    names: Sequence[str] = (),
    reviewed: Reviewed | None = None,
    sample: int = 0,
    device: str = "cpu",
    judge: Judge | None = None,
    listed: bool = False,
    begun: Callable[[Result], None] = lambda result: None,
) -> Iterator[Result]:
    """Hold the mutants of the named ops and variants (all without names) to the op check, variant by variant.

    sample: of each launcher, the number of those that count, spread over its functions and the kinds of fault; 0: all.
    judge: gives the outcomes of mutants; without one, they are run here, one after the other.
    listed: only those of the reviewed list, which are otherwise the only ones left out.
    begun: gets each result before its first verdict.
    """
    reviewed = reviewed or Reviewed()
    for op, variant in chosen(registry, names, device):
        bench = BENCHES[device](op, variant, registry)
        name = f"{op.name}.{variant.name}"
        judged = partial(judge, name) if judge else partial(here, bench)
        begun(result := Result(name))
        result.unbroken = [] if sample else bench.unbroken()
        launchers: dict[str, list[int]] = {}
        for number, mutant in enumerate(bench.mutants):
            if listed and not reviewed.reason(mutant):
                continue
            launchers.setdefault(mutant.method, []).append(number)
        for numbers in launchers.values():
            order = [numbers[i] for i in in_order([bench.mutants[n] for n in numbers])]
            reviewed_here = Reviewed() if listed else reviewed
            result.verdicts += verdicts_on(bench, order, reviewed_here, sample or len(order), judged)
        yield result


def here(bench: Bench, numbers: Sequence[int]) -> Iterator[str]:
    return (bench.caught(bench.mutants[n]) for n in numbers)


def verdicts_on(
    bench: Bench, order: Sequence[int], reviewed: Reviewed, enough: int, judge: Callable[[Sequence[int]], Iterable[str]]
) -> Iterator[Verdict]:
    """The verdicts on mutants in `order`, until `enough` of them count."""
    waiting = list(order)
    while waiting and enough > 0:
        some, waiting = waiting[:enough], waiting[enough:]
        listed = {n for n in some if reviewed.reason(bench.mutants[n])}
        outcomes = iter(judge([n for n in some if n not in listed]))
        for n in some:
            verdict = Verdict(bench.mutants[n], EQUIVALENT if n in listed else next(outcomes))
            enough -= verdict.counts
            yield verdict


def chosen(registry: Registry, names: Sequence[str], device: str = "cpu") -> Iterator[tuple[Op, Variant]]:
    """The variants that `device` breaks and that are named, by op or in full, and have something to break."""
    for name in names:
        op_name, _, variant_name = name.partition(".")
        registry.variant(op_name, variant_name) if variant_name else registry.op(op_name)
    kind = BREAKS[device]
    for op in registry.ops.values():
        for variant in registry.variants.get(op.name, {}).values():
            wanted = not names or op.name in names or f"{op.name}.{variant.name}" in names
            able = bool(variant.sources) and not variant.library if kind == "cuda" else bool(launchers_of(op, variant))
            if wanted and variant.device == kind and able:
                yield op, variant


@lru_cache(maxsize=1)
def _bench(device: str, plugins: tuple[str, ...], name: str) -> Bench:
    """A worker's own."""
    op, _, variant = name.partition(".")
    registry = registry_of(plugins)
    return BENCHES[device](registry.op(op), registry.variant(op, variant), registry)


def _caught(device: str, plugins: tuple[str, ...], name: str, number: int) -> str:
    bench = _bench(device, plugins, name)
    return bench.caught(bench.mutants[number])


def in_processes(pool: ProcessPoolExecutor, device: str, plugins: tuple[str, ...]) -> Judge:
    """A judge who has every mutant run in a process of the pool."""
    return lambda name, numbers: outcomes_of(pool, partial(_caught, device, plugins, name), numbers)


# --- the reviewed list -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Mutants that compute the same, and why. `pattern` is searched for in "op.variant key"."""

    pattern: re.Pattern[str]
    reason: str

    def names(self, mutant: Mutant) -> bool:
        return bool(self.pattern.search(f"{mutant.name} {mutant.key}"))


@dataclass(frozen=True)
class Reviewed:
    """The reviewed list."""

    entries: tuple[Entry, ...] = ()

    def reason(self, mutant: Mutant) -> str:
        """Why it computes the same; "" for one that is not listed."""
        return next((e.reason for e in self.entries if e.names(mutant)), "")

    @classmethod
    def shipped(cls) -> Reviewed:
        """The lists of the plugins that come with corelm, and the one in tests/ of the working directory."""
        return cls.read(*sorted(PLUGINS.glob(f"*/tests/{REVIEWED}")), *Path("tests").glob(REVIEWED))

    @classmethod
    def read(cls, *paths: Path) -> Reviewed:
        """All of these files. UsageError for an entry without a reason, and for a path without a file."""
        entries = []
        for path in paths:
            if not path.is_file():  # a pipe would hang
                raise UsageError(f"{path}: expected a file of reviewed mutants")
        every = [(path, e) for path in paths for e in tomli.loads(path.read_text("utf-8")).get("equivalent", [])]
        for path, entry in every:
            by_name = set(entry) == {"variant", "mutant", "reason"}
            if not ((by_name or set(entry) == {"pattern", "reason"}) and all(entry.values())):
                raise UsageError(f"{path}: expected variant and mutant, or pattern; and a reason; got {entry}")
            pattern = f"^{re.escape(entry['variant'] + ' ' + entry['mutant'])}$" if by_name else entry["pattern"]
            entries.append(Entry(re.compile(pattern), entry["reason"]))
        return cls(tuple(entries))

    def stale(self, made: Sequence[Mutant]) -> list[str]:
        """The patterns of entries that name none of these mutants any more."""
        return [e.pattern.pattern for e in self.entries if not any(map(e.names, made))]


def as_toml(mutant: Mutant) -> str:
    return f'[[equivalent]]\nvariant = "{mutant.name}"\nmutant = {json.dumps(mutant.key)}\nreason = ""\n'


# --- reports ---------------------------------------------------------------------------------------------------------


def listing_of(registry: Registry, names: Sequence[str], device: str) -> Iterator[str]:
    """A line for each mutant that can be made of the named variants."""
    for op, variant in chosen(registry, names, device):
        for mutant in BENCHES[device](op, variant, registry).mutants:
            yield f"{mutant.name}: {mutant.key}"


def rows_text(names: Sequence[str], results: Sequence[Result], finished: Sized, cut_off: str = "") -> str:
    """All results, one for each of `names`. cut_off: why the suite ended early, in those that are not finished."""
    begun = [*results, *map(Result, names[len(results) :])]
    reasons = [cut_off if number >= len(finished) else "" for number in range(len(begun))]
    rows = [summary(result) | {"cut_off": why} for result, why in zip(begun, reasons, strict=True)]
    return json.dumps(rows, indent=2)


def summary(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "caught": len(result.caught),
        "held": result.held,
        "launchers": {method: {"caught": c, "held": h} for method, (c, h) in result.launchers().items()},
        "by_check": result.by_check(),
        "left_out": result.left_out(),
        "survivors": [m.key for m in result.survivors],
        "unbroken": result.unbroken,
    }


def lines_of(result: Result, listed: bool = False) -> Iterator[str]:
    """Counts of caught mutants, by launcher and by sub-check; then the faults that were missed."""
    each = ", ".join(f"{method} {c} of {h}" for method, (c, h) in result.launchers().items())
    by = ", ".join(f"{check} {n}" for check, n in result.by_check().most_common())
    yield f"{result.name:<22} {len(result.caught):>4} of {result.held:>4} caught: {each} (by {by})"
    if result.unbroken:
        yield f"  fails {', '.join(result.unbroken)} as it is"
    if listed:
        yield from (f"  LISTED, AND CAUGHT by {v.said}: {v.mutant.key}" for v in result.caught)
    else:
        yield from (f"\nNOT CAUGHT, {m.place}:\n{as_toml(m)}" for m in result.survivors)


def totals(names: Sequence[str], results: Sequence[Result], finished: Sized, cut_off: str = "") -> str:
    """The sum of all results, and the variants of `names` that are not finished."""
    lines = [f"{sum(len(r.caught) for r in results)} of {sum(r.held for r in results)} broken versions caught"]
    if cut_off:
        lines.append(f"not finished: {', '.join(names[len(finished) :])}: {cut_off}")
    left_out = sum((r.left_out() for r in results), Counter[str]())
    if left_out:
        lines.append("not counted: " + ", ".join(f"{n} {why}" for why, n in left_out.items()))
    return "\n".join(lines)
