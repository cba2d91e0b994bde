"""Mutants of a variant's kernels by faults_cuda.py, compiled and run through the op check in the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core import BuildError, Op, Variant
from core.testing.mutation import KernelSwap, Registry, whole_text

from .bench import BROKEN_TEXT, IDENTICAL, Mutant, numbered
from .faults_cuda import faults


@dataclass(frozen=True)
class KernelMutant(Mutant):
    """`source` is the .cu whose kernels `method` launches in a broken text."""

    source: Path = Path()


class KernelBench:
    """One variant, ready to be broken."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant = op, variant
        self.swap = KernelSwap(op, variant, registry)

    def unbroken(self) -> list[str]:
        return self.swap.failed_checks()

    @cached_property
    def mutants(self) -> list[KernelMutant]:
        made = []
        done: set[tuple[Path, str]] = set()  # kernels of an earlier launcher are not broken again
        for method, kernels in self.swap.kernels.items():
            new = {(k.source, k.name): None for k in kernels if (k.source, k.name) not in done}
            done |= set(new)
            for source in dict.fromkeys(source for source, _ in new):
                names = [name for of, name in new if of == source]
                made += [
                    KernelMutant(self.op, self.variant, method, fault, source=source)
                    for fault in faults(whole_text(source), names)
                ]
        return numbered(made)

    def caught(self, mutant: KernelMutant) -> str:
        key = mutant.method, mutant.source, mutant.fault.text
        try:
            return IDENTICAL if self.swap.same_code(*key) else self.swap.failed_check(*key)
        except BuildError:
            return BROKEN_TEXT
