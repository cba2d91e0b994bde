"""Marks of tests against the stubs of the driver and of NCCL."""

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
