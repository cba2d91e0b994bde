"""Puzzles: one finding a verdict, of the first stage that fails; limits of time; proofs that fail where they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BuildError
from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import FunctionCase, FunctionTask, OpTask, Puzzle, PuzzleVerdict, WrongAnswer, grade, prove

HEAD = 'extern "C" __global__ void twice(float* y, const float* x, int n) {\n'
INDEX = "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
SOLUTION = f"{HEAD}{INDEX}    if (i < n) y[i] = 2 * x[i];\n}}\n"
TWICE = KernelTask(
    lambda x: 2 * x,
    inputs={"x": "n"},
    outputs={"y": "n"},
    launches=KernelLaunch("twice", "y x n", grid="cdiv(n, 64)", block=64),
    cases=[{"n": 3}, {"n": 70}, KernelCase({"n": 128}, "many", budget={"sectors": 64, "requests": 8})],
    without={"cvt.rn.f16": "no halves"},
)


def verdict_on(task: Any, text: str, tmp_path: Path) -> PuzzleVerdict:
    path = tmp_path / f"answer{task.suffix}"
    path.write_text(text, "utf-8")
    verdict: PuzzleVerdict = task.verdict(path)
    return verdict


# (text of the kernel, stage, kind, words of the message): each answer also has faults of later stages
KERNELS = [
    (SOLUTION, "", "", ""),
    (SOLUTION.replace("2 * x[i];", "2 * x[i]"), "compiles", "compile", "answer.cu(4)"),
    (SOLUTION.replace("int n", "float n"), "compiles", "compile", "n"),
    (SOLUTION.replace("2 * x[i]", "__half2float(__float2half(x[i]))").replace(HEAD, f"#include <cuda_fp16.h>\n{HEAD}"),
     "compiles", "", ""),
    (f"{HEAD}{INDEX}    y[i] = 3 * x[i];\n}}\n", "runs", "out of bounds", "x[3], and x has 3 elements"),
    (f"{HEAD}    int i = threadIdx.x;\n    if (i < n) y[i] = 3 * x[i];\n}}\n", "runs", "race", "one owner"),
    (f"{HEAD}{INDEX}    if (i < 64 && i < n) y[i] = 3 * x[i];\n}}\n", "written", "not written", "y[64] is not written"),
    (SOLUTION.replace("2 * x", "3 * x"), "right", "wrong", "y[0] is"),
    (SOLUTION.replace("y[i] =", "y[i] +="), "right", "wrong", "y[0] is nan"),
    (SOLUTION.replace("y[i]", "((float*)x)[i] = y[i]"), "right", "input changed", "changed x"),
    (f"{HEAD}{INDEX}    if (i < n) {{ y[i] = x[i]; y[i] = 2 * *(volatile const float*)(x + i); }}\n}}\n",
     "cheap", "requests", "it takes 16"),
    (f"{HEAD}    while (n > 0) __syncthreads();\n}}\n", "runs", "endless", "10,000 branches"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "stage", "kind", "words"), KERNELS, ids=map(str, range(len(KERNELS))))
def test_a_kernel_has_one_finding_of_the_first_stage_that_fails(
    text: str, stage: str, kind: str, words: str, tmp_path: Path
) -> None:
    verdict = verdict_on(TWICE, text, tmp_path)
    assert (verdict.stage, verdict.kind or kind) == (stage, kind or verdict.kind), verdict.text
    assert words in verdict.message and "kernel twice" not in verdict.message and str(tmp_path) not in verdict.text


def test_bits_that_depend_on_the_order_of_threads_are_not_right(tmp_path: Path) -> None:
    task = KernelTask(
        lambda x: np.array([x.sum()]), inputs={"x": "n"}, outputs={"y": "1"}, zeroed=["y"],
        launches=KernelLaunch("total", "y x n", grid=2, block=32),
        cases=[KernelCase({"n": 64}, contents={"x": np.sin(np.arange(64)) * 10.0 ** (np.arange(64) % 7)})],
    )  # fmt: skip
    text = 'extern "C" __global__ void total(float* y, const float* x, int n) {\n'
    verdict = verdict_on(task, f"{text}{INDEX}    if (i < n) atomicAdd(y, x[i]);\n}}\n", tmp_path)
    assert verdict.text.startswith("right: order: ")


def slope(x: Any) -> Any:
    return {"value": 2 * x, "halves": (x / 2, x / 2)}


FUNCTION = FunctionTask(
    "slope", slope, cases=[{"x": 3.0}, FunctionCase(lambda rng: {"x": rng.standard_normal(4)}, "four", {"lines": 2})]
)
RIGHT = 'def slope(x):\n    return {"value": 2 * x, "halves": (x / 2, x / 2)}\n'
FUNCTIONS = [
    (RIGHT, "", "", ""),
    (RIGHT.replace(":\n", "\n"), "compiles", "syntax", "answer.py:1"),
    (RIGHT.replace("slope", "slop"), "compiles", "missing", "no function slope"),
    (RIGHT.replace("(x):", "(y):"), "compiles", "missing", "other parameters than x"),
    (RIGHT.replace("2 * x", "2 / 0"), "runs", "ZeroDivisionError", "answer.py:2 `return"),
    (RIGHT.replace("return ", "z = "), "written", "not written", 'slope["value"] is None'),
    (RIGHT.replace("2 * x", "3 * x"), "right", "wrong", 'slope["value"] is 9, and should be 6'),
    (RIGHT.replace("2 * x", "[x, x]"), "right", "shape", "(2,)"),
    (RIGHT.replace("return", "x += 1\n    return").replace("x,", "x - 2,").replace("x /", "(x - 1) /"), "right",
     "input changed", "changed its argument x"),
    (RIGHT.replace("return", "for i in range(3): x\n    return"), "cheap", "lines", "2 are enough"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "stage", "kind", "words"), FUNCTIONS, ids=[f"{k[1]}-{k[2]}" for k in FUNCTIONS])
def test_a_function_has_one_finding_of_the_first_stage_that_fails(
    text: str, stage: str, kind: str, words: str, tmp_path: Path
) -> None:
    verdict = verdict_on(FUNCTION, text, tmp_path)
    assert (verdict.stage, verdict.kind) == (stage, kind), verdict.text
    assert words in verdict.message


OP = """
import numpy as np
from core import Op, Reference

