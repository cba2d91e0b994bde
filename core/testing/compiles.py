"""Compiles every kernel that a variant launches for every architecture that it declares. No GPU is needed.

What is launched is found by recording the launchers at the variant's examples, in every dtype and configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.device.launch import MAX_SHARED, LaunchRecord, sources_of
from core.device.nvrtc import Kernel, Resources, architectures_of, compile_all, shown
from core.device.planned import PlannedDevice, threads_of
from core.errors import BuildError
from core.op import Variant
from core.testing.decode import first_tokens
from core.testing.devices import DeviceRunner
from core.testing.trial import Asked, Trial

REGISTERS = 65536  # of a multiprocessor, and so of a thread block
GRANULE = 8  # registers a thread are given in multiples of this


class _AnyArchitecture(PlannedDevice):
    """What is recorded is compiled for every architecture later."""

    def can_run(self, variant: Variant) -> str | None:
        return None


class Recorder(DeviceRunner):
    """Runs nothing, and keeps what would have been launched in `target.records`."""

    guard = 0

    @cached_property
    def target(self) -> PlannedDevice:
        return _AnyArchitecture()


def launches_of(trials: Iterable[Trial], decoding: bool = True) -> list[LaunchRecord]:
    """What the variant of these trials launches of its own kernels: in every configuration and, unless told otherwise,
    in a decoding step. What it launches of other ops is theirs to check."""
    found: list[LaunchRecord] = []
    for trial in trials:
        recorder = Recorder(trial.home.registry)  # type: ignore[attr-defined]
        again = Trial(trial.case, trial.variant, trial.reference, trial.dtype, trial.mode, recorder, trial.home)
        for index in range(len(again.configs)):
            again.train(Asked(config=index))
        if decoding:
            first_tokens(again)
        found += [r for r in recorder.target.records if r.kernel.source in sources_of(again.variant, r.method)]
    return found


@dataclass(frozen=True)
class Compilation:
    """A kernel as compiled for one architecture, at the largest launch: threads a thread block, dynamic shared memory
    in bytes; and what is wrong with it, in words."""

    kernel: Kernel
    arch: str
    resources: Resources
    threads: int
    smem: int
    problems: tuple[str, ...]


def compilations(
    variant: Variant, launches: Sequence[LaunchRecord], archs: Sequence[str] | None = None
) -> list[Compilation]:
    """Every kernel launched, for every architecture that the variant declares. Raises BuildError for one that fails."""
    threads: dict[Kernel, int] = {}
    smem: dict[Kernel, int] = {}
    for launch in launches:
        threads[launch.kernel] = max(threads.get(launch.kernel, 0), threads_of(launch))
        smem[launch.kernel] = max(smem.get(launch.kernel, 0), launch.smem)
    wanted = architectures_of(variant.arch) if archs is None else archs
    jobs = [(kernel, arch) for arch in wanted for kernel in threads]
    found = []
    for (kernel, arch), compiled in zip(jobs, compile_all(jobs), strict=True):
        used = compiled.of(kernel)
        problems = [*limits(used, arch, threads[kernel], smem[kernel]), *_faults(compiled.faults, kernel)]
        found.append(Compilation(kernel, arch, used, threads[kernel], smem[kernel], tuple(problems)))
    return found


def _faults(lines: Sequence[str], kernel: Kernel) -> list[str]:
    """The warnings that name this kernel, or none."""
    return [line for line in lines if kernel.name in line or "'" not in line]


def limits(used: Resources, arch: str, threads: int, smem: int) -> list[str]:
    """Which limits of an architecture a kernel does not keep, in words."""
    most = MAX_SHARED[int("".join(c for c in arch if c.isdigit()))] * 1024
    shared = used.shared + smem
    registers = -(-used.registers // GRANULE) * GRANULE * -(-threads // 32) * 32
    rules = [
        (used.spills > 0, f"spills {used.spills} bytes a thread, at {used.registers} registers"),
        (shared > most, f"takes {shared:,} bytes of shared memory a thread block; there are {most:,}"),
        (registers > REGISTERS, f"takes {registers:,} registers at {threads} threads; there are {REGISTERS:,}"),
    ]
    return [text for broken, text in rules if broken]


def check_compile(log: Any, variant: Variant, trials: Sequence[Trial], archs: Sequence[str] | None = None) -> None:
    """A verdict for every kernel and architecture, into the op check's log."""
    log.case, log.dtype = "all", "all"
    try:
        found = compilations(variant, launches_of(trials), archs)
    except BuildError as error:
        log.verdict("compile", False, error.message)
        return
    for one in found:
        what = f"{shown(one.kernel.source)}: {one.kernel.name} for {one.arch}"
        log.verdict("compile", not one.problems, f"{what} {'; '.join(one.problems)}{advice(one)}")


def advice(one: Compilation) -> str:
    if not one.resources.spills:
        return ""
    return "\n  hint: hold fewer values at a time, or let __launch_bounds__ ask for fewer threads"


def widest(found: Iterable[Compilation]) -> Mapping[str, Resources]:
    """kernel -> the most that any of its compilations takes."""
    most: dict[str, Resources] = {}
    for one in found:
        a, b = one.resources, most.get(one.kernel.name, one.resources)
        most[one.kernel.name] = Resources(
            max(a.registers, b.registers), max(a.shared, b.shared), max(a.spills, b.spills), max(a.stack, b.stack)
        )
    return most
