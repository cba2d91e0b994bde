"""`core sim`: a kernel by its command line, and the commands of docs/simulator.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from core import cli

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text("utf-8")


def test_the_kernel_of_the_page_runs_by_its_commands_and_its_python(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = re.findall(r"^```cuda\n(.*?)^```$", PAGE, re.M | re.S)
    Path("scaled.cu").write_text(source)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    for line in commands.splitlines():
        assert cli.run(shlex.split(line)[1:]) == 0, line
    assert np.load("y.npy").tolist() == [10] * 4
    (python,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec(python, {})
    assert "'add<2>(float*, float const*, int, float)'" in capsys.readouterr().out


SCALED = """
__constant__ float scale = 2;
__device__ int calls;
template <int N> __global__ void add(float* y, const float* x, int n, float a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = N * x[i] * scale + a;
    if (i == 0) calls++;
}
__global__ void whole(int* y) { printf("%d\\n", y[0]++); }
"""


@pytest.fixture
def scaled(workdir: Path) -> Path:
    Path("scaled.cu").write_text(SCALED)
    np.save("x.npy", np.array([1, 2, 4], np.float32))
    Path("scaled.cu.npy").write_text(SCALED)
    return workdir


@pytest.mark.parametrize(
    ("words", "prints"),
    [
        ("", "whole(int*)\nadd<...>\n"),
        ("add<2> y=zeros:5 x=arange:5 5 0.5", "y  f32 5: 0.5 4.5 8.5 12.5 16.5\n"),
        ("add<2> y=zeros:4 y+1 3 0.5 --block 1 --grid 2", "y  f32 4: 0.5 0.5 0 0\n"),
        ("add<1> y=zeros:3 x.npy 3 f32:0 --set scale=f32:10 --get calls", "y  f32 3: 10 20 40\ncalls  u32 1: 1\n"),
        ("add<1> y=ones:3:bf16 null 0 0 --strict", "no array changed\n"),
        ("add<1> y=zeros:2 ones:2 2 -1.5", "y  f32 2: 0.5 0.5\n"),
        ("whole randint:2 --seed 3 --block 1 --show 1", "81\narg0  i32 2: 82 ...\n"),
    ],
)
def test_core_sim_runs_a_kernel_with_the_arguments_of_its_command_line(
    scaled: Path, capsys: pytest.CaptureFixture[str], words: str, prints: str
) -> None:
    assert cli.run(["sim", "scaled.cu", *words.split()]) == 0
    assert capsys.readouterr().out == prints


def test_core_sim_writes_arrays_counts_and_json(scaled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sim", "scaled.cu", "add<3>", "y=zeros:2x2", "x=ones:4", "4", "1", "--out", ".", "--count"]) == 0
    assert np.load("y.npy").tolist() == [[7, 7], [7, 7]]
    assert re.search(r"^ +6 .* if \(i < n\) y\[i\] = N \* x\[i\]", capsys.readouterr().out, re.MULTILINE)
    assert cli.run(["sim", "scaled.cu", "add<3>", "y=zeros:1", "x=ones:4:f32", "1", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == {"y": {"dtype": "f32", "values": [7.0]}}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("add y=zeros:1", 3, '"add" is a template of scaled.cu'),
        ("adds<1> 1", 3, 'no kernel "adds<1>" in scaled.cu; did you mean "add"?'),
        ("add<1> zeros:1 one 3 1", 2, '"one" is not an argument of a kernel'),
        ("add<1> zeroes:1", 2, 'did you mean "zeros"'),
        ("add<1> zeros:1:f33", 2, 'did you mean "f32"'),
        ("add<1> zeros:1 zeros:1 3 1 --grid 4x4", 2, "expected one to three whole numbers"),
        ("add<1> y=zeros:1 x=ones:2 2 1", 4, "writes y[1], and y has 1 element"),
        ("add<1> u8:300 zeros:1 3 1", 2, "u8 does not hold 300"),
        ("add<1> zeros:1 scaled.cu.npy 1 1", 3, "scaled.cu.npy: no array of NumPy\n  hint: np.save"),
        ("add<1> zeros:1 zeros:1 1 1 --seed -1", 2, "-1 is not in the range x>=0"),
        ("add<1> zeros:1 zeros:1 1 1 --strict --executor native", 2, 'executor="native" does not go with strict'),
        ("add<1> zeros:1 zeros:1 1 1 --get call", 3, 'no variable "call" in scaled.cu; did you mean "calls"?'),
    ],
)
def test_core_sim_says_what_is_wrong(
    scaled: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, says: str
) -> None:
    assert cli.run(["sim", "scaled.cu", *words.split()]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.cu", "", "has no kernel; expected a __global__ function"),
        ("host.cu", "__device__ int f(int x) { return x; }", "has no kernel; expected a __global__ function"),
        ("head.ptx", ".version 8.0\n.target sm_90\n.address_size 64\n", "has no kernel"),
        ("text.ptx", "some text", "is not PTX: expected lines with .version and .target, got 'some text'"),
    ],
)
def test_a_file_without_a_kernel_is_an_error(
    name: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert cli.run(["sim", str(tmp_path / name)]) == 3
    done = capsys.readouterr()
    assert not done.out and name in done.err and words in done.err
