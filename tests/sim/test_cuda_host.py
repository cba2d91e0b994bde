"""The host layer of `cuda` against a stub of the driver: memory, launches, tensor maps, errors. Nothing is computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stub as stub_driver

from core.device.cuda import pack

HERE = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub_driver.COMPILER is None, reason="no C compiler to build the stub with"),
]

# what every script below starts with
START = """
import ctypes, json, sys
from pathlib import Path
import numpy as np
from core import Variant, f32, i32
from core.device.cuda import CudaDevice
from core.device.staging import STAGE_BYTES
from core.device.launch import LaunchRecord
from core.kernels.tensors import tensor_map
from core.kernels.nvrtc import Kernel
from core.errors import CoreError
from core.op import Tensors

class Seen(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 64), ("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3),
                ("shared", ctypes.c_uint32), ("cluster", ctypes.c_uint32), ("pdl", ctypes.c_uint32),
                ("count", ctypes.c_uint32), ("sizes", ctypes.c_uint32 * 64),
                ("parameters", (ctypes.c_uint8 * 128) * 64), ("addresses", ctypes.c_uint64 * 64)]

stub = ctypes.CDLL("libcuda.so.1")
stub.stub_launch.restype = ctypes.POINTER(Seen)
stub.stub_held.restype = ctypes.c_size_t

def seen(index):
    return stub.stub_launch(index).contents

def parameter(launch, index):
    return bytes(launch.parameters[index])[: launch.sizes[index]]

def failing(f):
    try:
        f()
    except CoreError as error:
        return [type(error).__name__, error.exit_code, error.message, error.hint]
    return None

def tensor(device, shape, dtype="f32"):
    size = int(np.prod(shape)) * {"bf16": 2, "f64": 8}.get(dtype, 4)
    return device.tensor(device.allocate(size), 0, shape, dtype)

SOURCE = '''
extern "C" __global__ void scale(elem* y, const elem* x, float by, int n) { y[threadIdx.x] = elem(by * float(x[n])); }
struct alignas(128) Map { char bytes[128]; };
extern "C" __global__ void mapped(int n, const __grid_constant__ Map map, float* y) { y[n] = map.bytes[n]; }
'''

class Scale(Variant):
    op, name = "scale", "mine"
    how = {"grid": 4, "block": 32}
    def forward(self, t, launch):
        launch("scale", t.y, t.x, f32(2.5), i32(7), **self.how)

def scale(folder, **how):
    path = Path(folder) / "scale.cu"
    path.write_text(SOURCE)
    variant = Scale()
    variant.sources = {"forward": (path,)}
    variant.how = {**Scale.how, **how}
    return variant

def out(value):
    print("@@" + json.dumps(value))
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stub")
    stub_driver.build(folder)
    return folder


@pytest.fixture
def host(stub, tmp_path):
    """host(code, **environment): runs `code` against the stub; what it hands to `out`."""

    def run(code, **environment):
        env = {**os.environ, "LD_LIBRARY_PATH": str(stub), **environment}
        code = f"{START}\nFOLDER = {str(tmp_path)!r}\n{code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("@@")[2])

    return run


def test_a_gpu_says_what_it_is(host):
    words, arch, precisions, sms, why = host("""
d = CudaDevice()
class Old(Variant):
    arch = "sm_80"
out([d.describe(), d.arch, d.precisions, d.sms, d.can_run(Old())])
""")
    assert words == "Stub GPU, sm_90a, 132 multiprocessors, 1 GiB, driver for CUDA 13.0"
    assert (arch, precisions, sms) == ("sm_90a", ["f32", "bf16"], 132)
    assert why == "it needs sm_80, and this GPU is sm_90a"


def test_turing_computes_in_f32_only(host):
    assert host("out(CudaDevice().precisions)", STUB_CHIP="75") == ["f32"]


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
v = scale(FOLDER, grid=(4, 3), block=(32, 2), smem=100_000, cluster=2, pdl=True)
d.run(d.record(v, "forward", Tensors(y=y, x=x), None, None))
s = seen(0)
out([s.name.decode(), list(s.grid), list(s.block), s.shared, s.cluster, s.pdl,
     [int.from_bytes(parameter(s, i), "little") for i in (0, 1, 3)], [y.pointer, x.pointer, 7],
     float(np.frombuffer(parameter(s, 2), np.float32)[0])])
