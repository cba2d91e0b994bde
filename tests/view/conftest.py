"""A run that the views' tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run

from core.cli import run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps, with its config and texts beside it."""
    folder = tmp_path_factory.mktemp("small")
    small_run.write(folder, small_run.config(train={"steps": 4, "checkpoint_every": 2, "keep_last": 3}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "small.toml", "--device", "cpu"]) == 0
    return folder
