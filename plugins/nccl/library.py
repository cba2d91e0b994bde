"""libnccl through ctypes: finding it, its structs, calls whose result is checked. The numbers are those of nccl.h."""

import ctypes
import os
from functools import cache

from core import DeviceError
from core.kernels.nvidia_library import declare, open_nvidia_library

INSTALL = "pip install 'corelm[nccl]'"
SUCCESS, INVALID_USAGE, IN_PROGRESS = 0, 5, 7  # ncclResult_t
TYPES = {"u8": 1, "i32": 2, "u32": 3, "f32": 7, "f64": 8, "bf16": 9, "fp16": 6}  # ncclDataType_t
SUM = 0  # ncclRedOp_t
PER_CALL, EVENTS = 23100, 23203  # versions: that name an algorithm for each call; whose config ends with an event
DEFAULT = "Ring"
MAGIC, UNSET = 0xCAFEBEEF, -(2**31)  # NCCL_API_MAGIC, NCCL_CONFIG_UNDEF_INT


class UniqueId(ctypes.Structure):
    """ncclUniqueId: where the ranks of a communicator meet."""

    _fields_ = [("internal", ctypes.c_char * 128)]


class CallConfig(ctypes.Structure):
    """ncclCollConfig_t of 2.32; that of 2.31 ends before its last field."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("magic", ctypes.c_uint),
        ("version", ctypes.c_uint),
        ("extensions", ctypes.c_void_p),
        ("least_blocks", ctypes.c_int),
        ("most_blocks", ctypes.c_int),
        ("nvls_blocks", ctypes.c_int),
        ("cluster", ctypes.c_int),
        ("algorithm", ctypes.c_char_p),
        ("forced", ctypes.c_int),  # an algorithm that cannot be had is an error
        ("policy", ctypes.c_int),
        ("tag", ctypes.c_uint64),
        ("event", ctypes.c_void_p),
    ]


POINTER, SIZE, INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
COLLECTIVES = {  # without their last argument of the forms that take a config
    "ncclAllReduce": [POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER],
    "ncclReduceScatter": [POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER],
    "ncclAllGather": [POINTER, POINTER, SIZE, INT, POINTER, POINTER],
    "ncclReduce": [POINTER, POINTER, SIZE, INT, INT, INT, POINTER, POINTER],
    "ncclBroadcast": [POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER],
}
FUNCTIONS = {
    "ncclGetVersion": [ctypes.POINTER(INT)],
    "ncclGetUniqueId": [ctypes.POINTER(UniqueId)],
    "ncclCommInitRank": [ctypes.POINTER(POINTER), INT, UniqueId, INT],
    "ncclCommAbort": [POINTER],
    "ncclCommGetAsyncError": [POINTER, ctypes.POINTER(INT)],
    "ncclGroupStart": [],
    "ncclGroupEnd": [],
    "ncclGetErrorString": [INT],
    "ncclGetLastError": [POINTER],
    **COLLECTIVES,
}


@cache
def load():
    """(the library, "") or (None, the reason for its absence, with the command that installs it)."""
    library, why = open_nvidia_library("nccl", "NCCL", FUNCTIONS, INSTALL)
    if library is None:
        return None, why
    library.ncclGetErrorString.restype = library.ncclGetLastError.restype = ctypes.c_char_p
    if version_of(library) >= PER_CALL:
        per_call = {f"{n}Config": [*types, ctypes.POINTER(CallConfig)] for n, types in COLLECTIVES.items()}
        why = declare(library, "NCCL", per_call, INSTALL)
    return (None, why) if why else (library, "")


def missing():
    """The missing part, as text; None when the library is here."""
    return load()[1] or None


def version_of(library):
    number = INT()
    library.ncclGetVersion(ctypes.byref(number))
    return number.value


@cache
def version():
    """The library's version as a number: 23203 is 2.32.3."""
    return version_of(load()[0])


def describe():
    """The version as text."""
    return f"NCCL {version() // 10000}.{version() // 100 % 100}.{version() % 100}"


def call(name, *arguments):
    """Raises DeviceError with the library's own words for the failure."""
    status = getattr(load()[0], name)(*arguments)
    if status != SUCCESS:
        raise failure(status, name)


def failure(status, doing):
    """The DeviceError for a result."""
    library, _ = load()
    words, last = (text.decode(errors="replace").strip() for text in
                   (library.ncclGetErrorString(status) or b"", library.ncclGetLastError(None) or b""))  # fmt: skip
    text = f"{words}: {last}" if last else words
    return DeviceError(f"NCCL: {doing}: {text}", hint="NCCL_DEBUG=INFO in the environment makes NCCL print more")


def name_algorithm(environment=os.environ):
    """Before a communicator is made: NCCL_ALGO, where this version has no other way and the user has named none."""
    if version() < PER_CALL:
        environment.setdefault("NCCL_ALGO", DEFAULT)


def config_of(algorithm):
    """The config that names an algorithm for a call; None where this version has none: NCCL_ALGO names it."""
    if version() < PER_CALL:
        return None
    size = ctypes.sizeof(CallConfig) - (0 if version() >= 23200 else ctypes.sizeof(POINTER))
    return CallConfig(
        size, MAGIC, min(version(), EVENTS), None, UNSET, UNSET, UNSET, UNSET, algorithm.encode(), 1, UNSET, 0, None
    )


def refusal(algorithm, collective, environment=os.environ):
    """Why NCCL would not use `algorithm` for a collective ("allreduce", "broadcast", ...), as text; None where it
    would. A version without an algorithm for each call follows NCCL_ALGO alone, `name_algorithm`."""
    named = environment.get("NCCL_ALGO", "")
    if version() < PER_CALL:
        named = named or DEFAULT
        other = f"{describe()} takes no algorithm with a call, and NCCL_ALGO={named} names another than {algorithm}"
        return None if named.lower() == algorithm else other
    for part in named.lower().split(";"):
        name, colon, listed = part.rpartition(":")
        excluded = listed.startswith("^")
        if listed and (not colon or name == collective) and (algorithm in listed.lstrip("^").split(",")) == excluded:
            return f"NCCL_ALGO={named} in the environment keeps NCCL from {algorithm}"
    return None