""")
    assert found[:6] == ["scale", [4, 3, 1], [32, 2, 1], 100_000, 2, 1]
    assert found[6] == found[7] and found[8] == 2.5


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
from core.device.cuda import CudaLaunch
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


# --- numbers: launches that reach the stub are run by the simulator --------------------------------------------------

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


# --- errors ------------------------------------------------------------------------------------------------------


def test_arguments_that_the_compiled_kernel_does_not_take_are_refused(host):
    """Also where a macro hides the kernel's parameters from a reading of its source."""
    kind, code, message, _ = host("""
d = CudaDevice()
t = tensor(d, (32,))
v = scale(FOLDER)
(path,) = v.sources["forward"]
takes = '#define TAKES(e) e* y, e* x, e* z, int n'
path.write_text(takes + '\\nextern "C" __global__ void scale(TAKES(elem)) { y[n] = *x + *z; }')
out(failing(lambda: d.run(d.record(v, "forward", Tensors(y=t, x=t), None, None))))
""")
    assert (kind, code) == ("BuildError", 3)
    assert "scale.mine forward, kernel scale" in message and "8, 8, 4, 4 bytes; the kernel takes 8, 8, 8, 4" in message


def test_a_driver_that_does_not_tell_a_kernels_parameters_launches_all_the_same(host):
    """Those before CUDA 12.4, which the extra cu12 is for."""
    assert (
        host(
            """
d = CudaDevice()
t = tensor(d, (32,))
d.run(d.record(scale(FOLDER), "forward", Tensors(y=t, x=t), None, None))
out(stub.stub_launches())
""",
            STUB_LACKS="cuFuncGetParamInfo",
        )
        == 1
    )


STATIC = """
STATIC = '''
extern "C" __global__ void scale(elem* y, const elem* x, float by, int n) {
    __shared__ float fixed[32];
    extern __shared__ float room[];
    fixed[threadIdx.x] = room[threadIdx.x] = x[n];
    __syncthreads();
    y[threadIdx.x] = elem(by * fixed[31 - threadIdx.x] + room[0]);
}
'''

def static(smem):
    v = scale(FOLDER, smem=smem)
    v.sources["forward"][0].write_text(STATIC)
    return v

d = CudaDevice()
t = tensor(d, (32,))
def launch(smem, capture):
    commands = d.record(static(smem), "forward", Tensors(y=t, x=t, node="h.0.fc"), None, None)
    d.run(d.captured(commands) if capture else commands)
    d.synchronize()
"""


@pytest.mark.parametrize("capture", [False, True])
def test_static_and_dynamic_shared_memory_are_opted_into_together(host, capture):
    """128 bytes are static: 49,024 dynamic ones are the most that needs no asking, 49,152 were refused by every GPU."""
    code = f"""{STATIC}
sizes = [49_024, 49_152, 60_000, 1_000]
for smem in sizes:
    launch(smem, {capture})
out([seen(i).shared for i in range(stub.stub_launches())])
"""
    assert host(code) == [49_024, 49_152, 60_000, 1_000]


@pytest.mark.parametrize(("chip", "most"), [("75", 65_536), ("80", 166_912), ("86", 101_376), ("90", 232_448)])
def test_the_upper_limit_counts_both_and_says_so(host, chip, most):
    code = f"""{STATIC}
launch({most - 128}, False)
out([failing(lambda: launch({most - 124}, False)), failing(lambda: launch({most} + 4, False)), stub.stub_launches()])
"""
    (kind, exit_code, message, hint), (_, _, alone, _), launches = host(code, STUB_CHIP=chip)
    assert (kind, exit_code, launches) == ("BuildError", 3, 1)
    assert message.startswith("node h.0.fc, scale.mine forward, kernel scale (<string>:")
    assert f"takes {most + 4:,} bytes of shared memory a thread block, 128 static and {most - 124:,} dynamic" in message
    assert f"there are {most:,} on Stub GPU (sm_{chip}" in message and "smaller smem" in hint
    assert f"smem={most + 4}): a thread block has at most {most} bytes of shared memory on sm_{chip}" in alone


