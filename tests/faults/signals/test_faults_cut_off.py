"""Long commands that a signal ends print their results until then, as text and as JSON, marked as incomplete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core import signals
from core.cli import check, data, judge, learn, run, sizes, trace
from core.judge.verdict import PASSED, SubVerdict
from core.measure.tune import Timed
from core.plan import TunedChoice
from core.testing import processes
from core.testing.model_sizes import SizesOutcome
from core.testing.proving import Proof
from core.testing.puzzle_types import PuzzleVerdict

ROOT = Path(__file__).resolve().parents[3]
posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
STUCK = """
import time
from pathlib import Path

from core import Op, Reference, Variant

square = Op("square", inputs={"x": "..."}, outputs={"y": "..."}, examples=[{"x": (3, 5)}])

class SquareReference(Reference):
    op, reads = "square", ("x",)

    def forward(self, t):
        t.y[...] = t.x * t.x

    def backward(self, t):
        t.add("dx", 2 * t.dy * t.x)

class SquareStuck(Variant):
    op, name, dtypes, reads = "square", "stuck", ("f32",), ("x",)

    def forward(self, t, launch):
        Path("stuck").touch()
        time.sleep(600)

def core_ops():
    return [square]

def core_variants():
    return [SquareReference, SquareStuck]
"""


@posix
@pytest.mark.parametrize(
    "as_json, number, count", [(True, signal.SIGINT, 1), (False, signal.SIGTERM, 1), (True, signal.SIGTERM, 2)]
)
def test_a_check_that_is_stuck_prints_its_results_at_its_deadline_and_at_a_second_signal(
    tmp_path: Path, as_json: bool, number: signal.Signals, count: int
) -> None:
    (tmp_path / "mine.py").write_text(STUCK)
    words = ["check", "square", "--plugin", "mine.py", "--no-time", "--jobs", "1", *(["--json"] if as_json else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CORELM_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "core.cli", *words], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    try:
        while not (tmp_path / "stuck").exists():
            assert process.poll() is None
            time.sleep(0.02)
        for _ in range(count):
            process.send_signal(number)
            time.sleep(0.2)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    if as_json:
        first, second = json.loads(said)
        assert (first["variant"], first["passed"], first["cut_off"]) == ("reference", True, "")
        assert (second["variant"], second["passed"], second["checks"]) == ("stuck", False, {})
        assert second["cut_off"] == f"ended by {number.name}"
    else:
        assert said.splitlines()[0].startswith("square.reference")
        assert said.endswith(f"1 of 1 variants passed, 1 not checked: ended by {number.name}\n")


class Pool:
    """A pool of processes in which one name never ends."""

    def submit(self, function: Callable[[str], Any], name: str) -> Future[Any]:
        result: Future[Any] = Future()
        if name != "gelu.blocked":
            result.set_result(function(name))
        return result


@contextmanager
def pool(*arguments: Any) -> Iterator[Pool]:
    yield Pool()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_check_that_is_ended_has_the_variants_that_were_done_before_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    monkeypatch.setattr(processes, "processes", pool)

    def status(self: Any, text: str) -> None:
        if "gelu.blocked, 2 of 3: waiting" in text:
            raise signals.Ended(signal.SIGINT)

    monkeypatch.setattr("core.train.display.Display.status", status)
    registry = check.load_registry(only=())
    monkeypatch.setattr(check, "load_registry", lambda plugins: registry)
    names = [("gelu", "reference"), ("gelu", "blocked"), ("add", "reference")]
    pairs = [(registry.op(op), registry.variant(op, variant)) for op, variant in names]
    monkeypatch.setattr(check, "chosen", lambda *arguments: pairs)
    assert run(["check", "--all", "--no-time", "--jobs", "2", *(["--json"] if as_json else [])]) == 130
    said = capsys.readouterr().out
    if as_json:
        rows = {f"{row['op']}.{row['variant']}": (row["passed"], row["cut_off"]) for row in json.loads(said)}
        assert rows == {
            "gelu.reference": (True, ""),
            "gelu.blocked": (False, "ended by SIGINT"),
            "add.reference": (True, ""),
        }
    else:
        assert "gelu.reference  (cpu" in said and "add.reference  (cpu" in said
        assert said.endswith("2 of 2 variants passed, 1 not checked: ended by SIGINT\n")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_the_processes_of_a_check_end_with_one_that_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("""
import os
from core.testing.processes import processes

if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        os._exit(0)
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "mine.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait(60)
    end = time.monotonic() + 20
    while runs(child):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            pytest.fail("it still runs")
        time.sleep(0.02)


