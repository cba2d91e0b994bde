"""Kernels through NVRTC: a .cu file with the prelude in front -> PTX or a cubin, cached on disk.

PTX is for the simulator and for reading, a cubin for a device. Neither needs a GPU or a driver. One compilation of a
file holds all its `extern "C"` kernels. It knows no op, and launches nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from core import signals
from core.cache import cache_folder, used
from core.cache.writing import try_write
from core.dtypes import C_TYPES
from core.errors import BuildError, did_you_mean
from core.kernels.c_text import c_string
from core.kernels.chips import chips_of, parse_arch
from core.kernels.nvrtc_library import load_nvrtc, nvrtc_version, supported
from core.kernels.sources import headers_of, marked, prelude_file, read_source, shown
from core.threads import cores

SIMULATED = "compute_90a"  # the PTX that the simulator runs: all that Hopper has

# NVRTC 13.0 takes a lambda with `auto` parameters for a function of the host, unless functions are the device's
OPTIONS = (
    "--std=c++20", "--generate-line-info", "--ptxas-options=-v", "--no-cache", "--device-as-default-execution-space",
)  # fmt: skip
FORMAT = 2  # of a cache entry

# Warnings of ptxas, each of which means that the machine code differs from its source's meaning
FAULTS = (
    re.compile(r"\bC7508\b"),  # setmaxnreg ignored
    re.compile(r"\bC7517\b"),  # a wait for wgmma was put in
    re.compile(r"wgmma.*serializ", re.IGNORECASE),
)

NAMED = re.compile(r"^// corelm: (.*) is (\S+)$", re.MULTILINE)  # after the PTX, for each name expression

# `elem`, the activations' type: float, or the prelude's type of that name
ELEM = """
#ifndef ELEM
#define ELEM float
#endif
typedef ELEM elem;
"""


@dataclass(frozen=True)
class Kernel:
    """An `extern "C"` kernel of a .cu file under some macros.

    defines: (name, value) pairs, sorted. For errors: origin, op.variant or the caller's name, and line, where
    its launcher names it. text: the source of a kernel without a file; `source` is then its name in errors.
    """

    source: Path
    name: str
    defines: tuple[tuple[str, str | int], ...] = ()
    origin: str = field(default="", compare=False)
    text: str | None = None
    line: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        return self.source.name + (f": {self.name}" if self.name else "") + (f" ({self.origin})" if self.origin else "")


@dataclass(frozen=True)
class Resources:
    """The report of ptxas on a kernel: registers a thread; bytes of static shared memory a thread block; bytes a thread
    of spills (stores and loads together) and of stack."""

    registers: int
    shared: int
    spills: int
    stack: int


@dataclass(frozen=True)
class Compiled:
    """A compiled file: its PTX (text) or cubin, each kernel's resources (empty for PTX), and the compiler's log."""

    arch: str
    code: bytes
    log: str

    @property
    def ptx(self) -> str:
        return self.code.decode()

    @property
    def cubin(self) -> bytes:
        return self.code

    @property
    def resources(self) -> dict[str, Resources]:
        return _resources(self.log)

    @property
    def names(self) -> list[str]:
        """The kernels in it."""
        if self.arch.startswith("sm_"):
            return list(self.resources)
        return re.findall(r"^\s*(?:\.(?:visible|weak)\s+)?\.entry\s+([\w$]+)", self.ptx, re.MULTILINE)

    @property
    def symbols(self) -> dict[str, str]:
        """name expression -> the symbol of the kernel in the PTX."""
        return dict(NAMED.findall(self.ptx))

    @property
    def warnings(self) -> list[str]:
        return [line.strip() for line in self.log.splitlines() if "warning" in line.lower()]

    @property
    def faults(self) -> list[str]:
        """The warnings that mean a wrong or a serialised kernel."""
        return [line for line in self.warnings if any(fault.search(line) for fault in FAULTS)]

    def of(self, kernel: Kernel) -> Resources:
        """The resources of one kernel. Raises BuildError when the file has none of that name."""
        resources = self.resources
        if kernel.name not in resources:
            raise missing(kernel, resources)
        return resources[kernel.name]


def missing(kernel: Kernel, names: Iterable[str]) -> BuildError:
    """The error for a kernel that its file does not have."""
    held = sorted(names)
    launcher = f"{kernel.origin} ({kernel.line})" if kernel.line else kernel.where
    return BuildError(
        f'{launcher}: no kernel "{kernel.name}" in {shown(kernel.source)}{did_you_mean(kernel.name, held)}',
        hint=f'its extern "C" kernels: {", ".join(held) or "none"}',
    )


# --- sources ---------------------------------------------------------------------------------------------------


def preamble(dtype: str = "f32") -> str:
    """The text in front of a kernel's file, for activations of `dtype`: the prelude, and `elem`."""
    return f"#define ELEM {C_TYPES[dtype]}\n{preamble_text()}"


