"""The faults of faults_cuda.py put into a variant's kernels, compiled, and held to the op check in the simulator.

A `KernelBench` is made once a variant: it keeps the trials, what the reference says to them, and what the launcher
that is not broken leaves, so that a mutant costs its own compilation and its own launches only. Everything runs fast
first; strict mode, which sees races, gets what that lets pass.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from core import BuildError, Op, Tensors, Variant
from core.device.launch import LaunchRecord, sources_of
from core.device.simulated import SimDevice
from core.kernels.nvrtc import Kernel, compile_ptx
from core.kernels.sources import whole_text
from core.registry import Registry
from core.sim.faults import PtxError
from core.testing.check import trials_of
from core.testing.checks import SUBCHECKS, applies
from core.testing.compiles import launches_of
from core.testing.devices import DeviceRunner, SimRunner
from core.testing.log import Log, StopChecks
from core.testing.runner import Call, Outcome
from core.testing.trial import Trial

from .bench import BROKEN_TEXT, IDENTICAL, Mutant, numbered
from .faults_cuda import faults

FORWARD_ONLY = ("forward", "decode", "random")  # sub-checks that a backward has no part in
PLACES = re.compile(r"^\s*(?:\.loc|\.file|//).*$|^\s*\.section\s+\.debug.*", re.MULTILINE)
ENDLESS = 50_000  # branches of a thread block: a hundred times what any example takes, and a second
CERTAIN = ("repeat",)  # the simulator repeats itself


@dataclass(frozen=True)
class KernelMutant(Mutant):
    """`source` is the .cu whose kernels `method` launches in a broken text."""

    source: Path = Path()


class BreakingDevice(SimDevice):
    """A simulator that compiles another text for the kernels that one launcher takes from one file."""

    def __init__(self) -> None:
        super().__init__(limit=ENDLESS)
        self.method, self.text, self.source = "", "", Path()
        self.unbuilt = False  # whether a broken text did not compile

    def record(
        self, variant: Variant, method: str, t: Tensors, pick: Any, workspace: Any, counters: Any = None
    ) -> list[LaunchRecord]:
        found = super().record(variant, method, t, pick, workspace, counters)
        if not self.text or method != self.method:
            return found
        return [
            replace(r, kernel=replace(r.kernel, text=self.text)) if r.kernel.source == self.source else r for r in found
        ]

    def prepare(self, commands: Sequence[LaunchRecord]) -> None:
        try:
            super().prepare(commands)
        except BuildError as error:
            self.unbuilt = self.unbuilt or bool(self.text) and not isinstance(error, PtxError)
            raise

    def broken(self, method: str = "", text: str = "", source: Path = Path()) -> None:
        """From here on `method` launches what `text` says and not what `source` says; without arguments, it does."""
        self.method, self.text, self.source, self.unbuilt = method, text, source, False
        for kernel in [k for k in self._simulators if k.text]:
            simulator = self._simulators.pop(kernel)
            for compiled in [c for c, s in self._by_ptx.items() if s is simulator]:
                del self._by_ptx[compiled]


class BreakingRunner(SimRunner):
    """Makes a call that is broken each time."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.strict = self.broken = False

    @cached_property
    def target(self) -> Any:
        return BreakingDevice()

    def run(self, call: Call) -> Outcome:
        self.broken = bool(self.target.text) and call.method == self.target.method
        self.fast = call.fast  # a broken call is not held, and an earlier one may have been a fast one
        return DeviceRunner.run(self, call) if self.broken else super().run(call)

    def launch(self, commands: Sequence[LaunchRecord]) -> None:
        if self.strict and self.broken:
            super().launch(commands)
        else:
            self.target.strict = False
            self.target.run(commands)


