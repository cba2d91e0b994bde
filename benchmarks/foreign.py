"""Published CUDA code in the simulator: the number of kernels that link, and launches compared with NumPy.

    python benchmarks/foreign.py link PATH...      # checkouts: llm.c, cuda-samples, SGEMM_CUDA, fast.cu, cuda_hgemm,
    python benchmarks/foreign.py launch PATH...    # CUDA-GEMM-Optimization, lectures, flash-attention-minimal

`link` compiles every .cu file of the checkouts (NVRTC, or nvcc for a file with host code) and counts the kernels whose
instructions all have a row in the simulator. `launch` makes the launches of foreign.toml and compares each with its
expected result. The table names files, kernels and arguments of those repositories, and contains none of their code.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import tomli  # noqa: E402

import core.sim  # noqa: E402
from core.errors import CoreError  # noqa: E402
from core.kernels.cuda_file import CudaFile, compile_file  # noqa: E402
from core.kernels.tensors import from_bf16, to_bf16  # noqa: E402
from core.sim.instructions.binding import missing  # noqa: E402
from core.sim.launching.simulator import Simulator  # noqa: E402

TABLE = Path(__file__).with_suffix(".toml")
REPOSITORIES = (
    "llm.c", "cuda-samples", "SGEMM_CUDA", "fast.cu", "cuda_hgemm", "CUDA-GEMM-Optimization", "lectures",
    "flash-attention-minimal",
)  # fmt: skip
DEFINES: dict[str, dict[str, Any]] = {"fast.cu": {"NDEBUG": 1}}  # an assert in its host code has an undeclared variable
LEFT_OUT = re.compile(r"Samples/[4-9]_|/test_|nccl")  # samples of other libraries; tests of whole programs
HEADERS = {".h", ".cuh", ".hpp", ".hxx"}

# Declarations in place of host libraries' headers. Only kernels matter, so that declarations that accept any argument
# are enough.
CUBLAS = (
    "enum cublasStatus_t : int {};\ntypedef int cublasOperation_t, cublasComputeType_t, cublasMath_t, cublasGemmAlgo_t,"
    " cublasDataType_t, cublasLtEpilogue_t, cublasLtOrder_t;\n"
    "typedef struct cublasContext *cublasHandle_t, *cublasLtHandle_t, *cublasLtMatmulDesc_t, *cublasLtMatrixLayout_t,"
    " *cublasLtMatmulPreference_t;\n"
    "typedef struct { int algo, state; size_t workspaceSize; } cublasLtMatmulHeuristicResult_t;\n"
)
NAME = re.compile(r"\b(cublas\w+|CUBLAS\w+)\b")
TORCH = ("torch/types.h", "torch/extension.h", "c10/cuda/CUDAException.h", "c10/cuda/CUDAStream.h", "ATen/ATen.h")
HOST_OF_TORCH = re.compile(r"^(?:torch::Tensor|at::Tensor|std::vector<torch)[^;]*?\(", re.MULTILINE)


def folder_of_stubs(into: Path, sources: list[Path]) -> Path:
    """Headers of libraries that are not here, with all names of cuBLAS that the sources use."""
    used = {name for path in sources for name in NAME.findall(path.read_text("utf-8", "replace"))}
    declared = set(re.findall(r"\b(cublas\w+)\b", CUBLAS))
    calls = "".join(
        f"template <class... A> cublasStatus_t {n}(A...) {{ return {{}}; }}\n"
        for n in sorted(used - declared)
        if called(n)
    )
    values = "".join(f"static const int {n} = {i};\n" for i, n in enumerate(sorted(used)) if n.startswith("CUBLAS_OP")
                     or n.startswith(("CUBLAS_", "CUBLASLT_")) and not n.endswith("_H"))  # fmt: skip
    skipped = ("CUBLAS_LOWP", "CUBLAS_COMMON_H", "CUBLAS_API_H_", "CUBLAS_LOWP_COMPUTE")
    values = "".join(line + "\n" for line in values.splitlines() if line.split()[3] not in skipped)
    headers = ("cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h", "library_types.h", "stdint.h")
    text = "#pragma once\n" + "".join(f"#include <{name}>\n" for name in headers) + CUBLAS + values
    text += calls + "inline const char* cublasGetStatusString(int) { return \"\"; }\n"  # fmt: skip
    for name in ("cublas_v2.h", "cublasLt.h"):
        (into / name).write_text('#include "cublas_all.h"\n')
    (into / "cublas_all.h").write_text(text)
    for name in TORCH:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_text("#pragma once\n#include <cuda_runtime.h>\n#include <math.h>\n")
    return into


def called(name: str) -> bool:
    """Whether a name of cuBLAS is a function."""
    return bool(re.match(r"cublas(Lt)?[A-Z]", name)) and not name.endswith(("_t", "String"))


class Checkouts:
    """The checkouts that were given, by the names of their repositories."""

    def __init__(self, paths: list[Path], stubs: Path) -> None:
        self.roots = {name: path for name in REPOSITORIES for path in paths if path.name.endswith(name)}
        sources = [
            p for root in self.roots.values() for p in root.rglob("*") if p.is_file() and p.suffix in {*HEADERS, ".cu"}
        ]
        self.stubs = folder_of_stubs(stubs, sources)

    def files(self) -> Iterator[tuple[str, Path]]:
        for name, root in self.roots.items():
            for path in sorted(root.rglob("*.cu")):
                if path.is_file() and not LEFT_OUT.search(f"/{path.relative_to(root).as_posix()}"):
                    yield name, path

    def include(self, name: str, path: Path) -> tuple[Path, ...]:
        """Folders of headers: every one of the repository that holds some, those near the file first; then stubs."""
        root = self.roots[name]
        folders = {p.parent for p in root.rglob("*") if p.suffix in HEADERS and not (p.parent / "unistd.h").exists()}
        near = sorted(folders, key=lambda f: (not path.is_relative_to(f.parent), len(f.parts), f.as_posix()))
        return (*near[:40], self.stubs)

    def file(self, name: str, path: Path, defines: dict[str, Any] | None = None) -> CudaFile:
        text = path.read_text("utf-8", "replace")
        if host := HOST_OF_TORCH.search(text):  # PyTorch's own headers are a large installation
            text = text[: host.start()]
        chosen = {**DEFINES.get(name, {}), **(defines or {})}
        return CudaFile(path, text, self.include(name, path), tuple(sorted(chosen.items())))


# --- link ------------------------------------------------------------------------------------------------------------


def link(checkouts: Checkouts, verbose: bool) -> int:
    """Count, by repository, kernels and those that link; missing names, most frequent first."""
    files = list(checkouts.files())
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda pair: linked(checkouts, *pair), files))
    kernels, good, lacks, failed = Counter[str](), Counter[str](), Counter[str](), []
    for (name, path), (problem, by_kernel) in zip(files, results, strict=True):
        if problem:
            failed.append(f"{name}: {path.name}: {problem}")
        kernels[name] += len(by_kernel)
        good[name] += sum(not lacking for lacking in by_kernel.values())
        lacks.update(one for lacking in by_kernel.values() for one in lacking)
    for name in checkouts.roots:
        print(f"{name:26} {good[name]:4} of {kernels[name]:4} kernels link")
    print(f"{'all':26} {good.total():4} of {kernels.total():4}: {good.total() / max(1, kernels.total()):.1%}")
    for instruction, count in lacks.most_common():
        print(f"  missing in {count}: {instruction}")
    print(f"{len(failed)} of {len(files)} files do not compile here" + ("" if verbose else " (--verbose lists them)"))
    for line in failed if verbose else ():
        print(f"  {line}")
    return 0


def linked(checkouts: Checkouts, name: str, path: Path) -> tuple[str, dict[str, list[str]]]:
    """(why a file does not compile, or "", kernel -> kinds of instructions that are missing)."""
    try:
        simulator = Simulator(compile_file(checkouts.file(name, path)).ptx)
    except CoreError as error:
        lines = [line for line in error.message.splitlines() if "error" in line] or [error.message]
        return lines[0].strip()[:160], {}
    lacks: dict[str, list[str]] = {}
    for kernel in simulator.kernels:
        try:
            lacking = [one.message for one in missing(simulator.program(kernel))]
        except CoreError as error:
            lacking = [error.message]
        lacks[kernel] = sorted({re.sub(r"[%$]\w+|\(.*?\)|\d{3,}", "_", one).partition(" (")[0][:90] for one in lacking})
    return "", lacks


# --- launches --------------------------------------------------------------------------------------------------------

NUMPY = """zeros ones arange full float32 float64 float16 int32 uint32 int64 uint64 uint16 uint8 int8 exp tanh sqrt pi
log maximum minimum sum abs einsum where cumsum concatenate stack repeat roll sign bincount flip tril triu inf argmax
argmin sort newaxis linspace ceil floor array mean var take_along_axis ascontiguousarray cos sin diff pad transpose
matmul clip zeros_like ones_like empty_like histogram add prod outer dot any all unique tile"""
WORDS: dict[str, Any] = {
    **{name: getattr(np, name) for name in NUMPY.split()},
    "np": np, "bf16": to_bf16, "f32": from_bf16, "Map": core.sim.Map, "Pointer": core.sim.Pointer,
}  # fmt: skip


def launches(checkouts: Checkouts, only: str, strict: bool) -> int:
    """Make the launches of the table; 1 if one of them is not all right."""
    rows = [
        row
        for row in table()
        if row["file"].partition("/")[0] in checkouts.roots and only in f"{row['file']} {row['kernel']}"
    ]
    bad = 0
    for row in rows:
        start = time.perf_counter()
        try:
            worst = launch(checkouts, row, strict)
            problem = "" if worst <= row["atol"] else f"differs by {worst:.3g}; at most {row['atol']:g}"
        except CoreError as error:
            problem = str(error).splitlines()[0]
        bad += bool(problem)
        seconds = f"{time.perf_counter() - start:.2f} s"
        print("bad " if problem else "good", row["file"], row["kernel"], seconds, problem, flush=True)
    print(f"{len(rows) - bad} of {len(rows)} launches are all right")
    return int(bad > 0)


def table() -> list[dict[str, Any]]:
    """The rows of foreign.toml, one a launch, each with the keys of its file."""
    rows = []
    for part in tomli.loads(TABLE.read_text("utf-8"))["file"]:
        shared = {key: value for key, value in part.items() if key not in ("launch", "arrays")}
        for row in part["launch"]:
            arrays = {**part.get("arrays", {}), **row.get("arrays", {})}
            rows.append({"atol": 1e-5, "block": 256, "smem": 0, "defines": {}, **shared, **row, "arrays": arrays})
    return rows


LOADED: dict[tuple[str, str], core.sim.KernelFile] = {}


def loaded(checkouts: Checkouts, row: dict[str, Any]) -> core.sim.KernelFile:
    """The file of a row, compiled once for all of its launches."""
    name, _, rest = row["file"].partition("/")
    key = row["file"], str(row["defines"])
    if key not in LOADED:
        path = checkouts.roots[name] / rest
        text = f"{path.read_text('utf-8', 'replace')}"
        if host := HOST_OF_TORCH.search(text):
            text = text[: host.start()]
        folders = [path.parent, *checkouts.include(name, path)]
        LOADED[key] = core.sim.load(text + row.get("behind", ""), defines=row["defines"], include=folders)
    return LOADED[key]


def launch(checkouts: Checkouts, row: dict[str, Any], strict: bool) -> float:
    """The largest difference from the truth, over all arrays that the row names one for."""
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {**WORDS, "rng": rng, "randn": lambda *s: rng.standard_normal(s, np.float32)}
    names["rand"] = lambda *s: rng.random(s, np.float32)
    for name, text in {**row.get("sizes", {}), **row["arrays"]}.items():
        names[name] = evaluated(text, names)
    before = {name: names[name].copy() for name in row["arrays"] if isinstance(names[name], np.ndarray)}
    file = loaded(checkouts, row)
    for name, text in row.get("variables", {}).items():
        file.set(name, evaluated(text, names))
    args = [evaluated(one, names) for one in row["args"]]
    grid, block, smem = (evaluated(row[key], names) for key in ("grid", "block", "smem"))
    file.run(
        whole_name(file, row["kernel"]),
        grid,
        block,
        args,
        smem,
        strict=strict,
        cluster=row.get("cluster", 1),
        order="warn",
    )
    worst = 0.0
    for name, text in row["truth"].items():
        want = np.asarray(evaluated(text, {**names, **before, "after": names}), np.float64)
        got = np.asarray(evaluated(name, names), np.float64).reshape(want.shape)
        scale = np.maximum(1.0, np.abs(want))
        gap = np.where(want == got, 0.0, np.abs(got - want) / scale)
        worst = max(worst, float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0)))
    return worst


def whole_name(file: core.sim.KernelFile, name: str) -> str:
    """The kernel that begins so, where a name ends with the start of template arguments: "gemm<float,"."""
    if not name.endswith(("<", ",")):
        return name
    names = [one for one in file.kernels if one.replace(" ", "").startswith(name.replace(" ", "")) and "(" in one]
    return names[0] if len(names) == 1 else name


def evaluated(text: Any, names: dict[str, Any]) -> Any:
    """A number as it is; a text as an expression of NumPy's words and the row's arrays. The table is ours."""
    if isinstance(text, list):
        return [evaluated(one, names) for one in text]
    return eval(text, names.copy()) if isinstance(text, str) else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("link", "launch"))
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--only", default="", help="launches whose file or kernel has this in its name")
    parser.add_argument("--strict", action="store_true", help="launches in strict mode")
    parser.add_argument("--verbose", action="store_true", help="list the files that do not compile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corelm-") as folder:
        checkouts = Checkouts([path.resolve() for path in args.paths], Path(folder))
        if not checkouts.roots:
            parser.error(f"none of the paths ends with the name of a repository: {', '.join(REPOSITORIES)}")
        if args.what == "link":
            return link(checkouts, args.verbose)
        return launches(checkouts, args.only, args.strict)


if __name__ == "__main__":
    sys.exit(main())
