"""Ops from formulas: reference and kernels are made, checked, chosen, trained with and saved; what cannot be said."""

from __future__ import annotations

import re
from pathlib import Path

import formula_ops
import pytest
import stored_machine

from core.cli import run
from core.errors import BuildError
from core.generated.formulas import Formulas
from core.generated.variants import variants_of
from core.loader import load_registry
from core.op import Op, Param
from core.testing.check import check_variant, find


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "formulas.py"
    path.write_text(formula_ops.TEXT)
    return path


@pytest.mark.parametrize("name", formula_ops.NAMES)
def test_generated_kernels_pass_the_op_check(plugin: Path, name: str) -> None:
    """Compiled for two architectures; for all, test_docs.py checks the op of docs/plugins.md."""
    registry = load_registry([str(plugin)])
    for op, variant in find(name, registry, "sim"):
        report = check_variant(op, variant, registry, "sim", archs=("sm_75", "sm_120a"))
        assert report.passed, report.describe_failures()
        assert report.checks["compile"][0] >= 2 and not report.gaps


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("squared_relu", "dx = 2 * r * dy", "dx = r * dy"),
        ("norm", "dx = r * (dn - mean(dn) - n", "dx = r * (dn - n"),
        ("norm", "dweight = dy * n", "dweight = dy * x"),
        ("soft", "dx = e / sum(e) * (dy - sum(dy * e) / sum(e))", "dx = e / sum(e) * dy"),
    ],
)
def test_a_wrong_gradient_fails_the_check(
    plugin: Path, name: str, right: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.write_text(formula_ops.TEXT.replace(right, wrong))
    assert run(["check", name, "--plugin", str(plugin), "--device", "cpu"]) == 1
    assert "gradient     FAILED" in capsys.readouterr().out


def test_a_model_with_ops_from_formulas_trains_in_the_simulator_as_on_the_cpu(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    formula_ops.write_small_run(tmp_path, "squared_relu", "norm")
    losses = {}
    for device in ("cpu", "sim"):
        out = tmp_path / device
        assert run(["train", "small.toml", "--plugin", str(plugin), "--device", device, "--out", str(out)]) == 0
        losses[device] = [float(x) for x in re.findall(r'"loss": ([\d.]+)', (out / "metrics.jsonl").read_text())]
    assert losses["sim"] == pytest.approx(losses["cpu"], rel=1e-5) and len(losses["sim"]) == 2
    kernels = [path.name.partition("-")[0] for path in (tmp_path / "sim" / "kernels").iterdir()]
    assert sorted(kernels) == ["norm", "squared_relu"]
    assert not (tmp_path / "cpu" / "kernels").exists()


def test_a_reference_of_the_authors_own_stands() -> None:
    op = Op("twice", inputs={"x": "..."}, outputs={"y": "..."}, formulas="y = 2 * x\ndx = 2 * dy")
    assert [v.name for v in variants_of(Formulas(op), with_reference=False)] == ["generated"]
    assert [v.name for v in variants_of(Formulas(op), with_reference=True)] == ["reference", "generated"]


@pytest.mark.parametrize(
    ("formulas", "message"),
    [
        ("y = x", "no line defines dx"),
        ("y = z\ndx = dy", '"z" is not known here'),
        ("y = exq(x)\ndx = dy", 'no function "exq"; did you mean "exp"'),
        ("y = exp(x, x)\ndx = dy", "exp takes 1 values, got 2"),
        ("y = x[0]\ndx = dy", "is not in the language"),
        ("y = 'a'\ndx = dy", "is not a number"),
        ("y = x +\ndx = dy", "cannot read"),
        ("x = 2\ny = x\ndx = dy", "x has a meaning already"),
        ("float = x\ny = float\ndx = dy", "float has a meaning already"),
        ("y = x\nt = 2 * x\ndx = dy", "t is used by no line"),
        ("y = x * dy\ndx = dy", "y depends on the gradient dy"),
        ("y = sum(x)\ndx = dy", "over the last dim, and this op has none"),
        ("y = x\ny = x\ndx = dy", "y has a meaning already"),
        ("print(x)", "cannot read"),
    ],
)
def test_what_a_formula_cannot_say_is_an_error_with_the_ops_place(formulas: str, message: str) -> None:
    op = Op("twice", inputs={"x": "..."}, outputs={"y": "..."}, formulas=formulas)
    with pytest.raises(BuildError, match=re.escape(message)) as refused:
        Formulas(op)
    assert "test_formulas.py:" in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"inputs": {"x": "B T"}, "outputs": {"y": "..."}}, 'x is "B T"'),
        ({"inputs": {"x": "... C"}, "outputs": {"y": "..."}}, "x and y differ in shape"),
        ({"inputs": {"x": "... : i32"}, "outputs": {"y": "..."}}, 'x is "... : i32"'),
        ({"inputs": {"x?": "..."}, "outputs": {"y": "..."}}, 'x is "..."'),
        ({"inputs": {"x": "... C"}, "outputs": {"y": "... C"}, "params": {"w": Param("C C")}}, "the parameter w"),
    ],
)
def test_shapes_that_formulas_do_not_cover_are_refused(schema: dict[str, dict[str, str]], message: str) -> None:
    op = Op("twice", formulas="y = x\ndx = dy\ndw = dy", **schema)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=re.escape(message)):
        Formulas(op)


def test_a_plugin_with_a_faulty_formula_is_broken_and_says_where(plugin: Path) -> None:
    plugin.write_text(formula_ops.TEXT.replace("y = r**2", "y = q**2"))
    with pytest.raises(BuildError, match=r'formulas.py:\d+.*op "squared_relu".*"q" is not known here'):
        load_registry([str(plugin)])


def test_a_wrong_gradient_fails_the_check_of_its_kernels_too(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.write_text(formula_ops.TEXT.replace("dx = 2 * r * dy", "dx = r * dy"))
    assert run(["check", "squared_relu", "--plugin", str(plugin), "--device", "sim"]) == 1
    assert "dx is not the derivative of forward" in capsys.readouterr().out


def test_a_run_refuses_a_gradient_that_reference_and_kernels_have_wrong_alike(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(stored_machine.link(tmp_path / "cache")))
    plugin.write_text(formula_ops.TEXT.replace("dx = 2 * r * dy", "dx = r * dy"))
    formula_ops.write_small_run(tmp_path, "squared_relu", "norm", check=True)
    assert run(["train", "small.toml", "--plugin", str(plugin), "--device", "sim", "--out", "run"]) == 3
    assert "dx is not the derivative of forward" in capsys.readouterr().err
