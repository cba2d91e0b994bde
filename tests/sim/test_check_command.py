"""`core check` as a command: its table and JSON, several variants at a time, and its exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from core.cli.check import command
from core.errors import BuildError, CheckFailed, DeviceError, UsageError
from core.testing.processes import processes


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments))


def test_command_prints_a_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    result = run("add.reference")
    assert result.exit_code == 0, result.output
    assert "add.reference" in result.output and "gradient" in result.output and "median ms" in result.output
    data = json.loads(run("add.reference", "--json", "--no-time").output)
    assert data[0]["passed"] and data[0]["checks"]["alias"]["passed"] and not data[0]["median_ms"]


def test_variants_checked_at_the_same_time_are_reported_as_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    shown: list[str] = []
    monkeypatch.setattr("core.train.display.Display.status", lambda self, text: shown.append(text))
    one, two = (run("gelu", "--device", "cpu", "--no-time", "--jobs", jobs).output for jobs in "12")
    assert one == two and "gelu.reference" in one.splitlines()[0] and "2 of 2 variants passed" in one
    again = shown[shown.index("") + 1 :]
    assert any(text.startswith("checking gelu.reference, 1 of 2: ") for text in again), "with two processes too"
    assert any(re.search(r": \w[\w ]*, (f32|f64), x=", text) for text in again), again[:5]
    monkeypatch.setenv("CORELM_THREADS", "many")
    refused = run("gelu", "--device", "cpu", "--no-time").exception
    assert isinstance(refused, UsageError) and "CORELM_THREADS is 'many'" in str(refused)


def test_a_process_that_is_killed_is_told_in_words() -> None:
    with pytest.raises(DeviceError, match="ended from outside"), processes(1) as pool:
        list(pool.map(os._exit, [3]))


def test_command_refuses_unknown_ops_with_the_nearest_name() -> None:
    error = run("layernrm").exception
    assert isinstance(error, BuildError) and 'did you mean "layernorm"' in str(error)
    assert isinstance(run().exception, UsageError)


def test_plugin_with_a_wrong_gradient_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "from core import Op, Reference\n"
        "square = Op('square', inputs={'x': '...'}, outputs={'y': '...'}, examples=[{'x': (3, 5)}])\n"
        "class SquareReference(Reference):\n"
        "    op, reads = 'square', ('x',)\n"
        "    def forward(self, t):\n        t.y[...] = t.x * t.x\n"
        "    def backward(self, t):\n        t.add('dx', t.dy * t.x)\n"
        "def core_ops():\n    return [square]\n"
        "def core_variants():\n    return [SquareReference]\n"
    )
    result = run("square", "--plugin", str(plugin))
    assert isinstance(result.exception, CheckFailed) and result.exception.exit_code == 1
    assert "gradient     FAILED" in result.output and "relative 5.00e-01" in result.output
