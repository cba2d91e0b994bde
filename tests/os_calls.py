"""Make any operating-system call of a command fail, or kill the command there, and judge how it ends.

    python tests/os_calls.py                       # every call of a run from its first line to its end: an hour
    python tests/os_calls.py --all-errors          # with every error that the call may give: hours
    python tests/os_calls.py --sample 40 --seed 1  # a spread sample
    python tests/os_calls.py --list                # the calls, numbered

The command runs under ptrace from the first line of its entry point, so that the calls are those which the system
sees, those of libraries and of Python's imports included. An error must end in a documented exit code and one sentence
that names the file, or change nothing; after an error or a kill, a second start must end with the bits of an
undisturbed run. Calls of the main thread; Linux on x86-64.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import small_run

ROOT = Path(__file__).resolve().parent.parent
CONFIG = small_run.config(
    data={"val": "shards/*.bin"},
    train={"steps": 3, "val_every": 3, "val_tokens": 64, "sample_every": 0, "checkpoint_every": 2},
)

# --- ptrace --------------------------------------------------------------------------------------------------------

AVAILABLE = sys.platform == "linux" and os.uname().machine == "x86_64"
TRACEME, GETREGS, SETREGS, SYSCALL, DETACH, SETOPTIONS = 0, 12, 13, 24, 17, 0x4200
SYSGOOD, EXITKILL = 1, 0x100000
PATH, AT, HANDLE, NONE = "path", "path of a folder", "descriptor", "no file"
READS, WRITES = (errno.EIO, errno.EACCES, errno.ENOENT), (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS)
CALLS = {  # number on x86-64 -> name, what its first arguments say, the errors that it is given
    0: ("read", HANDLE, (errno.EIO, errno.EINTR)),
    1: ("write", HANDLE, (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR)),
    2: ("open", PATH, (*READS, errno.EMFILE, errno.EINTR)),
    3: ("close", HANDLE, (errno.EIO,)),
    4: ("stat", PATH, READS),
    5: ("fstat", HANDLE, (errno.EIO,)),
    6: ("lstat", PATH, READS),
    8: ("lseek", HANDLE, (errno.EIO,)),
    17: ("pread", HANDLE, (errno.EIO,)),
    18: ("pwrite", HANDLE, (errno.EIO, errno.ENOSPC)),
    21: ("access", PATH, READS),
    22: ("pipe", NONE, (errno.EMFILE,)),
    41: ("socket", NONE, (errno.EMFILE, errno.EACCES)),
    42: ("connect", NONE, (errno.ENETUNREACH,)),
    56: ("clone", NONE, (errno.EAGAIN,)),
    57: ("fork", NONE, (errno.EAGAIN,)),
    58: ("vfork", NONE, (errno.EAGAIN, errno.ENOMEM)),
    73: ("flock", HANDLE, (errno.EIO, errno.ENOLCK, errno.EINTR)),
    74: ("fsync", HANDLE, (errno.EIO, errno.ENOSPC, errno.EINTR)),
    75: ("fdatasync", HANDLE, (errno.EIO,)),
    77: ("ftruncate", HANDLE, (errno.EIO, errno.ENOSPC)),
    79: ("getcwd", NONE, (errno.ENOENT, errno.EACCES)),
    82: ("rename", PATH, WRITES),
    83: ("mkdir", PATH, WRITES),
    84: ("rmdir", PATH, WRITES),
    86: ("link", PATH, WRITES),
    87: ("unlink", PATH, WRITES),
    89: ("readlink", PATH, READS),
    137: ("statfs", PATH, (errno.EIO, errno.EACCES)),
    138: ("fstatfs", HANDLE, (errno.EIO,)),
    217: ("getdents", HANDLE, (errno.EIO, errno.ENOENT)),
    257: ("openat", AT, (*READS, errno.EMFILE, errno.ENOSPC, errno.EINTR)),
    258: ("mkdirat", AT, WRITES),
    262: ("fstatat", AT, READS),
    263: ("unlinkat", AT, WRITES),
    264: ("renameat", AT, WRITES),
    269: ("faccessat", AT, READS),
    293: ("pipe2", NONE, (errno.EMFILE,)),
    316: ("renameat2", AT, WRITES),
    332: ("statx", AT, READS),
    334: ("rseq", NONE, ()),
    435: ("clone3", NONE, (errno.EAGAIN,)),
}
MAPPINGS = {9: ("mmap", HANDLE, (errno.ENOMEM, errno.EACCES))}
CALLS = {number: row for number, row in {**CALLS, **MAPPINGS}.items() if row[2]}
CHANGING = {
    "write",
    "fsync",
    "ftruncate",
    "rename",
    "mkdir",
    "rmdir",
    "link",
    "unlink",
    "openat",
    "renameat",
    "unlinkat",
}
DONE_ALL_THE_SAME = {"close"}  # the system closes the file whatever it answers
ENTRY = "core/__main__"  # the file whose opening begins the count

_NAMES = """r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base
ds es fs gs"""


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in _NAMES.split()]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Call:
    """A call of the main thread: its number from the entry point, its name, the file it is of ("" for none)."""

    number: int
    name: str
    path: str
    errors: tuple[int, ...]

    def __str__(self) -> str:
        return f"call {self.number}, {self.name} {self.path}"


@dataclass(frozen=True)
class Where:
    """The nth call of a name, from 0, on a file whose path matches a regular expression."""

    name: str
    path: str = ""
    nth: int = 0


@dataclass
class Ended:
    """How a command ended, and at which call something was done to it."""

    code: int
    said: str
    at: Call | None
    calls: list[Call] = field(default_factory=list)


def run(words: Sequence[str], folder: Path, at: int | Where | None = None, error: int = 0, keep: bool = False) -> Ended:
    """Run the command with call `at` failing by `error`, or killed there (error = 0); keep: list all calls. With
    neither, it is an ordinary process."""
    traces = at is not None or keep
    said = folder.parent / f"{folder.name}.said"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CORELM_CACHE": str(folder / "cache"), "PYTHONHASHSEED": "0"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""}
    # modules are read from their sources, whatever another program compiled before
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(folder / "none")}
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "core", *words],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            preexec_fn=(lambda: _libc.ptrace(TRACEME, 0, None, None)) if traces else None,
        )  # fmt: skip
    if not traces:
        return Ended(process.wait(), said.read_text("utf-8", "replace"), None)
    traced = _Traced(process.pid, at, error, keep)
    code = traced.follow()
    process.returncode = code
    return Ended(code, said.read_text("utf-8", "replace"), traced.hit, traced.calls)


class _Traced:
    """The main thread of a child from its exec to its end."""

    def __init__(self, pid: int, at: int | Where | None, error: int, keep: bool) -> None:
        self.pid, self.at, self.error, self.keep = pid, at, error, keep
        self.hit: Call | None = None
        self.calls: list[Call] = []
        self._count = -1  # of calls; -1 before the entry point
        self._like = 0  # of calls that match `at`
        self._pending = 0  # the error that the call under way is to return

    def follow(self) -> int:
        os.waitpid(self.pid, 0)
        _libc.ptrace(SETOPTIONS, self.pid, None, SYSGOOD | EXITKILL)
        entered, deliver, registers = False, 0, Registers()
        while True:
            _libc.ptrace(DETACH if self._is_over() else SYSCALL, self.pid, None, deliver)
            _, status = os.waitpid(self.pid, 0)
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            deliver = 0
            if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
                deliver = os.WSTOPSIG(status) if os.WSTOPSIG(status) != signal.SIGTRAP else 0
                continue
            entered = not entered
            if entered or self._pending:
                _libc.ptrace(GETREGS, self.pid, None, ctypes.byref(registers))
                self._enter(registers) if entered else self._leave(registers)

    def _is_over(self) -> bool:
        return self.hit is not None and not self._pending and not self.keep

    def _enter(self, registers: Registers) -> None:
        row = CALLS.get(registers.orig_rax)
        if row is None:
            return
        name, kind, errors = row
        if self._count < 0:
            if kind == AT and ENTRY in self._path(registers, kind):
                self._count = 0
            return
        if name == "mmap" and registers.r8 >= 2**31:  # memory, of no file
            return
        number, self._count = self._count, self._count + 1
        if not self.keep and isinstance(self.at, int) and number != self.at:
            return
        if not self.keep and isinstance(self.at, Where) and name != self.at.name:
            return
        call = Call(number, name, self._path(registers, kind if name != "mmap" else "map"), errors)
        if self.keep:
            self.calls.append(call)
        if self._is_wanted(call):
            self.hit = call
            self._do(registers, name)

    def _is_wanted(self, call: Call) -> bool:
        if not isinstance(self.at, Where):
            return call.number == self.at
        if self.hit is not None or call.name != self.at.name or not re.search(self.at.path, call.path):
            return False
        self._like += 1
        return self._like == self.at.nth + 1

    def _do(self, registers: Registers, name: str) -> None:
        if not self.error:
            os.kill(self.pid, signal.SIGKILL)
            return
        self._pending = self.error
        if name not in DONE_ALL_THE_SAME:
            registers.orig_rax = 2**64 - 1
            _libc.ptrace(SETREGS, self.pid, None, ctypes.byref(registers))

    def _leave(self, registers: Registers) -> None:
        registers.rax = 2**64 - self._pending
        self._pending = 0
        _libc.ptrace(SETREGS, self.pid, None, ctypes.byref(registers))

    def _path(self, registers: Registers, kind: str) -> str:
        try:
            if kind in (HANDLE, "map"):
                return os.readlink(f"/proc/{self.pid}/fd/{registers.rdi if kind == HANDLE else registers.r8}")
            if kind == NONE:
                return ""
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                memory.seek(registers.rdi if kind == PATH else registers.rsi)
                path = memory.read(4096).partition(b"\0")[0].decode("utf-8", "replace")
            if not path and kind == AT:  # fstat is fstatat of nothing
                return os.readlink(f"/proc/{self.pid}/fd/{registers.rdi}")
            return path
        except OSError:
            return ""


# --- what is run, and what is right --------------------------------------------------------------------------------

TRAIN = ["train", "small.toml", "--device", "cpu", "--out", "a"]
STARTS = {  # name -> the command, and the one whose end is compared
    "train": TRAIN,
    "resume": [*TRAIN, "--resume"],
}
DOCUMENTED = (0, 1, 2, 3, 4, 5, 6, 7)
PROGRAM = (str(ROOT), sys.prefix, sys.base_prefix, "/usr", "/lib", "/etc", "/proc", "/sys", "/dev")


def prepare(folder: Path, begun: bool = True) -> None:
    """A template: text, shards and a config, an undisturbed run in `whole`, and one that ended after two steps in
    `begun`. Nothing is cached but the program itself."""
    (folder / "small.toml").write_text(CONFIG)
    (folder / "text.txt").write_text(small_run.TEXT * 150)
    (folder / "val.txt").write_text("nine zebras hum while the dog sleeps. " * 10)
    commands = [
        ["data", "prepare", "val.txt", "--tokenizer", "bytes", "--split", "val", "--out", "shards"],
        [*TRAIN[:-1], "whole"],
        *([[*TRAIN[:-1], "begun", "--set", "train.steps=2", "--set", "train.val_every=0"]] if begun else []),
    ]
    for words in commands:
        done = run(words, folder)
        assert done.code == 0, done.said
    shutil.rmtree(folder / "cache")


def copied(template: Path, folder: Path, start: str) -> None:
    shutil.copytree(template, folder)
    if start == "resume":
        (folder / "begun").rename(folder / "a")


def results(run: Path) -> dict[str, object]:
    """What must be the same: the tensors of the newest checkpoint, and each step's numbers but times."""
    steps = sorted((run / "checkpoints").glob("step_*"))
    values: dict[str, object] = {"step": steps[-1].name if steps else ""}
    for path in steps[-1].glob("*.safetensors") if steps else ():
        values[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    keys = ("step", "loss", "norm", "lr", "tokens", "val_loss")
    return values | {"metrics": [[json.loads(line).get(key) for key in keys] for line in lines]}


def judge(template: Path, folder: Path, start: str, at: int | Where, error: int) -> tuple[Ended, str]:
    """Do it at one call; "" when all is right, else what went wrong."""
    copied(template, folder, start)
    done = run(STARTS[start], folder, at, error)
    wrong, again = _wrong_end(done, error), done
    if not wrong and done.code != 0 and done.at is not None and (not error or done.at.name in CHANGING):
        again = run([*TRAIN, "--resume"], folder)
        wrong = "" if again.code == 0 else f"the second start: exit code {again.code}\n{again.said[-800:]}"
    if not wrong and again.code == 0 and results(folder / "a") != results(folder / "whole"):
        wrong = f"other bits than the undisturbed run's\n{results(folder / 'a')}\n{results(folder / 'whole')}"
    shutil.rmtree(folder)
    return done, wrong


def _wrong_end(done: Ended, error: int) -> str:
    if done.at is None:
        return "" if done.code == 0 else f"exit code {done.code}, with nothing done to it\n{done.said[-800:]}"
    if not error:
        return "" if done.code == -signal.SIGKILL else f"exit code {done.code} in place of a kill"
    problems = []
    if done.code not in DOCUMENTED:
        problems.append(f"exit code {done.code}")
    problems += [f'"{words}"' for words in ("Traceback", "bug of ours", "Exception ignored") if words in done.said]
    if done.code:
        names = _names_of(done.at.path)
        problems += [] if "core: error: " in done.said and "  hint: " in done.said else ["no error and hint"]
        problems += [] if not names or any(name in done.said for name in names) else [f"{names[0]} is not named"]
    return f"{', '.join(problems)}\n{done.said[-800:]}" if problems else ""


def _names_of(path: str) -> list[str]:
    """What an error may call a file: its name, or the folder that is written or removed as a whole."""
    if not path or ":[" in path:  # a pipe, a socket
        return []
    steps = [part[part.index("step_") :][:13] for part in Path(path).parts if "step_" in part]
    last = Path(path).name
    return [
        f" {last}:" if last == "a" else last,
        *steps,
        *(["cannot be saved"] if "LATEST" in path or "BEST" in path else []),
    ]


def chosen(calls: Sequence[Call], every: int, all_errors: bool) -> list[tuple[Call, int]]:
    """(call, error) of the first of like calls of each of the command's own files, of the program's files one call in
    `every`: with each error or, in turn, with one of them. A kill, error 0, at calls that change something."""
    alike: dict[tuple[str, str], Call] = {}
    for index, call in enumerate(calls):
        if not call.path.startswith(PROGRAM):
            alike.setdefault((call.name, call.path), call)
        elif index % every == 0:
            alike[call.name, str(index)] = call
    pairs = []
    for turn, call in enumerate(alike.values()):
        errors = call.errors if all_errors else call.errors[turn % len(call.errors) :][:1]
        kills = call.name in CHANGING and not call.path.startswith(PROGRAM)
        pairs += [(call, error) for error in (*errors, *([0] if kills else []))]
    return pairs


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--start", choices=STARTS, default="train")
    options.add_argument("--every", type=int, default=100, metavar="N", help="one in N calls of the program's files")
    options.add_argument("--sample", type=int, default=0, metavar="N", help="N calls only, spread over all")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--all-errors", action="store_true")
    options.add_argument("--part", type=int, default=0, help="of --parts that run beside each other, from 0")
    options.add_argument("--parts", type=int, default=1)
    options.add_argument("--list", action="store_true")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        template, folder = Path(name, "template"), Path(name, "try")
        template.mkdir()
        prepare(template)
        copied(template, folder, arguments.start)
        calls = run(STARTS[arguments.start], folder, keep=True).calls
        shutil.rmtree(folder)
        pairs = chosen(calls, arguments.every, arguments.all_errors)[arguments.part :: arguments.parts]
        print(f"{len(calls):,} calls, {len(pairs):,} errors and kills")
        if arguments.sample:
            pairs = random.Random(arguments.seed).sample(pairs, arguments.sample)
        if arguments.list:
            print("\n".join(str(call) for call in calls))
            return 0
        failed = 0
        for number, (call, error) in enumerate(pairs):
            done, wrong = judge(template, folder, arguments.start, call.number, error)
            failed += bool(wrong)
            if wrong:
                print(f"{done.at or call}: {errno.errorcode.get(error, 'killed')}: {wrong}\n", flush=True)
            elif number % 50 == 0:
                print(f"({number} of {len(pairs)})", flush=True)
    print(f"{len(pairs) - failed} of {len(pairs)} errors and kills ended as they should")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
