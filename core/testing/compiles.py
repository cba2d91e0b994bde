"""Compiles every kernel that a variant launches for every architecture that it declares. No GPU is needed.

Launches are found by recording the launchers at the variant's examples, in every dtype and configuration. A verdict
records which compilations passed (`record`): the same version of NVRTC makes the same code of the same text, so they
are not repeated.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.device.launch import LaunchRecord, sources_of
from core.device.planned import PlannedDevice, threads_of
from core.dtypes import C_TYPES, NARROW, arithmetic
from core.errors import BuildError, CheckFailed
from core.kernels.chips import chip_of, launch_problems
from core.kernels.nvrtc import Kernel, Resources, architectures_of, compile_all, unit_of
from core.kernels.nvrtc_library import nvrtc_version
from core.kernels.sources import shown
from core.op import Variant
from core.testing.cached_decoding import first_tokens
from core.testing.devices import DeviceRunner
from core.testing.trial import GradientRequest, Trial
from core.variant_sources import KIT


class _AnyArchitecture(PlannedDevice):
    """A device that only records; the kernels are compiled for every architecture later."""

    def can_run(self, variant: Variant) -> str | None:
        return None


class Recorder(DeviceRunner):
    """Runs nothing, and keeps the launches in `target.records`."""

    guard = 0

    @cached_property
    def target(self) -> PlannedDevice:
        return _AnyArchitecture()


def launches_of(trials: Iterable[Trial], decoding: bool = True) -> list[LaunchRecord]:
    """The launches of the variant's own kernels in these trials: in every configuration and, by default and where a
    trial has nothing else, in a decoding step. Launches of other ops are theirs to check."""
    records: list[LaunchRecord] = []
    for trial in trials:
        recorder = Recorder(trial.home.registry)  # type: ignore[attr-defined]
        again = Trial(trial.case, trial.variant, trial.reference, trial.dtype, trial.mode, recorder, trial.home)
        for index in range(0 if trial.at_once else len(again.configs)):
            again.train(GradientRequest(config=index))
        for count in {1, trial.at_once or 1} if decoding or trial.at_once else ():
            first_tokens(again, count)
        records += [r for r in recorder.target.records if r.kernel.source in sources_of(again.variant, r.method)]
    return records


def check_compiles(
    source: Path, names: Sequence[str], arch: str, defines: Mapping[str, str | int] | None = None
) -> None:
    """Compile a .cu file for every chip of `arch` ("sm_75+"), in f32, bf16 and fp16: kernels that no launcher launches.

    Raises CheckFailed where its kernels are not exactly `names`, where one spills, and for warnings that mean a wrong
    kernel; BuildError with the compiler's lines.
    """
    macros = tuple(sorted((defines or {}).items()))
    kernels = [Kernel(source, names[0], (*macros, ("ELEM", C_TYPES[dtype]))) for dtype in ("f32", *NARROW)]
    jobs = [(k, chip) for k in kernels for chip in architectures_of(arch) if chip_of(chip).multiplies(elem_of(k))]
    wrong = []
    for (_, chip), compiled in zip(jobs, compile_all(jobs), strict=True):
        resources = compiled.resources
        wrong += [f"{chip}: {line}" for line in compiled.faults]
        wrong += [
            f"{chip}: {name} spills {used.spills} bytes a thread" for name, used in resources.items() if used.spills
        ]
        if set(resources) != set(names):
            wrong.append(f"{chip}: has the kernels {', '.join(sorted(resources))}; expected {', '.join(sorted(names))}")
    if wrong:
        raise CheckFailed(f"{shown(source)}: " + "; ".join(wrong))


UNKNOWN = "core/kernels/chips.py has those that there are"


@dataclass(frozen=True)
class Compilation:
    """A kernel as compiled for one architecture, at the largest launch: threads a thread block, dynamic shared memory
    in bytes, thread blocks of a cluster; and its problems."""

    kernel: Kernel
    arch: str
    resources: Resources
    threads: int
    smem: int
    cluster: int
    problems: tuple[str, ...]


def compilations(
    variant: Variant, launches: Sequence[LaunchRecord], archs: Sequence[str] | None = None
) -> list[Compilation]:
    """Every kernel launched, for every architecture that the variant declares and that has the number format of its
    products. Raises BuildError for one that fails."""
    largest = largest_launches(launches)
    jobs = jobs_of(variant, largest, archs)
    results = []
    for (kernel, arch), compiled in zip(jobs, compile_all(jobs), strict=True):
        used = compiled.of(kernel)
        problems = [*limits(used, arch, *largest[kernel]), *_faults(compiled.faults, kernel)]
        results.append(Compilation(kernel, arch, used, *largest[kernel], tuple(problems)))
    return results


Largest = Mapping[Kernel, tuple[int, int, int]]  # threads, bytes of dynamic shared memory, thread blocks of a cluster


def largest_launches(launches: Iterable[LaunchRecord]) -> Largest:
    """The most that any launch of each kernel takes."""
    largest: dict[Kernel, tuple[int, int, int]] = {}
    for launch in launches:
        sizes = threads_of(launch), launch.smem, launch.cluster
        before = largest.get(launch.kernel, (0, 0, 1))
        largest[launch.kernel] = max(sizes[0], before[0]), max(sizes[1], before[1]), max(sizes[2], before[2])
    return largest


def jobs_of(variant: Variant, kernels: Iterable[Kernel], archs: Sequence[str] | None) -> list[tuple[Kernel, str]]:
    """(kernel, architecture) for each compilation. archs: None for all that the variant declares."""
    wanted = architectures_of(variant.arch) if archs is None else archs
    if not wanted and archs is None:
        raise BuildError(f'arch "{variant.arch}": there is no such chip: no kernel can be compiled', hint=UNKNOWN)
    held = list(kernels)
    return [(k, arch) for arch in wanted for k in held if chip_of(arch).multiplies(format_of(k, variant))]


def compiler() -> str:
    """The compiler of a record: NVRTC's version, and the machine that it runs on."""
    return f"NVRTC {nvrtc_version()}, {platform.system()} {platform.machine()}"


