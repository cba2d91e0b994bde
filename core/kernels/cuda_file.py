"""Ordinary CUDA C++ files -> PTX: with includes, with C++ names, without the prelude; with host code by nvcc.

NVRTC compiles device code alone. A file with host code (a main, launches, headers of C++'s library) goes to nvcc where
there is one.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import BuildError, did_you_mean
from core.kernels.nvrtc import (
    FORMAT,
    OPTIONS,
    SIMULATED,
    Compiled,
    Kernel,
    Unit,
    cached,
    compile_unit,
    define_options,
    preamble_text,
)  # fmt: skip
from core.kernels.sources import include_folder, marked, prelude_file, read_source
from core.kernels.toolkit import EXTRA, include_folders, toolkit

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^">\n]+)[">]', re.MULTILINE)
GLOBAL = re.compile(
    r"(?P<template>template\s*<[^;{}()]*>\s*)?(?:(?:static|extern|inline|\"C\"|void|__forceinline__)\s+)*"
    r"__global__\s+(?:[\w:<>,\s]|__\w+__\s*\((?:[^()]|\([^()]*\))*\)|\[\[[^\]]*\]\])*?"
    r"\b(?P<name>(?!__\w+__\s*\()\w+)\s*\("  # after __launch_bounds__(64) and its kind
)
HOST = re.compile(r"<<<|\bmain\s*\(|\bcuda(?:Malloc|Memcpy|Free|Get|Set|Event|Device|Stream|Launch)\w*\s*[(<]")
ABSENT = re.compile(r'(?:could not|cannot) open source file "([^"]+)"')
UNDEFINED = re.compile(r'identifier "(\w+)" is undefined')
OFFERED = re.compile(  # names that the prelude declares
    r"^(?:#define |typedef .* |struct (?:alignas\(.*\) )?|__device__ [^(\n]*\b(?=\w+[(<]))(\w+)", re.MULTILINE
)
ON_HOST = re.compile(r"is considered a host function|not allowed in JIT mode")
NVCC_OPTIONS = ("-ptx", "-lineinfo", "-w", "-std=c++17", "-arch", SIMULATED)
SEPARATE = "separate compilation mode"  # nvcc's requirement for a launch from a kernel
LINKED_LATER = ("-rdc=true",)
NVCC_LIMIT = 600  # seconds
HOST_HINT = "host code is for nvcc, and there is none: pip install nvidia-cuda-nvcc, or leave only kernels in the file"


@dataclass(frozen=True)
class CudaFile:
    """A source and how it is compiled. include: more folders than its own; prelude: corelm's in front of it."""

    source: Path
    text: str
    include: tuple[Path, ...] = ()
    defines: tuple[tuple[str, str | int], ...] = ()
    prelude: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the file's own includes; with the prelude, which they need, corelm's headers too."""
        public = (include_folder(),) if self.prelude else ()
        return (self.source.resolve().parent, *(folder.resolve() for folder in self.include), *public)

    @property
    def whole(self) -> str:
        front = preamble_text() if self.prelude else ""
        return f"{front}{marked(self.source, self.text)}"

    def declared(self) -> list[str]:
        """The kernels that the text declares; templates as "name<...>"."""
        plain = re.sub(r"//[^\n]*|/\*.*?\*/", " ", self.text, flags=re.DOTALL)
        names = (f"{m['name']}<...>" if m["template"] else m["name"] for m in GLOBAL.finditer(plain))
        return list(dict.fromkeys(names))


def compile_file(file: CudaFile, expressions: tuple[str, ...] = ()) -> Compiled:
    """The PTX of a file. expressions: C++ names of kernels that it is to have ("kernel<float, 3>").

    Raises BuildError with the compiler's own lines, and the package to install for a header or for host code.
    """
    kernel = Kernel(file.source, expressions[0] if expressions else "", text=file.text)
    try:
        return compile_unit(_unit(file, expressions), kernel)
    except BuildError as error:
        if toolkit().nvcc is None or not _for_nvcc(file, error.message):
            raise _explained(file, error) from None
    return cached(_nvcc_key(file, expressions), SIMULATED, lambda: _run_nvcc(file, expressions))


def _unit(file: CudaFile, expressions: tuple[str, ...]) -> Unit:
    folders = [f"-I{folder.as_posix()}" for folder in (*file.folders, *include_folders())]
    options = (*OPTIONS, *folders, *define_options(file.defines))
    return Unit(file.source.as_posix(), file.whole, (), options, SIMULATED, expressions, _digest(file))


def _digest(file: CudaFile) -> str:
    """A hash of all headers that a compilation can read: the texts of the user's own, the toolkit's version."""
    texts = json.dumps([_own_headers(file.text, file.folders, {}), toolkit().version, [*map(str, include_folders())]])
    return hashlib.sha256(texts.encode()).hexdigest()


def _own_headers(text: str, folders: tuple[Path, ...], headers: dict[str, str]) -> dict[str, str]:
    """path -> text of every file of the user's own folders that an include reaches."""
    for name in INCLUDE.findall(text):
        for folder in folders:
            path = folder / name
            if path.is_file() and str(path) not in headers:
                headers[str(path)] = path.read_text("utf-8", "replace")
                _own_headers(headers[str(path)], (path.parent, *folders), headers)
                break
    return headers


