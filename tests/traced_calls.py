"""A command under ptrace: its operating-system calls, one of which fails or ends the process."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

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
    if traces:  # modules are read from their sources, whatever another program compiled before
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
