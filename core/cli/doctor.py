"""`core doctor`: the state of this machine, and one line of advice for each fault.

The command changes nothing, downloads nothing, and exits with 0: a machine without a GPU has no fault.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

import core
from core.cli.show import emit_json, json_option
from core.device.driver import too_old
from core.errors import CoreError, DeviceError
from core.ranks.launched import launched
from core.words import human, table

OK, NOTE, PROBLEM = "ok", "note", "problem"

# the distributions that pyproject.toml depends on; a test holds the two together
EVERYWHERE = (
    "numpy",
    "pluggy",
    "tiktoken",
    "tomli",
    "tomli-w",
    "click",
    "msgspec",
    "threadpoolctl",
    "rustbpe",
    "markdown-it-py",
)
LAUNCHING = ("mpiexec", "srun", "torchrun")
NOT_ON_MACOS = ("cuda-python", "nvidia-cuda-nvrtc")
SMALL_MEMORY = 4 * 2**30  # bytes: 124M parameters in f32 with gradients and two moments are 2 GB, plus activations


@dataclass(frozen=True)
class Diagnosis:
    """One line: the subject, ok, note or problem, the finding, and the remedy."""

    what: str
    verdict: str
    found: str
    advice: str = ""


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Diagnose this machine and suggest fixes."""
    if launched().rank:
        join_ranks()  # rank 0 reports
        return
    findings = [finding for look in LOOKS for finding in look()]
    if as_json:
        emit_json([asdict(finding) for finding in findings])
        return
    click.echo("\n".join(table(None, [(f.what, f.verdict, f.found) for f in findings])))
    for finding in findings:
        if finding.advice:
            click.echo(f"{finding.what}: {finding.advice}")