def preamble_text() -> str:
    """The prelude and `elem`, which -DELEM=bf16 makes bf16."""
    path = prelude_file()
    return f"{marked(path, read_source(path))}{ELEM}"


NAMES_ITS_FILE = re.compile(r"__FILE__|__builtin_FILE|source_location|\bassert\b")  # in a kernel's own code


@dataclass(frozen=True)
class Unit:
    """The inputs of a compilation. files: the paths that its marks name. They are in the line tables of the result, but
    not in its key, so that copies of a file at several places are compiled once."""

    name: str
    text: str
    headers: tuple[tuple[str, str], ...]
    options: tuple[str, ...]
    arch: str
    expressions: tuple[str, ...] = ()  # of C++, of the kernels to instantiate: "kernel<float, 3>"
    reads: str = ""  # a digest of the files that the compiler finds and reads
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        headers = [(name, self._placeless(text)) for name, text in self.headers]
        parts = (FORMAT, nvrtc_version(), "" if self.files else self.name, self.arch, self.options, headers,
                 self._placeless(self.text), self.expressions, self.reads)  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _placeless(self, text: str) -> str:
        for number, path in enumerate(self.files):
            text = text.replace(f'#line 1 "{path}"\n', f'#line 1 "{number}"\n')
        return text


def unit_of(kernel: Kernel, arch: str) -> Unit:
    text = read_source(kernel.source) if kernel.text is None else kernel.text
    headers = tuple(sorted(headers_of(text, kernel.source.parent, {}).items()))
    defines = define_options(kernel.defines)
    name = kernel.source.as_posix()
    whole = f"{preamble_text()}{marked(kernel.source, text)}"
    marks = [prelude_file().as_posix(), name, *(header.partition('"')[2].partition('"')[0] for _, header in headers)]
    placed = any(NAMES_ITS_FILE.search(part) for part in (whole, *(header for _, header in headers)))
    return Unit(name, whole, headers, (*OPTIONS, *defines), arch, files=() if placed else tuple(marks))


def define_options(defines: Iterable[tuple[str, str | int]]) -> list[str]:
    return [f"-D{name}={_macro(value)}" for name, value in sorted(defines)]


def _macro(value: str | int) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


# --- compiling -------------------------------------------------------------------------------------------------


def compile_ptx(kernel: Kernel, arch: str = SIMULATED) -> Compiled:
    """The PTX of a kernel's file. Raises BuildError with the compiler's own lines."""
    return _compile(kernel, arch)


def compile_cubin(kernel: Kernel, arch: str = "sm_90a") -> Compiled:
    """The cubin of a kernel's file for one architecture. Raises BuildError with the compiler's own lines.

    NVRTC gives an empty cubin for a virtual architecture such as compute_90a, without a word: refused here.
    """
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise BuildError(f'a cubin is for an architecture such as sm_90a, not for "{arch}"')
    return _compile(kernel, arch)


def compile_all(jobs: Iterable[tuple[Kernel, str]], workers: int = 0) -> list[Compiled]:
    """Compile many at once; the results in order. A job is (kernel, "sm_..." or "compute_...")."""
    todo = list(jobs)
    if not todo:
        return []
    units = [unit_of(kernel, arch) for kernel, arch in todo]
    first = {unit.key: index for index, unit in reversed(list(enumerate(units)))}
    with ThreadPoolExecutor(workers or cores(), thread_name_prefix="core-nvrtc") as pool:
        futures = [pool.submit(compile_unit, units[index], todo[index][0]) for index in first.values()]
        done = dict(zip(first, signals.results(pool, futures), strict=True))
    return [done[unit.key] for unit in units]


