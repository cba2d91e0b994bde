"""Swaps the kernels of a variant and runs the op check on it in the simulator, for tools of mutation testing.

The names of `__all__` are public; plugins/mutants is made of them. A `KernelSwap` is made once a variant: it keeps the
trials, the reference's results, and those of the launcher that is not swapped, so that another text costs its own
compilation and its own launches only. All texts run in fast mode first; those that pass run in strict mode, which sees
races.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from core.device.launch import HostRecord, LaunchRecord, sources_of
from core.device.simulated import SimDevice
from core.errors import BuildError
from core.kernels.nvrtc import Kernel, compile_ptx
from core.kernels.sources import parts_of, whole_text
from core.op import Op, Tensors, Variant
from core.registry import Registry
from core.sim.faults import PtxError
from core.testing.checks import SUBCHECKS, applies
from core.testing.compiles import launches_of
from core.testing.devices import DeviceRunner, SimRunner
from core.testing.log import Log, StopChecks
from core.testing.processes import outcomes_of, processes, registry_of
from core.testing.runner import Call, Outcome
from core.testing.strict_choice import StrictChoice
from core.testing.trial import Trial
from core.testing.trials import all_trials
from core.threads import cores

__all__ = ["KernelSwap", "Registry", "cores", "outcomes_of", "parts_of", "processes", "registry_of", "whole_text"]

FORWARD_ONLY = ("forward", "decode", "random")  # sub-checks that a backward has no part in
PLACES = re.compile(r"^\s*(?:\.loc|\.file|//).*$|^\s*\.section\s+\.debug.*", re.MULTILINE)
VARIABLE = re.compile(r"\.(?:shared|global|const)\b[^={]*?([\w$]+)(?:\[\d*\])*(?: =.*)?$")  # of a file; its name
ENDLESS = 50_000  # branches of a thread block: a hundred times those of any example, and a second
CERTAIN = ("repeat",)  # the simulator repeats itself


Texts = Mapping[Path, str]  # a file of kernels -> the whole text in its place


class SwapDevice(SimDevice):
    """A simulator that compiles other texts for the kernels that one launcher takes from some files."""

    def __init__(self) -> None:
        super().__init__(limit=ENDLESS)
        self.method = ""
        self.texts: Texts = {}
        self.unbuilt = False  # whether a broken text did not compile

    def record(
        self, variant: Variant, method: str, t: Tensors, pick: Any, workspace: Any, counters: Any = None
    ) -> list[LaunchRecord]:
        recorded = super().record(variant, method, t, pick, workspace, counters)
        if method != self.method:
            return recorded
        broken = {r.kernel: replace(r.kernel, text=self.texts.get(r.kernel.source, r.kernel.text)) for r in recorded}
        return [replace(r, kernel=broken[r.kernel]) for r in recorded]

    def prepare(self, commands: Sequence[LaunchRecord | HostRecord]) -> None:
        try:
            super().prepare(commands)
        except BuildError as error:
            self.unbuilt = self.unbuilt or bool(self.texts) and not isinstance(error, PtxError)
            raise

    def swap(self, method: str = "", texts: Texts | None = None) -> None:
        """From here on `method` launches the kernels of these texts; without arguments, those of its own files."""
        self.method, self.texts, self.unbuilt = method, texts or {}, False
        for kernel in [k for k in self._simulators if k.text]:
            simulator = self._simulators.pop(kernel)
            self._by_ptx = {compiled: s for compiled, s in self._by_ptx.items() if s is not simulator}
            self._by_file = {file: s for file, s in self._by_file.items() if s is not simulator}


class SwapRunner(SimRunner):
    """Makes a call that is broken each time."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.strict = self.swapped = False

    @cached_property
    def target(self) -> Any:
        return SwapDevice()

    def run(self, call: Call) -> Outcome:
        self.swapped = bool(self.target.texts) and call.method == self.target.method
        self.fast = call.fast  # a broken call is not held, and an earlier one may have been a fast one
        return DeviceRunner.run(self, call) if self.swapped else super().run(call)

    def launch(self, commands: Sequence[LaunchRecord]) -> None:
        if self.strict and self.swapped:
            super().launch(commands)
        else:
            self.target.strict, self.target.executor = False, None  # a launch before may have been a strict one
            self.target.run(commands)


