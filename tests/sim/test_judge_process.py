"""`core judge` as a command: files, limits, and the process in which a submission is judged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from judged import RIGHT, failure, kernel

from core.cli import run
from core.errors import BuildError, UsageError
from core.judge import judge
from core.judge.problem import load_problem
from core.judge.verdict import QUESTIONS, Judgement

FILE = '''
"""y = 2 * x."""
from core.judge import KernelLaunch, Problem

problem = Problem(
    truth=lambda x: 2 * x,
    inputs={"x": "n"},
    outputs={"y": "n"},
    launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128),
    sizes=[{"n": 1}, {"n": 259}],
)
'''


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def write(problem: str = FILE, text: str = RIGHT) -> list[str]:
        Path("scale.py").write_text(problem)
        Path("mine.cu").write_text(text)
        return ["judge", "scale.py", "mine.cu"]

    monkeypatch.chdir(tmp_path)
    return write


def test_the_command_prints_a_line_a_question_and_the_same_as_json(
    files: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    words = files(text=f"#include <stdio.h>\n{RIGHT}".replace("2 * x[i];", '2 * x[i]; if (i == 3) printf("{");'))
    assert run(words) == 0
    out = capfd.readouterr().out
    assert all(re.search(rf"^  {name} +(ok|-) ", out, re.M) for name in QUESTIONS) and "mine.cu passes scale.py" in out
    wrong = f"#include <stdio.h>\n{RIGHT}".replace("i < n) y", 'i <= n) printf("{"), y')
    named = FILE.replace("sizes=", 'kernel_file="mine.cu",\n    sizes=')
    assert run([*files(named, wrong)[:2], "--json"]) == 1
    done = capfd.readouterr()
    found = json.loads(done.out)
    assert (found["passed"], found["failed"][0], found["seed"]) == (False, "bounds", 0)
    assert found["submission"] == "mine.cu"
    assert [check["name"] for check in found["checks"]] == list(QUESTIONS)
    assert found["checks"][3]["hint"] == "" and "reads x[1]" in found["checks"][3]["message"]
    assert "mine.cu fails scale.py: bounds" in done.err


def test_a_submission_that_takes_too_long_or_too_much_costs_a_verdict(
    files: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORELM_SIM_LIMIT", str(10**12))
    spins = kernel('for (long long k = 0; k < (1ll << 40); k++) asm volatile(""); if (i < n) y[i] = 2 * x[i];')
    hoards = "__device__ char room[1ll << 36];\n" + kernel("if (i < n) { room[i] = 1; y[i] = 2 * x[i]; }")
    problem, submission = Path("scale.py"), Path("mine.cu")
    files(text=spins)
    found = judge(problem, submission, seconds=2)
    assert "did not end within 2 s" in failure(found)[1] and not found.passed
    files(text=hoards)
    found = judge(problem, submission, memory=1 << 30)
    assert "took more than 1.0 GiB of memory" in failure(found)[1] and not found.passed
    assert [check.name for check in found.checks] == list(QUESTIONS)
    files(problem=FILE.replace("lambda x: 2 * x", "lambda x: __import__('os').kill(__import__('os').getpid(), 11)"))
    assert "ended the process that judges it (SIGSEGV)" in failure(judge(problem, submission))[1]


def test_a_fault_of_the_judge_is_a_verdict_and_says_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.judge.confined import REPORT, Clerk

    class Link:
        sent: ClassVar = [("ready", None), ("doing", "races"), ("case", "n = 1"), ("broken", "IndexError: 5")]

        def poll(self, seconds: float) -> bool:
            return True

        def recv(self) -> Any:
            return self.sent.pop(0)

    found = Clerk(Link(), lambda kind, value: None, Judgement("p", "s")).listen(1, 1, None)  # type: ignore[arg-type]
    assert failure(found)[0] == "races" and "IndexError: 5" in failure(found)[1] and REPORT in failure(found)[1]


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = 1", "0 problems; expected one"),
        ("def f(:", "scale.py:1: invalid syntax"),
        ("1 / 0", "scale.py:1 raised ZeroDivisionError"),
        (FILE.replace("2 * x,", "2 * z,").replace("lambda x", "lambda z"), 'truth takes "z"'),
    ],
)
def test_a_problem_that_cannot_be_loaded_names_its_line(text: str, words: str, files: Callable[..., list[str]]) -> None:
    files(text)
    with pytest.raises(BuildError) as error:
        load_problem(Path("scale.py"))
    assert words in str(error.value)


def test_a_truth_of_another_shape_is_the_hosts_error_and_no_verdict(
    files: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(files(FILE.replace("2 * x,", "x[1:],"))) == 3
    err = capfd.readouterr().err
    assert "truth returns float64 of shape (0,)" in err and "Traceback" not in err


def test_files_that_are_not_there_are_usage_errors(files: Callable[..., list[str]]) -> None:
    files()
    for path in ("absent.py", "mine.cu"):
        with pytest.raises(UsageError):
            load_problem(Path(path))
    with pytest.raises(UsageError):
        judge(Path("scale.py"), Path("absent.cu"))
    with pytest.raises(UsageError, match="scale.py names no kernel's file"):
        load_problem(Path("scale.py")).submission_beside(Path("scale.py"))


@pytest.mark.parametrize("numbers", [{"seed": -1}, {"seconds": 0}, {"memory": 0}])
def test_numbers_out_of_range_are_usage_errors(numbers: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(numbers))}={next(iter(numbers.values()))}"):
        judge(Path("scale.py"), Path("mine.cu"), **numbers)
