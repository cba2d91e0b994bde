"""The sim device: what kernels' launchers record runs in the simulator, on tensors like a GPU's."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import core.sim
from core import Variant, i32
from core.device.simulated import SimDevice
from core.errors import BuildError
from core.op import Tensors
from core.sim.faults import KernelError
from core.sim.resident import Group

YOUNG = 1  # generations of the collector: all of them would be the garbage of the other tests too, which takes seconds
SOURCE = """extern "C" __global__ void shift(float* y, const float* x, int by) { y[threadIdx.x] = x[threadIdx.x + by]; }
"""


class Shift(Variant):
    op, name = "shift", "mine"

    def forward(self, t, launch):
        launch(t.kernel, t.y, t.x, i32(t.by), grid=1, block=32)


@pytest.fixture
def shift(tmp_path):
    (tmp_path / "shift.cu").write_text(SOURCE)
    made = Shift()
    made.sources = {"forward": (tmp_path / "shift.cu",)}
    return made


def tensor(device, values, dtype="f32"):
    values = np.asarray(values)
    made = device.tensor(device.allocate(values.size * 8), 0, values.shape, dtype)
    device.upload(made, values)
    return made


@pytest.mark.parametrize("dtype", ["f32", "bf16", "fp16"])
@pytest.mark.parametrize("n", [1, 3, 4, 1027])
def test_the_devices_own_launches_do_what_they_say(dtype, n):
    device, rng = SimDevice(), np.random.default_rng(n)
    a, b = tensor(device, rng.standard_normal(n), dtype), tensor(device, rng.standard_normal(n))
    control = tensor(device, np.arange(8.0), "f64")
    x, y = device.download(a), device.download(b)
    device.run(device.dot_into(control, 3, a, b) * 2)
    expected = 3 + 2 * float(x.astype(np.float64) @ y.astype(np.float64)) / 2  # the loss scale is control[2]
    assert device.download(control)[3] == pytest.approx(expected, rel=1e-13)
    assert device.download(control)[[0, 1, 2, 4, 5, 6, 7]].tolist() == [0, 1, 2, 4, 5, 6, 7]
    device.run(device.copy(b, a))
    assert np.array_equal(device.download(b), x)
    device.upload(b, y)
    device.run(device.add(a, b))
    rounded = tensor(device, x + y, dtype)
    assert np.array_equal(device.download(a), device.download(rounded))
    device.run(device.scale_by(b, control))
    assert np.array_equal(device.download(b), y * np.float32(2))
    device.run(device.fill(a, 2.5))
    assert (device.download(a) == 2.5).all()


def test_nothing_beside_the_tensor_is_written_by_the_devices_own_launches():
    device = SimDevice()
    memory = device.allocate(4 * 1024)
    whole = device.tensor(memory, 0, (1024,), "f32")
    device.upload(whole, np.full(1024, 7.0))
    device.run(device.fill(device.tensor(memory, 256, (101,), "f32"), 1.0))
    found = device.download(whole)
    assert (found[64:165] == 1).all() and (found[:64] == 7).all() and (found[165:] == 7).all()


def test_a_launcher_runs_and_its_launch_can_be_counted(shift):
    device, counted = SimDevice(), []
    device.on_report = lambda asked, report: counted.append((asked.kernel.name, report.instructions))
    x, y = tensor(device, np.arange(64)), tensor(device, np.zeros(32))
    commands = device.record(shift, "forward", Tensors(y=y, x=x, by=5, kernel="shift"), None, None)
    assert not device.download(y).any(), "nothing runs while recording"
    device.run(commands)
    assert np.array_equal(device.download(y), np.arange(5, 37))
    assert [name for name, _ in counted] == ["shift"] and counted[0][1] > 0


def test_an_error_names_node_launcher_and_kernel(shift):
    device = SimDevice()
    x, y = tensor(device, np.arange(32)), tensor(device, np.zeros(32))
    t = Tensors(y=y, x=x, by=10_000, kernel="shift", node="h.0.shift")
    with pytest.raises(KernelError) as error:
        device.run(device.record(shift, "forward", t, None, None))
    text = str(error.value)
    assert "node h.0.shift, shift.mine forward, kernel shift (" in text and "test_sim_device.py:" in text
    assert "shift.cu:1" in text


def test_a_kernel_that_is_not_there_gets_the_nearest(shift):
    device = SimDevice()
    x = tensor(device, np.zeros(32))
    with pytest.raises(BuildError, match='did you mean "shift"'):
        device.run(device.record(shift, "forward", Tensors(y=x, x=x, by=0, kernel="shft"), None, None))


def test_memory_that_nobody_holds_is_given_back():
    device = SimDevice()
    device.allocate(1 << 20)
    gc.collect(YOUNG)
    before = device.space.top
    for _ in range(50):
        tensor(device, np.zeros(1 << 16))
    gc.collect(YOUNG)
    assert device.space.top <= before


def test_a_launch_leaves_no_registers_behind():
    """A large launch has a gigabyte of them: they go at its end, not when the collector happens to come by."""
    gc.collect(YOUNG)
    gc.disable()
    try:
        x = np.zeros(64, np.float32)
        core.sim.run(SOURCE, "shift", 1, 32, [np.zeros(32, np.float32), x, np.int32(0)], strict=False)
        assert not [held for age in range(YOUNG + 1) for held in gc.get_objects(age) if isinstance(held, Group)]
    finally:
        gc.enable()


def test_a_variant_for_newer_hardware_says_so():
    class Blackwell(Variant):
        arch = "sm_100a"

    assert "sm_100a" in str(SimDevice().can_run(Blackwell())) and SimDevice().can_run(Shift()) is None


RACE = """extern "C" __global__ void turned(elem* y, const elem* x, int n) {
    __shared__ float row[64];
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n) row[threadIdx.x] = x[i];
    %s
    if (i < n) y[i] = elem(float(x[i]) + 0 * row[n > 64 ? 0 : n - 1 - threadIdx.x]);
}
"""


@pytest.mark.parametrize(("barrier", "caught"), [("__syncthreads();", False), ("", True)])
def test_a_race_that_changes_no_bit_is_found_by_strict_mode(tmp_path, barrier, caught):
    class Turned(Variant):
        op, name = "turned", "mine"

        def forward(self, t, launch):
            launch("turned", t.y, t.x, i32(64), grid=1, block=64)

    (tmp_path / "turned.cu").write_text(RACE % barrier)
    made = Turned()
    made.sources = {"forward": (tmp_path / "turned.cu",)}
    for strict in (False, True):
        device = SimDevice(strict=strict)
        y, x = tensor(device, np.zeros(64)), tensor(device, np.arange(64))
        commands = device.record(made, "forward", Tensors(y=y, x=x), None, None)
        if strict and caught:
            with pytest.raises(KernelError) as error:
                device.run(commands)
            assert error.value.kind == "race"
        else:
            device.run(commands)
            assert np.array_equal(device.download(y), np.arange(64))


TILE = """struct alignas(64) Map { char bytes[128]; };
extern "C" __global__ void tile(float* y, const __grid_constant__ Map map, int column, int row) {
    __shared__ alignas(1024) float held[4 * 32];
    __shared__ u64 full;
    u32 at = __cvta_generic_to_shared(held), barrier = __cvta_generic_to_shared(&full), done = 0;
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier));
        asm volatile("fence.mbarrier_init.release.cluster;");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 512;" ::"r"(barrier));
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%3, %4}], [%2];"
                     ::"r"(at), "l"(&map), "r"(barrier), "r"(column), "r"(row) : "memory");
    }
    __syncthreads();
    while (!done)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(barrier) : "memory");
    y[threadIdx.x] = held[threadIdx.x];
}
"""


def test_a_launchers_tensor_map_moves_the_box_that_it_says(tmp_path):
    class Tile(Variant):
        op, name, arch = "tile", "mine", "sm_90a"

        def forward(self, t, launch):
            boxed = launch.tmap(t.x, box=(32, 4), swizzle=0)
            launch("tile", t.y, boxed, i32(t.column), i32(t.row), grid=1, block=128)

    (tmp_path / "tile.cu").write_text(TILE)
    made = Tile()
    made.sources = {"forward": (tmp_path / "tile.cu",)}
    device = SimDevice()
    values = np.arange(10 * 64, dtype=np.float32).reshape(10, 64)
    x, y = tensor(device, values), tensor(device, np.zeros(128))
    device.run(device.record(made, "forward", Tensors(y=y, x=x, column=32, row=8), None, None))
    found = device.download(y).reshape(4, 32)
    assert np.array_equal(found[:2], values[8:, 32:]) and not found[2:].any(), "rows past the end are zero"