class KernelBench:
    """One variant, ready to be broken."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant = op, variant
        self.runner = BreakingRunner(registry)
        found, _ = trials_of(op, variant, registry, runner=self.runner)
        self.trials = sorted(found, key=lambda t: t.elements)

    @property
    def device(self) -> BreakingDevice:
        device: BreakingDevice = self.runner.target
        return device

    @property
    def methods(self) -> list[str]:
        """The launchers of the variant: a kernel that several launch is broken in each of them."""
        able = {
            "backward": self.variant.has_backward,
            "forward_backward": self.variant.has_forward_backward,
            "forward": True,
        }
        return [m for m, has in able.items() if has]

    def unbroken(self) -> list[str]:
        if not self.trials:
            return ["schema"]
        found: dict[str, None] = {}
        for name, check in SUBCHECKS.items():
            for trial in filter(partial(applies, name), self.trials):
                log = Log()
                check(log, trial)
                found.update(dict.fromkeys(f.check for f in log.failures))
        return list(found)

    @cached_property
    def kernels(self) -> dict[str, list[Kernel]]:
        """launcher -> the kernels of its sources that it launches on the examples, under every macro. What it launches
        only while decoding is left out."""
        found: dict[str, dict[Kernel, None]] = {m: {} for m in self.methods}
        for launch in launches_of(self.trials, decoding=False):
            if launch.method in found and launch.kernel.source in sources_of(self.variant, launch.method):
                found[launch.method][launch.kernel] = None
        return {method: list(kernels) for method, kernels in found.items()}

    @cached_property
    def mutants(self) -> list[KernelMutant]:
        made = []
        done: set[tuple[Path, str]] = set()  # kernels of an earlier launcher are not broken again
        for method, kernels in self.kernels.items():
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
        try:
            if self._same_code(mutant):
                return IDENTICAL
        except BuildError:
            return BROKEN_TEXT
        self.device.broken(mutant.method, mutant.fault.text, mutant.source)
        try:
            said = self._said(mutant, strict=False) or self._said(mutant, strict=True)
            return BROKEN_TEXT if self.device.unbuilt else said  # under some macro only
        finally:
            self.device.broken()

    def _same_code(self, mutant: KernelMutant) -> bool:
        """Whether the compiler makes the same of what the launcher launches, under every macro and both types.

        It looks until the first difference. BuildError for what does not compile.
        """
        for kernel in [k for k in self.kernels[mutant.method] if k.source == mutant.source]:
            broken = replace(kernel, text=mutant.fault.text)
            whole, other = (compile_ptx(k).ptx for k in (kernel, broken))
            if code_of(whole, kernel.name) != code_of(other, kernel.name):
                return False
        return True

    def _said(self, mutant: KernelMutant, strict: bool) -> str:
        self.runner.strict = strict
        self.runner.seen.clear()
        for name, check, trial in self._order(mutant, strict):
            log = Log(stop=True, case=trial.case.label, dtype=trial.dtype)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(log, trial)
            except StopChecks:
                return log.failures[0].check
            except Exception as error:  # whatever a mutant breaks, it has been noticed
                return f"{name}: {type(error).__name__}"
        return ""

    def _order(self, mutant: KernelMutant, strict: bool) -> Iterator[tuple[str, Callable[[Log, Trial], None], Trial]]:
        """Small examples first, and what catches most before the rest."""
        unused = CERTAIN + (FORWARD_ONLY if mutant.method == "backward" else ())
        names: Sequence[str] = [n for n in SUBCHECKS if n not in unused]
        first = "gradient" if mutant.method != "forward" else "forward"
        if mutant.method == "forward" and self.op.gradient:
            names = (*FORWARD_ONLY, "zeros", "configs", "gradient")  # the last reads what forward saves
        for name in sorted(names, key=lambda n: n != first) if not strict else [first, "update"]:
            for trial in self.trials:
                if applies(name, trial):
                    yield name, SUBCHECKS[name], trial


def code_of(ptx: str, kernel: str) -> list[str]:
    """The PTX of one kernel and of the functions that are not inlined, without what tells where it comes from."""
    text = PLACES.sub("", ptx.partition(".section\t.debug")[0])
    parts = re.split(r"^(?=\.visible \.entry|\.(?:visible )?func)", text, flags=re.MULTILINE)
    return [" ".join(p.split()) for p in parts if not p.startswith(".visible .entry") or f" {kernel}(" in p[:200]]