class KernelSwap:
    """One variant, whose kernels can get another text."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant = op, variant
        self.runner = SwapRunner(registry)
        self.trials = sorted(all_trials(op, variant, registry, runner=self.runner), key=lambda t: t.elements)

    @property
    def methods(self) -> list[str]:
        """The launchers of the variant: a kernel that several launch is swapped in each of them."""
        able = {
            "backward": self.variant.has_backward,
            "forward_backward": self.variant.has_forward_backward,
            "forward": True,
        }
        return [m for m, has in able.items() if has]

    def failed_checks(self) -> list[str]:
        """The sub-checks that the variant fails as it is."""
        if not self.trials:
            return ["schema"]
        failed: dict[str, None] = {}
        for name, check in SUBCHECKS.items():
            for trial in filter(partial(applies, name), self.trials):
                log = Log()
                check(log, trial)
                failed.update(dict.fromkeys(f.check for f in log.failures))
        return list(failed)

    @cached_property
    def kernels(self) -> dict[str, list[Kernel]]:
        """launcher -> the kernels of its sources that it launches on the examples, under every macro. A kernel that
        it launches only while decoding is left out, unless it launches all of them so."""
        by_method: dict[str, dict[Kernel, None]] = {m: {} for m in self.methods}
        for launch in launches_of(self.trials, decoding=False):
            if launch.method in by_method and launch.kernel.source in sources_of(self.variant, launch.method):
                by_method[launch.method][launch.kernel] = None
        return {method: list(kernels) for method, kernels in by_method.items()}

    def same_code(self, method: str, texts: Texts) -> bool:
        """Whether the compiler makes the same of these texts as of the files in whose place they are, for all that a
        launcher takes from these, under every macro and both types. It ends at the first difference. BuildError for an
        error of compilation."""
        for kernel in [k for k in self.kernels[method] if k.source in texts]:
            other = replace(kernel, text=texts[kernel.source])
            before, after = (compile_ptx(k).ptx for k in (kernel, other))
            if code_of(before, kernel.name) != code_of(after, kernel.name):
                return False
        return True

    def failed_check(self, method: str, texts: Texts) -> str:
        """The first sub-check that the variant fails where its launcher `method` takes its kernels from these texts;
        "" where it passes all. BuildError for a text that does not compile under some macro."""
        device = self.runner.target
        device.swap(method, texts)
        try:
            failed = self._failed(method, strict=False) or self._failed(method, strict=True)
            if device.unbuilt:
                raise BuildError(f"{', '.join(source.name for source in texts)}: the text does not compile")
            return failed
        finally:
            device.swap()

    def _failed(self, method: str, strict: bool) -> str:
        self.runner.strict = strict
        self.runner.seen.clear()
        self.runner.choice = StrictChoice()
        for name, check, trial in self._order(method):
            log = Log(stop=True, case=trial.case.label, dtype=trial.dtype)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(log, trial)
            except StopChecks:
                return log.failures[0].check
            except Exception as error:  # any failure is a caught mutant
                return f"{name}: {type(error).__name__}"
        return ""

    def _order(self, method: str) -> Iterator[tuple[str, Callable[[Log, Trial], None], Trial]]:
        """Small examples first, and the most effective checks before the rest."""
        unused = CERTAIN + (FORWARD_ONLY if method == "backward" else ())
        names: Sequence[str] = [n for n in SUBCHECKS if n not in unused]
        first = "gradient" if method != "forward" else "forward"
        if method == "forward" and self.op.gradient:
            names = (*FORWARD_ONLY, "zeros", "padding", "configs", "gradient")  # the last reads forward's saved tensors
        for name in sorted(names, key=lambda n: n != first):
            for trial in self.trials:
                if applies(name, trial):
                    yield name, SUBCHECKS[name], trial


def code_of(ptx: str, kernel: str) -> list[str]:
    """The PTX of one kernel and of the functions that are not inlined, without its line numbers, and without variables
    of the file that these do not use: shared memory of another kernel is declared for all."""
    text = PLACES.sub("", ptx.partition(".section\t.debug")[0])
    head, *parts = re.split(r"^(?=\.visible \.entry|\.(?:visible )?func)", text, flags=re.MULTILINE)
    bodies = [" ".join(p.split()) for p in parts if not p.startswith(".visible .entry") or f" {kernel}(" in p[:200]]
    mentioned = set(re.findall(r"[\w$]+", " ".join(bodies)))
    declared = [" ".join(one.split()) for one in head.split(";")]
    return [*(one for one in declared if not (name := VARIABLE.search(one)) or name[1] in mentioned), *bodies]
