"""Mutation testing of one variant: the types that its two kinds share, and the order of a sample.

LauncherBench (launchers.py) breaks launchers in Python, KernelBench (kernels.py) the kernels of a .cu file.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from core import Op, Variant

EQUIVALENT = "computes the same"  # by the reviewed list
IDENTICAL, BROKEN_TEXT = "identical", "does not compile"  # outcomes that are not valid mutants
NO_MUTANT = (EQUIVALENT, IDENTICAL, BROKEN_TEXT)


class AnyFault(Protocol):
    """A fault of faults_python.py or faults_cuda.py. `before` and `after` are the statement's or the line's text."""

    @property
    def function(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...


@dataclass(frozen=True)
class Mutant:
    """A variant with one fault in the code that `method`, a launcher, reaches. `key` names it in the reviewed list: it
    changes only if the text does."""

    op: Op
    variant: Variant
    method: str
    fault: Any  # an AnyFault
    number: int = 1  # of several equal keys

    @property
    def name(self) -> str:
        return f"{self.op.name}.{self.variant.name}"

    @property
    def key(self) -> str:
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.fault.function}: {self.fault.before} -> {self.fault.after}{again}"

    @property
    def place(self) -> str:
        return f"line {self.fault.line}"

    @property
    def kind(self) -> str:
        """The kind of fault, where its maker gives one."""
        return getattr(self.fault, "kind", "")


M = TypeVar("M", bound=Mutant)


class Bench(Protocol):
    """One variant, ready to be broken."""

    @property
    def mutants(self) -> Sequence[Mutant]: ...

    def unbroken(self) -> list[str]:
        """The sub-checks that the variant fails without a fault; their results on a mutant do not count."""
        ...

    def caught(self, mutant: Any) -> str:
        """The sub-check that fails; IDENTICAL or BROKEN_TEXT for a fault that is no mutant; "" when none fails."""
        ...


def numbered(made: Iterable[M]) -> list[M]:
    """The second of several mutants with one key becomes number 2, and so on."""
    seen: Counter[str] = Counter()
    renumbered = []
    for mutant in made:
        seen[mutant.key] += 1
        renumbered.append(replace(mutant, number=seen[mutant.key]))
    return renumbered


def in_order(mutants: Sequence[Mutant]) -> list[int]:
    """Indices of all mutants of one launcher, so that the first few are spread over its functions and the kinds of
    fault: the next one is always of a function, then of a kind, that was taken least. The same in every run."""
    functions: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    left = {i: (m.fault.function, m.kind, zlib.crc32(m.key.encode())) for i, m in enumerate(mutants)}
    order = []
    while left:
        index = min(left, key=lambda i: _rank(left[i], functions, kinds, pairs))
        function, kind, _ = left.pop(index)
        functions[function] += 1
        kinds[kind] += 1
        pairs[function, kind] += 1
        order.append(index)
    return order


def _rank(
    one: tuple[str, str, int], functions: Counter[str], kinds: Counter[str], pairs: Counter[tuple[str, str]]
) -> tuple[int, int, int, int]:
    function, kind, chance = one
    return functions[function], pairs[function, kind], kinds[kind], chance
