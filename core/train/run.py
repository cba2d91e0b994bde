"""A run's folder: its owner, its files, and the lines appended to them.

    runs/<name>/  config.source.toml  config.resolved.toml  variants.json  env.json
                  metrics.jsonl  samples.jsonl  health.jsonl  train.log  LOCK  LATEST  BEST  checkpoints/

It knows no engine and no loop. A folder belongs to one process at a time, by a lock of the operating system that
ends with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import core
from core import blas, checkpoint, files, processor
from core.checkpoint.pointers import CHECKPOINTS
from core.errors import CheckpointError, UsageError
from core.outside import LONGEST_LOG, named, not_a_link, read_whole, way_out
from core.train.lines import Lines

RUNS = Path("runs")
LOCK, METRICS, SAMPLES, LOG = "LOCK", "metrics.jsonl", "samples.jsonl", "train.log"
HEALTH = "health.jsonl"  # there with [train] health_every alone
SOURCE, RESOLVED, VARIANTS, ENV = "config.source.toml", "config.resolved.toml", "variants.json", "env.json"
CRASHES = "crash-*"
KERNELS = "kernels"  # copies of those that were made from formulas
MOST_STEPS = 1 << 53  # of a line of a log: a larger number is damage
LOCKED_BYTE = 1 << 30  # Windows makes locked bytes unreadable: a byte that is never read
PACKAGES = ("numpy", "threadpoolctl", "tiktoken", "safetensors", "msgspec", "click", "pluggy", "rustbpe", "cuda-python")


def choose_folder(out: Path | None, stem: str, resume: bool, passed: Collection[Path] = ()) -> Path:
    """The folder of a run: `out`, or runs/<stem>, -2, -3 but those `passed`. With `resume` and no `out`, the newest.

    A folder in which a run ended before its first step is as good as none. Raises UsageError for an `out` that exists
    when it is not to be resumed, or is no run. Creates nothing, so that another process may take the folder before it
    is locked: `claim` looks again.
    """
    if out is not None:
        if not resume and not free(out):
            raise exists_already(out)
        if occupied(out) and not (out / LOCK).is_file():
            raise UsageError(f"{out} is not a run's folder; nothing was changed", hint="--out names the run to resume")
        return out
    taken = [path for path in _numbered(stem) if occupied(path)]
    if resume:
        return taken[-1] if taken else RUNS / stem
    most = len(taken) + len(passed) + 1
    return next(path for path in _numbered(stem, most) if free(path) and path not in passed)


def exists_already(out: Path) -> UsageError:
    return UsageError(
        f"{out} exists already; nothing was changed", hint="--resume continues it; a different --out starts a new run"
    )


def claim(run: Run, fresh: bool, out: Path | None, stem: str) -> Run:
    """Lock a folder that `choose_folder` gave: `run` itself, or the next number where another start was faster.

    fresh: no run had begun in it when it was chosen. Raises UsageError where there is no next one.
    """
    passed: list[Path] = []
    while True:
        with contextlib.suppress(InUse) if fresh and out is None else contextlib.nullcontext():
            run.__enter__()
            if not (fresh and run.begun):
                return run
            run.close()
            if out is not None:
                raise exists_already(out)
        passed.append(run.path)
        run = Run(choose_folder(None, stem, False, passed))


def begun(path: Path) -> bool:
    """Whether a run left steps or checkpoints in this folder."""
    written = any((path / name).is_file() and (path / name).stat().st_size for name in (METRICS, SAMPLES))
    return written or bool(checkpoint.steps(path / CHECKPOINTS)) or any(path.glob(CRASHES))


def free(path: Path) -> bool:
    """Whether a new run may begin there: it is empty, or a run in it ended before its first step."""
    return not occupied(path) or ((path / LOCK).is_file() and not begun(path))


def _numbered(stem: str, most: int = 0) -> list[Path]:
    """runs/<stem>, runs/<stem>-2, ...: up to the first gap, or `most` and one more."""
    paths = [RUNS / stem]
    while len(paths) <= most or (not most and occupied(paths[-1])):
        paths.append(RUNS / f"{stem}-{len(paths) + 1}")
    return paths


def occupied(path: Path) -> bool:
    """Whether something is there. An empty folder is nothing, and so is one with a link for the checkpoints alone."""
    inside = path.iterdir() if path.is_dir() else ()
    return path.is_file() or path.is_symlink() or any(p.name != CHECKPOINTS or not p.is_symlink() for p in inside)


class InUse(UsageError):
    """Another process trains in this folder."""


class Run:
    """An open run folder. `core_step_end` hooks read its `path` and `name`.

    Entering it creates the folder when needed, takes the lock, removes the remains of a kill, and tries all that a save
    does; leaving it releases the lock. Raises UsageError when another process has it or when it cannot be written.
    """

    writes = True  # False on the ranks of a run other than the first

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.checkpoints = path / CHECKPOINTS
        self.begun = False  # whether a run had begun here when the lock was taken
        self._lock: io.FileIO | None = None
        self._open: dict[str, Lines] = {}

    def __enter__(self) -> Run:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / LOCK)  # first: a kill before it leaves an empty folder, which is none
            if self.checkpoints.is_symlink():
                from core.train import linked

                linked.own(self.checkpoints, self.path)
            self.checkpoints.mkdir(exist_ok=True)
            self.begun = begun(self.path)
            files.sweep(self.path)
            checkpoint.sweep(self.checkpoints)
            checkpoint.try_out(self.checkpoints)
            files.sync_folder(self.path.parent)
            for name in (METRICS, SAMPLES, LOG):
                self._open[name] = Lines(self.path / name)
        except OSError as error:
            self.close()
            file = f" ({error.filename})" if error.filename else ""
            raise UsageError(
                f"{self.path}: cannot be written: {error.strerror or error}{file}",
                hint=f"{way_out(error)}; --out FOLDER puts the run elsewhere",
            ) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._lock is not None:
            self._lock.close()  # releases it
            self._lock = None

    # --- files written once --------------------------------------------------------------------------------

    def write_config(self, source: str, resolved: str) -> None:
        """The config as it was written and as it was resolved, and the environment of this start. CheckpointError
        where the disk refuses."""
        with self._writing():
            files.replace_durably(self.path / SOURCE, source.encode())
            files.replace_durably(self.path / RESOLVED, resolved.encode())
            files.replace_durably(self.path / ENV, files.to_json(environment()))

    def write_variants(self, variants: Mapping[str, Any], kernels: Iterable[Path] = ()) -> None:
        """variants.json, and copies of kernels that no plugin holds. CheckpointError where the disk refuses."""
        with self._writing():
            for kernel in kernels:
                (self.path / KERNELS).mkdir(exist_ok=True)
                files.replace_durably(self.path / KERNELS / kernel.name, kernel.read_bytes())
            files.replace_durably(self.path / VARIANTS, files.to_json(variants))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{error.filename or self.path}: cannot be written: {error.strerror or error}; no step was done",
                hint=way_out(error),
            ) from None

    # --- files appended to -----------------------------------------------------------------------------------

    # None of these raises when the disk refuses: see `Lines`.

    def log(self, text: str) -> None:
        self._open[LOG].append(text + "\n")

    def metrics(self, record: Mapping[str, Any]) -> None:
        self._open[METRICS].append(to_line(record))

    def sample(self, record: Mapping[str, Any]) -> None:
        self._open[SAMPLES].append(to_line(record))

    def health(self, record: Mapping[str, Any]) -> None:
        """A line of health.jsonl, which `rewind` opened."""
        self._open[HEALTH].append(to_line(record))

    def refused(self) -> dict[str, tuple[int, str]]:
        """The files whose last lines the disk did not take: how many, and why."""
        return {name: (file.missing, file.refused) for name, file in self._open.items() if file.refused}

    def sync(self) -> None:
        """Bring the metrics to the disk, beside a checkpoint that depends on them. CheckpointError if that fails."""
        for name in (n for n in (METRICS, SAMPLES, HEALTH) if n in self._open):
            try:
                self._open[name].sync()
            except OSError as error:
                raise CheckpointError(
                    f"{self.path / name}: cannot be flushed to the disk: {error.strerror or error}",
                    hint="earlier checkpoints are unchanged; check that disk, then continue with --resume",
                ) from None

    def rewind(self, step: int, health: bool = False) -> None:
        """Drop the metrics, samples and statistics of later steps, and a last line that a kill cut short. health: open
        health.jsonl, which is made if needed. CheckpointError where the disk refuses."""
        there = health or (self.path / HEALTH).exists()
        for name in (METRICS, SAMPLES, HEALTH)[: 3 if there else 2]:
            path = self.path / name
            with self._writing():
                if name in self._open:
                    self._open[name].close()
                self._open[name] = _lines_until(path, step)


# --- JSON lines ------------------------------------------------------------------------------------------------


def to_line(record: Mapping[str, Any]) -> str:
    """One JSON object on one line, `core.files.settled`. Floats read back exactly."""
    return json.dumps(files.settled(record), allow_nan=False, ensure_ascii=False) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file that have a step; lines that are damaged are left out."""
    return [record for line in _raw(path).split(b"\n") if (record := _record(line)) is not None]


