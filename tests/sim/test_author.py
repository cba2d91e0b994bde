"""The mistakes that authors of ops and kernels make, one by one: what the check says names the place and what to do.

Each takes the files of `core new op wave`, makes one mistake, and holds the message to what an author needs: the op
and the variant, the file and the line, the tensor, the way out.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import core.cli as cli
import core.sim
from core.errors import CheckFailed, CoreError
from core.kernels.nvrtc import Kernel, compile_cubin
from core.testing import check_op

KERNEL = "    if (i >= n) return;\n    y[i]"  # where the forward kernel writes
HEAVY = """    if (i >= n) return;
    float many[64], sum = 0;
#pragma unroll
    for (int k = 0; k < 64; k++) many[k] = x[(i + k) % n];
#pragma unroll
    for (int k = 0; k < 64; k++) sum += many[k] * many[63 - k] * (sum + many[k * 7 % 64]);
    if (sum == 1) y[i] = 3;
    y[i]"""
STALE = """    __shared__ float tile[128];
    tile[threadIdx.x] = x[i];
    float left = threadIdx.x ? tile[threadIdx.x - 1] : 0;
    y[i] = left;
    y[i]"""


BIG = """    __shared__ float room[16384];
    if (i < n) room[threadIdx.x * 128 % 16384] = x[i];
    __syncthreads();
    if (i >= n) return;
    if (room[0] == 12345) y[i] = room[1];
    y[i]"""
BRANCH = """    if (i >= n) return;
    if (threadIdx.x < 64)
        __syncthreads(); // not all threads come here
    y[i]"""


@dataclass(frozen=True)
class Mistake:
    """`old` in the file of that kind becomes `new`; `line` is a piece of the line that the message has to name.

    check: of the report, "" where the plugin does not even load.
    """

    kind: str
    old: str
    new: str
    check: str
    says: tuple[str, ...]
    line: str = ""


MISTAKES = {
    # the schema
    "an output of a size that nobody knows": Mistake(
        "py", '"y": "... C"', '"y": "... D"', "schema", ("output 'y'", '"D" is not known'), 'wave = Op('
    ),
    "a parameter with leading dims": Mistake(
        "py", 'Param("C"', 'Param("... C"', "", ('param "weight" has "..."', 'plugin "wave"')
    ),
    "an example of an input that is not there": Mistake(
        "py", '{"x": (3, 131)}', '{"z": (3, 131)}', "schema", ('no input or attr "z"', "it has: x"), "wave = Op("
    ),
    "a field misspelt": Mistake("py", "can_add", "can_ad", "", ('did you mean "can_add"?',), "class WaveReference"),
    # the reference
    "a reference's gradient without a term": Mistake(
        "py", "(1 + t.x * (1 - s))", "(1 + t.x)", "gradient", ("wave.reference", "dx is not the derivative of forward")
    ),
    "a reference's gradient of a wrong shape": Mistake(
        "py", ".reshape(-1, t.C).sum(0))", ".sum(0))", "forward", ("ValueError", "dweight has the shape (64,)"),
        't.add("dweight"'
    ),
    "a reference that replaces its output": Mistake(
        "py", "t.y[...] = ", "t.y = ", "written", ("wave.reference", "y: 1792 of 1792 elements not written")
    ),
    # the launchers
    "a bare int": Mistake(
        "py", "u64(n), i32(t.C), grid", "n, i32(t.C), grid", "forward",
        ("wave.naive forward", "launch('forward'", "argument 4 is the bare int", "write i32("), 'launch("forward"',
    ),
    "a flag that has no type": Mistake(
        "py", "i32(t.add_dx)", "t.add_dx", "forward", ("argument 7 is False", "write i32("), 'launch("dx"'
    ),
    "an argument too few": Mistake(
        "py", "u64(n), i32(t.C), grid", "u64(n), grid", "forward",
        ("has 4 arguments; the kernel takes 5", "const elem* weight"), 'launch("forward"',
    ),
    "tensors in the wrong order": Mistake(
        "py", "t.y, t.x, t.weight, u64(n)", "t.y, t.x, u64(n), t.weight", "forward",
        ("argument 3 is a scalar of uint64; the kernel takes `const elem* weight`",), 'launch("forward"',
    ),
    "a kernel's name misspelt": Mistake(
        "py", 'launch("forward"', 'launch("forwrd"', "forward",
        ("wave.naive", 'no kernel "forwrd" in', 'did you mean "forward"?', 'extern "C" kernels: dweight, dx, forward'),
        'launch("forwrd"',
    ),
    "a NumPy array": Mistake(
        "py", '"forward", t.y, t.x', '"forward", t.y, np.zeros(3)', "forward", ("argument 2 is a NumPy array",),
        'launch("forward"',
    ),
    "a tensor that backward did not ask for": Mistake(
        "py", '"naive"\n    reads = ("x", "weight")', '"naive"\n    reads = ("x",)', "reads",
        ("t has no 'weight' here", "the variant's `reads`"), "arguments = (t.dx",
    ),
    "a grid that forgets the rest": Mistake(
        "py", "grid=cdiv(n, 128), block=128)\n\n", "grid=n // 128 or 1, block=128)\n\n", "written",
        ("y: 9 of 393 elements not written, the first at [2, 122]", "example x=(3, 131)"),
    ),
    "a gradient that is forgotten": Mistake(
        "py", "if t.dweight is not None", "if False", "written", ("dweight: 64 of 64 elements not written",)
    ),
    # the kernels
    "a kernel that does not compile": Mistake(
        "cu", "float s = step(x[i]);", "float s = stepp(x[i]);", "forward",
        ("wave.naive", 'identifier "stepp" is undefined', "float s = stepp(x[i]);"), "stepp",
    ),
    "a kernel past its end": Mistake(
        "cu", KERNEL, "    y[i]", "forward",
        ("wave.naive forward", "thread 9 of block 3 reads x[393], and x has 393 elements (tensor x, f32 (3, 131))"),
        "y[i] =",
    ),
    "a kernel that misses a barrier": Mistake(
        "cu", KERNEL, STALE, "forward",
        ("race", "wave.naive forward", "__syncthreads() where other warps take part"), "float left",
    ),
    "a kernel that overwrites where it should add": Mistake(
        "cu", "(add ? float(dx[i]) : 0) + ", "", "accumulate", ("dx (adding to dx)",)
    ),
    "a kernel with a wrong gradient": Mistake(
        "cu", "(1 + x[i] * (1 - s))", "(1 - x[i] * (1 - s))", "gradient",
        ("wave.naive", "dx: relative error", "worst at"),
    ),
    "a loop without an end": Mistake(
        "cu", KERNEL, "    if (i >= n) return;\n    for (int k = 0; k < n; k += x[k] > 1e9f) y[i] = x[k];\n    y[i]",
        "forward", ("wave.naive forward", "still looping: a thread block has taken 5,000 branches"), "for (int k = 0;",
    ),
    "a kernel that writes to its input": Mistake(
        "cu", KERNEL, "    if (i >= n) return;\n    ((elem*)x)[i] = 0.f;\n    y[i]", "unchanged",
        ("changed a read-only tensor: x",),
    ),
    "shared memory beyond what may be declared": Mistake(
        "cu", KERNEL, BIG, "forward",
        ("wave.naive forward", "65536 bytes of __shared__ arrays; at most 49152", "extern __shared__", "smem=bytes"),
    ),
    "a barrier that some threads do not come to": Mistake(
        "cu", KERNEL, BRANCH, "forward",
        ("wave.naive forward", "a branch that thread 64 of block 0 did not take", "`if (threadIdx.x < 64)`"),
        "__syncthreads(); //",
    ),
    "a null pointer": Mistake(
        "py", "t.x, t.weight, u64(n)", "t.x, None, u64(n)", "forward", ("a null pointer", "kernel forward")
    ),
}  # fmt: skip
# found by compiling for architectures, which takes a while: one of them
SPILLS = Mistake(
    "cu", KERNEL, HEAVY, "compile",
    ("wave.cu: forward for sm_", "spills ", "bytes a thread, at 32 registers", "hint: hold fewer values"),
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("written") / "wave"
    assert cli.run(["new", "op", "wave", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def report(written, tmp_path, monkeypatch):
    """Make a mistake and check: (the message, the line that it is in)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_PLUGINS", "")
    monkeypatch.setenv("CORELM_SIM_LIMIT", "5000")

    def check(mistake, also=()):
        shutil.copytree(written, "wave")
        file = Path(f"wave/wave.{mistake.kind}")
        text = file.read_text("utf-8")
        for old, new in ((mistake.old, mistake.new), *also):
            assert old in text
            text = text.replace(old, new, 1)
        file.write_text(text, "utf-8")
        with pytest.raises(CoreError) as error:
            check_op("wave", plugins=["wave"])
        assert isinstance(error.value, CheckFailed) == bool(mistake.check)
        return str(error.value), text

    return check


