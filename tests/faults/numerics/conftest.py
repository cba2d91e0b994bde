"""A folder with the config and the plugin of the faults in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
from numeric_faults import CONFIG, PLUGIN, fault


@pytest.fixture
def here(workdir: Path) -> Path:
    small_run.write(workdir, CONFIG, "config.toml")
    Path("faulty.py").write_text(PLUGIN)
    fault()
    return workdir
