"""The faults of mutate_cuda.py put into a variant's kernels, compiled, and held to the op check in the simulator.

A `Bench` is made once a variant: it keeps the trials, what the reference says to them, and what the launcher that is
not broken leaves, so that a mutant costs its own compilation and its own launches only. Everything runs fast first;
strict mode, which sees races, gets what that lets pass.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from core.device.gpu import LaunchRecord, source_of
from core.device.nvrtc import SIMULATED, Kernel, compile_all
from core.device.sim.device import SimDevice
from core.errors import BuildError
from core.op import Op, Tensors, Variant
from core.registry import Registry
from core.testing.case import cases_of
from core.testing.check import VariantReport, reference_of, trials_of
from core.testing.checks import SUBCHECKS
from core.testing.compiles import launches_of
from core.testing.devices import DeviceRunner, SimRunner
from core.testing.log import Log, Stop
from core.testing.mutate_cuda import Fault, faults
from core.testing.runner import Call, CpuRunner, Outcome
from core.testing.trial import Trial

IDENTICAL, BROKEN_TEXT = "identical", "does not compile"  # what is no mutant at all
NO_MUTANT = (IDENTICAL, BROKEN_TEXT)
FORWARD_ONLY = ("forward", "decode", "random")  # sub-checks that a backward has no part in
PLACES = re.compile(r"^\s*(?:\.loc|\.file|//).*$|^\s*\.section\s+\.debug.*", re.MULTILINE)
CERTAIN = ("repeat",)  # the simulator repeats itself


@dataclass(frozen=True)
class CudaMutant:
    """A variant with one fault in the kernels that `method` launches. `key` is its name in the reviewed list."""

    op: Op
    variant: Variant
    method: str
    fault: Fault
    number: int  # of several equal keys

    @property
    def name(self) -> str:
        return f"{self.op.name}.{self.variant.name}"

    @property
    def key(self) -> str:
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.fault.function}: {self.fault.before} -> {self.fault.after}{again}"


class BreakingDevice(SimDevice):
    """A simulator that compiles another text for the kernels of one launcher."""

    def __init__(self) -> None:
        super().__init__()
        self.method, self.text = "", ""

    def record(
        self, variant: Variant, method: str, t: Tensors, pick: Any, workspace: Any, counters: Any = None
    ) -> list[LaunchRecord]:
        found = super().record(variant, method, t, pick, workspace, counters)
        if not self.text or method != self.method:
            return found
        source = source_of(variant, method)
        return [replace(r, kernel=replace(r.kernel, text=self.text)) if r.kernel.source == source else r for r in found]

    def broken(self, method: str, text: str) -> None:
        """From here on `method` launches what `text` says; "" for what the file says."""
        self.method, self.text = method, text
        for kernel in [k for k in self._simulators if k.text]:
            simulator = self._simulators.pop(kernel)
            for compiled in [c for c, s in self._by_ptx.items() if s is simulator]:
                del self._by_ptx[compiled]


class BreakingRunner(SimRunner):
    """Runs what is not broken once, and remembers it."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.held: dict[str, Outcome] = {}
        self.strict = False

    @cached_property
    def target(self) -> Any:
        return BreakingDevice()

    def run(self, call: Call) -> Outcome:
        self.target.strict = False
        if self.target.text and call.method == self.target.method:
            if self.strict:
                return super().run(call)
            return DeviceRunner.run(self, call)
        given = [(n, None if v is None else (v.shape, v.tobytes())) for n, v in sorted(call.given.items())]
        flags = sorted(call.flags.items()), sorted(call.config.items()), sorted(call.shares.items())
        key = repr((call.method, sorted(call.dtypes.items()), sorted(map(str, call.writes.items())), flags)) + str(
            hash(repr(given))
        )
        if key not in self.held:
            self.held[key] = DeviceRunner.run(self, call)
        return self.held[key]


