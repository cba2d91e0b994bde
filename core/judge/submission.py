"""A submitted kernel: the files that it includes, its PTX, and its instructions.

Only device code counts. The judge launches it; a submission's host code is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import core.sim
from core.errors import UsageError
from core.judge.problem import MANTISSA, Problem
from core.judge.verdict import Wrong
from core.kernels.arguments import signatures
from core.kernels.toolkit import include_folders
from core.outside import read_utf8
from core.sim import KernelFile
from core.sim.ptx.cuda_source import blanked
from core.sim.ptx.syntax import Instruction

LONGEST = 1 << 20  # bytes of a submission
GAP = r"(?:[ \t\f\v]|/\*.*?\*/)*"
DIRECTIVE = re.compile(
    rf"(?:\#|%:|\?\?=){GAP}(?:include_next|include|import|embed)\b{GAP}([^\n]*)"
    rf"|\b__has_(?:include|include_next|embed){GAP}\({GAP}([^\n)]*)",
    re.DOTALL,
)
HEADER = re.compile(r'<(?P<system>[\w./+-]+)>|"(?P<own>[\w./+-]+)"')
OWN_HEADERS = "only headers of CUDA and of the submission's own folder, by their names"
HEADERS = (".h", ".cuh", ".hpp", ".inl")  # kinds of files that may be included: no problem, no other submission
HOST = re.compile(
    r"<<<|\bcuda(?:Stream|Graph|Launch|Malloc|Free|Memcpy|Memset|Event|DeviceSynchronize)\w*\s*\(|\bmain\s*\("
)

# narrower formats by their names in PTX, and their explicit bits of mantissa
FORMATS = {
    **MANTISSA, "f16": 10, "tf32": 10, "f16x2": 10, "bf16x2": 7, "e4m3": 3, "e5m2": 2, "e4m3x2": 3, "e5m2x2": 2,
    "e2m1": 1, "e3m2": 2, "e2m3": 3, "e2m1x2": 1, "e3m2x2": 2, "e2m3x2": 3,
}  # fmt: skip
TENSOR_CORES = ("mma", "wgmma", "wmma", "tcgen05")
# approximations that are far from f32's rounding on a GPU, by the PTX manual; the simulator rounds them exactly
COARSE = {
    ("tanh", "approx"): "relative error 2^-11",
    ("sin", "approx"): "absolute error 2^-20.5, and more beyond 2 pi",
    ("cos", "approx"): "absolute error 2^-20.5, and more beyond 2 pi",
}
ONE_OR_TWO_UNITS = ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "div")
CLOCKS = re.compile(r"%(?:clock\w*|globaltimer\w*)")


@dataclass(frozen=True)
class Submission:
    """The file of a submission for a problem. path: where it is; None for a text alone, called kernel.cu.

    limit: branches that a thread block may take before its kernel is called endless; None for the simulator's own.
    """

    problem: Problem
    text: str
    path: Path | None = None
    limit: int | None = None

    @classmethod
    def read(cls, problem: Problem, path: Path, limit: int | None = None) -> Submission:
        """Raises UsageError for a file that is no readable text."""
        return cls(problem, read_utf8(UsageError, path, LONGEST), path, limit)

    @property
    def name(self) -> str:
        return self.path.name if self.path else "kernel.cu"

    def plain(self, text: str) -> str:
        """A message without the folder of the submission."""
        return text.replace(f"{self.path.parent.as_posix()}/", "") if self.path else text

    # --- the text ------------------------------------------------------------------------------------------------

    def check_includes(self) -> None:
        """Wrong for a header outside of the submission's folder and CUDA's own, whichever file includes it: its text
        would reach the log."""
        seen: set[Path] = set()
        texts = [(self.text, self.path.parent if self.path else None)]
        for text, folder in texts:  # grows meanwhile
            for written in included(text):
                if not allowed(written.strip()):
                    raise Wrong(f"includes {written.strip()[:80]}", hint=OWN_HEADERS)
                texts += [(one.read_text("utf-8", "replace"), one.parent) for one in self.own(written, folder, seen)]

    def own(self, written: str, folder: Path | None, seen: set[Path]) -> Iterator[Path]:
        """The files of the submission's folder that an allowed #include in a file of `folder` may mean, each once."""
        header = HEADER.match(written.strip())
        if self.path is None or folder is None or header is None:
            return
        for path in (where / (header["system"] or header["own"]) for where in (folder, self.path.parent)):
            if path in seen or not path.is_file():
                continue
            seen.add(path)
            if not path.resolve().is_relative_to(self.path.parent.resolve()):
                raise Wrong(f"includes {path.name}, a link to a file elsewhere", hint=OWN_HEADERS)
            yield path

    def quotable(self, path: Path) -> bool:
        """Whether a message may quote lines of a file: `#line` makes any file of the machine look like a source."""
        whole = path.resolve()
        if any(whole.is_relative_to(folder.resolve()) for folder in include_folders()):
            return True
        mine = self.path is not None and whole.is_relative_to(self.path.parent.resolve())
        return mine and (whole == self.path.resolve() or whole.suffix in HEADERS)  # type: ignore[union-attr]

    def check_host_code(self) -> None:
        """Wrong for code of the host: the judge launches the kernels, on no stream of the submission's."""
        if match := HOST.search(blanked(self.text)):
            line = self.text.count("\n", 0, match.start()) + 1
            raise Wrong(f"{self.name}:{line} has host code, `{match[0].strip()}`, which is never run",
                        hint="submit device code only; the problem defines its launch")  # fmt: skip

    # --- the PTX -------------------------------------------------------------------------------------------------

    def load(self) -> KernelFile:
        """The file on a memory of its own, with variables in their first state.

        Raises Wrong for a forbidden include or construct, BuildError for an error of compilation.
        """
        self.check_includes()
        self.check_host_code()
        file = core.sim.load(self.path or self.text, defines=self.problem.defines, limit=self.limit)
        file.quote_only(self.quotable)
        return file

    @cached_property
    def instructions(self) -> list[tuple[str, Instruction]]:
        """(kernel, instruction) of all that the launches can reach. Raises as `load`."""
        file = self.load()
        kernels = dict.fromkeys(launch.kernel for launch in self.problem.each_launch)
        return [(kernel, ins) for kernel in kernels for ins in file.program(kernel).instructions]

    def parameters(self, kernel: str) -> list[str]:
        """The parameters as the source writes them; empty where the source has none to show."""
        return signatures(self.text).get(kernel, [])

    def check_alone(self) -> None:
        """Wrong for instructions that read a clock."""
        for kernel, ins in self.instructions:
            if match := CLOCKS.search(ins.text):
                raise Wrong(f"{place(kernel, ins)} reads {match[0]}: the result may depend on time",
                            hint="leave clocks out of the submission")  # fmt: skip

    def check_precision(self) -> list[str]:
        """Wrong for arithmetic narrower than the problem's buffers; else notes on approximations of a GPU."""
        least, noted = self.problem.narrowest, dict[str, str]()
        for kernel, ins in self.instructions:
            if least and not self.problem.narrow and (why := narrowing(ins, least)):
                raise Wrong(f"{place(kernel, ins)} {why}; the buffers have {least} bits of mantissa",
                            hint="compute in the buffers' precision; a problem allows less by narrow=True")  # fmt: skip
            if "approx" in ins.names and ins.names[0] in ONE_OR_TWO_UNITS:
                noted.setdefault(".".join(ins.names), place(kernel, ins))
        if not noted:
            return []
        listed = ", ".join(f"{name} ({where})" for name, where in noted.items())
        return [f"approximate on a GPU, within two units in the last place, and exact here: {listed}"]


