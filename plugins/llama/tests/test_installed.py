"""The folder is a plugin as an outsider would write it: installed as a distribution of its own, it trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import core

PLUGIN = Path(__file__).parent.parent
ROOT = Path(core.__file__).parent.parent
DISTRIBUTION = {  # the files of an installer that name a distribution
    "METADATA": "Metadata-Version: 2.1\nName: corelm-llama\nVersion: 3.2\nRequires-Dist: corelm\n",
    "entry_points.txt": "[corelm]\nllama = corelm_llama\n",
    "INSTALLER": "pip\n",
}
SMALL = [
    *("train.steps=3", "train.tokens_per_step=16", "train.val_tokens=16", "train.sample_tokens=2", "dims.B=2"),
    *("dims.T=8", "dims.C=16", "dims.H=2", "dims.L=1", "dims.V=260", "data.vocab_size=260", "model=llama_125m"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip fills it from a wheel of this folder's files."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, site / "corelm_llama", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    about = site / "corelm_llama-3.2.dist-info"
    about.mkdir()
    for name, text in DISTRIBUTION.items():
        (about / name).write_text(text)
    return site


def command(site: Path, folder: Path, *words: str) -> str:
    """The output of `core` where that distribution is installed and the shipped plugins are switched off."""
    # its distribution's name lets the installed one in, and not ours, which has the same name and none
    path = os.pathsep.join(map(str, (site, ROOT)))  # the latter for a core that is not installed
    environment = os.environ | {"CORELM_PLUGINS": "corelm-llama", "PYTHONPATH": path}
    code = "import sys; from core.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_installed_plugin_is_found_by_its_entry_point_and_brings_the_same(site: Path, tmp_path: Path) -> None:
    listed = {(p["name"], p["status"]): p for p in json.loads(command(site, tmp_path, "plugins", "--json"))}
    installed, ours = listed["llama", "loaded"], listed["llama", "disabled"]
    assert Path(installed["path"]) == site / "corelm_llama" and installed["version"] == "3.2"
    assert Path(ours["path"]) == PLUGIN
    assert {"rmsnorm", "rope", "swiglu"} <= set(installed["brings"]["ops"]) and "llama_125m" in installed["brings"][
        "models"
    ]


def test_the_installed_plugin_trains(site: Path, tmp_path: Path) -> None:
    out = command(site, tmp_path, "train", "tiny", "--out", "run", *(f"--set={key}" for key in SMALL))
    assert "step 3/3 | loss" in out and "corelm-llama 3.2" in out
