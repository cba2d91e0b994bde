"""The limits of the stub driver, one by one, each with its source in NVIDIA's documentation.

`TABLE` is that list: limit, document, chip, call, and the statuses that it returns. "driver API: f" is the CUDA Driver
API reference of that function or constant, as cuda.bindings.driver has it; "guide" the CUDA Programming Guide. A source
that names a limit and not the status of breaking it has that in its row.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_int

import pytest
import stub
from stub_calls import Stub
from stub_capture_limits import CAPTURE, TENSOR_MAPS
from stub_launch_limits import LAUNCHES, SHARED
from stub_memory_limits import CODE, MEMORY_ROWS
from stub_rows import OK

from core.kernels.chips import CHIPS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub.COMPILER is None, reason="no C compiler to build the stub with"),
]

TABLE = [*SHARED, *LAUNCHES, *CODE, *MEMORY_ROWS, *CAPTURE, *TENSOR_MAPS]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return ctypes.CDLL(str(stub.build(tmp_path_factory.mktemp("stub"))))


@pytest.mark.parametrize("row", TABLE, ids=[row.what for row in TABLE])
def test_the_stub_has_the_documented_limit(library, monkeypatch, row):
    for name in [name for name in os.environ if name.startswith("STUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STUB_CHIP", str(row.chip))
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    stub = Stub(library, row.chip)
    stub.begin()
    assert row.source
    assert row.call(stub) == row.gives


def test_the_device_says_what_the_chip_is(library, monkeypatch):
    for chip in CHIPS.values():
        monkeypatch.setenv("STUB_CHIP", str(chip.number))
        said = {}
        for name, kind in (("shared", 97), ("sm_shared", 81), ("sm_threads", 39), ("sm_blocks", 106)):
            value = c_int()
            assert library.cuDeviceGetAttribute(byref(value), kind, 0) == OK
            said[name] = value.value
        assert said == {name: getattr(chip, name) for name in said}
