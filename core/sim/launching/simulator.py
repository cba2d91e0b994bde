"""Loads PTX and launches its kernels on simulated memory: the simulator's front door."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from core.errors import BuildError, UsageError
from core.sim.counting import counted
from core.sim.faults import Finding, KernelError
from core.sim.instructions.binding import bind, missing
from core.sim.instructions.table import TABLE
from core.sim.launching.launch_report import Report, native_report, summarise
from core.sim.launching.limits import check_limits
from core.sim.launching.scheduler import Order, Scheduler
from core.sim.launching.screened import screenable, screened
from core.sim.launching.thread_order import (
    SEEDS,
    block_order_shows,
    blocks_together,
    facts_of,
    polls,
    strict_orders,
    thread_order_shows,
)
from core.sim.launching.watchers import Taped, tape_of, watch
from core.sim.machine.address_space import Heap, Memory
from core.sim.machine.budget import default_limit
from core.sim.machine.geometry import Shape
from core.sim.machine.wording import Wording
from core.sim.native.choice import Lack, fall_back, natively
from core.sim.native.executor import Linked, Terms, linked, ready_launch
from core.sim.native.executor import run as run_natively
from core.sim.native.form_table import FORMS
from core.sim.native.screening import screen
from core.sim.native.stored import (
    KernelFacts,
    PtxOutline,
    keep_code,
    keep_outline,
    known_code,
    known_outline,
    outline_of,
)
from core.sim.native.toolchain import Machine, machine
from core.sim.native.translation import Code, Missing, translate
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.cuda_source import Sources
from core.sim.ptx.parser import parse
from core.sim.ptx.program import Program, function_address, link
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Module, PtxVariable
from core.sim.resident import Batch
from core.sim.strict.shadow import Global, grain
from core.sim.strict.watch import Watch
from core.threads import cores

ORDER = ("error", "warn")
SPLIT = 8192  # lanes of a launch from which it is worth two threads
LIBRARY = 64  # kernels that a process keeps for later simulators of the same PTX


@functools.lru_cache(maxsize=LIBRARY)
def bound(ptx: str, kernel: str, globals_at: tuple[tuple[str, int], ...], parted: bool) -> Program:
    """A kernel linked and bound to the table of instructions; shared by simulators of its PTX whose device variables
    are at the same addresses, since no launch changes it."""
    return bind(link(parse(ptx), kernel, dict(globals_at), parted), TABLE)


@dataclass
class Simulator:
    """A module of PTX on a memory. Kernels are linked on their first launch.

    sources: the CUDA C++ that findings quote.
    limit: branches that a thread block may take, after which the kernel is called endless (machine/budget.py).
    globals_at: addresses of device variables, by symbol; those that are there already are taken over, with contents.
    output: the place of printf; standard output by default.
    """

    ptx: str
    memory: Memory = field(default_factory=Memory)
    limit: int = field(default_factory=default_limit)
    sources: Sources = field(default_factory=Sources)
    outline: PtxOutline = field(init=False)
    programs: dict[tuple[str, bool], Program] = field(default_factory=dict)
    natives: dict[tuple[str, bool, bool], Linked | Lack] = field(default_factory=dict)
    globals_at: dict[str, int] = field(default_factory=dict)
    output: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        self.outline = known_outline(self.ptx) or outline_of(self.module)
        fresh: dict[int, PtxVariable] = {}
        for variable in self.outline.variables:
            if variable.name in self.globals_at:
                continue
            address = self.memory.allocate(variable.size, f"variable {variable.name}", max(variable.align, 16))
            self.globals_at[variable.name] = address
            fresh[address] = variable
        for address, variable in fresh.items():
            if variable.initial:
                self.memory.write(address, np.frombuffer(self._initial(variable.initial), np.uint8))

    @functools.cached_property
    def module(self) -> Module:
        """The PTX, parsed at its first use."""
        return parse(self.ptx)

    def _initial(self, initial: bytes | tuple[str, ...]) -> bytes:
        """A variable's first contents; of addresses, "generic(x)", "x+4" or a number each, 8 bytes."""
        if isinstance(initial, bytes):
            return initial
        values = []
        for item in initial:
            name, _, offset = re.sub(r"generic\(([^)]*)\)", r"\1", item).replace(" ", "").partition("+")
            start = int(name, 0) if name[0].isdigit() else self.globals_at.get(name) or function_address(name)
            values.append(start + int(offset or "0", 0))
        return np.array(values, np.uint64).tobytes()

    @property
    def kernels(self) -> list[str]:
        """The names of the module's entry points, in the order of the file."""
        return list(self.outline.kernels)

    def program(self, kernel: str, strict: bool = False) -> Program:
        """A kernel linked with its device functions and bound to the table of instructions; built once, and for strict
        mode once more where that puts zones between its shared variables."""
        if (kernel, strict) not in self.programs:
            program = self.programs.get((kernel, not strict))
            if program is None or program.has_shared_variables:
                program = bound(self.ptx, kernel, tuple(self.globals_at.items()), strict)
            self.programs[kernel, strict] = program
        return self.programs[kernel, strict]

    @staticmethod
    def say(line: str) -> None:
        """Print a note on stderr."""
        if line:
            print(line, file=sys.stderr)

    def native(self, kernel: str, reach: bool = False, screens: bool = False) -> Linked | Lack:
        """A kernel for the machine, or why it does not run it. reach: with counts of the instructions that run;
        screens: with records that screen its launches in strict mode, where it is screenable."""
        key = kernel, reach, screens
        if key not in self.natives:
            try:
                here = machine()
                facts, code = self._translated(kernel, here, reach, screens)
                program = functools.partial(self.program, kernel, screens)
                native: Linked | Lack = linked(here, facts, code, self.globals_at, program)
            except Missing as error:
                native = Lack(f"kernel {kernel}", f"the machine does not have {error.message}")
            except BuildError as error:
                native = Lack("kernels", error.message)
            self.natives[key] = native
        return self.natives[key]

    def _translated(self, kernel: str, here: Machine, reach: bool, screens: bool) -> tuple[KernelFacts, Code]:
        """A kernel's records, from the cache where an earlier process left them. Raises Missing."""
        key = here.key + (" with counts" if reach else "") + (" screened" if screens else "")
        if (stored := known_code(self.ptx, kernel, key)) is not None:
            return stored
        program = self.program(kernel, screens)
        if lacking := missing(program):
            message = lacking[0].message
            raise Missing(quoted[0] if (quoted := re.search("`.*?`", message)) else message)
        before = screen if screens and screenable(program) else None
        facts, code = facts_of(program), translate(program, here, TABLE, FORMS, reach, before)
        keep_outline(self.ptx, self.outline)
        keep_code(self.ptx, key, facts, code)
        return facts, code

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[bytes],
        smem: int = 0,
        cluster: int = 1,
        strict: bool = False,
        count: bool = False,
        order: str = "error",
        executor: str | None = None,
        tape: Taped = False,
        reach: bool = False,
        seeds: Sequence[int] = SEEDS,
        screens: bool = False,
    ) -> Report:
        """Run a kernel to its end. args: the parameters' bytes in order. Raises KernelError and
        PtxError, UsageError for contradictory arguments.

        strict: also report races and reads of uninitialised memory; some ten times slower. count: the report has
        `counts`; tape: it has a `tape`, of all thread blocks or of those numbers. Strict mode goes without both. order:
        strict mode's view of a result that depends on the order of threads, an "error", or a "warn"ing among the
        report's findings, beside the result of the first order. executor: "native" or "interpreter", None for the
        default (native/choice.py). reach: also the report of a native launch has counts (`reached`, `instructions`
        and their like). seeds: of the orders that strict mode tries after the first, in which asynchronous work is
        as late as it may be, where an order can show. screens: the kernel is laid out for strict mode in any case,
        which runs a launch on the machine first, and on the interpreter only if the machine suspects a finding, or
        cannot look for one.
        """
        if order not in ORDER:
            raise UsageError(f"order={order!r}; expected one of {', '.join(ORDER)}")
        if strict and (count or tape):
            raise UsageError("strict mode neither counts nor tapes, one at a time", hint="strict=False, count=True")
        watched = "strict" if strict else "count" if count else "tape" if tape else ""
        native = self.native(kernel, reach, screens) if natively(executor, watched) else None
        if isinstance(native, Lack):
            self.say(fall_back(executor, native))
        if isinstance(native, Linked):
            return self._launch_natively(native, (*grid,), (*block,), args, smem, cluster)
        program = self.program(kernel, strict)
        facts = facts_of(program)
        shape = _shape(facts, grid, block, cluster, smem)
        self._pass_arguments(facts, args)
        if strict and screens and (clean := self._screen(program, shape, smem)) is not None:
            return clean
        if strict:
            return self._launch_strictly(program, shape, smem, order, seeds)
        return self._interpret(program, shape, smem, count, tape)

    def _launch_natively(
        self, native: Linked, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[bytes], smem: int,
        cluster: int,
    ) -> Report:  # fmt: skip
        facts, key = native.facts, (grid, block, smem, cluster, self.limit)
        ready = native.launches.get(key)
        if ready is None:
            shape, terms = _shape(facts, grid, block, cluster, smem), Terms(facts.ordered, facts.polls, self.limit)
            ready = native.keep(key, ready_launch(native, shape, smem, terms))
        self._pass_arguments(facts, args)
        words = functools.partial(self._words, facts.name, ready.shape, smem)
        return native_report(native, ready.shape, run_natively(native, words, self.memory, ready, self._output()))

    def _screen(self, program: Program, shape: Shape, smem: int) -> Report | None:
        """A launch in strict mode on the machine; None where that does not show that nothing is to be found."""
        native = self.native(program.name, reach=True, screens=True) if screenable(program) else None
        if not isinstance(native, Linked):
            return None
        words = Wording(program, self.memory, shape, self.sources, smem)
        work = screened(native, words, shape, smem, self.limit)
        return native_report(native, shape, work) if work is not None else None

    def _interpret(self, program: Program, shape: Shape, smem: int, count: bool, tape: Taped) -> Report:
        """A launch on the interpreter, counted or taped."""
        batches = self._batches(program, shape, smem, blocks_together(program, shape, False))
        for batch in batches:
            watch(batch, count, tape)
        together = Order("apart" if polls(program) else "warps" if thread_order_shows(program) else "one")
        try:
            self._run_all(batches, together)
        except KernelError as error:
            error.tape = tape_of(program, batches) if tape else None
            raise
        report = summarise(program, shape, batches)
        if tape:
            report.tape = tape_of(program, batches)
        if count:
            report.counts = counted(program, [batch.counter for batch in batches if batch.counter])
        return report

    def _words(self, kernel: str, shape: Shape, smem: int) -> Wording:
        return Wording(self.program(kernel), self.memory, shape, self.sources, smem)

    def _batches(self, program: Program, shape: Shape, smem: int, per: int) -> list[Batch]:
        words = Wording(program, self.memory, shape, self.sources, smem)
        return [
            Batch(program, words, shape, np.arange(first, min(first + per, shape.blocks)), smem, self.limit)
            for first in range(0, shape.blocks, per)
        ]

    def _launch_strictly(self, program: Program, shape: Shape, smem: int, order: str, seeds: Sequence[int]) -> Report:
        """A launch in every order that strict mode tries, from the same memory: the bits must agree."""
        orders, per = strict_orders(program, seeds), blocks_together(program, shape, True)
        findings: list[Finding] = []
        memory = self.memory.bytes[: self.memory.top]
        before = memory.copy() if len(orders) > 1 else memory
        heap = self.memory.heap
        blocks = list(heap.blocks) if heap is not None else []
        first: Array | None = None
        for one in orders:
            if first is not None:
                memory[:] = before
                if heap is not None:
                    heap.restore(blocks)
            batches = self._batches(program, shape, smem, per)
            shadow = Global(self.memory.top, grain(program, "global"))
            for batch in batches:
                batch.watch = Watch(batch, shadow, self.sources, one.seed)
                batch.observe = batch.watch.access
                batch.shuffle = np.random.default_rng(one.seed) if one.seed else None
                self._run_and_print(batch, one, quiet=first is not None)
                findings += [f for f in batch.watch.notes() if f not in findings]
            if first is None:
                first = memory.copy() if len(orders) > 1 else memory
                continue
            different = np.flatnonzero(memory != first)
            if different.size:
                error = self._order_shows(batches[0].words, int(different[0]), different.size)
                if order == "error":
                    raise error
                memory[:] = first
                findings.append(Finding(error.kind, error.message, error.hint))
                break
        report = summarise(program, shape, batches)
        report.findings = findings
        return report

    def _run_all(self, batches: Sequence[Batch], together: Order) -> None:
        """Batches at once where nothing orders them."""
        if len(batches) > 1 and not block_order_shows(batches[0].program) and together.groups == "one":
            list(_pool().map(lambda batch: _run(batch, together), batches))
            return
        for batch in batches:
            self._run_and_print(batch, together)

    def _run_and_print(self, batch: Batch, order: Order, quiet: bool = False) -> None:
        try:
            _run(batch, order)
        finally:
            if batch.printed and not quiet:
                self._output()("".join(batch.printed))

    def _output(self) -> Callable[[str], object]:
        return self.output or sys.stdout.write

    def _order_shows(self, words: Wording, address: int, count: int) -> KernelError:
        of = f"a grid of {words.shape.grid} thread blocks of {words.shape.block} threads"
        return KernelError(
            f"kernel {words.program.title}, {of}: the result depends on the order in which its threads run, or on when "
            f"its asynchronous copies land; {count} bytes differ between two runs, first {words.place(address)}",
            kind="order",
            hint="one writer for each address, and turns in a fixed order, such as that of the thread blocks' numbers",
            details=f"address {address:#x}",
        )

    def _pass_arguments(self, facts: KernelFacts, args: Sequence[bytes]) -> None:
        """Write the arguments into memory, which has a heap where the kernel allocates."""
        if len(args) != len(facts.parameters):
            raise KernelError(
                f"kernel {facts.title} takes {len(facts.parameters)} arguments and was given {len(args)}",
                kind="arguments",
            )
        passed = bytearray(facts.parameter_bytes)
        for i, ((size, offset), raw) in enumerate(zip(facts.parameters, args, strict=True)):
            if len(raw) != size:
                raise KernelError(
                    f"kernel {facts.title}, argument {i}: {len(raw)} bytes given, the parameter has {size}",
                    kind="arguments",
                    hint="pass scalars with the kernel's own types, such as i32(n) and f32(x)",
                )
            passed[offset : offset + size] = raw
        self.memory.bytes[spaces.PARAMETERS : spaces.PARAMETERS + len(passed)] = passed
        if facts.heap and self.memory.heap is None:
            self.memory.heap = Heap(self.memory)
        if facts.meets:
            self.memory.meet()


def _run(batch: Batch, order: Order) -> None:
    with np.errstate(all="ignore"):
        Scheduler(batch).run(order)
    if batch.watch is None:
        batch.release()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads for batches: NumPy lets go of the interpreter while it computes."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="core-sim")


def _shape(facts: KernelFacts, grid: Sequence[int], block: Sequence[int], cluster: int, smem: int) -> Shape:
    """The geometry of a launch, within the limits. Raises KernelError."""
    shape = Shape(_three(grid), _three(block), max(cluster, facts.required_cluster))
    check_limits(facts, shape, smem)
    return shape


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    full = (*(int(n) for n in sizes), 1, 1)
    return full[0], full[1], full[2]
