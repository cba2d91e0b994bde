"""A folder with the short run of a config, and commands in it: the start of tests of a plugin's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run

from core import cli


def train(folder: Path, config: str) -> Path:
    """Write small_run's texts and a config into a folder, and train there, with a cache of its own, into runs/small."""
    small_run.write(folder, config)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert cli.run(["train", "small.toml", "--device", "cpu"]) == 0
    return folder


def enter(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make it the current folder, with its own cache and without downloads."""
    patch.chdir(folder)
    patch.setenv("CORELM_CACHE", str(folder / "cache"))
    patch.setenv("CORELM_OFFLINE", "1")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> pytest.CaptureResult[str]:
    """Output of a `core` command, which has to exit with `code`."""
    capsys.readouterr()
    assert cli.run([*map(str, words)]) == code, capsys.readouterr()
    return capsys.readouterr()
