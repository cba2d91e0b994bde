"""What the op check does once instead of many times, and what that may not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core import blas
from core.loader import load_registry
from core.sim.launching.simulator import Simulator
from core.testing.case import make_case
from core.testing.check import check_variant
from core.testing.log import Log
from core.testing.runner import unwritten
from core.testing.update import compare_record

PTX = """
.version 8.0
.target sm_90a
.address_size 64
.global .align 4 .u32 counter;
.visible .entry k(.param .u64 p)
{
    .reg .b64 %rd<2>;
    .reg .b32 %r<2>;
    ld.param.u64 %rd1, [p];
    ld.global.u32 %r1, [counter];
    st.global.u32 [%rd1], %r1;
    ret;
}
"""


def test_blas_has_one_thread_during_a_check() -> None:
    registry, seen = load_registry(), list[int]()
    op = registry.op("add")
    variant = type(registry.variant("add", "reference"))()
    forward = variant.forward

    def watched(t: Any) -> None:
        seen.extend(lib.get_num_threads() for lib in blas.libraries())
        forward(t)

    def told(text: str) -> None:
        seen.extend(lib.get_num_threads() for lib in blas.libraries())

    variant.forward = watched  # type: ignore[method-assign]
    assert check_variant(op, variant, registry, "cpu", quick=True, on_activity=told).passed
    assert set(seen) <= {1}


def test_simulators_of_one_ptx_share_a_linked_kernel_where_its_variables_are_at_the_same_addresses() -> None:
    first, second, moved = Simulator(PTX), Simulator(PTX), Simulator(PTX, globals_at={"counter": 1 << 17})
    assert first.program("k") is second.program("k")
    assert moved.program("k") is not first.program("k")
    for one, value in ((first, 7), (second, 9)):
        target = one.memory.allocate(4, "x")
        one.memory.write(one.globals_at["counter"], np.array([value], np.uint32))
        one.launch("k", (1, 1, 1), (1, 1, 1), [np.uint64(target).tobytes()], executor="interpreter")
        assert one.memory.read(target, 4).view(np.uint32) == [value]


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_an_element_is_unwritten_if_all_of_its_bytes_are_the_fill(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    raw = array.reshape(-1).view(np.uint8)
    raw[:] = 0xA5
    assert unwritten(array, 0xA5).shape == shape
    assert unwritten(array, 0xA5).all()
    raw[:1] = 0x5A
    assert np.count_nonzero(~unwritten(array, 0xA5)) == min(array.size, 1)


def test_a_slot_of_the_control_record_that_differs_is_a_failure() -> None:
    registry = load_registry()
    op = registry.op("global_norm")
    case = make_case(op, op.examples[0])
    log, record = Log(), case.extras["step"]
    compare_record(log, _Trial(), "step", record, record.copy(), "")
    assert not log.failures
    wrong = record.copy()
    wrong[int(np.flatnonzero(record == 0)[0])] = 1.0
    compare_record(log, _Trial(), "step", wrong, record, "")
    assert "expected 0" in log.failures[0].message


class _Trial:
    """As much of a trial as a comparison with zero takes."""

    dtype = "f32"
    variant = load_registry().variant("global_norm", "reference")


def test_specs_of_a_case_follow_its_dims() -> None:
    op = load_registry().op("layernorm")
    case = make_case(op, {"x": (2, 5)})
    assert case.spec("x", "f32").shape == case.spec("dx", "f32").shape == (2, 5)
    assert case.spec("x", "f32", {**case.dims, "C": 7}).shape == (2, 7)
    assert case.spec("x", "bf16").dtype == "bf16"
