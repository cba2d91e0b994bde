"""Launches that may start before the preceding kernel has ended: the driver gets the attribute for these alone.

docs/launch.md has the argument for their order; here are the facts that it rests on, without a GPU.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import stub as stub_driver

from core.config import load_config
from core.device.cpu import CpuDevice
from core.device.launch import record
from core.errors import BuildError
from core.graph import load_model
from core.kernels.arguments import definitions, starts_dependent
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor
from core.loader import load_registry
from core.op import Tensors, Variant
from core.train.wiring import build_engine

ROOT = Path(__file__).parents[3]
on_the_stub = pytest.mark.skipif(
    sys.platform != "linux" or stub_driver.COMPILER is None,
    reason="the stub is a libcuda.so.1 that a C compiler builds",
)
LAUNCHES = """
class Four(Variant):
    op, name, library = "four", "mine", "a library"
    def forward(self, t, launch):
        for kernel in ("early", "early", "late", "early"):
            launch(kernel, t.x, grid=1, block=32)
        launch.call(lambda x: lambda stream: None, t.x)
        launch("early", t.x, grid=1, block=32)
        launch.on_host(lambda x: [x], [t.x], [t.x])
        launch("early", t.x, grid=1, block=32)

path = Path(FOLDER) / "four.cu"
path.write_text('''
extern "C" __global__ void early(float* x) {
    // a comment is no statement
    dependent_start();
    x[threadIdx.x] += 1;
}
extern "C" __global__ void late(float* x) { x[threadIdx.x] += 1; dependent_start(); }
''')
Four.sources = {"forward": (path,)}
d = CudaDevice()
x = tensor(d, (32,))
def told():
    before = stub.stub_launches()
    commands = d.record(Four(), "forward", Tensors(x=x), None, None) + d.fill(x, 1.0)
    d.run(CAPTURED(commands))
    return [[seen(i).name.decode(), seen(i).pdl] for i in range(before, stub.stub_launches())]
without = told()
d.allow_dependent_launch()
out([without, told()])
"""
ORDER = ["early", "early", "late", "early", "early", "early", "fill"]


@pytest.mark.parametrize(("captured", "chip"), [("list", "90"), ("d.captured", "90"), ("list", "80")])
@on_the_stub
def test_only_a_kernel_that_begins_with_the_call_and_follows_a_kernel_may_start_early(host, captured, chip):
    without, allowed = host(LAUNCHES.replace("CAPTURED", captured), STUB_CHIP=chip)
    assert without == [[name, 0] for name in ORDER]
    early = [0, 1, 0, 1, 0, 0, 1] if chip == "90" else [0] * 7  # 0: first, after a library's call, after the host
    assert allowed == [[name, flag] for name, flag in zip(ORDER, early, strict=True)]


@on_the_stub
def test_a_driver_without_such_edges_in_graphs_is_refused(host):
    code = """
import core.kernels.nvrtc_library as library
library.nvrtc_version = lambda: "12.0"
out(failing(CudaDevice().allow_dependent_launch))
"""
    kind, exit_code, message, hint = host(code, STUB_VERSION="12020")
    assert (kind, exit_code) == ("DeviceError", 4) and "545" in hint
    assert message == "[train] dependent_launch needs a driver for CUDA 12.3 or newer, and this one is for CUDA 12.2"


def test_every_shipped_kernel_that_waits_does_so_first():
    """And its parameters are not restricted, or recording refuses it."""
    found: Counter[str] = Counter()
    for path in [*ROOT.glob("ops/**/*.cu*"), *ROOT.glob("plugins/**/*.cu*"), *ROOT.glob("core/device/*.cu*")]:
        text = path.read_text("utf-8")
        written = definitions(text)
        firsts = [name for name, _, first in written if first]
        assert len(re.findall(r"\bdependent_start\b", text)) == len(firsts), path
        assert not [name for name, parameters, first in written if first and "__restrict" in " ".join(parameters)], path
        found += Counter(firsts)
    assert {"mma_forward", "mma_dx", "mma_dweight", "flash_forward", "flash_dq", "flash_dkv", "fill"} <= found.keys()


def test_a_restricted_parameter_is_refused_and_each_definition_counts(tmp_path):
    source = tmp_path / "k.cu"
    source.write_text(
        'extern "C" __global__ void k(float* y, const float* __restrict__ x) { dependent_start(); *y = *x; }\n'
        'extern "C" __global__ void twice(float* y) { dependent_start(); }\n'
        'extern "C" __global__ void twice(float* y) { *y = 1; }\n'
    )

    class Restricted(Variant):
        op, name, sources = "k", "mine", {"forward": (source,)}

        def forward(self, t, launch):
            launch("k", t.y, t.y, grid=1, block=32)

    with pytest.raises(
        BuildError, match=r"dependent_start\(\), and the compiler may read `const float\* __restrict__ x"
    ):
        record(Restricted(), "forward", Tensors(y=DeviceTensor(4096, (8,), "f32")))
    assert starts_dependent(Kernel(source, "k")) and not starts_dependent(Kernel(source, "twice"))


@pytest.mark.parametrize("allowed", [True, False])
def test_the_switch_of_a_run_reaches_its_device(allowed, monkeypatch):
    calls = []
    monkeypatch.setattr(CpuDevice, "allow_dependent_launch", lambda self: calls.append(self.name))
    registry = load_registry(only=())
    overrides = [f"train.dependent_launch={str(allowed).lower()}"]
    config = load_config("configs/tiny.toml", overrides=overrides, device="cpu")
    build_engine(config, registry, load_model(config.model, registry), None)
    assert calls == ["cpu"] * allowed