def included(text: str) -> Iterator[str]:
    """The name after every #include of a text, in any spelling; also of one in a comment that is not a line
    of its own."""
    spliced = re.sub(r"\\[ \t]*\r?\n", "", re.sub(r"\?\?/\r?\n", "", text))
    lines = [line for line in spliced.splitlines() if not line.lstrip().startswith("//") or "*/" in line]
    for match in DIRECTIVE.finditer("\n".join(lines)):
        yield match[1] if match[1] is not None else match[2]


def allowed(written: str) -> bool:
    """Whether the name of an #include is a header of CUDA, or one of the submission's own folder."""
    header = HEADER.match(written)
    if header is None:
        return False
    name = PurePosixPath(header["system"] or header["own"])
    suffixes = HEADERS if header["own"] else ("", *HEADERS)
    return not name.is_absolute() and ".." not in name.parts and name.suffix in suffixes


def narrowing(ins: Instruction, least: int) -> str:
    """A description of an instruction with fewer bits of mantissa than `least`; "" where it does not.

    f64 may be rounded to f32 on the way, as CUDA's own erf and tanh do: the bounds see a result that was.
    """
    formats = [name for name in ins.names if name in FORMATS]
    narrow = [name for name in formats if FORMATS[name] < least]
    if ins.names[0].partition("::")[0] in TENSOR_CORES and narrow:
        return f"multiplies {narrow[0]} on tensor cores ({ins.names[0]})"
    if (
        ins.names[0] == "cvt"
        and len(formats) > 1
        and FORMATS[formats[0]] < min(least, MANTISSA["f32"], FORMATS[formats[1]])
    ):
        return f"rounds {formats[1]} to {formats[0]}"
    if least >= MANTISSA["f32"] and (format := COARSE.get((ins.names[0], "approx"))) and "approx" in ins.names:
        return f"approximates: {ins.names[0]}.approx, on a GPU {format}"
    return ""


def place(kernel: str, ins: Instruction) -> str:
    """The line of an instruction, "kernel.cu:7"; the kernel where it has none."""
    at = ins.location
    while at.outer is not None:
        at = at.outer
    return f"{Path(at.file).name}:{at.line}" if at.line else kernel