def test_adopted_code_and_resident_grids_are_opted_in_too(host):
    """What an adopted kernel has of static shared memory is the driver's to say."""
    code = f"""{STATIC}
from core.device.cuda import CudaLaunch
from core.kernels.nvrtc import compile_cubin
adopted = Kernel(Path("adopted.cu"), "scale")
d.adopt(adopted, compile_cubin(Kernel(Path("k.cu"), "scale", text=STATIC), d.arch).cubin)
asked = LaunchRecord(adopted, (t, t, np.float32(1), np.int32(0)), (1, 1, 1), (32, 1, 1), 49_152)
d.run([CudaLaunch(asked)])
kernel = Kernel(Path("k.cu"), "scale", text=STATIC, line="mine.py:7")
blocks = d.resident(kernel, 32, 110_000) // d.sms
out([seen(0).shared, blocks, failing(lambda: d.resident(kernel, 32, 232_448))])
"""
    shared, blocks, (kind, _, message, _) = host(code)
    assert (shared, blocks, kind) == (49_152, 2, "BuildError")
    assert "launch.resident (mine.py:7) takes 232,576 bytes" in message and "128 static and 232,448" in message


def test_registers_and_launch_bounds_are_counted_before_the_driver_refuses(host):
    """A thousand threads of 100 registers do not fit; nor do more threads than the kernel was compiled for."""
    code = """
def heavy(bounds):
    v = scale(FOLDER, block=1024)
    v.sources["forward"][0].write_text(
        f'extern "C" __global__ void {bounds} scale(elem* y, const elem* x, float by, int n) {{'
        "float a[80]; for (int i = 0; i < 80; i++) a[i] = x[i * 32 + threadIdx.x];"
        "for (int k = 0; k < n; k++) for (int i = 0; i < 80; i++) a[i] = a[i] * a[(i * 7 + 1) % 80] + a[(i + 3) % 80];"
        "for (int i = 0; i < 80; i++) y[i * 32 + threadIdx.x] = by * a[i]; }")
    return v
def run(v):
    d = CudaDevice()  # which has compiled nothing yet
    t = tensor(d, (32,))
    d.run(d.record(v, "forward", Tensors(y=t, x=t), None, None))
out([failing(lambda: run(heavy(""))), failing(lambda: run(heavy("__launch_bounds__(256)")))])
"""
    (kind, _, registers, _), (_, _, bounds, _) = host(code)
    assert kind == "BuildError" and "registers at 1024 threads; there are 65,536 on Stub GPU (sm_90a)" in registers
    assert "has 1024 threads a thread block; its __launch_bounds__ allow 256" in bounds and "kernel scale (" in bounds


def test_what_only_hopper_has_is_refused_or_left_out_before(host):
    code = """
d = CudaDevice()
x, y = tensor(d, (64, 64)), tensor(d, (8,))
class Mapped(Scale):
    def forward(self, t, launch):
        launch("mapped", i32(3), launch.tmap(t.x, (32, 8)), t.y, grid=1, block=32)
mapped = Mapped()
mapped.sources = scale(FOLDER).sources
def run(v):
    d.run(d.record(v, "forward", Tensors(y=y, x=x), None, None))
cluster = failing(lambda: run(scale(FOLDER, cluster=2)))
tmap = failing(lambda: run(mapped))
d.run(d.record(scale(FOLDER, pdl=True), "forward", Tensors(y=y, x=y), None, None))
out([cluster, tmap, seen(0).pdl])
"""
    cluster, tmap, pdl = host(code, STUB_CHIP="80")
    assert "cluster=2): clusters need sm_90 or newer, and this is sm_80" in cluster[2]
    assert "a tensor map: they need sm_90 or newer, and this is sm_80" in tmap[2] and pdl == 0


def test_memory_that_another_process_holds_is_told_with_what_is_free(host):
    kind, code, message, hint = host("out(failing(lambda: tensor(CudaDevice(), (1 << 20,))))", STUB_MEMORY="1000000")
    assert (kind, code) == ("OutOfMemory", 4)
    assert "out of memory on Stub GPU: 0.00 GiB asked for" in message and "recompute" in hint and "nvidia-smi" in hint


ILLEGAL = """
d = CudaDevice()
y, x = tensor(d, (32,)), tensor(d, (32,))
commands = d.record(scale(FOLDER), "forward", Tensors(y=y, x=x, node="h.3.act"), None, None) + d.fill(y, 3.0)
def step():
    d.run(commands)
    d.download(y)
first = failing(step)
launched = stub.stub_launches()
again = [failing(lambda: d.run(commands)), failing(lambda: d.upload(y, 0)), failing(lambda: tensor(d, (4,)))]
out([first, [a == first for a in again], stub.stub_launches() - launched])
"""


