"""core runs: what is listed of a run while it goes on and after, its curves, and where two runs part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.cli import run as core_command
from core.train.run import take_lock, to_line
from core.train.runs import drawn, parting, summaries

CONFIG = 'model = "gpt2_124m"\nseed = 1\n[train]\nsteps = 5\n[optimizer]\nlr = {lr}\n'


def rows(nodes: int = 4, **variants: str) -> list[dict[str, Any]]:
    """The table of variants.json: a row for each op."""
    return [{"op": op, "variant": variant, "nodes": nodes} for op, variant in variants.items()]


def write(path: Path, losses: list[float], lr: float = 1e-3, **more: dict[int, Any]) -> Path:
    path.mkdir(parents=True)
    (path / "LOCK").write_text("process 1 on host\n")
    (path / "config.resolved.toml").write_text(CONFIG.format(lr=lr))
    (path / "variants.json").write_text(json.dumps({"device": "cpu", "table": rows(matmul="blas")}))
    lines = []
    for step, loss in enumerate(losses, 1):
        record = {"step": step, "loss": loss, "norm": loss / 2, "lr": lr, "ms": 10.0 + hash(str(path)) % 7}
        lines.append(to_line(record | {name: values[step] for name, values in more.items() if step in values}))
    (path / "metrics.jsonl").write_text("".join(lines))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(folder: Path) -> dict[str, str]:
    return {run.name: run.state for run in summaries(folder)}


def test_a_run_is_listed_with_how_far_it_is_and_whether_it_goes_on(here: Path, capsys) -> None:
    runs = here / "runs"
    write(runs / "done", [3.0, 2.5, 2.0, 1.5, 1.25], val_loss={2: 2.75, 4: 2.5})
    write(runs / "half", [3.0, 2.0])
    write(runs / "fell", [3.0, 2.0])
    (runs / "fell" / "crash-step_00000003").mkdir()
    write(runs / "begun", [])
    (runs / "begun" / "config.resolved.toml").write_bytes(b"\xff")
    (runs / "no-run").mkdir()
    assert states(runs) == {"done": "done", "half": "stopped", "fell": "crashed", "begun": "no steps"}
    with take_lock(runs / "half" / "LOCK"):
        assert states(runs)["half"] == "running"
    assert states(runs)["half"] == "stopped", "looking did not keep the lock"
    assert core_command(["runs", "--json"]) == 0
    listed = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert (listed["done"]["step"], listed["done"]["steps"], listed["done"]["best"]) == (5, 5, 2.5)
    assert core_command(["runs"]) == 0
    out = capsys.readouterr().out
    assert "5/5" in out and "1.2500" in out and "2.5000" in out and "gpt2_124m" in out


def test_no_runs_is_one_line_with_what_to_do(here: Path, capsys) -> None:
    assert core_command(["runs"]) == 0
    assert "core train" in capsys.readouterr().out


def test_a_step_that_was_written_again_counts_as_it_was_last(here: Path) -> None:
    path = write(here / "runs" / "a", [3.0, 2.0])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 2.25}\n{"step": 3, "lo')
    (run,) = summaries(here / "runs")
    assert (run.step, run.loss) == (2, 2.25)


def test_diff_names_the_first_step_and_value_where_two_runs_part(here: Path, capsys) -> None:
    a = write(here / "runs" / "a", [3.0, 2.0, 1.0])
    b = write(here / "runs" / "b", [3.0, 2.0 + 4e-16, 1.0], lr=2e-3)
    found = parting(a, b)
    assert (found.step, found.name, found.values) == (1, "lr", (1e-3, 2e-3))
    c = write(here / "runs" / "c", [3.0, 2.0 + 4.5e-16, 0.5])
    found = parting(a, c)
    assert (found.common, found.step, found.name) == (3, 2, "loss"), "one bit is a difference, time is none"
    (c / "variants.json").write_text(json.dumps({"device": "sim", "table": rows(matmul="naive")}))
    assert core_command(["runs", "diff", "a", "c"]) == 1
    out = capsys.readouterr().out
    assert "variant device: cpu -> sim\nvariant matmul: blas (4 nodes) -> naive (4 nodes)\n" in out
    assert out.endswith("\nloss at step 3: 1 and 0.5\n")
    assert "they differ from step 2 on: loss is 2.0 in" in out and "2.0000000000000004" in out
    (c / "variants.json").write_text("[1]")
    assert parting(a, c).settings == ["variant device: cpu -> absent"], "a damaged file says nothing"
    d = write(here / "runs" / "d", [3.0, 2.0], val_loss={2: 1.0})
    assert parting(a, d).equal, "what only one of them measured is no difference"
    assert core_command(["runs", "diff", "a", "d"]) == 0
    assert "the same in all 2 steps" in capsys.readouterr().out
    shutil.rmtree(d)
    write(d, [])
    assert core_command(["runs", "diff", "a", "d"]) == 2
    assert core_command(["runs", "diff", "a", "dd"]) == 2
    assert 'did you mean "d"' in capsys.readouterr().err


def test_diff_of_two_models_has_a_line_for_each_op_that_differs_and_one_for_the_others(here: Path) -> None:
    a, b = write(here / "a", [3.0]), write(here / "b", [2.0])
    same = {"add": "vector", "matmul": "blas"}
    (a / "variants.json").write_text(json.dumps({"table": rows(**same, attention="mine", gelu="vector")}))
    mixed = [*rows(6, **same), *rows(3, attention="naive"), *rows(1, attention="mine"), *rows(rope="naive"), {"op": 1}]
    (b / "variants.json").write_text(json.dumps({"table": mixed}))
    assert parting(a, b).settings == [
        "variant attention: mine (4 nodes) -> naive (3 nodes), mine (1 node)",
        "ops: 2 have the same variants in both; the first run alone has gelu; the second, rope",
    ]


def test_curves_in_a_terminal_rise_and_fall_where_the_values_do() -> None:
    lines = drawn([([1, 2, 3], [3.0, 2.0, 1.0]), ([1, 3], [1.0, 1.0])], 21, 5, fine=False)
    assert lines[0] == "3 |*" and lines[2] == "  |          *" and lines[4] == "1 |+                   +"
    assert lines[5].split() == ["1", "3"]
    (top, *_, low, _) = drawn([([0, 1], [0.0, 1.0])], 4, 3, fine=True)
    assert top.endswith("⠈") and "⡀" in low
    assert drawn([([5], [2.0])], 4, 2, fine=True)[0].startswith("2 |"), "one point is a curve"


def test_plot_draws_here_or_into_a_file(here: Path, capsys, monkeypatch) -> None:
    write(here / "runs" / "a", [3.0, 2.0, 1.0])
    write(here / "runs" / "b", [3.0, 2.5, 2.0])
    assert core_command(["runs", "plot", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert "loss over steps" in out and "* runs/a: 1 at step 3" in out and "+ runs/b: 2 at step 3" in out
    assert core_command(["runs", "plot", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs/a"] == {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert core_command(["runs", "plot", "a", "--out", "x.png"]) == 2
    assert 'pip install "corelm[plot]"' in capsys.readouterr().err and not (here / "x.png").exists()


def test_a_file_has_the_form_that_its_name_says(here: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    write(here / "runs" / "a", [3.0, 2.0, 1.0])
    for name, begin in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml")):
        assert core_command(["runs", "plot", "a", "--out", name, "--log"]) == 0
        assert (here / name).read_bytes().startswith(begin)
    assert core_command(["runs", "plot", "a", "--out", "no/x.png"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--value", "los"], 'did you mean "loss"'),
        (["--value", "val_loss"], "no val_loss in metrics.jsonl"),
        (["--out", "x.gif"], ".png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(here: Path, capsys, arguments, words) -> None:
    write(here / "runs" / "a", [3.0])
    assert core_command(["runs", "plot", "a", *arguments]) == 2
    assert words in capsys.readouterr().err