mine = Op("mine", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 5)}, {"x": (2, 1030)}])

class MineReference(Reference):
    op, reads = "mine", ("x",)

    def forward(self, t):
        t.y[...] = t.x * t.x

    def backward(self, t):
        t.add("dx", 2 * t.x * t.dy)

def core_ops():
    return [mine]

def core_variants():
    return [MineReference]
"""


def test_an_op_is_graded_by_the_check_and_its_forward_by_another_op(tmp_path: Path) -> None:
    """A forward that is wrong, with the backward that belongs to it, passes every derivative: `against` refuses it."""
    truth = tmp_path / "truth.py"
    truth.write_text(OP.replace("mine", "right").replace("Mine", "Right"), "utf-8")
    task = OpTask("mine", against="right.reference", plugins=[truth])
    answers = {
        "solution": (OP, ""),
        "half of it": (OP.replace("= t.x * t.x", "= t.x * t.x / 2").replace("2 * t.x * t.dy", "t.x * t.dy"), "right"),
        "wrong backward": (OP.replace("2 * t.x * t.dy", "t.x * t.dy"), "right"),
        "hole": (OP.replace('t.add("dx", 2 * t.x * t.dy)', "..."), "written"),
        "right at toy sizes": (OP.replace("2 * t.x", "(2 + (t.C > 1000)) * t.x"), "right"),
        "raises": (OP.replace("2 * t.x * t.dy", "t.z"), "runs"),
        "no op": (OP.replace('"mine"', '"other"'), "compiles"),
    }
    for name, (text, stage) in answers.items():
        (tmp_path / name).mkdir()
        assert verdict_on(task, text, tmp_path / name).stage == stage, name
    (tmp_path / "alone").mkdir()
    assert verdict_on(OpTask("mine"), answers["half of it"][0], tmp_path / "alone").accepted


# --- a puzzle ---------------------------------------------------------------------------------------------------------

WRONG = {
    "three": WrongAnswer("wrong", ("2 * x", "3 * x")),
    "four": WrongAnswer("wrong", ("2 * x", "4 * x")),
    "none": WrongAnswer("not written", ("return", "_ =")),
}
ANSWER = "# twice\ndef twice(x):\n    #[ what is the double?\n    return 2 * x\n    #]\n"


def puzzle(**changes: Any) -> Puzzle:
    task = FunctionTask("twice", lambda x: 2 * x, cases=[{"x": 1.0}])
    return Puzzle(**{"title": "Twice", "task": task, "hints": [("wrong", "Add x to it?")], "wrong": WRONG, **changes})


def test_a_finding_without_a_hint_of_its_own_has_a_usual_one() -> None:
    verdict = PuzzleVerdict("compiles", "compile", 'expected a ";"')
    assert "names a line" in puzzle().hint_for(verdict)
    assert puzzle(hints=[("compile", "own")]).hint_for(verdict) == "own"
    assert "one owner" in puzzle().hint_for(PuzzleVerdict("runs", "race", ""))
    unknown = PuzzleVerdict("runs", "forward", "raised NameError: name 'x' is not defined")
    assert "is it one of t's" in puzzle().hint_for(unknown)
    line = PuzzleVerdict("compiles", "syntax", "mine.py:3 `the wrong line`: unindent does not match")
    assert "in one column" in puzzle().hint_for(line)  # though the puzzle's own pattern, "wrong", fits the line
    assert puzzle().hint_for(PuzzleVerdict("runs", "memory", "")) == ""


def test_hole_and_solution_come_from_one_file() -> None:
    one = puzzle()
    assert one.solution(ANSWER) == "# twice\ndef twice(x):\n    return 2 * x\n"
    assert one.hole(ANSWER) == "# twice\ndef twice(x):\n    ...  # YOUR TURN: what is the double?\n"
    assert puzzle(start="three").hole(ANSWER) == "# twice\ndef twice(x):\n    return 3 * x\n"
    kernel = SOLUTION.replace("    if", "    //[ which?\n    if").replace(";\n}", ";\n    //]\n}")
    assert puzzle(task=TWICE).solution(kernel) == SOLUTION
    assert puzzle(task=TWICE).hole(kernel) == f"{HEAD}{INDEX}    // YOUR TURN: which?\n}}\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: puzzle(wrong=dict(list(WRONG.items())[:2])), "2 wrong answers; expected 3"),
        (lambda: puzzle(start="five"), '"five" is not a wrong answer'),
        (lambda: puzzle(hints=[("(", "?")]), "the pattern '('"),
        (lambda: WRONG["three"].applied("x", "three"), 'wrong answer "three": the solution has no text'),
        (lambda: KernelTask(lambda: [0], cases=[KernelCase({"n": 1}, budget={"sector": 1})], outputs={"y": "n"},
                            launches=KernelLaunch("k", "y")), 'did you mean "sectors"'),
        (lambda: FunctionTask("f", len, cases=[FunctionCase({}, budget={"calls": 1})]), '"calls" for a function'),
    ],
)  # fmt: skip
def test_a_puzzle_that_does_not_fit_together_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(BuildError) as raised:
        make()
    assert words in str(raised.value)


FILE = """
from core.testing.puzzle import FunctionTask, Puzzle, WrongAnswer
PUZZLE = Puzzle("Twice", FunctionTask("twice", lambda x: 2 * x, cases=[{{"x": 1.0}}]), hints=[{hint}], wrong={{
    "three": WrongAnswer("{finding}", ("2 * x", "{three}")), "four": WrongAnswer("wrong", ("2 * x", "4 * x")),
    "none": WrongAnswer("not written", ("return", "_ =")),
}})
"""


def written(folder: Path, **changes: str) -> Path:
    values = {"hint": '(".", "Add x?")', "finding": "wrong", "three": "3 * x"} | changes
    (folder / "x1.py").write_text(FILE.format(**values), "utf-8")
    (folder / "x1_answer.py").write_text(ANSWER, "utf-8")
    return folder / "x1.py"


@pytest.mark.parametrize(
    ("changes", "answer", "fault"),
    [
        ({}, "", ""),
        ({"three": "x + x"}, "three", "accepted"),
        ({"finding": "race"}, "three", "the finding is not 'race'"),
        ({"hint": '("not written", "Add?")'}, "three", "no hint for this finding"),
        ({"hint": '(".", "Write: return 2 * x")'}, "(hints)", "a hint contains the solution's line `return 2 * x`"),
    ],
)
def test_a_proof_names_the_promise_that_is_broken(
    changes: dict[str, str], answer: str, fault: str, tmp_path: Path
) -> None:
    broken = {p.answer: p.fault for p in prove(written(tmp_path, **changes), here=True) if not p.holds}
    assert broken.get(answer, "") == fault and set(broken) <= {answer, "four"}


def test_an_answer_that_never_ends_or_dies_costs_its_process_and_gets_a_verdict(tmp_path: Path) -> None:
    path, answer = written(tmp_path), tmp_path / "mine.py"

    def graded(body: str, **limits: Any) -> PuzzleVerdict:
        answer.write_text(f"import os\ndef twice(x):\n    {body}\n    return 2 * x\n", "utf-8")
        return grade(path, answer, **limits)

    right = graded("print('here', x)")
    assert right.accepted and right.printed == "here 1.0\n"
    endless = graded("while True: pass", seconds=0.3)
    assert endless.text.startswith("runs: endless: the answer still runs after 0.3 s\nin x = 1.0")
    assert "exit code 3" in graded("os._exit(3)").message
    assert "took more than" in graded("y = bytearray(1 << 40)", memory=1 << 30).message
