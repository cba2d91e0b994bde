"""Weights that were read, compared with those that were written; refusals; plugins with a model."""

from __future__ import annotations

from functools import partial

import foreign_exports
import foreign_files as foreign
import numpy as np
import safetensors.numpy

from core.errors import CheckpointError

make, DIMS, OURS, CONFIG, CONV1D = foreign.make, foreign.DIMS, foreign.OURS, foreign.CONFIG, foreign.CONV1D
hf_tensors, hf_folder, llmc_file, bf16 = foreign.hf_tensors, foreign.hf_folder, foreign.llmc_file, foreign.bf16

GOLD = safetensors.numpy.load_file(foreign.GOLDEN / "gpt2.safetensors")
BATCH = make.batches(DIMS)[0]
refused = partial(foreign_exports.refused, kind=CheckpointError)


def same(params, expected=OURS):
    assert set(params) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(params[name], value)


def plugin_with(path, text):
    """A plugin that brings one model, called like its folder."""
    path.mkdir(exist_ok=True)
    (path / f"{path.name}.toml").write_text(text)
    (path / "__init__.py").write_text(
        "from pathlib import Path\nfrom core import hookimpl\n\n\n@hookimpl\ndef core_models():\n"
        f"    return [Path(__file__).parent / '{path.name}.toml']\n"
    )
    return path