def held(message, text, mistake):
    assert not [said for said in mistake.says if said not in message], message
    if mistake.check:
        assert re.search(rf"^  {mistake.check}: ", message, re.M), message
    if mistake.line:
        number = text[: text.index(mistake.line)].count("\n") + 1
        assert re.search(rf"\bwave\.{mistake.kind}[:(]{number}\b", message), message
    assert "node check" not in message, "an author knows of no node"
    assert "/core/testing/" not in message and "/core/device/" not in message, "a place in the core helps no author"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # garbage of runs that failed
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=[name.replace(" ", "-") for name in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_the_way_out(mistake, report):
    message, text = report(mistake)
    held(message, text, mistake)
    assert len(message.splitlines()) < 60


def test_spills_are_told_with_file_kernel_and_architecture(report, monkeypatch):
    monkeypatch.setattr("core.testing.compiles.architectures_of", lambda declared: ("sm_75", "sm_90a"))
    bounds = ("__global__ void forward", "__global__ void __launch_bounds__(1024, 2) forward")
    message, text = report(SPILLS, [bounds])
    held(message, text, SPILLS)


def test_a_mistake_below_the_prelude_names_the_authors_line_and_no_path():
    source = """extern "C" __global__ void kernel(elem* y, const elem* x) {
    y[threadIdx.x] = elem(float(x[threadIdx.x + 99]) * 2);
}"""
    zeros = np.zeros(32, np.uint16)
    with pytest.raises(CoreError) as error:
        core.sim.run(source, "kernel", 1, 32, [zeros.copy(), zeros], defines={"ELEM": "bf16"}, prelude=True)
    text = str(error.value)
    assert re.search(r"kernel kernel, prelude\.cuh:\d+ `.*`, inlined at kernel\.cu:2 `y\[threadIdx\.x\] = ", text)
    assert text.endswith("thread 0 of block 0 reads x[99], and x has 32 elements")


def test_too_much_declared_shared_memory_is_told_in_words_where_kernels_are_compiled_for_a_gpu():
    source = (
        'extern "C" __global__ void kernel(float* y) { __shared__ float s[16384]; s[threadIdx.x] = 1; y[0] = s[1]; }'
    )
    with pytest.raises(CoreError) as error:
        compile_cubin(Kernel(Path("wave.cu"), "kernel", text=source), "sm_80")
    assert "wave.cu" in str(error.value)
    assert "65536 bytes of __shared__ arrays, at most 49152: more is dynamic" in error.value.hint


def test_one_mistake_is_told_once(report):
    """It comes up in every sub-check, dtype and example; an author reads it once."""
    message, _ = report(MISTAKES["a bare int"])
    assert message.count("is the bare int") == 1 and "more like those above" in message
