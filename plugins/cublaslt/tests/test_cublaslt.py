"""Matmul by cuBLASLt without a GPU: on stubs of the driver and of the library, which compute as instructed.

Whether the real library reads a descriptor as we read its manual is left to a GPU: see benchmarks/README.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.cli import run as core_command
from core.testing import check_compiles

HERE = Path(__file__).parent
TESTS = HERE.parents[2] / "tests"  # of the checkout: the stub of the driver
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_stubs = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stubs are a libcuda.so.1 and a libcublasLt.so.13"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the stubs with"),
    pytest.mark.skipif(not (TESTS / "stub_driver.c").exists(), reason="no checkout"),
]


def stubbed(test):
    for mark in needs_stubs:
        test = mark(test)
    return test


START = f"""
import ctypes, json, sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
import simulated_driver
from core import CoreError
from core.testing import Engine, Settings, check_variant, load_model, load_registry, make_tensors

simulated_driver.simulate(ctypes.CDLL("libcuda.so.1"))
lt = ctypes.CDLL("libcublasLt.so.13")
lt.stub_base(ctypes.c_void_p(simulated_driver.base))
registry = load_registry()
ours = registry.variant("matmul", "cublaslt")
sys.modules[type(ours).__module__].ROOM = 1024  # 32 MiB would be poisoned for every call

def product(device, **shapes):
    '''`t` of a matmul whose tensors are all there.'''
    shapes = {{"x": (16, 8), "weight": (24, 8), "bias": (24,), "y": (16, 24), **shapes}}
    held = {{n: device.tensor(device.allocate(4 * int(np.prod(s))), 0, s, "f32") for n, s in shapes.items()}}
    return make_tensors({{"...": (16,), "K": 8, "features": 24}}, held)

def failing(f):
    try:
        f()
    except CoreError as error:
        return [type(error).__name__, error.message, error.hint]
    return None

def out(value):
    simulated_driver.check_pool()
    print("@@" + json.dumps(value))
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    made, source = folder / "libcublasLt.so.13", HERE / "stub_cublaslt.c"
    command = [str(COMPILER), "-O2", "-shared", "-fPIC", "-o", str(made), str(source), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    spec = importlib.util.spec_from_file_location("stub", TESTS / "stub.py")
    stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    stub.build(folder)
    return folder


@pytest.fixture
def host(stubs):
    """host(code, **environment): runs `code` on the stubs; the value that it passes to `out`."""

    def run(code, **environment):
        env = {**os.environ, "LD_LIBRARY_PATH": str(stubs), "STUB_MEMORY": str(1 << 26), **environment}
        env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), env.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", START + code], capture_output=True, text=True, env=env, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("@@")[2])

    return run


@stubbed
def test_every_variant_passes_the_op_check_through_the_cuda_device(host):
    result, calls, types = host("""
found = {}
for op in ("matmul", "matmul_add", "mlp_gelu"):
    op = registry.op(op)
    variant = registry.variant(op.name, "cublaslt")
    own = range(len(op.examples), len(op.examples) + len(variant.examples))
    report = check_variant(op, variant, registry, "cuda", examples=own, archs=("sm_80",))
    wrong = report.describe_failures() if report.failures else report.left_out
    found[report.name] = [wrong, sorted(report.checks), report.checks.get("gradient", [0])[0]]
out([found, lt.stub_calls(), lt.stub_types()])
""")
    assert types == 1 << 0 | 1 << 2 | 1 << 14, "products in f32, fp16 and bf16"
    assert set(result) == {"matmul.cublaslt", "matmul_add.cublaslt", "mlp_gelu.cublaslt"} and calls > 100
    for name, (wrong, checks, gradients) in result.items():
        assert not wrong, wrong
        assert {"forward", "gradient", "accumulate", "absent", "repeat"} <= set(checks) and gradients >= 8, name


MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
loss = "loss"
[dims]
B = 2
T = 4
V = 24
C = 16
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
fc     = { op = "matmul", in = "wte", features = "2*C" }
logits = { op = "matmul", in = "fc", features = "V", bias = false }
loss   = { op = "cross_entropy", in = ["logits", "targets"] }
"""


@stubbed
def test_a_training_step_with_it_has_the_loss_and_norm_of_the_cpu(host, tmp_path):
    (tmp_path / "two.toml").write_text(MODEL)
    ours, theirs, chosen = host(
        f"MODEL = {str(tmp_path / 'two.toml')!r}"
        + """