@pytest.mark.parametrize("captured", [False, True])
def test_an_illegal_address_names_the_launches_that_it_may_come_from_and_nothing_more_is_called(host, captured):
    code = ILLEGAL.replace("def step", "commands = d.captured(commands)\ndef step") if captured else ILLEGAL
    first, same, later = host(code, STUB_FAIL="cuMemcpyDtoHAsync:700", CORELM_SYNC="")
    kind, code, message, hint = first
    assert code == 4 and "an illegal address" in message and "CUDA_ERROR_ILLEGAL_ADDRESS" in message
    assert "node h.3.act, scale.mine forward, kernel scale" in message and "kernel fill" in message
    assert "CORELM_SYNC=1" in hint and "--resume" in hint
    assert same == [True] * 3 and later == 0


def test_waiting_after_each_launch_names_the_one(host):
    # the third wait: two were for what the allocations launched
    first, same, _ = host(ILLEGAL, STUB_FAIL="cuStreamSynchronize:700", CORELM_SYNC="1")
    assert "illegal address" in first[2] and "kernel scale" in first[2] and "kernel fill" not in first[2]
    assert "CORELM_SYNC" not in first[3] and same == [True] * 3


def test_waiting_after_each_launch_goes_without_the_graph(host):
    code = ILLEGAL.replace("def step", "commands = d.captured(commands)\ndef step")
    first, same, _ = host(code, STUB_FAIL="cuStreamSynchronize:700", CORELM_SYNC="1")
    assert "kernel scale" in first[2] and "kernel fill" not in first[2] and same == [True] * 3


def test_a_launch_that_the_driver_refuses_is_named(host):
    first, _, _ = host(ILLEGAL, STUB_FAIL="cuLaunchKernelEx:1:2", CORELM_SYNC="")
    assert first[1] == 4 and "refuses to launch device fill" in first[2] and "CUDA_ERROR_INVALID_VALUE" in first[2]


@pytest.mark.parametrize(
    ("environment", "words", "advice"),
    [
        ({"STUB_GPUS": "0"}, "there is no GPU 0: the driver shows none", "--device cpu"),
        ({"STUB_FAIL": "cuInit:100"}, "there is no NVIDIA GPU that this process can see", "nvidia-smi"),
        ({"STUB_FAIL": "cuInit:803"}, "different versions: restart", "core doctor"),
        (
            {"STUB_VERSION": "12080"},
            "the NVIDIA driver is for CUDA 12.8, and kernels compiled here need 13.0",
            '580 or newer, or compile for the one that is here: pip install "corelm[cu12]"',
        ),
        ({"STUB_VERSION": "11040"}, "the NVIDIA driver is for CUDA 11.4", "580 or newer; `core doctor`"),
        ({"STUB_CHIP": "61"}, "has compute capability 6.1; kernels need 7.5", "--device cpu"),
        ({"STUB_CHIP": "150"}, "15.0, which the compiler here does not know", "pip install -U nvidia-cuda-nvrtc"),
        ({"STUB_FAIL": "cuDevicePrimaryCtxRetain:2"}, "cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY", "doctor"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_one_line_with_what_to_do_and_exit_4(host, environment, words, advice):
    kind, code, message, hint = host("out(failing(CudaDevice))", **environment)
    assert code == 4 and words in message and "\n" not in message and advice in hint


def test_no_driver_is_one_line_with_what_to_do_and_exit_4(tmp_path):
    from core.device.driver import bindings
    from core.errors import DeviceError

    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a driver here")
    with pytest.raises(DeviceError) as error:
        bindings.__wrapped__()
    assert error.value.exit_code == 4 and "no NVIDIA driver here" in error.value.message
    assert "\n" not in error.value.message and "core doctor" in error.value.hint


def test_a_tensor_map_that_the_driver_refuses_says_which(host):
    found = host(
        """
d = CudaDevice()
from core.device.driver import encode_map
x = tensor(d, (64, 64), "bf16")
out(failing(lambda: encode_map(d.driver, tensor_map(x, (64, 8)))))
""",
        STUB_FAIL="cuTensorMapEncodeTiled:1",
    )
    assert found[1] == 4 and "box (64, 8)" in found[2] and "CUDA_ERROR_INVALID_VALUE" in found[2]


def test_bytes_of_bf16_are_what_a_kernel_reads():
    from core.kernels.tensors import encode

    assert encode(np.array([1.0, -2.0]), "bf16", (2,)).tobytes().hex() == "803f00c0"