def record(variant: Variant, largest: Largest) -> str:
    """The compilations of a variant as one line of a verdict: the compiler, and a hash of the kernels' texts and
    options, of the architectures, of the launches and of the chips' limits."""
    keys = {kernel: unit_of(kernel, "").key for kernel in largest}
    rows = [
        (kernel.name, keys[kernel], largest[kernel], astuple(chip_of(arch)))
        for kernel, arch in jobs_of(variant, largest, None)
    ]
    digest = hashlib.sha256(json.dumps([KIT, sorted(rows)]).encode()).hexdigest()
    return f"{compiler()}: {digest[:32]}"


def format_of(kernel: Kernel, variant: Variant) -> str:
    """The number format of a variant's products in this compilation."""
    return arithmetic(elem_of(kernel), variant.tf32)


def elem_of(kernel: Kernel) -> str:
    """The activations' dtype in a compilation."""
    named = dict(kernel.defines).get("ELEM", C_TYPES["f32"])
    return next(dtype for dtype, name in C_TYPES.items() if name == named)


def _faults(lines: Sequence[str], kernel: Kernel) -> list[str]:
    """The warnings that name this kernel, or none."""
    return [line for line in lines if kernel.name in line or "'" not in line]


def limits(used: Resources, arch: str, threads: int, smem: int, cluster: int = 1) -> list[str]:
    """The limits of an architecture that a kernel exceeds. smem: bytes of dynamic shared
    memory."""
    spills = [f"spills {used.spills} bytes a thread, at {used.registers} registers"] if used.spills else []
    return spills + launch_problems(chip_of(arch), used.registers, used.shared, (threads,), smem, cluster)


def check_compile(
    log: Any,
    variant: Variant,
    trials: Sequence[Trial],
    archs: Sequence[str] | None = None,
    passed: Collection[str] = (),
) -> str:
    """A verdict for every kernel and architecture, into the op check's log. passed: records of compilations without a
    fault; those of one of them are not repeated. The record of these; "" for some architectures alone, and where one
    fails."""
    log.case, log.dtype = "all", "all"
    try:
        launches = launches_of(trials)
        largest = largest_launches(launches)
        mine = record(variant, largest) if archs is None else ""
        if mine in passed:
            for _ in jobs_of(variant, largest, archs):
                log.passed("compile")
            return mine
        compiled = compilations(variant, launches, archs)
    except BuildError as error:
        log.verdict("compile", False, error.message)
        return ""
    for one in compiled:
        kernel = f"{shown(one.kernel.source)}: {one.kernel.name} for {one.arch}"
        log.verdict("compile", not one.problems, f"{kernel} {'; '.join(one.problems)}{advice(one)}")
    return "" if any(one.problems for one in compiled) else mine


def advice(one: Compilation) -> str:
    if not one.resources.spills:
        return ""
    return "\n  hint: hold fewer values at a time, or lower the threads of __launch_bounds__"


def widest(compilations: Iterable[Compilation]) -> Mapping[str, Resources]:
    """kernel -> the most that any of its compilations takes."""
    most: dict[str, Resources] = {}
    for one in compilations:
        a, b = one.resources, most.get(one.kernel.name, one.resources)
        most[one.kernel.name] = Resources(
            max(a.registers, b.registers), max(a.shared, b.shared), max(a.spills, b.spills), max(a.stack, b.stack)
        )
    return most
