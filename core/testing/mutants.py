"""The broken-backward suite: every fault that is known, put into a variant one at a time, each held to the op check.

    python -m core.testing.mutants [OP[.VARIANT]]...                  launchers of the cpu, in Python: mutants_cpu.py
    python -m core.testing.mutants --device sim [OP[.VARIANT]]...     kernels, in the text of .cu files: mutants_cuda.py

It prints how many were caught of each launcher of each variant. A mutant that the check passes is a hole in the check
or in the examples, unless the reviewed list (tests/mutants_equivalent.toml, here and in each plugin) says with a reason
that it computes the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import tomli

from core.errors import CheckFailed, UsageError
from core.loader import load_registry
from core.op import Op, Variant
from core.registry import Registry
from core.testing.bench import EQUIVALENT, NO_MUTANT, Bench, Mutant, in_order
from core.testing.mutants_cpu import LauncherBench, launchers_of
from core.testing.mutants_cuda import KernelBench
from core.testing.processes import processes, registry_of
from core.threads import cores

REVIEWED = "mutants_equivalent.toml"  # in tests, here and in each plugin's folder
BENCHES: Mapping[str, Callable[[Op, Variant, Registry], Bench]] = {"cpu": LauncherBench, "sim": KernelBench}
BREAKS = {"cpu": "cpu", "sim": "cuda"}  # --device -> the `Variant.device` whose variants are broken
SAMPLE = {"cpu": 0, "sim": 20}  # of each launcher, unless one asks for another number: what ends in minutes

Judge = Callable[[str, Sequence[int]], Sequence[str]]  # (op.variant, numbers of its mutants) -> what `caught` says


@dataclass(frozen=True)
class Verdict:
    """What was said of a mutant: a sub-check, "" when none, EQUIVALENT by the reviewed list, or why it is no mutant."""

    mutant: Mutant
    said: str

    @property
    def counts(self) -> bool:
        return self.said not in NO_MUTANT


@dataclass
class Result:
    """What became of the mutants of one variant.

    unbroken: sub-checks that the variant fails as it is; what those say of a mutant counts for nothing. A sample
    takes it for granted that there are none.
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
        """How many the check had to say no to."""
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
) -> Iterator[Result]:
    """Hold the mutants of the named ops and variants (all without names) to the op check, variant by variant.

    sample: of each launcher, so many that count, spread over its functions and the kinds of fault; 0 for all.
    judge: who says what of which mutant; without one, they are run here, one after the other.
    listed: only those of the reviewed list, which are otherwise the only ones left out.
    """
    reviewed = reviewed or Reviewed()
    for op, variant in chosen(registry, names, device):
        bench = BENCHES[device](op, variant, registry)
        name = f"{op.name}.{variant.name}"
        judged = partial(judge, name) if judge else partial(here, bench)
        result = Result(name, unbroken=[] if sample else bench.unbroken())
        launchers: dict[str, list[int]] = {}
        for number, mutant in enumerate(bench.mutants):
            if listed and not reviewed.reason(mutant):
                continue
            launchers.setdefault(mutant.method, []).append(number)
        for numbers in launchers.values():
            order = [numbers[i] for i in in_order([bench.mutants[n] for n in numbers])]
            known = Reviewed() if listed else reviewed
            result.verdicts += verdicts_on(bench, order, known, sample or len(order), judged)
        yield result


def here(bench: Bench, numbers: Sequence[int]) -> list[str]:
    return [bench.caught(bench.mutants[n]) for n in numbers]


def verdicts_on(
    bench: Bench, order: Sequence[int], reviewed: Reviewed, enough: int, judge: Callable[[Sequence[int]], Sequence[str]]
) -> Iterator[Verdict]:
    """The verdicts on mutants in `order`, until `enough` of them count."""
    waiting = list(order)
    while waiting and enough > 0:
        some, waiting = waiting[:enough], waiting[enough:]
        known = {n: EQUIVALENT for n in some if reviewed.reason(bench.mutants[n])}
        new = [n for n in some if n not in known]
        known |= dict(zip(new, judge(new), strict=True))
        verdicts = [Verdict(bench.mutants[n], known[n]) for n in some]
        enough -= sum(v.counts for v in verdicts)
        yield from verdicts


