"""`core trace` counts what it says: kernels whose counts follow from arithmetic, and the figures of docs/kernels.md.

`python tests/sim/test_trace.py` writes those figures anew.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core import cli
from core.errors import UsageError
from core.sim.counting import flops_of
from core.sim.ptx.syntax import NOWHERE, Instruction

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/kernels.md"


def run(source, args, kernel="k", grid=1, block=32):
    return core.sim.run(source, kernel, grid, block, args, strict=False, count=True).counts


def counts_of(counted, line):
    """Of a line of the only file."""
    file = next(place.file for place in counted.lines if place.file)
    return counted.in_files([file])[file, line]


# --- global memory --------------------------------------------------------------------------------------------------

COPY = 'extern "C" __global__ void k(float* y, const float* x) { y[threadIdx.x] = x[INDEX]; }'


@pytest.mark.parametrize(
    "index, sectors, fewest",
    [
        ("threadIdx.x", 4, 4),  # 128 bytes in a row
        ("threadIdx.x + 1", 5, 4),  # the same, not on a sector's start
        ("31 - threadIdx.x", 4, 4),  # the order of lanes does not matter
        ("threadIdx.x * 2", 8, 4),
        ("threadIdx.x * 8", 32, 4),  # a sector for each lane
        ("threadIdx.x * 24", 32, 4),
        ("0", 1, 1),  # all lanes ask for the same
        ("threadIdx.x / 16", 1, 1),
    ],
)
def test_a_load_moves_the_sectors_that_its_lanes_touch(index, sectors, fewest):
    x, y = np.zeros(1024, np.float32), np.zeros(32, np.float32)
    total = run(COPY.replace("INDEX", index), [y, x]).total
    assert (total.requests, total.asked) == (2, 256)
    assert (total.sectors - 4, total.fewest - 4) == (sectors, fewest), "beside the store's four"


@pytest.mark.parametrize("kind, sectors", [("float", 4), ("float2", 8), ("float4", 16), ("unsigned char", 1)])
def test_wide_loads_are_one_request_of_more_sectors(kind, sectors):
    source = COPY.replace("INDEX", "threadIdx.x").replace("float*", f"{kind}*")
    total = run(source, [np.zeros(512, np.uint8), np.zeros(512, np.uint8)]).total
    assert (total.requests, total.sectors, total.coalescing) == (2, 2 * sectors, 1)


def test_memory_is_what_was_touched_however_often():
    source = """extern "C" __global__ void k(float* y, const float* x) {
        float sum = 0;
        for (int i = 0; i < 10; i++) sum += ((volatile const float*)x)[threadIdx.x];
        y[blockIdx.x * 32 + threadIdx.x] = sum;
    }"""
    found = run(source, [np.zeros(96, np.float32), np.zeros(32, np.float32)], grid=3)
    assert found.total.asked == 3 * 11 * 128
    assert found.memory == 128 + 3 * 128


# --- shared memory --------------------------------------------------------------------------------------------------

SHARED = """extern "C" __global__ void k(float* y) {
    __shared__ float s[2048];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = ((volatile float*)s)[INDEX];
}"""


@pytest.mark.parametrize(
    "index, conflicts",
    [
        ("threadIdx.x", 0),
        ("threadIdx.x * 2", 1),  # two lanes a bank
        ("threadIdx.x * 3", 0),  # odd strides reach every bank
        ("threadIdx.x * 32", 31),  # all in one bank
        ("threadIdx.x * 33", 0),  # what padding is for
        ("5", 0),  # one word for all
        ("threadIdx.x / 2 * 32", 15),  # a word asked for twice counts once
    ],
)
def test_a_shared_access_takes_a_pass_for_each_word_of_its_busiest_bank(index, conflicts):
    source = SHARED.replace("INDEX", index)
    total = run(source, [np.zeros(32, np.float32)]).total
    assert (total.shared, total.shared_bytes, total.conflicts) == (2, 256, conflicts)


@pytest.mark.parametrize(
    "kind, stride, conflicts", [("float2", 1, 0), ("float2", 2, 2), ("float4", 1, 0), ("float4", 2, 4)]
)
def test_wide_shared_accesses_are_served_in_halves_and_quarters_of_a_warp(kind, stride, conflicts):
    source = """extern "C" __global__ void k(float* y, const TYPE* x) {
        __shared__ TYPE s[64];
        s[threadIdx.x * STRIDE] = x[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = *(float*)&s[0];
    }"""
    source = source.replace("TYPE", kind).replace("STRIDE", str(stride))
    total = run(source, [np.zeros(32, np.float32), np.zeros(128, np.float32)]).total
    assert total.conflicts == conflicts


# --- atomics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index, contended",
    [
        ("0", 31),
        ("threadIdx.x", 0),
        ("threadIdx.x / 2", 1),
        ("threadIdx.x % 4", 7),
        ("threadIdx.x < 20 ? 0 : 40 - 1", 19),
    ],
)
@pytest.mark.parametrize("memory", ["y", "s"])
def test_atomics_of_a_warp_at_one_address_take_turns(memory, index, contended):
    source = f"""extern "C" __global__ void k(unsigned* y) {{
        __shared__ unsigned s[64];
        s[threadIdx.x] = s[threadIdx.x + 32] = 0;
        __syncthreads();
        atomicAdd(&{memory}[{index}], threadIdx.x);
        __syncthreads();
        y[threadIdx.x + 64] = s[threadIdx.x];
    }}"""
    counted = run(source, [np.zeros(96, np.uint32)])
    assert (counted.total.atomics, counted.total.contended) == (1, contended)
    line = counts_of(counted, 5)
    assert (line.atomics, line.contended) == (1, contended)


# --- instructions ---------------------------------------------------------------------------------------------------

BRANCH = """extern "C" __global__ void k(float* y, int from) {
    float v = 1;
    if (threadIdx.x % 32 < from) {
        for (int i = 0; i < 100; i++) v = ((volatile float*)y)[i];
    }
    y[blockIdx.x * blockDim.x + threadIdx.x + 128] = v;
}"""


@pytest.mark.parametrize("lanes", [32, 16, 1])
def test_lanes_that_wait_at_a_branch_are_not_active(lanes):
    counted = run(BRANCH, [np.zeros(256, np.float32), np.int32(lanes)], block=64)
    line = counts_of(counted, 4)
    assert line.requests == 2 * 100 and line.active == pytest.approx(lanes / 32)
    assert run(BRANCH, [np.zeros(256, np.float32), np.int32(0)], block=64).total.requests == 2


def test_warps_that_pass_a_branch_by_are_not_counted_in_it():
    source = BRANCH.replace("threadIdx.x % 32 < from", "threadIdx.x / 32 == from")
    counted = run(source, [np.zeros(512, np.float32), np.int32(2)], block=128, grid=3)
    line = counts_of(counted, 4)
    one = run(source, [np.zeros(512, np.float32), np.int32(0)], block=32)
    alone = counts_of(one, 4)
    assert line.active == 1 and (line.instructions, line.requests) == (3 * alone.instructions, 3 * 100)


def test_warps_are_counted_and_not_the_threads_that_fill_them():
    whole, half = (run(COPY.replace("INDEX", "threadIdx.x"), [np.zeros(64, np.float32)] * 2, block=b) for b in (32, 48))
    assert half.total.instructions == 2 * whole.total.instructions
    assert (whole.total.active, half.total.active) == (1, 0.75)


def test_a_large_launch_counts_as_many_times_as_it_has_thread_blocks():
    source = 'extern "C" __global__ void k(float* y) { y[blockIdx.x * 96 + threadIdx.x] = threadIdx.x; }'
    one, many = (run(source, [np.zeros(96 * n, np.float32)], grid=n, block=96) for n in (1, 1000))
    for name in ("instructions", "threads", "requests", "sectors", "asked"):
        assert getattr(many.total, name) == 1000 * getattr(one.total, name), name
    assert many.memory == 1000 * one.memory


@pytest.mark.parametrize("expression, flops", [("v + w", 1), ("v * w + v", 2), ("v / w", 1), ("-v", 0), ("v > w", 0)])
def test_floating_point_operations_are_counted(expression, flops):
    source = f'extern "C" __global__ void k(float* y, float v, float w) {{ y[threadIdx.x] = {expression}; }}'
    total = run(source, [np.zeros(32, np.float32), np.float32(2), np.float32(3)]).total
    assert total.flops == 32 * flops


@pytest.mark.parametrize(
    "opcode, threads, flops",
    [
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 32, 2 * 16 * 8 * 16),
        ("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16", 128, 2 * 64 * 128 * 16),
        ("fma.rn.f32x2", 1, 4),
        ("add.s32", 1, 0),
        ("cvt.rn.bf16.f32", 1, 0),
        ("ex2.approx.ftz.f32", 1, 1),
    ],
)
def test_tensor_cores_and_packed_values_count_in_full(opcode, threads, flops):
    ins = Instruction(opcode, (), None, False, NOWHERE, opcode, tuple(opcode.split(".")))
    assert threads * flops_of(ins) == flops


def test_counting_changes_no_bit_and_is_not_done_in_strict_mode():
    source, x = COPY.replace("INDEX", "threadIdx.x ^ 5"), np.random.default_rng(0).random(32, np.float32)
    a, b = np.zeros(32, np.float32), np.zeros(32, np.float32)
    run(source, [a, x])
    assert core.sim.run(source, "k", 1, 32, [b, x], strict=False).counts is None
    assert np.array_equal(a, b) and np.array_equal(a, x[np.arange(32) ^ 5])
    with pytest.raises(UsageError, match="strict"):
        core.sim.run(source, "k", 1, 32, [b, x], count=True)


# --- the command ----------------------------------------------------------------------------------------------------


def printed(capfd, *words):
    code = cli.run(["trace", *words])
    out, err = capfd.readouterr()
    assert code == 0, err
    return out


def test_sums_are_those_of_the_lines_and_the_formula(capfd):
    rows, C = 5, 96
    words = ("layernorm.naive", "layernorm.warp", f"--shape=x={rows},{C}", "--json")
    traces = json.loads(printed(capfd, *words))
    assert [t["variant"] for t in traces] == ["naive", "warp"]
    for found in traces:
        methods = [k["method"] for k in found["kernels"]]
        assert methods[0] == "forward" and set(methods[1:]) == {"backward"}
        for kernel in found["kernels"]:
            for name in ("instructions", "threads", "flops", "asked", "sectors", "conflicts"):
                assert kernel[name] == sum(line[name] for line in kernel["lines"]), name
            files = {line["file"] for line in kernel["lines"]}
            text = {file: (ROOT / file).read_text("utf-8").splitlines() for file in files}
            assert all(line["source"] == text[line["file"]][line["line"] - 1].rstrip() for line in kernel["lines"])
    forward = traces[1]["kernels"][0]
    # x three times, weight and bias once a row; y; mean and rstd
    assert forward["asked"] == 4 * (6 * rows * C + 2 * rows)
    assert forward["coalescing"] == 1.0


def test_the_table_fits_the_terminal_and_keeps_the_sources_indentation(capfd, monkeypatch):
    words = ("layernorm.warp", "--shape=x=3,96", "--direction=forward")
    text = (ROOT / "ops/cuda/layernorm.cu").read_text("utf-8").splitlines()
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        head, *rows = re.findall(r"^  +LINE.*?^ +sum[^\n]*", printed(capfd, *words), re.M | re.S)[0].splitlines()
        place = head.index("SOURCE")
        assert max(map(len, [head, *rows])) <= columns and columns - place >= 24
        for row in rows[:-1]:
            shown, line = row[place:], text[int(row.split()[0]) - 1].rstrip()
            assert shown == line or (shown.endswith("...") and len(row) == columns and line.startswith(shown[:-3]))
        assert any(row[place:].startswith("    ") for row in rows), "the file's own blanks"
        assert max(map(len, printed(capfd, *words, "--no-lines").splitlines())) <= columns
        assert ("FLOPS" in head) == (columns >= 100) and "CONTENDED" not in head and "CONFLICTS" not in head


def test_headings_fit_the_terminal_and_a_variant_of_few_rows_has_an_example(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("rmsnorm.onepass", "--direction=backward"), ("matmul.rows", "--direction=forward")):
        out = printed(capfd, *words)
        assert max(map(len, out.splitlines())) <= 80
        assert re.search(r"\(\S+\.py:\d+\)$", out, re.M)


def test_each_kernel_is_headed_by_its_place_and_each_line_has_its_share(capfd):
    out = printed(capfd, "embedding.naive", "--shape=ids=40", "--shape=rows=50", "--shape=cols=32")
    for place, name in re.findall(r"^  (ops/\S+)  (\w+)  (?:for|back)ward, grid", out, re.M):
        file, line = place.split(":")
        assert re.search(rf"\b{name}\(", (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1])
    for part in re.findall(r"^  +LINE.*?(?=^ +sum)", out, re.M | re.S):
        rows = [line.split() for line in part.splitlines()[1:]]
        assert 95 <= sum(int(row[2].rstrip("%")) for row in rows) <= 105
    assert "turns of contended atomics" not in out.partition("embedding backward")[0]


def test_the_fused_launcher_is_shown_and_not_added_to_backward(capfd):
    words = ("cross_entropy.fused", "--shape", "logits=2,64 targets=2", "--no-lines")
    out = printed(capfd, *words)
    kernels = dict(re.findall(r"^ +(block_\w+) +\S+ +\S+ +([\d,]+)", out, re.M))
    (backward,) = re.findall(r"cross_entropy backward.*?warp instructions +([\d,]+)", out, re.S)
    assert set(kernels) == {"block_forward", "block_dlogits", "block_both"} and backward == kernels["block_dlogits"]


def test_bf16_moves_half_the_bytes(capfd):
    words = ("gelu.vector", "--shape", "x=64,64", "--direction=forward", "--json")
    f32, bf16 = (json.loads(printed(capfd, *words, "--dtype", dtype))[0]["kernels"] for dtype in ("f32", "bf16"))
    assert (len(f32), f32[0]["moved"], bf16[0]["moved"]) == (1, 2 * 64 * 64 * 4, 2 * 64 * 64 * 2)


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["gelu"], 2, "gelu.naive gelu.vector"),
        (["gelu.vectr"], 3, "vector"),
        (["gelu.reference"], 2, "no kernels"),
        (["gelu.naive", "--shape", "x"], 2, "NAME=SIZES"),
        (["gelu.naive", "--shape", "x=0,4"], 2, "at least 1"),
        (["gelu.naive", "--shape", "xx=4"], 2, '"xx"'),
        (["matmul.naive", "--shape", "x=4,4"], 3, "features"),
        (["gelu.naive", "add.naive", "--shape", "x=4"], 2, "one op"),
        (["global_norm.naive", "--direction", "backward"], 2, "no kernel backward"),
        (["attention.online", "--shape", "qkv=1,2,1200", "--shape", "heads=2"], 3, "at most 128"),
    ],
)
def test_what_cannot_be_traced_says_why(capfd, words, code, message):
    assert cli.run(["trace", *words]) == code
    err = capfd.readouterr().err
    assert message in err and "Traceback" not in err


# --- the page -------------------------------------------------------------------------------------------------------

SHOWN = re.compile(r"^```sh\n(core trace [^\n]*(?:\\\n[^\n]*)*)\n```\n+```text\n(.*?)^```$", re.M | re.S)
VERSION = re.compile(r"(?<=made with NVRTC )\d+(?:\.\d+)*")
OTHER_COMPILER = 0.25  # how far an instruction count may be off under another NVRTC


def same(shown: str, got: str, tolerance: float) -> bool:
    words, others = shown.split(), got.split()
    return len(words) == len(others) and all(
        a == b or (_number(a) and _number(b) and abs(_value(a) - _value(b)) <= tolerance * max(_value(a), 1))
        for a, b in zip(words, others, strict=True)
    )


def _number(word: str) -> bool:
    return re.fullmatch(r"[\d,.]+%?", word) is not None


def _value(word: str) -> float:
    return float(word.replace(",", "").rstrip("%"))


def test_the_figures_of_the_page_are_what_the_commands_print(capfd, monkeypatch):
    from core.kernels.nvrtc_library import nvrtc_version

    monkeypatch.chdir(ROOT)
    text = PAGE.read_text("utf-8")
    (version,) = VERSION.findall(text)
    tolerance = 0.0 if nvrtc_version() == version else OTHER_COMPILER
    blocks = SHOWN.findall(text)
    assert len(blocks) == text.count("```sh\ncore trace") >= 5, "a command without its figures"
    for command, shown in blocks:
        out = printed(capfd, *shlex.split(command.replace("\\\n", " "))[2:]).rstrip() + "\n"
        for line, got in zip(shown.splitlines(), out.splitlines(), strict=True):
            assert same(line, got, tolerance), f"{command}\n{line}\n{got}\nsee the top of this file"


def test_the_page_quotes_the_sources(monkeypatch):
    """Every line of its C++ and Python is a line of a kernel's source or launcher, as it stands there."""
    files = [*(ROOT / "ops/cuda").glob("*.cu*"), *(ROOT / "ops/cuda").glob("*.py")]
    files += (ROOT / "core/kernels").rglob("*.cuh")
    lines = {line.strip() for path in files for line in path.read_text("utf-8").splitlines()}
    text = PAGE.read_text("utf-8")
    quoted = re.findall(r"^```(?:cuda|python)\n(?!import )(.*?)^```$", text, re.M | re.S)
    missing = [line for block in quoted for line in block.splitlines() if line.strip() not in {*lines, "...", ""}]
    assert quoted and not missing


def test_the_python_of_the_page_runs(capfd):
    (block,) = re.findall(r"^```python\n(import .*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    exec(compile(block, "docs/kernels.md", "exec"), {})
    out = capfd.readouterr().out
    assert out and all(word in PAGE.read_text("utf-8") for word in out.splitlines())


def test_every_kernel_and_variant_that_the_page_names_exists():
    text = PAGE.read_text("utf-8")
    sources = "".join(p.read_text("utf-8") for p in (ROOT / "ops/cuda").glob("*.cu"))
    kernels = set(re.findall(r"`((?:naive|warp|tiled|mma|online|flash|twopass|block|vector)_\w+)`", text))
    assert kernels and not [name for name in kernels if not re.search(rf"\b{name}\b", sources)]
    assert not [name for name in re.findall(r"`(ops/[\w/.]+)`", text) if not (ROOT / name).exists()]


def rewrite() -> None:
    """Put what the commands print today on the page."""
    import subprocess
    import sys

    from core.kernels.nvrtc_library import nvrtc_version

    def again(match: re.Match[str]) -> str:
        words = shlex.split(match[1].replace("\\\n", " "))[1:]
        done = subprocess.run([sys.executable, "-m", "core.cli", *words], cwd=ROOT, capture_output=True, check=True)
        return f"```sh\n{match[1]}\n```\n\n```text\n{done.stdout.decode().rstrip()}\n```"

    text = VERSION.sub(nvrtc_version(), SHOWN.sub(again, PAGE.read_text("utf-8")))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