def _raw(path: Path) -> bytes:
    """A .jsonl file's bytes; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), named(path):
        return read_whole(path, LONGEST_LOG, follow=False) if path.is_file() else b""
    return b""


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line, if it has a step."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict) and type(value.get("step")) is int and 0 <= value["step"] <= MOST_STEPS:
            return value
    return None


def _lines_until(path: Path, step: int) -> Lines:
    """Open a .jsonl file without the lines of later steps and those that are damaged. Lines at its end are cut off;
    only a file with such a line further up is written again. Raises OSError."""
    raw = _raw(path)
    records = ((line, _record(line)) for line in raw.split(b"\n"))
    left = b"".join(line + b"\n" for line, record in records if record is not None and record["step"] <= step)
    if not raw.startswith(left) or not path.is_file():
        files.replace_durably(path, left)
    lines = Lines(path)
    if len(left) < len(raw):
        lines.cut(len(left))
    return lines


# --- the lock --------------------------------------------------------------------------------------------------


def take_lock(path: Path) -> io.FileIO:
    """Lock the file at `path`, made if needed, until the returned file is closed or the process ends.

    It names its holder: pid and host. Raises UsageError, with both, while it is held.
    """
    mode = "r+b" if path.exists() else "w+b"
    file = io.FileIO(path, mode, opener=not_a_link)
    owner = ""
    try:
        with named(path):
            _lock_file(file)
    except OSError as error:
        with file, contextlib.suppress(OSError):
            owner = file.read(4096).decode("utf-8", "replace").strip()
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        raise InUse(
            f"{path.parent} is in use by {owner or 'another process'}",
            hint="wait for that process, or choose a different --out",
        ) from None
    with named(path):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


def _lock_file(file: io.FileIO) -> None:
    """POSIX and Windows each have a call for it; both locks end with the process."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- the environment -------------------------------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """The environment that a run's numbers may depend on: versions, platform, cores, and the checkout's commit where
    there is one."""
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError, OSError):
            packages[name] = metadata.version(name)
    return {
        "corelm": core.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu": processor.describe(),
        "blas": blas.describe(),
        "packages": packages,
        "threads": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
        "argv": sys.argv[1:],
    }


def system() -> str:
    """The operating system, its release, the architecture and the C library. Unlike platform.platform(), it starts no
    process: that runs the `uname` of PATH."""
    library = "-with-" + "".join(platform.libc_ver()) if any(platform.libc_ver()) else ""
    return f"{platform.system()}-{platform.release()}-{platform.machine()}{library}"


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this runs from, with "+" when files differ from it; None without git."""
    folder = Path(core.__file__).parent.parent
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
