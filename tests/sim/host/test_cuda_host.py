"""The host layer of `cuda` against a stub of the driver: memory, launches, graphs, tensor maps, numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import stub as stub_driver
from driver_host import HERE

from core.device.packed import pack

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub_driver.COMPILER is None, reason="no C compiler to build the stub with"),
]


def test_a_gpu_says_what_it_is(host):
    words, arch, precisions, sms, why = host("""
d = CudaDevice()
class Old(Variant):
    arch = "sm_80"
out([d.describe(), d.arch, d.precisions, d.sms, d.can_run(Old())])
""")
    assert words == "Stub GPU, sm_90a, 132 multiprocessors, 1.0 GiB, driver for CUDA 13.0"
    assert (arch, precisions, sms) == ("sm_90a", ["f32", "bf16", "fp16"], 132)
    assert why == "it needs sm_80, and this GPU is sm_90a"


def test_turing_computes_in_f32_and_fp16(host):
    assert host("out(CudaDevice().precisions)", STUB_CHIP="75") == ["f32", "fp16"]


def test_memory_is_zeroed_aligned_and_given_back(host):
    zero, aligned, held, left = host("""
d = CudaDevice()
t = tensor(d, (1000,))
zero = not d.download(t).any()
before = stub.stub_held()
big = tensor(d, (1 << 20,))
held = stub.stub_held() - before
del big
out([zero, t.pointer % 256 == 0, held, stub.stub_held() - before])
""")
    assert zero and aligned and held == 4 << 20 and left == 0


def test_uploads_of_any_size_and_type_come_back(host):
    assert host("""