def chosen(registry: Registry, names: Sequence[str], device: str = "cpu") -> Iterator[tuple[Op, Variant]]:
    """The variants that `device` breaks and that are named, by op or in full, and have something to break."""
    for name in names:
        op_name, _, variant_name = name.partition(".")
        registry.variant(op_name, variant_name) if variant_name else registry.op(op_name)
    kind = BREAKS[device]
    for op in registry.ops.values():
        for variant in registry.variants.get(op.name, {}).values():
            wanted = not names or op.name in names or f"{op.name}.{variant.name}" in names
            able = not variant.library if kind == "cuda" else bool(launchers_of(op, variant))
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
    return lambda name, numbers: list(pool.map(partial(_caught, device, plugins, name), numbers))


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
    def read(cls, *paths: Path) -> Reviewed:
        """All of these files. UsageError for an entry without a reason."""
        entries = []
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


# --- the command -------------------------------------------------------------------------------------------------


@click.command("mutants")
@click.argument("names", nargs=-1, metavar="[OP[.VARIANT]]...")
@click.option("--plugin", multiple=True, metavar="PATH", help="Load a plugin.")
@click.option(
    "--equivalent",
    "lists",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help=f"A reviewed list.  [default: tests/{REVIEWED}, here and in plugins/*]",
)
@click.option("--device", default="cpu", show_default=True, type=click.Choice(list(BENCHES)), help="What to break.")
@click.option("--sample", metavar="N", type=click.IntRange(min=1), help="N of each launcher.  [default: 20 on sim]")
@click.option("--whole", is_flag=True, help="All that can be made: hours on sim.  [default on cpu]")
@click.option("--reviewed", "listed", is_flag=True, help="All of the reviewed list: none of them must be caught.")
@click.option("--workers", default=cores(), metavar="N", help="Processes.  [default: one a core]")
@click.option("--list", "listing", is_flag=True, help="Name the mutants and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    names: tuple[str, ...],
    plugin: tuple[str, ...],
    lists: tuple[Path, ...],
    device: str,
    sample: int | None,
    whole: bool,
    listed: bool,
    workers: int,
    listing: bool,
    as_json: bool,
) -> None:
    """Break every backward, or every kernel, in every way that is known, and see the op check catch it."""
    registry = load_registry(plugin)
    if sample and whole:
        raise UsageError("--sample N or --whole, not both")
    if listing:
        for op, variant in chosen(registry, names, device):
            for mutant in BENCHES[device](op, variant, registry).mutants:
                click.echo(f"{mutant.name}: {mutant.key}")
        return
    own = [*Path("tests").glob(REVIEWED), *sorted(Path("plugins").glob(f"*/tests/{REVIEWED}"))]
    reviewed = Reviewed.read(*(lists or own))
    number = 0 if whole or listed else sample or SAMPLE[device]
    results = []
    with processes(workers) as pool:
        judge = in_processes(pool, device, plugin)
        for result in run_mutants(registry, names, reviewed, number, device, judge, listed):
            results.append(result)
            if not as_json and result.verdicts:
                click.echo("\n".join(lines_of(result, listed)))
    click.echo(json.dumps([summary(r) for r in results], indent=2) if as_json else totals(results))
    if any(r.caught if listed else r.survivors for r in results):
        raise SystemExit(CheckFailed.exit_code)


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
    """How many were caught, by launcher, and by what; then what is not as it should be."""
    each = ", ".join(f"{method} {c} of {h}" for method, (c, h) in result.launchers().items())
    by = ", ".join(f"{check} {n}" for check, n in result.by_check().most_common())
    yield f"{result.name:<22} {len(result.caught):>4} of {result.held:>4} caught: {each} (by {by})"
    if result.unbroken:
        yield f"  fails {', '.join(result.unbroken)} as it is"
    if listed:
        yield from (f"  LISTED, AND CAUGHT by {v.said}: {v.mutant.key}" for v in result.caught)
    else:
        yield from (f"\nNOT CAUGHT, line {m.fault.line}:\n{as_toml(m)}" for m in result.survivors)


def totals(results: Sequence[Result]) -> str:
    lines = [f"{sum(len(r.caught) for r in results)} of {sum(r.held for r in results)} broken versions caught"]
    left_out = sum((r.left_out() for r in results), Counter[str]())
    if left_out:
        lines.append("not counted: " + ", ".join(f"{n} {why}" for why, n in left_out.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