def step(**settings):
    settings = Settings(optimizer="adamw", capture=False, fusion={"head_loss": False}, **settings)
    engine = Engine(load_model(MODEL, registry), registry, settings)  # the stub of the driver captures launches alone
    engine.initialize(1)
    rows = np.random.default_rng(0).integers(0, 24, (2, 2, 5)).astype(np.int32)  # micro-batches: the second one adds
    record = engine.step([{"tokens": r[:, :-1], "targets": r[:, 1:]} for r in rows], 1e-2)
    choices = engine.report(engine.plan("train")).choices()
    return [record.loss, record.norm], {n: c.variant.name for n, c in choices.items()}

other, chosen = step(device="cuda", ops={"matmul": "cublaslt"})
plain, _ = step(device="cpu")
out([plain, other, chosen])
"""
    )
    assert chosen["fc"] == chosen["logits"] == "cublaslt"
    assert theirs == pytest.approx(ours, rel=1e-5) and theirs != ours


@stubbed
def test_it_is_prepared_once_and_called_once_while_a_graph_is_captured(host):
    before, calls, replays, stream, alive = host("""
device = registry.device("cuda").open()
prepared, t = [], product(device)
commands = device.captured(device.record(ours, "forward", t, None, device._zeros(4096)) + device.fill(t.bias, 1.0))
lt.stub_stream.restype = ctypes.c_uint64
device.prepare(commands)
before = lt.stub_calls()
device.run(commands)
calls = lt.stub_calls()
for _ in range(3):
    device.run(commands)
during = lt.stub_alive()
replays, stream = lt.stub_calls() - calls, lt.stub_stream()
device.synchronize()
del commands
import gc; gc.collect()
out([before, calls, replays, stream == int(device._stream), [during, lt.stub_alive()]])
""")
    assert (before, calls, replays, stream) == (0, 1, 0, True), "the graph has it: it is not called again"
    assert alive == [4, 0], "a product and three layouts, freed with the list"


@stubbed
@pytest.mark.parametrize(
    ("environment", "kind", "words"),
    [
        ({"STUB_LT_FAIL": "cublasLtMatmul:13"}, "BuildError", "cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED"),
        ({"STUB_LT_FAIL": "cublasLtCreate:1"}, "BuildError", "cublasLtCreate: status 1"),
        ({"STUB_LT_NONE": "1"}, "BuildError", "no kernel for <f32 tensor 16x24"),
    ],
)
def test_what_the_library_refuses_is_said_in_its_words(host, environment, kind, words):
    result = host(
        """
device = registry.device("cuda").open()
t = product(device)
out(failing(lambda: device.run(device.record(ours, "forward", t, None, device._zeros(4096)))))
""",
        **environment,
    )
    assert result is not None and result[0] == kind and words in result[1], result
    assert "matmul.cublaslt forward, a library's call (plugins/cublaslt/matmul.py:" in result[1]


@stubbed
def test_it_is_taken_when_it_is_named_and_refused_in_words_where_it_has_no_kernels(host):
    narrow, erf, unasked = host("""
device = registry.device("cuda").open()
t = product(device, x=(16, 5), weight=(24, 5))
t.K = 5
mlp = product(device)
mlp.approx = "erf"
dims = {"B": 2, "T": 4, "S": 4, "V": 21, "P": 64, "C": 16, "H": 2, "L": 1}
engine = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=dims, device="cuda"))
choices = engine.report(engine.plan("train")).choices().values()
out([ours.why_not(t), registry.variant("mlp_gelu", "cublaslt").why_not(mlp), [c.variant.name for c in choices]])
""")
    assert len(unasked) > 5 and "cublaslt" not in unasked
    assert narrow == "rows of 20 bytes: its kernels need multiples of 16" and "erf" in erf


def test_its_own_kernels_compile_for_every_architecture():
    check_compiles(HERE.parent / "sums.cu", ("column_sums", "add_sums", "residual"), "sm_75+")


def test_without_the_library_it_says_what_to_install(capfd):
    assert core_command(["ops", "matmul", "--device", "cuda", "--why", "--json"]) == 0
    rows = [r for r in json.loads(capfd.readouterr().out) if r["variant"] == "cublaslt"]
    assert {r["precision"] for r in rows} == {"f32", "bf16", "fp16"}
    if any(r["runs"] != "no" for r in rows):
        pytest.skip("cuBLASLt is here")
    assert all('pip install "corelm[cublaslt]"' in r["why_not"] for r in rows)


def test_the_simulator_does_not_pretend_to_have_it(capfd):
    assert core_command(["check", "matmul.cublaslt", "--device", "sim"]) == 3
    assert "it runs on a GPU" in capfd.readouterr().err
    assert core_command(["train", "configs/tiny.toml", "--device", "sim", "--set", "ops.matmul='cublaslt'"]) == 3
    assert "it runs on a GPU" in capfd.readouterr().err