def runs(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- other commands --------------------------------------------------------------------------------------------------


def once(value: Any) -> Callable[..., Any]:
    """A function that returns a value, and at its second call is ended by SIGTERM."""
    calls: list[Any] = []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise signals.Ended(signal.SIGTERM)
        return value

    return called


def cut_bench(patch: pytest.MonkeyPatch) -> list[str]:
    patch.setattr("core.testing.check.measure", once({"forward": 1.5}))
    return ["bench", "gelu", "--device", "cpu"]


def cut_trace(patch: pytest.MonkeyPatch) -> list[str]:
    registry = trace.load_registry(only=())
    op, variant = registry.op("gelu"), registry.variant("gelu", "naive")
    case = trace.case_for(op, variant, registry, (), "f32")
    patch.setattr(trace, "trace", once(trace.Trace("gelu", "naive", "f32", case, [])))
    return ["trace", "gelu.naive", "gelu.vector"]


def cut_tune(patch: pytest.MonkeyPatch) -> list[str]:
    def tuned(*arguments: Any) -> Iterator[Timed]:
        yield Timed("gelu f32", 4, TunedChoice("blocked", {}), 0.5, True)
        raise signals.Ended(signal.SIGTERM)

    patch.setattr("core.measure.tune.tune", tuned)
    return ["tune", str(ROOT / "configs" / "tiny.toml"), "--device", "cpu"]


def cut_sizes(patch: pytest.MonkeyPatch) -> list[str]:
    def checked(*arguments: Any) -> Iterator[tuple[int, SizesOutcome]]:
        yield 0, SizesOutcome({"forward": 1e-7}, {"C": 8})
        raise signals.Ended(signal.SIGTERM)

    patch.setattr(sizes, "outcomes", checked)
    return ["check", "gelu.blocked", "--shape", "x=4,8"]


def cut_prove(patch: pytest.MonkeyPatch) -> list[str]:
    def proved(*arguments: Any) -> Iterator[list[Proof]]:
        yield [Proof("one", "(solution)", PuzzleVerdict())]
        raise signals.Ended(signal.SIGTERM)

    patch.setattr(learn, "proved", proved)
    return ["learn", "prove", "one.py", "two.py"]


def cut_verify(patch: pytest.MonkeyPatch) -> list[str]:
    patch.setattr(data, "verify_one", once({"file": "README.md", "result": "verified", "error": None}))
    return ["data", "verify", str(ROOT / "README.md"), str(ROOT / "LICENSE")]


def cut_judge(patch: pytest.MonkeyPatch) -> list[str]:
    def judged(*arguments: Any, on_progress: Any, **named: Any) -> None:
        on_progress("check", SubVerdict("compiles", PASSED))
        raise signals.Ended(signal.SIGTERM)

    patch.setattr(judge, "judge", judged)
    return ["judge", "problem.py", "mine.cu"]


CUT: dict[Callable[..., Any], tuple[str, Callable[[Any], Any]]] = {
    # -> words of the text, and the results and reasons in the JSON
    cut_bench: ("not timed: gelu.blocked: ", lambda data: [(r["ms"], r["cut_off"]) for r in data]),
    cut_trace: ("not traced: gelu.vector: ", lambda data: [(r["variant"], r["cut_off"]) for r in data]),
    cut_tune: ("other candidates not timed: ", lambda data: (len(data["candidates"]), data["cut_off"])),
    cut_sizes: ("1 of 1 passed, 1 not checked: ", lambda data: [(r["passed"], r["cut_off"]) for r in data]),
    cut_prove: ("1 of 1 promises hold; not proved: two: ", lambda data: [(r["holds"], r["cut_off"]) for r in data]),
    cut_verify: ("not verified: ", lambda data: [(r["result"], r["cut_off"]) for r in data]),
    cut_judge: ("compiles", lambda data: (data["passed"], data["checks"][1]["message"], data["cut_off"])),
}  # fmt: skip
REASON = "ended by SIGTERM"
EXPECTED = {
    cut_bench: [({"forward": 1.5}, ""), ({}, REASON)],
    cut_trace: [("naive", ""), ("vector", REASON)],
    cut_tune: (1, REASON),
    cut_sizes: [(True, ""), (False, REASON)],
    cut_prove: [(True, ""), (False, REASON)],
    cut_verify: [("verified", ""), ("not verified", REASON)],
    cut_judge: (False, REASON, REASON),
}


@pytest.mark.parametrize("cut", CUT, ids=lambda cut: cut.__name__)
def test_a_command_that_is_ended_prints_its_results_until_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cut: Callable[..., Any]
) -> None:
    words, results = CUT[cut]
    for as_json in (True, False):
        with monkeypatch.context() as patch:
            assert run([*cut(patch), *(["--json"] if as_json else [])]) == 143
        said = capsys.readouterr().out
        if as_json:
            assert results(json.loads(said)) == EXPECTED[cut]
        else:
            assert words in said
