"""The folder is a plugin as an outsider would write it: installed as a distribution of its own, it trains."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent.parent
PROJECT = """
[project]
name = "corelm-llama"
version = "3.2"
dependencies = ["corelm"]

[project.entry-points.corelm]
llama = "corelm_llama"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["corelm_llama"]
"""
SMALL = [
    *("train.steps=3", "train.tokens_per_step=16", "train.val_tokens=16", "train.sample_tokens=2", "dims.B=2"),
    *("dims.T=8", "dims.C=16", "dims.H=2", "dims.L=1", "dims.V=260", "data.vocab_size=260", "model=llama_125m"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip fills it, with a wheel of this folder's files."""
    if not importlib.util.find_spec("pip") or not importlib.util.find_spec("hatchling"):
        pytest.skip("pip and hatchling build the wheel")
    project, wheels, site = (tmp_path_factory.mktemp(name) for name in ("project", "wheels", "site"))
    shutil.copytree(PLUGIN, project / "corelm_llama", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    (project / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(project)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = wheels.glob("corelm_llama-3.2-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    return site


def command(site: Path, folder: Path, *words: str) -> str:
    """What `core` prints where that distribution is installed and the shipped plugins are switched off."""
    # its distribution's name lets the installed one in, and not ours, which has the same name and none
    environment = os.environ | {"CORELM_PLUGINS": "corelm-llama", "PYTHONPATH": str(site)}
    code = "import sys; from core.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_wheel_of_it_is_found_by_its_entry_point_and_brings_the_same(site: Path, tmp_path: Path) -> None:
    listed = {(p["name"], p["status"]): p for p in json.loads(command(site, tmp_path, "plugins", "--json"))}
    apart, ours = listed["llama", "loaded"], listed["llama", "disabled"]
    assert Path(apart["path"]) == site / "corelm_llama" and apart["version"] == "3.2"
    assert Path(ours["path"]) == PLUGIN
    assert {"rmsnorm", "rope", "swiglu"} <= set(apart["brings"]["ops"]) and "llama_125m" in apart["brings"]["models"]


def test_a_wheel_of_it_trains(site: Path, tmp_path: Path) -> None:
    out = command(site, tmp_path, "train", "tiny", "--out", "run", *(f"--set={key}" for key in SMALL))
    assert "step 3/3 | loss" in out and "corelm-llama 3.2" in out
