"""The broken-backward suite: every fault that mutate.py can make in a variant's backward, each held to the op check.

    python -m core.testing.mutants [OP[.VARIANT]]... [--list] [--json]
    python -m core.testing.mutants --device sim [OP[.VARIANT]]... [--sample N]

The first breaks launchers on the cpu, the second the kernels of the .cu files (mutate_cuda.py, mutants_cuda.py). It
prints how many were made and caught. A mutant that the check passes is a hole in the check, unless the reviewed list
(tests/mutants_equivalent.toml) says with a reason that it computes the same.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import click
import tomli

from core.errors import CheckFailed, UsageError
from core.loader import load_registry
from core.op import Op, Reference, Variant
from core.registry import Registry
from core.testing.check import check_variant
from core.testing.mutants_cuda import NO_MUTANT, Bench, CudaMutant
from core.testing.mutate import HELPERS, Fault, faults

EQUIVALENT = Path("tests") / "mutants_equivalent.toml"
LAUNCHERS = ("backward", "forward_backward")


@dataclass(frozen=True)
class Mutant:
    """A variant with one fault. `key` names it in the reviewed list: it changes only if the statement does."""

    op: Op
    variant: Variant
    kind: type  # the class whose launcher is broken; `base` may have brought it
    fault: Fault
    number: int  # of several equal keys

    @property
    def name(self) -> str:
        return f"{self.op.name}.{self.variant.name}"

    @property
    def key(self) -> str:
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.fault.function}: {self.fault.before} -> {self.fault.after}{again}"

    def build(self) -> Variant:
        """The broken variant: forward is the original's, and only what backward reaches is broken."""
        module = sys.modules[self.kind.__module__]
        namespace: dict[str, Any] = {
            "__name__": module.__name__,
            "__package__": module.__package__,
            "__file__": module.__file__,
            **HELPERS,
        }
        tree = self.fault.put_into(ast.parse(inspect.getsource(module)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(tree, f"{module.__file__} [{self.fault.after}]", "exec"), namespace)
        broken = namespace[self.kind.__qualname__]
        methods: dict[str, Any] = {}
        if self.op.gradient:
            original = self.variant
            methods["forward"] = lambda _, *arguments: original.forward(*arguments)
        variant: Variant = type(broken.__name__, (broken, type(self.variant)), methods)()
        vars(variant).update(vars(self.variant))
        return variant

    def caught(self, registry: Registry) -> str:
        """The sub-check that says no, or "" when none does."""
        variant = self.build()
        own = variant if isinstance(variant, Reference) else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # overflows and the like, of mutants in the pool's threads
                report = check_variant(self.op, variant, registry, stop=True, reference=own)
        except Exception as error:  # whatever a mutant breaks, it has been noticed
            return type(error).__name__
        return report.failures[0].check if report.failures else ""


def mutants_of(op: Op, variant: Variant) -> list[Mutant]:
    """Every mutant of a variant's backward; of an update's forward, unless it is the reference, which defines it."""
    made: list[Mutant] = []
    seen: dict[str, int] = {}
    for kind, methods in launchers_of(op, variant).items():
        for fault in faults_of(op, variant, kind, methods):
            mutant = Mutant(op, variant, kind, fault, 1)
            seen[mutant.key] = number = seen.get(mutant.key, 0) + 1
            made.append(Mutant(op, variant, kind, fault, number))
    return made


def launchers_of(op: Op, variant: Variant) -> dict[type, list[str]]:
    """What there is to break: class -> its launchers. The reference of an update defines it, and is left alone."""
    if op.gradient:
        names = [
            n for n, has in zip(LAUNCHERS, (variant.has_backward, variant.has_forward_backward), strict=True) if has
        ]
    else:
        names = [] if isinstance(variant, Reference) else ["forward"]
    found: dict[type, list[str]] = {}
    for name in names:
        kind = next(c for c in type(variant).__mro__ if isinstance(vars(c).get(name), FunctionType))
        found.setdefault(kind, []).append(name)
    return found


def faults_of(op: Op, variant: Variant, kind: type, methods: Sequence[str]) -> Iterator[Fault]:
    module = sys.modules[kind.__module__]
    tree = ast.parse(inspect.getsource(module))
    numbers = {n for n, v in vars(module).items() if isinstance(v, int | float) and n.isupper()}
    return faults(reached(tree, kind.__name__, methods), same_shape(op, variant), numbers)


def reached(module: ast.Module, kind: str, start: Sequence[str]) -> list[ast.FunctionDef]:
    """The launchers and the functions and methods of their module that they call, directly or not."""
    functions = {f.name: [f] for f in module.body if isinstance(f, ast.FunctionDef)}
    classes = {c.name: c for c in module.body if isinstance(c, ast.ClassDef)}
    methods = {n: {f.name: f for f in c.body if isinstance(f, ast.FunctionDef)} for n, c in classes.items()}
    functions |= {n: list(held.values()) for n, held in methods.items()}  # a class that is made use of: all of it
    own: dict[str, ast.FunctionDef] = {}
    line = [kind]
    for name in line:  # the class, then its bases in this module
        own = {**methods[name], **own}
        line += [ast.unparse(b) for b in classes[name].bases if ast.unparse(b) in classes]
    found: list[ast.FunctionDef] = []
    waiting = [own[name] for name in start]
    while waiting:
        function = waiting.pop(0)
        if function in found:
            continue
        found.append(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Name):
                waiting += functions.get(node.id, [])
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr in own:
                waiting.append(own[node.attr])
    return found


def same_shape(op: Op, variant: Variant) -> dict[str, tuple[str, ...]]:
    """Name in `t` -> the other tensors of that shape that backward may read."""
    shapes = {n: s.pattern.text.partition(":")[0] for n, s in (*op.inputs.items(), *op.outputs.items())}
    shapes |= {p: pattern.text.partition(":")[0] for p, pattern in op.param_patterns.items()}
    shapes |= {n: text.partition(":")[0] for n, text in variant.saved.items()}
    shapes = {n: " ".join(text.split()) for n, text in shapes.items()}
    readable = {n: shapes[n] for n in (*variant.reads, *variant.saved) if n in shapes}
    readable |= {"d" + n: shapes[n] for n in op.outputs}
    return {n: tuple(o for o, text in readable.items() if text == shape and o != n) for n, shape in readable.items()}


# --- running them ------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What became of the mutants of one variant. by_check: sub-check -> how many it caught first.

    dropped: made and left out of all counts, as what does not compile or compiles to the same code.
    unbroken: sub-checks that the variant fails as it is; what those say of a mutant counts for nothing. A sample
    takes it for granted that there are none.
    """

    name: str
    made: int = 0
    caught: int = 0
    equivalent: int = 0
    dropped: int = 0
    by_check: dict[str, int] = field(default_factory=dict)
    survivors: list[Mutant | CudaMutant] = field(default_factory=list)
    unbroken: list[str] = field(default_factory=list)


def run_mutants(
    registry: Registry,
    names: Sequence[str] = (),
    listed: Mapping[str, Mapping[str, str]] | None = None,
    sample: int = 0,
    device: str = "cpu",
) -> list[Result]:
    """Check the mutants of the named ops and variants (all without names) for `device`: cpu, or sim for kernels.

    listed: variant -> mutant's key -> reason, the reviewed list. sample: at most so many of each variant, evenly
    spread; 0 for all.
    """
    held_to = on_sim if device == "sim" else on_cpu
    return [
        held_to(registry, op, variant, (listed or {}).get(f"{op.name}.{variant.name}", {}), sample)
        for op, variant in chosen(registry, names, device)
    ]


def on_cpu(registry: Registry, op: Op, variant: Variant, reasons: Mapping[str, str], sample: int) -> Result:
    unbroken = [] if sample else check_variant(op, variant, registry).failed_checks()
    result = Result(f"{op.name}.{variant.name}", unbroken=unbroken)
    for mutant in spread(mutants_of(op, variant), sample):
        enter(result, mutant, mutant.key in reasons or mutant.caught(registry))
    return result


def on_sim(registry: Registry, op: Op, variant: Variant, reasons: Mapping[str, str], sample: int) -> Result:
    bench = Bench(op, variant, registry)
    result = Result(f"{op.name}.{variant.name}", unbroken=[] if sample else bench.unbroken())
    for mutant in spread(bench.mutants(), sample):
        enter(result, mutant, mutant.key in reasons or bench.caught(mutant))
    return result


def enter(result: Result, mutant: Mutant | CudaMutant, said: bool | str) -> None:
    """Into the books: said is True for one of the reviewed list, else what `caught` gave."""
    if said in NO_MUTANT:
        result.dropped += 1
        return
    result.made += 1
    if said is True:
        result.equivalent += 1
    elif said and said not in result.unbroken:
        result.caught += 1
        result.by_check[str(said)] = result.by_check.get(str(said), 0) + 1
    else:
        result.survivors.append(mutant)


def chosen(registry: Registry, names: Sequence[str], device: str = "cpu") -> Iterator[tuple[Op, Variant]]:
    """The variants for `device` (cpu or sim) that are named, by op or in full, and have something to break."""
    for name in names:
        op_name, _, variant_name = name.partition(".")
        registry.variant(op_name, variant_name) if variant_name else registry.op(op_name)
    kind = "cuda" if device == "sim" else device
    for op in registry.ops.values():
        for variant in registry.variants.get(op.name, {}).values():
            wanted = not names or op.name in names or f"{op.name}.{variant.name}" in names
            if wanted and variant.device == kind and (kind == "cuda" or launchers_of(op, variant)):
                yield op, variant


MutantKind = TypeVar("MutantKind")


def spread(mutants: list[MutantKind], sample: int) -> list[MutantKind]:
    if not sample or len(mutants) <= sample:
        return mutants
    return [mutants[i * len(mutants) // sample] for i in range(sample)]


def read_equivalent(path: Path) -> dict[str, dict[str, str]]:
    """The reviewed list: variant -> mutant -> reason. UsageError for an entry without a reason."""
    entries = tomli.loads(path.read_text("utf-8")).get("equivalent", [])
    listed: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not (set(entry) == {"variant", "mutant", "reason"} and all(entry.values())):
            raise UsageError(f"{path}: expected variant, mutant and reason, got {entry}")
        listed.setdefault(entry["variant"], {})[entry["mutant"]] = entry["reason"]
    return listed


def stale(registry: Registry, listed: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Entries of the reviewed list that no mutant has any more."""
    found = []
    for name, reasons in listed.items():
        made = {m.key for op, v in chosen(registry, (name,)) for m in mutants_of(op, v)}
        made |= {m.key for op, v in chosen(registry, (name,), "sim") for m in Bench(op, v, registry).mutants()}
        found += [f"{name}: {key}" for key in reasons if key not in made]
    return found


def as_toml(mutant: Mutant | CudaMutant) -> str:
    return f'[[equivalent]]\nvariant = "{mutant.name}"\nmutant = {json.dumps(mutant.key)}\nreason = ""\n'


@click.command("mutants")
@click.argument("names", nargs=-1, metavar="[OP[.VARIANT]]...")
@click.option("--plugin", multiple=True, metavar="PATH", help="Load a plugin.")
@click.option("--equivalent", default=str(EQUIVALENT), show_default=True, help="The reviewed list.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "sim"]), help="What to break.")
@click.option("--sample", default=0, metavar="N", help="At most N of each variant, evenly spread.")
@click.option("--list", "listing", is_flag=True, help="Print every mutant instead of running them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    names: tuple[str, ...],
    plugin: tuple[str, ...],
    equivalent: str,
    device: str,
    sample: int,
    listing: bool,
    as_json: bool,
) -> None:
    """Break every backward, or every kernel, in every way that is known, and see the op check catch it."""
    registry = load_registry(plugin)
    if listing:
        for op, variant in chosen(registry, names, device):
            made = Bench(op, variant, registry).mutants() if device == "sim" else mutants_of(op, variant)
            for mutant in made:
                click.echo(f"{mutant.name}: {mutant.key}")
        return
    path = Path(equivalent)
    results = run_mutants(registry, names, read_equivalent(path) if path.is_file() else {}, sample, device)
    click.echo(json.dumps([summary(r) for r in results], indent=2) if as_json else describe(results))
    survivors = [m for r in results for m in r.survivors]
    if survivors:
        raise SystemExit(CheckFailed.exit_code)


def summary(result: Result) -> dict[str, Any]:
    return {**vars(result), "survivors": [m.key for m in result.survivors]}


def describe(results: Sequence[Result]) -> str:
    """A line a variant, the survivors as entries for the reviewed list, the sum."""
    lines = []
    for r in results:
        by = ", ".join(f"{check} {n}" for check, n in sorted(r.by_check.items(), key=lambda i: -i[1]))
        lines.append(f"{r.name:<28} {r.caught:>4} of {r.made - r.equivalent:>4} caught ({by})")
    lines += [f"{r.name} fails {', '.join(r.unbroken)} as it is" for r in results if r.unbroken]
    lines += [f"\nNOT CAUGHT, line {m.fault.line}:\n{as_toml(m)}" for r in results for m in r.survivors]
    made, same = sum(r.made for r in results), sum(r.equivalent for r in results)
    caught = sum(r.caught for r in results)
    lines.append(f"{caught} of {made - same} broken versions caught; {same} more compute the same (reviewed list)")
    if dropped := sum(r.dropped for r in results):
        lines.append(f"{dropped} more do not compile or compile to the same code, and do not count")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
