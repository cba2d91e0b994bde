"""Marks of tests against the stubs of the driver and of NCCL, and the start of each rank's program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import stub

TESTS = Path(__file__).parents[1]
needs_stubs = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stubs are a libcuda.so.1 and a libnccl.so.2"),
    pytest.mark.skipif(stub.COMPILER is None, reason="no C compiler to build the stubs with"),
]


def stubbed(test):
    for mark in needs_stubs:
        test = mark(test)
    return test


START = f"""
import ctypes, json, os, sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
from core import CoreError, Ranks
from core.op import Tensors
from core.ranks.joining import join
from core.ranks.launched import launched
from core.testing import Engine, Settings, load_model, load_registry

class Call(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 24), ("algorithm", ctypes.c_char * 16), ("count", ctypes.c_size_t),
                ("type", ctypes.c_int), ("op", ctypes.c_int), ("root", ctypes.c_int), ("captured", ctypes.c_int),
                ("stream", ctypes.c_void_p), ("send", ctypes.c_uint64), ("receive", ctypes.c_uint64)]

stub, nccl = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnccl.so.2")
nccl.stub_nccl_call.restype = ctypes.POINTER(Call)
registry = load_registry()
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

def calls(first=0):
    made = [nccl.stub_nccl_call(i).contents for i in range(first, nccl.stub_nccl_calls())]
    return [[c.name.decode(), c.algorithm.decode(), c.count, c.type, c.root, c.captured] for c in made]

def joined(limit=60.0):
    group = join(registry.ranks, registry.device("cuda"), launched(), limit)
    if limit == 60.0:
        group.watcher.end()  # `out` ends a rank without a word
    return group

def tensor(device, values, dtype="f32"):
    held = device.tensor(device.allocate({{"bf16": 2, "f64": 8}}.get(dtype, 4) * len(values)), 0, (len(values),), dtype)
    device.upload(held, values)
    return held

def collective(op, ranks, cuts=None, name="nccl", config=None, **tensors):
    variant = registry.variant(op, name)
    sizes = {{"n": tensors["flat"].size, "m": tensors.get("part", tensors["flat"]).size}}
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
"""
