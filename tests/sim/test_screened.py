"""Screening: clean launches never come to the interpreter, and each kind of finding is suspected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.kernels.nvrtc import Kernel, compile_ptx
from core.loader import load_registry
from core.sim import KernelError, Simulator
from core.sim.launching.launch_report import Report
from core.sim.launching.screened import screenable
from core.sim.native.choice import natively
from core.testing.check import check_variant

pytestmark = pytest.mark.skipif(not natively(None, ""), reason="without a C compiler nothing is screened")

HEAD = (
    'extern "C" __global__ void k(float* y, const float* x, int n) { int t = threadIdx.x, i = blockIdx.x * 128 + t;\n'
)
WHOLE = HEAD + "__shared__ float s[128], r[128];\n"
COPY = """asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
    :: "r"((unsigned)__cvta_generic_to_shared(s + t)), "l"(x + i) : "memory");"""
COMMIT, WAIT = (f'asm volatile("cp.async.{name};" ::: "memory");' for name in ("commit_group", "wait_group 0"))
LATE = COPY.replace("x + i", "y + i")
SYNC, WARP = "__syncthreads();", "__syncwarp();"
ADD = 'asm volatile("red.shared.add.u32 [%0], 1;" :: "r"((unsigned)__cvta_generic_to_shared(s + t % 7)) : "memory");'
COUNT, COUNT_ALL = ADD.replace("s + t % 7", "s"), 'asm volatile("red.global.add.u32 [%0], 1;" :: "l"(y) : "memory");'

FENCE = "__threadfence();"
LAST = f"""__shared__ bool last;
    unsigned* count = (unsigned*)y + 192;
    if (i < 192) y[i] = x[i];
    {SYNC}
    if (t == 0) {{ {FENCE} last = atomicAdd(count, 1) == gridDim.x - 1; {FENCE} if (last) *count = 0; }}
    {SYNC}
    if (last && t < 64) y[t] = y[191 - t] + 1;"""

# clean kernels; `without` one of the parts that are named, each is a finding
CLEAN = {
    "a tile": (WHOLE + f"s[t] = x[i]; {SYNC} y[i] = s[127 - t]; {SYNC} s[t] = 1;", (SYNC,)),
    "a warp": (WHOLE + f"s[t] = x[i]; {WARP} y[i] = s[t ^ 31]; {WARP} s[t ^ 1] = y[i];", (WARP,)),
    "a copy": (WHOLE + f"{COPY} {COMMIT} {WAIT} y[i] = s[t]; {SYNC} y[i] += s[t ^ 1];", (COMMIT, WAIT, SYNC)),
    "global": (HEAD + f"y[i] = x[i]; {SYNC} float v = y[i ^ 64]; {SYNC} y[i] = v;", (SYNC,)),
    "the last thread block": (WHOLE + LAST, (SYNC, FENCE)),
    "counts": (WHOLE + f"s[t] = 0; {SYNC} {ADD} {SYNC} y[i] = s[t] * 1e30f;", (SYNC,)),
}
FINDINGS = {
    "two thread blocks": (HEAD + "y[t] = x[i];", "race"),
    "read elsewhere": (HEAD + "float v = y[t]; if (blockIdx.x == n) y[t ^ 1] = v;", "race"),
    "one element": (HEAD + "y[blockIdx.x * 128] = t;", "race"),
    "unwritten": (WHOLE + f"if (t) s[t] = 1; {SYNC} y[i] = s[t];", "uninitialised"),
    "of the block before": (WHOLE + f"if (!blockIdx.x) s[t] = 1; {SYNC} y[i] = s[t];", "uninitialised"),
    "between variables": (WHOLE + f"s[t] = 1; r[t] = 2; {SYNC} y[i] = s[t + n * 129];", "out of bounds"),
    "a copy at the end": (WHOLE + f"{COPY} {COMMIT} y[i] = 1; if (t > n + 200) y[i] = s[t];", "exit in flight"),
    "a late source": (
        WHOLE + f"y[i] = 1; {COPY.replace('x + i', 'y + i')} {COMMIT} y[i] = 2; {WAIT} y[i] += s[t];",
        "order",
    ),
    "turns of threads": (HEAD + "y[2 * t] = atomicAdd((int*)y + 1, 1);", "race"),
    "turns of thread blocks": (HEAD + "if (!t) y[2 + blockIdx.x] = atomicAdd((int*)y, 1) + 1;", "order"),
    "outside": (HEAD + "y[i + 1] = 1;", "out of bounds"),
    "counts of two warps": (
        WHOLE + f"s[t] = 0; {SYNC} if (t == 0 || t == 32) {COUNT} if (t == 32) y[i] = s[0];",
        "race",
    ),
    "a count before its zero": (WHOLE + f"if (t == 0) s[0] = 0; {WARP} if (t % 32 == 0) {COUNT}", "race"),
    "counts of all": (HEAD + f"{COUNT_ALL} {SYNC} if (blockIdx.x == n && t == 0) y[5] = ((int*)y)[0];", "race"),
}


def launch(body: str, monkeypatch: pytest.MonkeyPatch, interpreter: bool) -> tuple[Report, np.ndarray]:
    """A launch of two thread blocks in strict mode, screened. interpreter: whether that may run it."""
    simulator = Simulator(compile_ptx(Kernel(Path("k.cu"), "k", text=body + "\n}")).ptx)
    x = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    y, source = (simulator.memory.allocate(1024, name) for name in "yx")
    simulator.memory.write(source, x)
    if not interpreter:
        monkeypatch.setattr(Simulator, "_launch_strictly", None)
    args = [np.uint64(y).tobytes(), np.uint64(source).tobytes(), np.int32(1).tobytes()]
    report = simulator.launch("k", (2,), (128,), args, strict=True, screens=True)
    return report, simulator.memory.read(y, 1024)


@pytest.mark.parametrize("name", CLEAN)
def test_the_interpreter_never_runs_a_clean_launch_and_the_bits_are_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, _ = CLEAN[name]
    report, values = launch(body, monkeypatch, interpreter=False)
    assert report.reached and report.instructions and values.any()
    monkeypatch.undo()
    monkeypatch.setattr(Simulator, "_screen", lambda *_: None)
    assert values.tobytes() == launch(body, monkeypatch, interpreter=True)[1].tobytes()


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, (_, parts) in CLEAN.items() for part in parts])
def test_without_one_of_its_parts_a_clean_kernel_is_suspected(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, _ = CLEAN[name]
    pieces = body.split(part)
    for left in range(1, len(pieces)):
        with pytest.raises(KernelError):
            launch(part.join(pieces[:left]) + part.join(pieces[left:]), monkeypatch, interpreter=True)


@pytest.mark.parametrize("name", FINDINGS)
def test_a_suspect_launch_has_the_finding_of_the_interpreter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, kind = FINDINGS[name]
    with pytest.raises(KernelError) as screened:
        launch(body, monkeypatch, interpreter=True)
    monkeypatch.setattr(Simulator, "_screen", lambda *_: None)
    with pytest.raises(KernelError) as interpreted:
        launch(body, monkeypatch, interpreter=True)
    assert screened.value.kind == kind and str(screened.value) == str(interpreted.value)


@pytest.mark.parametrize("body", [
    "__shared__ int s; y[i] = atomicAdd(&s, 1);", "*(volatile float*)(y + i) = 1;",
    "y[i] = *(volatile const float*)(x + i);", 'asm volatile("bar.sync 1, 128;"); y[i] = 1;',
    "malloc(8); y[i] = 1;",
])  # fmt: skip
def test_kernels_that_order_threads_in_other_ways_are_not_screened(body: str) -> None:
    simulator = Simulator(compile_ptx(Kernel(Path("k.cu"), "k", text=f"{HEAD}{body}\n}}")).ptx)
    assert not screenable(simulator.program("k", strict=True))


def test_of_each_kernel_and_types_the_first_strict_launch_of_a_check_runs_on_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, screen, ran, clean = Simulator._launch_strictly, Simulator._screen, list[str](), list[str]()

    def strictly(self: Simulator, program, *rest) -> Report:
        ran.append(program.name)
        return run(self, program, *rest)

    def screened(self: Simulator, program, *rest) -> Report | None:
        clean.append(program.name)
        return screen(self, program, *rest)

    monkeypatch.setattr(Simulator, "_launch_strictly", strictly)
    monkeypatch.setattr(Simulator, "_screen", screened)
    registry = load_registry()
    assert check_variant(registry.op("layernorm"), registry.variant("layernorm", "naive"), registry, "sim", archs=(),
                         dtypes=["f32"]).passed  # fmt: skip
    kernels = {"naive_forward", "naive_dx", "naive_dparams"}
    assert set(ran) == kernels == set(clean) and len(ran) < len(clean)
