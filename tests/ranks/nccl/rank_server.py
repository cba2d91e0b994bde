"""Ranks of the tests of NCCL: this process has the stubs, the imports and the registry, and forks each rank.

A line of JSON on stdin has the code of all ranks and the environment of each; the reply has exit code, output and
errors of each. The names of this file are at hand for the code, and those of the code for the functions here.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback

import numpy as np  # noqa: F401  (for the code, as others below)

from core import CoreError, Ranks  # noqa: F401
from core.op import Tensors
from core.ranks.joining import join
from core.ranks.launched import launched
from core.testing import Engine, Settings, load_model, load_registry  # noqa: F401


class Call(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 24), ("algorithm", ctypes.c_char * 16), ("count", ctypes.c_size_t),
                ("type", ctypes.c_int), ("op", ctypes.c_int), ("root", ctypes.c_int), ("captured", ctypes.c_int),
                ("stream", ctypes.c_void_p), ("send", ctypes.c_uint64), ("receive", ctypes.c_uint64)]  # fmt: skip


stub, nccl = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnccl.so.2")
nccl.stub_nccl_call.restype = ctypes.POINTER(Call)
registry = load_registry()
RANK, SIZE, device = 0, 1, None  # of a rank: its own


def calls(first=0):
    made = [nccl.stub_nccl_call(i).contents for i in range(first, nccl.stub_nccl_calls())]
    return [[c.name.decode(), c.algorithm.decode(), c.count, c.type, c.root, c.captured] for c in made]


def joined(limit=60.0):
    group = join(registry.ranks, registry.device("cuda"), launched(), limit)
    if limit == 60.0:
        group.watcher.end()  # `out` ends a rank without a word
    return group


def tensor(device, values, dtype="f32"):
    held = device.tensor(device.allocate({"bf16": 2, "f64": 8}.get(dtype, 4) * len(values)), 0, (len(values),), dtype)
    device.upload(held, values)
    return held


def collective(op, ranks, cuts=None, name="nccl", config=None, **tensors):
    variant = registry.variant(op, name)
    sizes = {"n": tensors["flat"].size, "m": tensors.get("part", tensors["flat"]).size}
    t = Tensors(**tensors, **sizes, cuts=cuts or [], ranks=ranks, node="")
    t.config = config or variant.configs(t)[0]
    return variant.why_not(t) or device.record(variant, "forward", t, None, None)


def failing(f):
    try:
        f()
    except CoreError as error:
        return [type(error).__name__, error.message, error.hint]
    return None


def out(value):
    print("@@" + json.dumps(value))
    sys.stdout.flush()
    os._exit(0)  # no departure: the group would end the others


# --- the server ------------------------------------------------------------------------------------------------------


def forked(code, environment):
    """(pid, files of output and errors) of a rank that runs the code."""
    files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  (the reply closes them)
    pid = os.fork()
    if pid:
        return pid, files
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    own = globals()
    own.update(RANK=int(environment["RANK"]), SIZE=int(environment["WORLD_SIZE"]))
    try:
        exec(compile(code, "<rank>", "exec"), own)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)  # it gave nothing to `out`


def whole(file):
    """The text of a file, which is closed."""
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        ranks = [forked(request["code"], environment) for environment in request["environments"]]
        codes = []
        for pid, _ in ranks:
            if codes and request["first"]:  # the others are stopped, or wait for it
                os.kill(pid, signal.SIGKILL)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        texts = [[whole(file) for file in files] for _, files in ranks]
        print(json.dumps([[code, *text] for code, text in zip(codes, texts, strict=True)]), flush=True)


if __name__ == "__main__":
    serve()