class Bench:
    """One variant, ready to be broken."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant = op, variant
        self.runner = BreakingRunner(registry)
        report = VariantReport(op.name, variant.name, "sim", variant.dtypes)
        found = trials_of(
            cases_of(op, variant), variant, reference_of(op, registry), self.runner, CpuRunner(registry), report
        )
        self.trials = sorted(found, key=lambda t: t.elements)

    @property
    def device(self) -> BreakingDevice:
        device: BreakingDevice = self.runner.target
        return device

    @property
    def methods(self) -> list[str]:
        """The launchers of the variant: what is launched by several is broken in each of them."""
        able = {
            "backward": self.variant.has_backward,
            "forward_backward": self.variant.has_forward_backward,
            "forward": True,
        }
        return [m for m, has in able.items() if has]

    def unbroken(self) -> list[str]:
        """The sub-checks that the variant fails as it is; what those say of a mutant counts for nothing."""
        if not self.trials:
            return ["schema"]
        found: dict[str, None] = {}
        for check in SUBCHECKS.values():
            for trial in self.trials:
                log = Log()
                check(log, trial)
                found.update(dict.fromkeys(f.check for f in log.failures))
        return list(found)

    @cached_property
    def kernels(self) -> dict[str, list[Kernel]]:
        """launcher -> the kernels of its source that it launches on the examples, under every macro. What it launches
        only while decoding is left out."""
        found: dict[str, dict[Kernel, None]] = {m: {} for m in self.methods}
        for launch in launches_of(self.trials):
            if launch.method in found and launch.kernel.source == source_of(self.variant, launch.method):
                found[launch.method][launch.kernel] = None
        return {method: list(kernels) for method, kernels in found.items()}

    def mutants(self) -> list[CudaMutant]:
        made, seen = [], dict[str, int]()
        done: set[str] = set()  # kernels of an earlier launcher are not broken again
        for method, kernels in self.kernels.items():
            names = {k.name for k in kernels} - done
            done |= names
            if not names:
                continue
            for fault in faults(source_of(self.variant, method).read_text("utf-8"), names):
                mutant = CudaMutant(self.op, self.variant, method, fault, 1)
                seen[mutant.key] = number = seen.get(mutant.key, 0) + 1
                made.append(replace(mutant, number=number))
        return made

    def caught(self, mutant: CudaMutant) -> str:
        """The sub-check that says no; IDENTICAL or BROKEN_TEXT for what is none; "" when nobody says anything."""
        try:
            if self._same_code(mutant):
                return IDENTICAL
        except BuildError:
            return BROKEN_TEXT
        self.device.broken(mutant.method, mutant.fault.text)
        try:
            return self._said(mutant, strict=False) or self._said(mutant, strict=True)
        finally:
            self.device.broken("", "")

    def _same_code(self, mutant: CudaMutant) -> bool:
        """Whether the compiler makes the same of what the launcher launches, under every macro and both types.

        BuildError for what does not compile.
        """
        kernels = self.kernels[mutant.method]
        whole = compile_all((k, SIMULATED) for k in kernels)
        broken = compile_all((replace(k, text=mutant.fault.text), SIMULATED) for k in kernels)
        return all(
            code_of(a.ptx, k.name) == code_of(b.ptx, k.name) for k, a, b in zip(kernels, whole, broken, strict=True)
        )

    def _said(self, mutant: CudaMutant, strict: bool) -> str:
        self.runner.strict = strict
        self.runner.seen.clear()
        for name, check, trial in self._order(mutant, strict):
            log = Log(stop=True, case=trial.case.label, dtype=trial.dtype)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(log, trial)
            except Stop:
                return log.failures[0].check
            except Exception as error:  # whatever a mutant breaks, it has been noticed
                return f"{name}: {type(error).__name__}"
        return ""

    def _order(self, mutant: CudaMutant, strict: bool) -> Iterator[tuple[str, Callable[[Log, Trial], None], Trial]]:
        """Small examples first, and what catches most before the rest."""
        unused = CERTAIN + (FORWARD_ONLY if mutant.method == "backward" else ())
        names: Sequence[str] = [n for n in SUBCHECKS if n not in unused]
        first = "gradient" if mutant.method != "forward" else "forward"
        if mutant.method == "forward" and self.op.gradient:
            names = (*FORWARD_ONLY, "zeros", "configs", "gradient")  # the last reads what forward saves
        for name in sorted(names, key=lambda n: n != first) if not strict else [first, "update"]:
            for trial in self.trials:
                yield name, SUBCHECKS[name], trial


def code_of(ptx: str, kernel: str) -> list[str]:
    """The PTX of one kernel and of the functions that are not inlined, without what tells where it comes from."""
    text = PLACES.sub("", ptx.partition(".section\t.debug")[0])
    parts = re.split(r"^(?=\.visible \.entry|\.(?:visible )?func)", text, flags=re.MULTILINE)
    return [" ".join(p.split()) for p in parts if not p.startswith(".visible .entry") or f" {kernel}(" in p[:200]]
