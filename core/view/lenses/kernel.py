"""Launches of kernels, lane by lane: the 32 lanes of a warp at each source line, from tapes of the simulator.

No run is needed. Some thread blocks of each launch are taped, the first and the last by default; the sums are of the
whole launch, those of `core trace`. Strict mode runs first: its error is shown at the accesses that it names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.device.launch import LaunchRecord
from core.errors import UsageError
from core.lens import Lens
from core.op import Op, Variant
from core.registry import Registry
from core.sim.faults import FaultAccess, KernelError
from core.sim.launching.launch_report import Report
from core.sim.tape import FULL, lanes_in
from core.testing.case import Case
from core.testing.traced import See, TraceRunner, case_for, kernels_of, run_launchers
from core.view.kernel_lines import kernel_lines
from core.view.subject import Subject
from core.view.taped_launch import TapedLaunch, unpacked

PANES = 2
OTHERS = "--block N tapes another thread block"
MOST = 4_000  # steps of a launch, by default
ALL, LEAST = 14_000, 400  # steps of the page, shared out between kernels; of a launch that comes when few are left
Json = dict[str, Any]


class KernelLens(Lens):
    """The kernels of `--kernel OP.VARIANT`, several beside each other."""

    name, title, scripts = "kernel", "Kernel", ("kernel.js", "kernel_events.js")
    question = "What do the 32 lanes of a warp do at this line?"

    def command(self, subject: Subject) -> str:
        """The view with its kernels; without one, the form of the option."""
        return super().command(subject) if subject.options.kernels else "core view --kernel OP.VARIANT"

    def collect(self, subject: Subject) -> Json | None:
        """Each kernel's launches as `core.view.taped_launch` has them; None without `--kernel`."""
        options, registry = subject.options, subject.registry
        if not options.kernels:
            return None
        how, pairs = options.launch, [kernels_of(name, registry) for name in options.kernels]
        if len(pairs) > PANES:
            raise UsageError(f"{len(pairs)} kernels; {PANES} fit beside each other", hint="leave some out")
        if len({op.name for op, _ in pairs}) > 1 and how.shape:
            raise UsageError("--shape is for variants of one op", hint="look at one op, or leave --shape out")
        budget = 1 << 40 if options.more else ALL // len(pairs)
        taping = Taping(registry, how.dtype, how.direction, how.blocks, budget)
        cases = [case_for(op, variant, registry, how.shape, how.dtype) for op, variant in pairs]
        kernels = [taping.kernel(*pair, case) for pair, case in zip(pairs, cases, strict=True)]
        check_places(kernels, how.blocks, how.warp)
        return {"kernels": kernels, "warp": how.warp}

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """Sums of each launch, and the steps of one warp of it."""
        return kernel_lines(data)


def check_places(kernels: Sequence[Json], blocks: Sequence[int], warp: int) -> None:
    """UsageError for a thread block or warp that no launch has."""
    launches = [launch for kernel in kernels for launch in kernel["launches"]]
    grids = [math.prod(launch["grid"]) for launch in launches]
    warps = [math.ceil(math.prod(launch["block"]) / 32) for launch in launches]
    for option, wanted, counts in (("--block", blocks, grids), ("--warp", (warp,), warps)):
        for number in wanted:
            if launches and number >= max(counts):
                raise UsageError(f"{option} {number}: expected 0 to {max(counts) - 1:,}")


