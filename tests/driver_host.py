"""A process with the stub of the driver as its libcuda: programs of the tests run in it."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
# what every script below starts with
IMPORTS = """
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
"""
START = (
    IMPORTS
    + """
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
)
