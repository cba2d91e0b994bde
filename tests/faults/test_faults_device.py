"""Kernels and devices at fault: what does not compile, asks for too much, computes or writes the wrong thing; no GPU,
no memory, a damaged compile cache.

Each test does what a user would, by the command line, with a plugin whose variant of a small op is at fault. Kernels
run in the simulator. Faults of a driver that is there are in tests/sim/host/test_cuda_errors.py, on a stub of one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import small_graph
import small_run

from core.cli import run as core_command
from core.device.cpu import CpuDevice
from core.kernels import nvrtc

PLUGIN = """
import numpy as np
from core import Op, Reference, Variant, i32

half = Op("half", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (5, 3)}, {"x": (2, 7, 33)}])


class HalfReference(Reference):
    op = "half"

    def forward(self, t):
        t.y[...] = t.x / 2

    def backward(self, t):
        t.add("dx", t.dy / 2)


class Tried(Variant):
    op, name, device = "half", "tried", "cpu"
    dtypes = ("f32",)
    can_add = ("x",)

    def forward(self, t, launch):
        launch.call(lambda: np.divide(t.x, 2, out=t.y))

    def backward(self, t, launch):
        launch.call(lambda: t.add("dx", t.dy / 2))


def core_ops():
    return [half]


def core_variants():
    return [HalfReference, Tried]
"""
FORWARD, BACKWARD = "np.divide(t.x, 2, out=t.y)", 't.add("dx", t.dy / 2)'
KERNEL = """extern "C" __global__ void halve(elem* y, const elem* x, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i] / 2.0f;
}
"""
MODEL = small_graph.toml(
    'h = { op = "half", in = "wte" }\ny = { op = "matmul", in = "h", features = "V", bias = false }',
    sizes={"B": 2, "T": 16, "V": 257},
    dims="C = 16",
)
CONFIG = small_run.unwatched(model="m.toml", dims=None, train={"steps": 1, "tokens_per_step": 32})
TRAIN = ("train", "run.toml", "--device", "cpu", "--quiet", "--plugin")
Core = Callable[..., str]
made = iter(range(1000))  # a module is imported once in a process: every plugin has a name of its own


@pytest.fixture(autouse=True)
def here(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a config whose model has a node of the plugin's op, and an empty cache."""
    monkeypatch.setattr(nvrtc, "_HELD", {})
    small_run.write(workdir, CONFIG, "run.toml")
    Path("m.toml").write_text(MODEL)
    return workdir


@pytest.fixture
def core(capfd: pytest.CaptureFixture[str]) -> Core:
    """Runs `core`, wants this exit code and these words, and no traceback."""

    def command(*arguments: str, code: int, says: list[str] | tuple[str, ...] = ()) -> str:
        got = core_command(list(arguments))
        said = "".join(capfd.readouterr())
        assert got == code, said
        assert "Traceback" not in said and "bug of ours" not in said
        for words in says:
            assert words in " ".join(said.split()), said
        return said

    return command


def on_the_cpu(old: str, new: str) -> str:
    """A plugin file whose cpu variant launches this instead."""
    name = f"at_fault_{next(made)}.py"
    old, new = f"launch.call(lambda: {old})", f"launch.call(lambda: {new})"
    assert old in PLUGIN
    Path(name).write_text(PLUGIN.replace(old, new))
    return name


def on_cuda(kernel: str = KERNEL, block: int = 32, smem: int = 0) -> str:
    """A plugin folder whose variant launches this kernel."""
    folder = Path(f"kernel_{next(made)}")
    folder.mkdir()
    code = PLUGIN.replace('"tried", "cpu"', '"tried", "cuda"').replace('    can_add = ("x",)\n', "")
    for call, y, x in ((FORWARD, "y", "x"), (BACKWARD, "dx", "dy")):
        launch = f'launch("halve", t.{y}, t.{x}, i32(t.{y}.size), grid=1, block={block}, smem={smem})'
        code = code.replace(f"launch.call(lambda: {call})", launch)
    (folder / "__init__.py").write_text(code)
    (folder / "half.cu").write_text(kernel)
    return str(folder)


def check(plugin: str, device: str) -> tuple[str, ...]:
    return "check", "half.tried", "--plugin", plugin, "--device", device


# --- wrong numbers -----------------------------------------------------------------------------------------------

