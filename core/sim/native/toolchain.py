"""Compiles the machine for this computer, once, and loads it.

The library is in the cache folder under a hash of its sources, the compiler, its options and the processor; its name
also has the digest of its own bytes, so that a damaged one is made again.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from core import processor
from core.cache import cache_folder, used
from core.cache.writing import one_at_a_time, try_write
from core.errors import BuildError
from core.sim.native import tables
from core.sim.native.affine import line_rows
from core.threads import cores

FOLDER = Path(__file__).parent
NAMES = ("cc", "gcc", "clang")
OPTIONS = (
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-w"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fno-strict-aliasing"),
)
LEFT_OUT = {"-march=native": ("-mcpu=native",)}  # alternatives where a compiler refuses an option
SECONDS = 300.0  # for one file
FORMAT = 1


@cache
def compiler() -> tuple[str, ...] | None:
    """The C compiler and its own arguments: the first of $CC, cc, gcc and clang that compiles; None without one."""
    if sys.platform == "win32":
        return None
    return next((one for one in (_named(), *((name,) for name in NAMES)) if one and _compiles(one)), None)


def passed_over() -> str:
    """The value of CC that names no working C compiler, "" where CC is used or not set."""
    named = _named()
    return shlex.join(named) if named and compiler() != named else ""


def _named() -> tuple[str, ...]:
    text = os.environ.get("CC", "")
    try:
        return tuple(shlex.split(text))
    except ValueError:  # a quote without its other half
        return (text,)


def _compiles(command: tuple[str, ...]) -> bool:
    """Whether a command makes a library of a line of C."""
    if shutil.which(command[0]) is None:
        return False
    try:
        with tempfile.TemporaryDirectory(prefix="core-machine-") as room:
            source, target = Path(room) / "probe.c", Path(room) / "probe.so"
            source.write_text("#include <math.h>\n#include <pthread.h>\nint probe(void) { return 1; }\n", "utf-8")
            words = [*command, "-shared", "-fPIC", str(source), "-o", str(target)]
            done = subprocess.run(words, capture_output=True, timeout=60, check=False)
            return done.returncode == 0 and target.is_file()
    except (OSError, subprocess.SubprocessError):
        return False


def describe() -> str:
    """The compiler as text, "" where there is none."""
    command = compiler()
    return "" if command is None else _version(command)


@cache
def _version(command: tuple[str, ...]) -> str:
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return " ".join(command)
    return said.splitlines()[0].strip() if said.strip() else " ".join(command)


class Machine:
    """The loaded library. rows: PTX name -> (number, its operands as the row spells them); lanewise: those that compute
    each lane separately."""

    def __init__(self, path: Path, key: str) -> None:
        self.key = key
        try:
            self.library = ctypes.CDLL(str(path))
        except OSError as error:  # such as a folder from which nothing may be run
            raise BuildError(
                f"the machine cannot be loaded: {error}", hint="CORELM_CACHE names another folder"
            ) from None
        self.library.machine_names.restype = self.library.machine_operands.restype = ctypes.c_char_p
        self.library.machine_stop.argtypes = [ctypes.c_void_p]
        self.library.machine_run.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.library.machine_start.argtypes = [ctypes.c_void_p]
        self.library.machine_link.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        self.varies: Callable[[int], bool] = self.library.machine_varies  # special registers, between thread blocks
        self.lanewise = frozenset(n for n in range(self.library.machine_rows()) if self.library.machine_lanewise(n))
        self.rows: dict[str, list[tuple[int, str]]] = {}
        for number in range(self.library.machine_rows()):
            operands = self.library.machine_operands(number).decode()
            for name in self.library.machine_names(number).decode().split():
                self.rows.setdefault(name, []).append((number, operands))
        self.lines = line_rows(self.rows)


_LOCK = threading.Lock()
_LOADED: dict[tuple[str, ...], Machine | BuildError] = {}


def machine() -> Machine:
    """The machine of this computer, compiled where it was not yet. Raises BuildError."""
    command = compiler()
    if command is None:
        raise BuildError("there is no C compiler here", hint="install gcc or clang, or name one in CC")
    with _LOCK:
        if command not in _LOADED:
            try:
                _LOADED[command] = _load(command)
            except BuildError as error:  # not tried again for each kernel
                _LOADED[command] = error
        loaded = _LOADED[command]
    if isinstance(loaded, BuildError):
        raise loaded
    return loaded


def _load(command: tuple[str, ...]) -> Machine:
    texts = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.[ch]"))}
    texts["tables.h"] = tables.header()
    parts = (FORMAT, command, _version(command), OPTIONS, processor.describe(), texts)
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    folder = cache_folder() / "machine"
    if (entry := _stored(folder, key)) is not None:
        return Machine(entry, key)
    with (
        one_at_a_time(folder / f"{key}.lock"),
        tempfile.TemporaryDirectory(prefix="core-machine-") as room,
    ):
        if (entry := _stored(folder, key)) is not None:  # another process made it in the meantime
            return Machine(entry, key)
        (Path(room) / "tables.h").write_text(texts["tables.h"], "utf-8")
        built = _build(command, [FOLDER / name for name in texts if name.endswith(".c")], Path(room))
        data = built.read_bytes()
        entry = folder / f"{key}-{_digest(data)}.so"
        return Machine(entry if try_write(entry, data) else built, key)


def _stored(folder: Path, key: str) -> Path | None:
    """The library in the cache, whole; None where there is none."""
    for entry in sorted(folder.glob(f"{key}-*.so")) if folder.is_dir() else ():
        if _digest(entry.read_bytes()) == entry.stem.partition("-")[2]:
            used(entry)
            return entry
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _build(command: tuple[str, ...], sources: Sequence[Path], room: Path) -> Path:
    """Compile the files at once, and link them."""

    def one(source: Path) -> str:
        target = room / f"{source.stem}.o"
        _run([*command, *OPTIONS, f"-I{room}", "-c", str(source), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(cores(), thread_name_prefix="core-cc") as pool:
        objects = list(pool.map(one, sources))
    library = room / "machine.so"
    _run([*command, "-shared", *objects, "-lm", "-lpthread", "-o", str(library)])
    return library


def _run(arguments: list[str]) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"the C compiler {arguments[0]} does not run: {error}") from None
    if done.returncode and (option := next((o for o in arguments if o in LEFT_OUT), None)):
        return _run([*(o for o in arguments if o != option), *LEFT_OUT[option]])
    if done.returncode:
        lines = "\n".join(f"  {line}" for line in done.stderr.splitlines()[:20])
        raise BuildError(f"the C compiler {arguments[0]} does not compile the machine:\n{lines}",
                         hint='executor="interpreter" or CORELM_SIM_EXECUTOR=interpreter needs none')  # fmt: skip
    return None
