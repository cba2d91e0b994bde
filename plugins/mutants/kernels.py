"""Mutants of a variant's kernels by faults_cuda.py, compiled and run through the op check in the simulator.

A fault of a header is one mutant, as an edit of that file would be: in each of the launcher's files that include it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core import BuildError, Op, Variant
from core.testing.mutation import KernelSwap, Registry, parts_of, whole_text

from .bench import BROKEN_TEXT, IDENTICAL, Mutant, numbered
from .faults_cuda import Edit, faults


@dataclass(frozen=True)
class KernelMutant(Mutant):
    """The fault's edit is of `file`, a .cu or a header that all of `sources` include: the files of the kernels that
    `method` launches in a broken text."""

    file: Path = Path()
    sources: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.file.name}:{self.fault.line}"

    @property
    def texts(self) -> dict[Path, str]:
        """Source -> its broken text, headers included."""
        parts = {source: parts_of(source) for source in self.sources}
        for texts in parts.values():
            texts[self.file] = self.fault.edit.made_in(texts[self.file])
        return {source: "\n".join(texts.values()) for source, texts in parts.items()}


class KernelBench:
    """One variant, ready to be broken."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant = op, variant
        self.swap = KernelSwap(op, variant, registry)

    def unbroken(self) -> list[str]:
        return self.swap.failed_checks()

    @cached_property
    def mutants(self) -> list[KernelMutant]:
        made: list[KernelMutant] = []
        done: set[tuple[Path, str]] = set()  # kernels of an earlier launcher are not broken again
        for method, kernels in self.swap.kernels.items():
            new: dict[Path, list[str]] = {}
            for source, name in dict.fromkeys((k.source, k.name) for k in kernels):
                if (source, name) not in done:
                    new.setdefault(source, []).append(name)
                    done.add((source, name))
            made += self._made(method, new)
        return numbered(made)

    def _made(self, method: str, kernels: Mapping[Path, list[str]]) -> Iterator[KernelMutant]:
        """The mutants of a launcher with a fault in some of its kernels: file -> their names."""
        launched = {k.source: parts_of(k.source) for k in self.swap.kernels[method]}
        seen: set[tuple[Path, Edit]] = set()
        for source, names in kernels.items():
            for fault in faults(whole_text(source), names):
                file, edit = placed(launched[source], fault.edit)
                if (file, edit) in seen:
                    continue
                seen.add((file, edit))
                line = launched[source][file].count("\n", 0, edit.start) + 1
                sources = tuple(source for source, texts in launched.items() if file in texts)
                broken = fault._replace(line=line, edit=edit)
                yield KernelMutant(self.op, self.variant, method, broken, file=file, sources=sources)

    def caught(self, mutant: KernelMutant) -> str:
        key = mutant.method, mutant.texts
        try:
            return IDENTICAL if self.swap.same_code(*key) else self.swap.failed_check(*key)
        except BuildError:
            return BROKEN_TEXT


def placed(texts: Mapping[Path, str], edit: Edit) -> tuple[Path, Edit]:
    """The file of an edit of `whole_text`, and the edit of that file's own text."""
    begin = 0
    for path, text in texts.items():
        if edit.start <= begin + len(text):
            return path, edit._replace(start=edit.start - begin, end=edit.end - begin)
        begin += len(text) + 1
    raise AssertionError(f"{edit} is after the end of the text")
