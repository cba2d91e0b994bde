"""Folders of this plugin's models give the loss, gradients and greedy tokens of transformers 5: golden/models.json.

A golden entry is a published config of shrunk sizes. Weights are drawn by their names, as in tests/published.py.
"""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden" / "models.json").read_text())
spec = spec_from_file_location("golden_folders", HERE.parent.parent / "llama" / "tests" / "folders.py")
folders = module_from_spec(spec)
spec.loader.exec_module(folders)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_folder_computes_what_transformers_computes(name, tmp_path):
    folders.agrees(GOLDEN[name], tmp_path / "hf")
