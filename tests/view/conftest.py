"""A run that the views' tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
import trained_run
import view_pages

one_browser = view_pages.one_browser


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps, with its config and texts beside it."""
    config = small_run.config(train={"steps": 4, "checkpoint_every": 2, "keep_last": 3})
    return trained_run.train(tmp_path_factory.mktemp("small"), config)