def python() -> Iterator[Diagnosis]:
    yield Diagnosis("python", OK, f"{platform.python_version()} ({sys.executable})")
    yield Diagnosis("platform", OK, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Diagnosis("corelm", OK, f"{core.__version__} in {Path(core.__file__).parent}")


def packages() -> Iterator[Diagnosis]:
    missing, versions = [], []
    for name in EVERYWHERE if sys.platform == "darwin" else (*EVERYWHERE, *NOT_ON_MACOS):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Diagnosis("packages", OK, ", ".join(versions))
    if missing:
        yield Diagnosis("packages", PROBLEM, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def blas() -> Iterator[Diagnosis]:
    from core import blas as library
    from core import processor
    from core.threads import LIBRARIES, cores, workers

    yield Diagnosis("cores", OK, str(cores()))
    yield Diagnosis("cpu", OK, processor.describe())
    description = f"{library.describe()}, its products over {workers()} threads of corelm's"
    if not library.controlled():
        advice = "set its threads to 1 (VECLIB_MAXIMUM_THREADS=1 for Accelerate): a run's last bits follow from them"
        yield Diagnosis("blas", NOTE, f"{description}; threadpoolctl does not know it", advice)
        return
    limits = [f"{name}={os.environ[name]}" for name in LIBRARIES if os.environ.get(name)] if workers() < cores() else []
    advice = f"fewer threads than the {cores()} cores: {', '.join(limits)}" if limits else ""
    yield Diagnosis("blas", NOTE if limits else OK, description, advice)


def native() -> Iterator[Diagnosis]:
    from core.sim.native.toolchain import describe, passed_over

    state, named = describe(), passed_over()
    about = state or "none: the simulator interprets"
    if named:
        about += f"; CC={named} does not compile"
    advice = (
        "install gcc or clang: kernels in the simulator run some twenty times faster in native code (docs/native.md)"
    )
    yield Diagnosis("C compiler", NOTE if named or not state else OK, about, "" if state else advice)


def memory() -> Iterator[Diagnosis]:
    size = memory_bytes()
    if size is None:
        yield Diagnosis("memory", NOTE, "cannot be read here")
        return
    small = size < SMALL_MEMORY
    advice = "a model of 124M parameters trains in about 4 GB: start with a smaller one" if small else ""
    yield Diagnosis("memory", NOTE if small else OK, human(size), advice)


def memory_bytes() -> int | None:
    """The machine's memory in bytes, or None where the platform has no such figure."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _windows_memory() -> int | None:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *[(f"size{i}", ctypes.c_uint64) for i in range(7)],
        ]

    status = Status(length=ctypes.sizeof(Status))
    library: Any = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.size0)


def cache() -> Iterator[Diagnosis]:
    from core.cache import cache_folder

    folder = cache_folder()
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            yield Diagnosis("cache", OK, str(folder))
    except OSError as error:
        yield Diagnosis(
            "cache", PROBLEM, f"{folder}: {error.strerror}", "everything works, slower; set CORELM_CACHE to a folder"
        )


def tokenizer() -> Iterator[Diagnosis]:
    from core.tokenizers.gpt2 import load_gpt2

    try:
        load_gpt2(offline=True)
    except CoreError:
        advice = "`core tokenizer fetch` downloads it; without it, a config's next choice is trained on its own text"
        yield Diagnosis("tokenizer gpt2", NOTE, "not on this machine", advice)
    else:
        yield Diagnosis("tokenizer gpt2", OK, "in the cache")


def compiler() -> Iterator[Diagnosis]:
    if sys.platform == "darwin":
        yield Diagnosis("nvrtc", NOTE, "not on macOS; the cpu device works")
        return
    from core.kernels.nvrtc_library import RECORDED, emits_more, nvrtc_version

    try:
        older = emits_more(release := nvrtc_version())
        advice = (
            f"{RECORDED} emits up to a quarter fewer instructions (docs/kernels.md): pip install -U nvidia-cuda-nvrtc, "
            "in an environment without PyTorch, which pins it"
        )
        yield Diagnosis("nvrtc", NOTE if older else OK, release, advice if older else "")
    except DeviceError as error:
        yield Diagnosis("nvrtc", NOTE, error.message, error.hint)


def driver() -> Iterator[Diagnosis]:
    """Calls the driver's own library: cuda-python takes half a second to import, and fails where there is none."""
    library = driver_library()
    if library is None:
        yield Diagnosis("gpu", NOTE, "no NVIDIA driver; the cpu device works")
        return
    number = ctypes.c_int()
    if library.cuInit(0) != 0 or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        yield Diagnosis(
            "gpu", PROBLEM, "the NVIDIA driver does not start", "run `nvidia-smi` for details; --device cpu works"
        )
        return
    description = f"driver for CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    problem = too_old(number.value, _compiler())
    yield Diagnosis("driver", PROBLEM if problem else OK, description, problem[1] if problem else "")
    yield from _gpus(library)


def _compiler() -> int:
    """NVRTC's major version; 13 where there is none, the version of an installation."""
    from core.kernels.nvrtc_library import nvrtc_version

    try:
        return int(nvrtc_version().partition(".")[0])
    except DeviceError:
        return 13


def driver_library() -> Any:
    """libcuda, or None where there is no driver."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _gpus(library: Any) -> Iterator[Diagnosis]:
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        yield Diagnosis("gpu", NOTE, "none; the cpu device works")
    for index in range(count.value):
        name = ctypes.create_string_buffer(256)
        size = ctypes.c_size_t()
        library.cuDeviceGetName(name, len(name), index)
        library.cuDeviceTotalMem_v2(ctypes.byref(size), index)
        major, minor = (_attribute(library, key, index) for key in (75, 76))  # compute capability, major and minor
        chip = f"{name.value.decode(errors='replace')}, sm_{major}{minor}"
        yield Diagnosis(f"gpu {index}", OK, f"{chip}, {human(size.value)}")


def _attribute(library: Any, key: int, device: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), key, device)
    return value.value


def plugins() -> Iterator[Diagnosis]:
    from core.loader import load_registry
    from core.registry import BROKEN

    registry = load_registry(strict=False)
    broken = [record for record in registry.plugins if record.status == BROKEN]
    for record in broken:
        yield Diagnosis(
            f"plugin {record.name}", PROBLEM, record.reason, f"`core plugins {record.name}` shows its traceback"
        )
    for problem in registry.problems:
        yield Diagnosis("plugins", PROBLEM, problem.splitlines()[0])
    if not broken and not registry.problems:
        yield Diagnosis("plugins", OK, ", ".join(record.name for record in registry.plugins))


def ranks() -> Iterator[Diagnosis]:
    """Engines that join several processes, launchers, and the ranks that a launcher started."""
    from core.loader import load_registry

    for kind in load_registry(strict=False).ranks.values():
        description, problem = kind.describe(), kind.problem()
        verdict = NOTE if not description else PROBLEM if problem else OK
        yield Diagnosis(f"ranks by {kind.name}", verdict, description or "not installed", problem)
    names = [name for name in LAUNCHING if shutil.which(name)]
    yield Diagnosis("launchers", OK if names else NOTE, ", ".join(names) or "none: one process a run")
    this = launched()
    if this.size > 1:
        try:
            yield Diagnosis("ranks", OK, f"{this.size}, by {this.launcher}; {join_ranks()}")
        except DeviceError as error:
            yield Diagnosis("ranks", PROBLEM, error.message, error.hint)


def join_ranks() -> str:
    """Join the processes that a launcher started, and part; the engine, its version, ranks and hosts as text."""
    from core.loader import load_registry
    from core.ranks.joining import join

    registry = load_registry(strict=False)
    group = join(registry.ranks, registry.device("auto"), launched())
    description = group.describe()
    group.finish()
    return description


LOOKS: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
    python, packages, blas, native, memory, cache, tokenizer, compiler, driver, plugins, ranks,
)  # fmt: skip
