"""Folders of this plugin's models give the loss, gradients and greedy tokens of transformers 5: golden/models.json."""

import json
from pathlib import Path

import pytest

import core
from core.testing import check_values, write_folder

GOLDEN = json.loads((Path(__file__).parent / "golden" / "models.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_a_folder_computes_what_transformers_computes(name, tmp_path):
    check_values(GOLDEN[name], core.load(write_folder(GOLDEN[name], tmp_path / "hf")))