def _for_nvcc(file: CudaFile, message: str) -> bool:
    """Whether an error of NVRTC may come from host code, or from missing the headers of the host's C++."""
    return bool(HOST.search(file.text) or ABSENT.search(message) or ON_HOST.search(message))


def _explained(file: CudaFile, error: BuildError) -> BuildError:
    """The compiler's error with its remedy."""
    message = error.message
    absent = ABSENT.search(message)
    if absent and "." in absent[1]:
        return BuildError(message, hint=f"{absent[1]}, if it is CUDA's: {EXTRA}; if it is yours: include=[folder]")
    if absent or ON_HOST.search(message) or HOST.search(file.text):
        return BuildError(message, hint=HOST_HINT)
    if not file.prelude:
        names = set(UNDEFINED.findall(message)) & set(OFFERED.findall(read_source(prelude_file())))
        if names:
            return BuildError(message, hint=f"{', '.join(sorted(names))} of corelm's prelude: prelude=True")
    return error


# --- nvcc ------------------------------------------------------------------------------------------------------


def _nvcc_key(file: CudaFile, expressions: tuple[str, ...]) -> str:
    parts = (FORMAT, "nvcc", str(toolkit().nvcc), file.source.as_posix(), file.whole, NVCC_OPTIONS, _digest(file))
    return hashlib.sha256(json.dumps([*parts, file.defines, *expressions]).encode()).hexdigest()


def _run_nvcc(file: CudaFile, expressions: tuple[str, ...]) -> tuple[bytes, str]:
    taken = "".join(f"\nnamespace {{ void* const corelm_{i} = (void*)({e}); }}" for i, e in enumerate(expressions))
    folders = [f"-I{folder}" for folder in (*file.folders, *toolkit().include)]
    with tempfile.TemporaryDirectory(prefix="corelm-") as folder:
        source, made = Path(folder) / "kernel.cu", Path(folder) / "kernel.ptx"
        source.write_text(file.whole + taken, "utf-8")
        command = [str(toolkit().nvcc), *NVCC_OPTIONS, *folders, *define_options(file.defines)]
        for more in ((), LINKED_LATER):
            done = subprocess.run(
                [*command, *more, "-o", str(made), str(source)], capture_output=True, text=True, timeout=NVCC_LIMIT,
                check=False,
            )  # fmt: skip
            if SEPARATE not in done.stderr:
                break
        if done.returncode or not made.is_file():
            lines = [line for line in f"{done.stderr}{done.stdout}".splitlines() if line.strip()][:24]
            text = "\n".join(f"  {line.replace(str(source), file.source.as_posix())}" for line in lines)
            raise BuildError(f"{file.source.name} does not compile with nvcc:\n{text}")
        return made.read_bytes(), done.stderr


# --- names -----------------------------------------------------------------------------------------------------


def expression_of(name: str) -> str:
    """A kernel's C++ name as an expression: "k(float*, int)", one of several overloads, as a cast of k."""
    head, bracket, inside = name.strip().partition("(")
    if bracket and head and not inside.rstrip().endswith(")"):
        raise BuildError(f'"{name}" is not the name of a kernel', hint='such as "k", "k<float, 3>" or "k(float*, int)"')
    return f"static_cast<void (*)({inside.rstrip()[:-1]})>({head.strip()})" if bracket and head else name.strip()


def no_kernel(name: str, where: str, names: Iterable[str]) -> BuildError:
    """The error for a name that a file does not have, with the list of those that it has."""
    held = list(names)
    plain = [one.partition("<")[0].partition("(")[0] for one in held]
    return BuildError(
        f'there is no kernel "{name}" in {where}{did_you_mean(name, plain)}', hint=f"it has {', '.join(held) or 'none'}"
    )
