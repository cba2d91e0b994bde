"""Views of damaged, foreign or misspelt input: a clear error or the rest of the views, no traceback, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from core.cli import run
from core.train.health_file import COUNTS, NUMBERS, read_health
from core.view.private import short_text

FOREIGN = """[1]
{"step": true, "loss": 3}
{"step": -5, "loss": 1}
{"step": 123456789012345678901234567890, "loss": 2}
{"step": 3, "loss": [1], "norm": {}, "lr": "x", "ms": "x", "tokens": null}
{"step": 4, "loss": "nan", "norm": "inf", "ms": [], "val_loss": {}, "tokens_per_s": "x"}
"""


@pytest.fixture
def damaged(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, to be damaged, in the current folder."""
    shutil.copytree(small, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("runs/small")


def seen(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """The views of the run that failed, which are printed as JSON."""
    assert run(["view", "small", "--json"]) == 0
    views: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return {name: view for name, view in views.items() if "problem" in view}


def test_foreign_lines_of_the_metrics_are_left_out(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (damaged / "metrics.jsonl").open("a") as file:
        file.write(FOREIGN)
    assert not seen(capsys)
    assert run(["view", "small", "--step", "3", "--lens", "curves"]) == 0
    assert "no tokens of step 3" in capsys.readouterr().out


def test_foreign_records_of_choices_and_the_command_are_left_out(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "variants.json").write_text('{"nodes": 5, "tiles": [1], "device": {}, "precision": 7, "table": [3]}')
    (damaged / "env.json").write_text('{"argv": 5, "corelm": []}')
    assert not seen(capsys)


def test_a_damaged_line_of_statistics_is_left_out(tmp_path: Path) -> None:
    rows = [{"kind": "forward", "node": "a", "op": "gelu", "tensor": "y", "size": 4}]
    line: dict[str, object] = {"rows": rows, **{name: [1.0] for name in NUMBERS}}
    bad: list[dict[str, object]] = [
        {"rms": [-1]},
        {"ratio": [-1]},
        {COUNTS[0]: [-2]},
        {"rms": [10**400]},
        {"rms": ["x"]},
        {"step": True},
    ]
    lines = [line | {"step": at} | change for at, change in enumerate([{}, *bad, {}], 1)]
    (tmp_path / "health.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert [record.step for record in read_health(tmp_path)] == [1, len(lines)]


def test_a_views_problem_has_no_place_of_this_machine(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in damaged.glob("checkpoints/*/*"):
        file.write_bytes(b"x")
    assert run(["view", str(damaged.resolve()), "--out", "page.html", "--no-open", "--plain"]) == 0
    text = Path("page.html").read_text("utf-8")
    assert "small/checkpoints/step_" in text and "damaged" in text
    assert str(Path.cwd()) not in text and str(damaged.resolve().parent) not in text


@pytest.mark.parametrize(
    "text, short",
    [
        ("/srv/a b/runs/x/f.json: damaged", "x/f.json: damaged"),
        ('[data] train: "/mnt/jane/t.txt" is no file', '[data] train: "t.txt" is no file'),
        ("12 tok/s of a / b, ops/gelu.py:3, </b></i>", "12 tok/s of a / b, ops/gelu.py:3, </b></i>"),
    ],
)
def test_messages_lose_their_folders(text: str, short: str) -> None:
    assert short_text(text, [Path("/srv/a b/runs")]) == short


@pytest.mark.parametrize(
    "words, message",
    [
        (["small", "--step", "9"], "step 9 of small: expected 1 to 4"),
        (["small", "--node", "h.0.atn"], 'no node "h.0.atn"; did you mean "h.0.attn"?'),
        (["--kernel", "gelu.naive", "--shape", "x=4", "--block", "1"], "--block 1: expected 0 to 0"),
        (["--kernel", "gelu.naive", "--shape", "x=4", "--warp", "99"], "--warp 99: expected 0 to "),
        (["small", "--lens", "about", "--out", "runs/small/metrics.jsonl"], "not a page of core view is there"),
    ],
)
def test_what_is_not_there_is_refused_and_no_page_is_written(
    words: list[str], message: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (damaged / "metrics.jsonl").read_bytes()
    assert run(["view", "--out", "page.html", "--no-open", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("page.html").exists() and (damaged / "metrics.jsonl").read_bytes() == before


def test_a_page_takes_the_place_of_a_page_or_an_empty_file(damaged: Path) -> None:
    Path("page.html").touch()
    for _ in range(2):
        assert run(["view", "small", "--lens", "about", "--out", "page.html", "--no-open"]) == 0


def test_core_sim_keeps_json_apart_from_its_page_and_its_source_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = 'extern "C" __global__ void one(float* y) { y[threadIdx.x] = 1.0f; }\n'
    Path("one.cu").write_text(source)
    words = ["sim", "one.cu", "one", "y=zeros:32", "--view"]
    assert run([*words, "one.cu"]) == 2 and run([*words, "-", "--json"]) == 2
    assert Path("one.cu").read_text() == source and not capsys.readouterr().out
    assert run([*words, "page.html", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["kernel"] == "one" and "page.html: " in said.err