d = CudaDevice()
same = []
for n in (1, 3, STAGE_BYTES // 4, 3 * STAGE_BYTES + 5):  # one stage, several, more than there are
    t, values = tensor(d, (n,)), np.arange(n, dtype=np.float32)
    d.upload(t, values)
    same.append(bool((d.download(t) == values).all()))
b = tensor(d, (3,), "bf16")
d.upload(b, [1.0, 1 + 2**-8, -3.3])
i = tensor(d, (2, 2), "i32")
d.upload(i, [[1, -1], [2**31 - 1, 0]])
out([same, d.download(b).tolist(), d.download(i).tolist()])
""") == [[True] * 4, [1.0, 1.0, -3.296875], [[1, -1], [2**31 - 1, 0]]]


def test_a_launch_reaches_the_driver_as_it_was_recorded(host):
    found = host("""
d = CudaDevice()
y, x = tensor(d, (32,)), tensor(d, (32,))
v = scale(FOLDER, grid=(4, 3), block=(32, 2), smem=100_000, cluster=2)
d.run(d.record(v, "forward", Tensors(y=y, x=x), None, None))
s = seen(0)
out([s.name.decode(), list(s.grid), list(s.block), s.shared, s.cluster,
     [int.from_bytes(parameter(s, i), "little") for i in (0, 1, 3)], [y.pointer, x.pointer, 7],
     float(np.frombuffer(parameter(s, 2), np.float32)[0])])
""")
    assert found[:5] == ["scale", [4, 3, 1], [32, 2, 1], 100_000, 2]
    assert found[5] == found[6] and found[7] == 2.5


def test_a_step_is_recorded_once_and_replayed(host):
    assert (
        host("""
d = CudaDevice()
y, x = tensor(d, (32,)), tensor(d, (32,))
commands = d.record(scale(FOLDER), "forward", Tensors(y=y, x=x), None, None) + d.fill(y, 3.0) + d.copy(x, y)
for _ in range(3):
    d.run(commands)
out([seen(i).name.decode() for i in range(stub.stub_launches())])
""")
        == ["scale", "fill", "copy"] * 3
    )


def test_a_captured_step_is_one_graph_with_the_same_launches_and_is_freed(host):
    launches, calls, alive, left = host("""
d = CudaDevice()
y, x = tensor(d, (32,)), tensor(d, (32,))
plain = d.record(scale(FOLDER, cluster=2, smem=60_000), "forward", Tensors(y=y, x=x), None, None) + d.fill(y, 3.0)
d.run(plain)
captured, calls = d.captured(plain), []
for command in captured:
    command.start = lambda start=command.start, name=command.record.kernel.name: calls.append(name) or start()
for _ in range(3):
    d.run(captured)
alive = stub.stub_graphs()
d.synchronize()
del captured
kept = [seen(i) for i in range(stub.stub_launches())]
values = [[bytes(s.parameters[j]).hex() for j in range(s.count)] for s in kept]
out([[[s.name.decode(), list(s.grid), s.shared, s.cluster, v] for s, v in zip(kept, values)], calls, alive,
     stub.stub_graphs()])
""")
    assert calls == ["scale", "fill"], "captured once, then replayed"
    assert launches == launches[:2] * 4 and (alive, left) == (1, 0)


def test_a_graph_that_cannot_be_made_says_how_to_go_without(host):
    first, second = host(
        """
d = CudaDevice()
y = tensor(d, (32,))
commands = d.captured(d.fill(y, 3.0))
out([failing(lambda: d.run(commands)), stub.stub_graphs()])
""",
        STUB_FAIL="cuStreamEndCapture:901",
    )
    assert first[1] == 4 and "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" in first[2] and "capture = false" in first[2]
    assert second == 0


def test_groups_of_launches_are_timed_by_events_around_them(host):
    assert host("""
d = CudaDevice()
y = tensor(d, (32,))
seconds = d.elapsed([d.fill(y, 1.0), d.fill(y, 2.0) + d.fill(y, 3.0), []])
out([seconds, stub.stub_launches()])
""") == [[1.5e-3] * 3, 3]


def test_the_devices_own_launches_have_the_right_sizes(host):
    assert host("""
d = CudaDevice()
a, b, c = tensor(d, (5000,)), tensor(d, (5000,), "bf16"), tensor(d, (8,), "f64")
d.run(d.fill(a, 1.5) + d.add(a, b) + d.dot_into(c, 3, a, b))
launches = [seen(i) for i in range(3)]
out([[s.name.decode(), s.grid[0] * s.block[0], int.from_bytes(parameter(s, s.count - 1), "little")]
     for s in launches] + [list(launches[2].grid), parameter(launches[2], 1).hex()])
""") == [["fill", 1280, 5000], ["add", 1280, 5000], ["dot", 512, 5000], [1, 1, 1], "03000000"]


def test_a_tensor_map_is_encoded_aligned_and_passed_whole(host):
    found = host("""
d = CudaDevice()
x, y = tensor(d, (6, 64, 128), "bf16"), tensor(d, (8,))
path = Path(FOLDER) / "scale.cu"
path.write_text(SOURCE)
asked = LaunchRecord(Kernel(path, "mapped"), (i32(3), tensor_map(x, (64, 32, 1)), y), (1, 1, 1), (32, 1, 1))
from core.device.packed import CudaLaunch
d.run([CudaLaunch(asked)])
s = seen(0)
out([np.frombuffer(parameter(s, 1), np.uint64).tolist(), x.pointer, s.addresses[1] % 128,
     int.from_bytes(parameter(s, 2), "little") == y.pointer])
""")
    words, pointer, misaligned, passed = found
    assert words[0] == pointer and words[1] == 9 | 3 << 8 | 3 << 16  # bf16, rank 3, 128-byte swizzle
    assert words[2:5] == [128 | 64 << 32, 64 | 32 << 32, 6 | 1 << 32] and words[8:10] == [256, 256 * 64]
    assert misaligned == 0 and passed


def test_parameters_are_packed_as_the_kernel_reads_them():
    import ctypes

    arguments = [b"\1\0\0\0", (2).to_bytes(8, "little"), b"\3" * 4, b"\4" * 128]
    address, kept = pack(arguments)
    pointers = (ctypes.c_void_p * 4).from_address(address)
    assert [ctypes.string_at(p, len(a)) for p, a in zip(pointers, arguments, strict=True)] == arguments
    assert pointers[1] % 8 == 0 and pointers[3] % 128 == 0 and kept
    assert pack([])[0]


def test_a_resident_grid_is_what_the_driver_says(host):
    assert (
        host("""
d = CudaDevice()
path = Path(FOLDER) / "scale.cu"
path.write_text(SOURCE)
out(d.resident(Kernel(path, "scale"), 256, 0))
""")
        == 8 * 132
    )


SIMULATED = f"""
sys.path.insert(0, {str(HERE)!r})
from simulated_driver import check_pool, simulate
from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry

registry = load_registry()
DIMS = {{"B": 2, "T": 5, "S": 8, "V": 21, "P": 64, "C": 24, "H": 2, "L": 1}}

def losses(device):
    settings = Settings(dims=DIMS, optimizer="adamw", device=device, precision="bf16")
    engine = Engine(load_model("gpt2_124m", registry), registry, settings)
    engine.initialize(1)
    rng, found = np.random.default_rng(0), []
    for _ in range(2):
        tokens = rng.integers(0, 21, (2, 6)).astype(np.int32)
        record = engine.step([{{"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}}], 1e-2)
        found.append([record.loss, record.norm])
    return found

sim = losses("sim")
simulate(stub)
cuda = losses("cuda")
check_pool()
out([sim, cuda])
"""


def test_a_training_step_through_the_cuda_device_gives_the_simulators_bits(host):
    sim, cuda = host(SIMULATED, STUB_MEMORY=str(1 << 26))
    assert sim == cuda
    assert np.isfinite(sim).all() and sim[0] != sim[1]