@dataclass
class Taping:
    """The settings of taping. dtype: "" for the variant's first. blocks: numbers in the grid; none for the first and
    the last. budget: steps of a kernel; a launch takes at most half of those left.
    """

    registry: Registry
    dtype: str = ""
    direction: str = "both"
    blocks: Sequence[int] = ()
    budget: int = ALL

    def kernel(self, op: Op, variant: Variant, case: Case) -> Json:
        """A variant's launches on a case, and strict mode's error."""
        dtype = self.dtype or variant.dtypes[0]
        error, failed = self.strict_error(op, variant, case, dtype)
        accesses = error.accesses if error is not None else ()
        launches: list[Json] = []
        most = MOST if self.budget <= ALL else self.budget

        def keep(record: LaunchRecord, report: Report) -> None:
            assert report.tape is not None
            left = self.budget - sum(len(warp["steps"]) for one in launches for warp in one["warps"])
            made = TapedLaunch(record, report.tape, report.counts, min(most, max(LEAST, left // 2))).as_json()
            if failed is not None and same_launch(failed, record) and not any("faults" in one for one in launches):
                made["faults"] = [fault(access, made) for access in accesses]
            launches.append(made)

        def runner(see: See) -> TraceRunner:
            return TraceRunner(self.registry, see, count=True, tape=lambda record: self.taped(record, accesses))

        try:
            run_launchers(op, variant, case, self.registry, dtype, self.direction, runner, keep)
        except KernelError as stopped:
            if error is None:
                raise
            if stopped.tape is not None and failed is not None:
                keep(failed, Report(failed.kernel.name, failed.grid, failed.block, tape=stopped.tape))
        return {
            "name": f"{op.name}.{variant.name}", "dtype": dtype, "example": case.label, "others": OTHERS,
            "launches": launches,
            "error": None if error is None else error_words(error, failed),
        }  # fmt: skip

    def strict_error(
        self, op: Op, variant: Variant, case: Case, dtype: str
    ) -> tuple[KernelError | None, LaunchRecord | None]:
        """(the error that strict mode raises, the launch that it is of)."""
        runners: list[TraceRunner] = []

        def runner(see: See) -> TraceRunner:
            runners.append(TraceRunner(self.registry, see, strict=True))
            return runners[-1]

        try:
            run_launchers(op, variant, case, self.registry, dtype, self.direction, runner, lambda record, report: None)
        except KernelError as error:
            return error, runners[-1].failed
        return None, None

    def taped(self, record: LaunchRecord, accesses: Sequence[FaultAccess]) -> list[int]:
        """The thread blocks of a launch that are taped."""
        return taped_blocks(math.prod(record.grid), accesses, self.blocks)


def taped_blocks(count: int, accesses: Sequence[FaultAccess], blocks: Sequence[int] = ()) -> list[int]:
    """The taped ones of a launch's `count` thread blocks: an error's, then `blocks`, or the first and the
    last."""
    wanted = [*(access.block for access in accesses), *(blocks or (0, count - 1))]
    return [block for block in dict.fromkeys(wanted) if block < count] or [0]


def error_words(error: KernelError, failed: LaunchRecord | None) -> Json:
    """An error's kind, message and hint, without folders of this machine."""
    folder = f"{failed.kernel.source.parent.as_posix()}/" if failed is not None else ""
    message = error.message.replace(folder, "") if folder else error.message
    return {"kind": error.kind, "message": message, "hint": error.hint}


def same_launch(one: LaunchRecord, other: LaunchRecord) -> bool:
    return (one.kernel, one.method, one.line, one.grid) == (other.kernel, other.method, other.line, other.grid)


def fault(access: FaultAccess, launch: Json) -> Json:
    """The place of an error's access in a taped launch. step: None where no step of its warp does it."""
    warp, lane = divmod(access.thread, 32)
    own = (w["steps"] for w in launch["warps"] if (w["block"], w["warp"]) == (access.block, warp))
    steps: list[Json] = next(own, [])
    places = [number for number, step in enumerate(steps) if does(step, access, lane, launch)]
    return {
        "block": access.block, "warp": warp, "lane": lane, "thread": access.thread, "line": access.line,
        "how": access.how, "step": places[-1] if places else None,
    }  # fmt: skip


def does(step: Json, access: FaultAccess, lane: int, launch: Json) -> bool:
    """Whether a step runs an error's instruction in its lane; one without an instruction, whether it touches the
    place."""
    if not step.get("m", FULL) >> lane & 1:
        return False
    texts = [launch["ptx"][n] for n in numbers(step["p"])]
    touching = any(touches(event, access, lane, launch) for event in step.get("e", ()))
    if access.ptx and access.ptx not in texts:
        return False
    return touching or (bool(access.ptx) and (access.address < 0 or not any(map(is_access, step.get("e", ())))))


def is_access(event: Json) -> bool:
    return bool(event["kind"] == "access")


def touches(event: Json, access: FaultAccess, lane: int, launch: Json) -> bool:
    """Whether an event accesses a place, by offsets in its buffer."""
    if not is_access(event):
        return False
    start = launch["buffers"][event["b"]]["start"]
    places = [start + at for at, one in zip(unpacked(event["a"]), lanes_of(event), strict=True) if one == lane]
    return any(place <= access.address < place + event["w"] for place in places)


def lanes_of(event: Json) -> list[int]:
    """The lane of each of an event's places."""
    if "lanes" in event:
        return [int(lane) for lane in unpacked(event["lanes"])]
    return lanes_in(event.get("m", FULL))


def numbers(flat: Sequence[int]) -> Iterator[int]:
    """The numbers of runs."""
    for first, count in zip(flat[::2], flat[1::2], strict=True):
        yield from range(first, first + count)