def _compile(kernel: Kernel, arch: str) -> Compiled:
    return compile_unit(unit_of(kernel, arch), kernel)


_HELD: dict[tuple[str, tuple[str, ...]], Compiled] = {}  # of this process
_LOCK = threading.Lock()


def compile_unit(unit: Unit, kernel: Kernel) -> Compiled:
    """Compile a unit, or take it from the cache. kernel: for errors."""
    return cached(unit.key, unit.arch, lambda: _run_nvrtc(unit, kernel), unit.files)


def cached(key: str, arch: str, build: Callable[[], tuple[bytes, str]], files: tuple[str, ...] = ()) -> Compiled:
    """The result of `build` (code, log), kept under `key` in this process and on disk. files: the paths that PTX and
    log name; in those of an entry that was compiled elsewhere they are replaced. A cubin's line table keeps the paths
    of the files, with the same contents, that it was compiled from."""
    with _LOCK:
        held = _HELD.get((key, files))
    if held is not None:
        return held
    entry = cache_folder() / "kernels" / f"{key}.bin"
    compiled = _load(entry, arch, files)
    if compiled is None:
        compiled = Compiled(arch, *build())
        _store(entry, compiled, files)
    with _LOCK:
        _HELD[key, files] = compiled
    return compiled


def _store(entry: Path, compiled: Compiled, files: tuple[str, ...]) -> None:
    """An entry is the digest of the rest, the length of the next, the JSON of log and files, the code."""
    front = json.dumps([compiled.log, files]).encode()
    body = len(front).to_bytes(8, "little") + front + compiled.code
    try_write(entry, hashlib.sha256(body).digest() + body)


def _load(entry: Path, arch: str, files: tuple[str, ...]) -> Compiled | None:
    """The contents of a cache entry; None for one that is absent or damaged."""
    try:
        data = entry.read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    if len(data) < 40 or hashlib.sha256(body).digest() != digest:
        return None
    used(entry)
    end = 8 + int.from_bytes(body[:8], "little")
    log, before = json.loads(body[8:end])
    code = body[end:]
    if moved := {old: new for old, new in zip(before, files, strict=True) if old != new}:
        paths = re.compile("|".join(map(re.escape, sorted(moved, key=len, reverse=True))))
        log = paths.sub(lambda path: moved[path[0]], log)
        code = code if arch.startswith("sm_") else paths.sub(lambda path: moved[path[0]], code.decode()).encode()
    return Compiled(arch, code, log)


def _run_nvrtc(unit: Unit, kernel: Kernel) -> tuple[bytes, str]:
    nvrtc = load_nvrtc()
    options = [f"--gpu-architecture={unit.arch}".encode(), *(option.encode() for option in unit.options)]
    names = [name.encode() for name, _ in unit.headers]
    texts = [text.encode() for _, text in unit.headers]
    made, program = nvrtc.nvrtcCreateProgram(unit.text.encode(), unit.name.encode(), len(names), texts, names)
    if int(made):
        raise BuildError(f"{kernel.where}: NVRTC makes no program of it: {made.name}")
    try:
        for expression in unit.expressions:
            nvrtc.nvrtcAddNameExpression(program, expression.encode())
        status = nvrtc.nvrtcCompileProgram(program, len(options), options)[0]
        log = c_string(_output(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)).strip()
        if int(status):
            raise _compile_error(unit, kernel, status.name, log)
        cubin = unit.arch.startswith("sm_")
        kind = "CUBIN" if cubin else "PTX"
        code = _output(getattr(nvrtc, f"nvrtcGet{kind}Size"), getattr(nvrtc, f"nvrtcGet{kind}"), program)
        code = code if cubin else c_string(code).encode()
        for expression in unit.expressions if code else ():
            symbol = nvrtc.nvrtcGetLoweredName(program, expression.encode())[1]
            code += f"\n// corelm: {expression} is {symbol.decode()}".encode()
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    if not code:
        raise BuildError(f"{kernel.where}: NVRTC gave an empty {kind} for {unit.arch}")
    return code, "\n".join(line for line in log.splitlines() if "Compile time" not in line)  # the same each time


