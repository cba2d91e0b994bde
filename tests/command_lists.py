"""The output of a listing."""

from __future__ import annotations

from pathlib import Path

import pytest

import core.cli as cli

ROOT = Path(__file__).parents[1]


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.run(args) == 0
    return capsys.readouterr().out
