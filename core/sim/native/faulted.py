"""The machine's faults as KernelErrors, in the interpreter's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.sim.faults import KernelError
from core.sim.machine.budget import VARIABLE
from core.sim.machine.resident_blocks import fault_access
from core.sim.machine.wording import Wording, calls_itself, failed_assertion, no_function
from core.sim.ptx.syntax import Instruction

HOW = ("read", "write", "atomic")
SPACES = ("global", "shared", "local")
LINE_BITS = 24  # of an assert's number, below the address of its file's name


@dataclass(frozen=True)
class MachineFault:
    """A fault of the machine: the instruction, the thread's number in its block, the block's, an address and two
    numbers
    more, whose meaning goes by the kind."""

    kind: int
    ins: Instruction
    thread: int
    block: int
    address: int
    x: int
    y: int
    limit: int

    @property
    def width(self) -> int:
        return self.x & 255

    @property
    def space(self) -> str:
        return SPACES[self.x >> 8]


Say = Callable[[Wording, MachineFault], tuple[str, str, str]]  # -> (kind, message, hint)


def _misaligned(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    access = words.access(f.ins, f.space, f.address, f.width, HOW[f.y])
    return "misaligned", f"{access}, misaligned: not at a multiple of {f.width} bytes", ""


def _outside(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    return "out of bounds", words.outside(f.ins, f.space, f.address, f.width, HOW[f.y]), ""


def _endless(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    hint = f"a kernel that takes more: limit= of core.sim.run, --branches of core sim, check and trace, {VARIABLE}"
    text = f"still looping: a thread block has taken {f.limit:,} branches, and does not end"
    return "endless", text, hint


def _never(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    text = f"barrier {f.x} never completes: {f.y} threads wait, the others have exited or wait elsewhere"
    return "barrier never completes", text, "every thread of the thread block must reach the barrier"


def _bar_count(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    return "barrier count", f"barrier {f.address} is for {f.x} threads here and {f.y} there", ""


def _divergent(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    text = f"an instruction of {f.x} threads is reached by only some of them"
    return "divergent", text, "every thread of the warp or warpgroup must execute it together"


def _not_named(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    text = f"lane {f.thread % 32} runs this, and its mask {f.x:#x} does not name it"
    return "not named", text, "a mask names every lane that arrives with it"


def _absent(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    text = f"lane {f.thread % 32} does not reach this instruction, and the mask of lane {f.x} names it"
    return "member absent", text, "name only the lanes that are here, such as __activemask() after a branch"


def _two_masks(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    other = f.thread % 32
    text = f"lane {f.address} comes with the mask {f.x:#x}, which names lane {other}; that comes with {f.y:#x}"
    return "member absent", text, "they must give one mask"


def _waits_for(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    lane = f.thread % 32
    text = f"lane {lane} waits for lane {f.x}, which its mask {f.y:#x} names and which does not arrive"
    return "member absent", text, "every lane that a mask names reaches a barrier of the warp, with the same mask"


def _late(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    return "exit in flight", words.late(HOW[f.y], f.x), "a cluster barrier before that block's end"


MAP_PROBLEMS: dict[int, Callable[[MachineFault], str]] = {
    4: lambda f: f"a copy of rank {f.y & 255} with a map of rank {f.y >> 8 & 255}",
    8: lambda f: "the shared address must be a multiple of 128 bytes",
    16: lambda f: f"a box row of {f.y >> 16 & 0xFFFFFFFF} bytes under a swizzle of {f.y >> 48}",
}


def _tensor_map(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    if f.x == 1:
        return "misaligned", "a tensor map is aligned to 64 bytes", ""
    if f.x == 2:
        return "tensor map", "there is no tensor map at this address", ""
    return "tensor map", "; ".join(say(f) for bit, say in MAP_PROBLEMS.items() if f.x & bit), ""


def _mbarrier(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    exited = f"{{who}} uses an mbarrier of {words.block(f.y)}, which has exited"
    return (
        ("mbarrier", "an mbarrier is used that was not initialised",
         "mbarrier.init by one thread, then a barrier, before its first use"),
        ("mbarrier", "an mbarrier needs 8 aligned bytes of shared memory", ""),
        ("mbarrier", f"more arrivals at an mbarrier than its count of {f.y}", ""),
        ("exit in flight", exited, "a cluster barrier before that block's end"),
    )[f.x]  # fmt: skip


def _nowhere(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    return "call", no_function(f.address & 0xFFFFFFFFFFFFFFFF), ""


def _itself(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    return "call", *calls_itself(f.ins)


def _assert(words: Wording, f: MachineFault) -> tuple[str, str, str]:
    text, file, function = (words.memory.string(at) for at in (f.address, f.x >> LINE_BITS, f.y))
    return "assert", failed_assertion(text, file, function, f.x & ((1 << LINE_BITS) - 1)), ""


def _said(kind: str, text: str, hint: str = "") -> Say:
    return lambda words, f: (kind, text, hint)


SAY: dict[int, Say] = {  # by the numbers of machine.h
    2: _misaligned,
    3: _outside,
    4: _late,
    5: _endless,
    6: _never,
    7: _said("trap", "the kernel stopped itself (trap)"),
    8: _bar_count,
    9: _divergent,
    10: _not_named,
    11: _absent,
    12: _two_masks,
    13: _waits_for,
    14: _said(
        "deadlock", "threads wait for a phase that never completes: too few arrivals, or bytes that never arrive"
    ),
    15: _said("deadlock", "the kernel polls memory that no thread changes any more"),
    16: _said("divergent reduction", "threads of a warp reach a reduction with different barriers"),
    17: _mbarrier,
    18: _said("cluster barrier", "a wait without an arrive before it"),
    19: _tensor_map,
    20: _said("misaligned", "a bulk copy needs multiples of 16 bytes"),
    21: _nowhere,
    22: _assert,
    23: _itself,
}
BEFORE = {6, 13, 14}  # kinds whose record is the one after the instruction that is meant
ADDRESSED = {2, 3}


def error(words: Wording, f: MachineFault) -> KernelError:
    """The error for a fault."""
    kind, message, hint = SAY[f.kind](words, f)
    who = words.thread(f.block, f.thread)
    text = message.replace("{who}", who) if "{who}" in message else f"{who}: {message}"
    at, how, address = "", "", -1
    if f.kind in ADDRESSED:
        at, how, address = f"address {f.address:#x}, ", HOW[f.y], f.address
    return KernelError(
        f"kernel {words.program.title}, {words.line(f.ins.location)}: {text}", kind=kind, hint=hint,
        details=f"{at}`{f.ins.text}`",
        accesses=(fault_access(f.block, f.thread, f.ins, how, address),),
    )  # fmt: skip
