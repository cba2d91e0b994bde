"""An op without a kernel: its reference on the host, by explicit choice alone, checked and trained with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from formula_ops import write_small_run

from core.cli import run

PLUGIN = '''"""An op without a kernel."""

from core import Op, Param, Reference

cube = Op(
    "cube",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False)},
    examples=[{"x": (2, 3)}, {"x": (5, 67)}],
)


class CubeReference(Reference):
    op = "cube"
    saved = {"squares": "... C"}
    reads, can_add = ("x", "weight"), ("x",)

    def forward(self, t):
        t.squares[...] = t.x * t.x
        t.y[...] = t.squares * t.x * t.weight

    def backward(self, t):
        t.add("dx", 3 * t.squares * t.dy * t.weight)
        t.add("dweight", (t.dy * t.squares * t.x).reshape(-1, t.C).sum(0))


def core_ops():
    return [cube]


def core_variants():
    return [CubeReference]
'''


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cube.py").write_text(PLUGIN)
    write_small_run(tmp_path, "cube", tokens=16)
    return tmp_path


def train(device: str, *more: str) -> int:
    return run(
        ["train", "small.toml", "--plugin", str(Path("cube.py").absolute()), "--device", device, "--out", device, *more]
    )


def test_the_host_variant_passes_the_op_check(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "cube.host", "--plugin", str(Path("cube.py").absolute()), "--device", "sim"]) == 0, (
        capsys.readouterr()
    )


def test_a_wrong_reference_on_the_host_would_show(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "cube.py").write_text(PLUGIN.replace("3 * t.squares", "2 * t.squares"))
    assert run(["check", "cube.host", "--plugin", str(Path("cube.py").absolute()), "--device", "sim"]) == 1
    assert "gradient" in capsys.readouterr().out


def test_it_is_taken_when_it_is_named_and_the_run_says_its_cost(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sim") == 3
    assert "--set ops.cube=host" in capsys.readouterr().err
    assert train("sim", "--set", "ops.cube=host") == 0
    assert re.search(r"on the host: cube.host, 2 calls a micro-step, [\d.]+ KiB copied", capsys.readouterr().out)
    assert train("cpu") == 0
    losses = [re.findall(r'"loss": ([\d.]+)', Path(d, "metrics.jsonl").read_text()) for d in ("sim", "cpu")]
    assert [float(x) for x in losses[0]] == pytest.approx([float(x) for x in losses[1]], rel=1e-5)


def test_ops_with_kernels_have_no_host_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ops", "gelu"]) == 0
    assert "gelu.host" not in capsys.readouterr().out
