"""A current directory with a config and texts, and `core` held to its exit code and its words."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
from outside_files import CONFIG, Core, files

from core.cli import run as core_command


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a config, two texts, and a cache of its own; no network."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    small_run.write(folder, CONFIG, "run.toml")
    return folder


@pytest.fixture
def core(here: Path, capfd: pytest.CaptureFixture[str]) -> Core:
    """Runs `core`, wants this exit code and these words, no traceback, and no file that was not there before."""

    def command(*arguments: str, code: int, says: tuple[str, ...] | list[str] = (), makes: bool = False) -> str:
        before = files(here)
        got = core_command(list(arguments))
        said = "".join(capfd.readouterr())
        assert got == code, said
        assert "Traceback" not in said and "bug of ours" not in said
        for words in says:
            assert words in said, said
        assert makes or files(here) == before, "something was made or changed"
        return said

    return command