WRONG = {
    "1 % off": (BACKWARD, 't.add("dx", t.dy * 0.505)', ["gradient FAILED dx: relative error 1.00e-02", "worst at ["]),
    "the wrong sign": (BACKWARD, 't.add("dx", -t.dy / 2)', ["gradient FAILED dx: relative error 2.00e+00"]),
    "`=` for `+=`": (BACKWARD, "np.divide(t.dy, 2, out=t.dx)", ["accumulate FAILED dx (adding to dx)"]),
    "a lost last row": (
        BACKWARD,
        "t.add_dx or np.divide(t.dy[:-1], 2, out=t.dx[:-1])",
        ["written FAILED dx: 3 of 15 elements"],
    ),
    "an output that is not whole": (FORWARD, "np.divide(t.x[:-1], 2, out=t.y[:-1])", ["FAILED y: 3 of 15 elements"]),
    "a write behind the end": (
        FORWARD,
        f"({FORWARD}, np.lib.stride_tricks.as_strided(t.y.reshape(-1), (t.y.size + 1,)).__setitem__(-1, 1.0))",
        ["bounds FAILED wrote outside of y"],
    ),
    "an input that changes": (FORWARD, f"({FORWARD}, t.x.__imul__(2))", ["unchanged FAILED changed a read-only"]),
    "other bits each time": (
        FORWARD,
        "np.divide(t.x, 2 + 1e-6 * np.random.default_rng().random(), out=t.y)",
        ["repeat FAILED y: other bits in a second run"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_variant_that_computes_or_writes_the_wrong_thing(core: Core, fault: str) -> None:
    """The op check names sub-check, tensor and place; after it, no run takes that variant: not when it is named, and a
    run that may choose takes another one."""
    old, new, says = WRONG[fault]
    plugin = on_the_cpu(old, new)
    core(*check(plugin, "cpu"), code=1, says=[*says, "failed: half.tried"])
    core(*TRAIN, plugin, "--set", "ops.half=tried", code=3, says=["tried: its check failed on the cpu"])
    assert not Path("runs").exists()


def test_a_verdict_is_of_the_source_that_was_checked(core: Core) -> None:
    """What was right and is changed has no verdict; what was wrong and is put right may run."""
    wrong = on_the_cpu(BACKWARD, 't.add("dx", t.dy * 0.505)')
    core(*check(wrong, "cpu"), code=1)
    right = on_the_cpu(BACKWARD, BACKWARD)
    core(*TRAIN, right, code=0)
    core(*check(right, "cpu"), code=0, says=["1 of 1 variants passed"])


# --- kernels -----------------------------------------------------------------------------------------------------


def test_a_kernel_that_does_not_compile(core: Core) -> None:
    """By a plan for a GPU, without one: the author's file and line, the op's variant."""
    plugin = on_cuda(KERNEL.replace("x[i]", "z[i]"))
    says = [f"{plugin}/half.cu(2): error: identifier", "half.tried"]
    core("plan", "run.toml", "--device", "cuda", "--plugin", plugin, code=3, says=says)


@pytest.mark.parametrize(
    ("block", "smem", "says"),
    [
        (32, 300_000, "launch('halve', smem=300000): a thread block has at most 232448 bytes of shared memory"),
        (2048, 0, "2048 threads; a thread block has at most 1024"),
    ],
)
def test_a_launch_beyond_the_chips_limits(core: Core, block: int, smem: int, says: str) -> None:
    core(*check(on_cuda(block=block, smem=smem), "sim"), code=1, says=["half.tried forward", "__init__.py:", says])


def test_a_kernel_that_leaves_its_tensors(core: Core) -> None:
    plugin = on_cuda(KERNEL.replace("i < n", "i < n + 1"))
    core(*check(plugin, "sim"), code=1, says=[f"{plugin}/half.cu:2", "reads x[", "(tensor x", " of block "])


def test_a_launch_that_does_not_leave_its_counters_at_zero(core: Core) -> None:
    kernel = KERNEL.replace("int n)", "int n, u32* counters)").replace(
        "\n}", "\n    if (threadIdx.x == 3) counters[5] += n;\n    if (threadIdx.x == 4) counters[7] = 0;\n}"
    )
    plugin = Path(on_cuda(kernel)) / "__init__.py"
    text = plugin.read_text().replace(".size), grid", ".size), launch.counters, grid")
    text = text.replace(
        "    def forward(self, t, launch)", "    def counters(self, t): return 8\n\n    def forward(self, t, launch)"
    )
    plugin.write_text(text)
    says = ["unchanged", "counters[5], which is 15 after the launch and has to be left at zero", "half.tried"]
    core(*check(str(plugin.parent), "sim"), code=1, says=says)


def test_a_compile_cache_that_is_stale_damaged_or_cannot_be_written(
    core: Core, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is what the source says now."""
    plugin = on_cuda()
    core(*check(plugin, "sim"), code=0)
    entries = list((here / "cache" / "kernels").iterdir())
    assert entries
    Path(plugin, "half.cu").write_text(KERNEL.replace("2.0f", "3.0f"))
    core(*check(plugin, "sim"), code=1, says=["forward FAILED y: relative error"])
    Path(plugin, "half.cu").write_text(KERNEL)
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-20])
    monkeypatch.setattr(nvrtc, "_HELD", {})
    core(*check(plugin, "sim"), code=0)
    monkeypatch.setattr(nvrtc, "_HELD", {})
    monkeypatch.setenv("CORELM_CACHE", str(here / "text.txt" / "cache"))
    core(*check(plugin, "sim"), code=0)


# --- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU here")
def test_a_machine_without_a_gpu(core: Core) -> None:
    """One line and what to do; what needs no GPU works."""
    plugin = on_the_cpu(FORWARD, FORWARD)
    said = core(
        "train", "run.toml", "--device", "cuda", "--plugin", plugin, code=4, says=["core doctor", "--device cpu"]
    )
    assert len(said.strip().splitlines()) == 2 and not Path("runs").exists()
    core("doctor", code=0, says=["no NVIDIA driver"])
    core(*TRAIN, plugin, code=0)


def test_a_device_without_memory_for_the_plan(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before step 1 and before the run is made: what needs how much, what is free, and what would fit."""
    plugin = on_the_cpu(FORWARD, FORWARD)
    monkeypatch.setattr(CpuDevice, "memory", lambda self: (133 << 20, 134 << 20), raising=False)
    core(*TRAIN, plugin, "--set", "dims.B=4000", "--set", "train.tokens_per_step=64000", code=4, says=[
        "does not fit into memory", "parameters", "gradients", "optimizer", "activations", "free", "largest tensors",
        "hint: --set dims.B=",
    ])  # fmt: skip
    assert not Path("runs").exists()
