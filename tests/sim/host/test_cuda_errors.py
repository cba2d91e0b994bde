"""What the host layer of `cuda` refuses or names, against a stub of the driver."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import stub as stub_driver

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub_driver.COMPILER is None, reason="no C compiler to build the stub with"),
]


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
from core.device.packed import CudaLaunch
from core.kernels.nvrtc import compile_cubin
adopted = Kernel(Path("adopted.cu"), "scale")
d.kernels.adopt(adopted, compile_cubin(Kernel(Path("k.cu"), "scale", text=STATIC), d.arch).cubin)
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


def test_what_only_hopper_has_is_refused_before(host):
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
out([cluster, tmap])
"""
    cluster, tmap = host(code, STUB_CHIP="80")
    assert "cluster=2): clusters need sm_90 or newer, and this is sm_80" in cluster[2]
    assert "a tensor map: they need sm_90 or newer, and this is sm_80" in tmap[2]


def test_memory_that_another_process_holds_is_told_with_what_is_free(host):
    kind, code, message, hint = host("out(failing(lambda: tensor(CudaDevice(), (1 << 20,))))", STUB_MEMORY="1000000")
    assert (kind, code) == ("OutOfMemory", 4)
    assert "out of memory on Stub GPU: 4.0 MiB requested" in message and "recompute" in hint and "nvidia-smi" in hint


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