def _output(size: Any, get: Any, program: Any) -> bytes:
    """A result of NVRTC for a program, of the size that it announces."""
    buffer = bytes(int(size(program)[1]))
    get(program, buffer)
    return buffer


def _compile_error(unit: Unit, kernel: Kernel, status: str, log: str) -> BuildError:
    if status == "NVRTC_ERROR_INVALID_OPTION" and "gpu-architecture" in log:
        return BuildError(
            f"NVRTC {nvrtc_version()} does not know {unit.arch}",
            hint=f"it knows {', '.join(supported())}; a newer one: pip install -U nvidia-cuda-nvrtc",
        )
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if re.search(r"\berror\b|\bfatal\b", line)]
    start = errors[0] if errors else 0
    excerpt = "\n".join(f"  {_shortened(line)}" for line in lines[start : start + 24]) or f"  {status}"
    hint = ""
    if match := TOO_MUCH_SHARED.search(log):
        used, most = (int(match[n], 16) for n in (1, 2))
        hint = f"{used} bytes of __shared__ arrays, at most {most}: {DYNAMIC_SHARED}"
    elif (used := max(map(int, SHARED_IN_ALL.findall(log)), default=0)) > STATIC_SHARED:  # a compiler without the words
        hint = f"{used} bytes of __shared__ arrays, at most {STATIC_SHARED}: {DYNAMIC_SHARED}"
    return BuildError(f"{kernel.where} does not compile for {unit.arch}:\n{excerpt}", hint=hint)


def _shortened(line: str) -> str:
    return line.replace(f"{Path.cwd().as_posix()}/", "")


TOO_MUCH_SHARED = re.compile(r"too much shared data \((0x[0-9a-f]+) bytes, (0x[0-9a-f]+) max\)")
SHARED_IN_ALL = re.compile(r"(\d+) bytes smem")
STATIC_SHARED = 48 << 10  # bytes of __shared__ arrays that a kernel may declare
DYNAMIC_SHARED = "more is dynamic: `extern __shared__ char room[]`, and launch(..., smem=bytes)"
FUNCTION = re.compile(r"Compiling entry function '([\w$]+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@cache
def _resources(log: str) -> dict[str, Resources]:
    resources: dict[str, Resources] = {}
    for name, part in _entries(log):
        spills = SPILLS.search(part)
        stack, stores, loads = (int(n) for n in spills.groups()) if spills else (0, 0, 0)
        used, shared = USED.search(part), SHARED.search(part)
        resources[name] = Resources(int(used[1]) if used else 0, int(shared[1]) if shared else 0, stores + loads, stack)
    return resources


def _entries(log: str) -> Iterator[tuple[str, str]]:
    """(kernel, its part of ptxas's log)."""
    marks = list(FUNCTION.finditer(log))
    for mark, after in zip(marks, [*marks[1:], None], strict=False):
        yield mark[1], log[mark.end() : after.start() if after else len(log)]


# --- several kernels ---------------------------------------------------------------------------------------------


def architectures_of(declared: str) -> tuple[str, ...]:
    """The architectures that the op check compiles a variant of that `arch` for, as far as this NVRTC knows
    them. Never empty for a chip of the table: where NVRTC knows none of them, compiling raises the error."""
    architectures = tuple(chip.arch for chip in chips_of(declared))
    return tuple(arch for arch in architectures if f"sm_{parse_arch(arch).number}" in supported()) or architectures


def resources(kernels: Iterable[Kernel], arch: str) -> Mapping[str, Resources]:
    """name -> resources of kernels, compiled for `arch`."""
    todo = list(kernels)
    return {k.name: c.of(k) for k, c in zip(todo, compile_all((k, arch) for k in todo), strict=True)}
