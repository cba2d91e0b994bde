"""Exports to other programs' formats, a tokenizer for one, and the refusal of one by its words."""

from __future__ import annotations

from pathlib import Path

import pytest
from core.plugins.huggingface import export as export_huggingface
from core.plugins.llmc import export as export_llmc

from core.errors import CoreError
from core.interop.export import prepare
from core.interop.opened import open_path
from core.tokenizers.bpe_training import train_bpe

WRITERS = {"hf": export_huggingface.write, "llmc": export_llmc.write}


def export(path, to, out, registry, precision="f32", **more):
    WRITERS[to](prepare(open_path(path, registry), registry, precision, **more), registry, Path(out))
    return Path(out)


def small_bpe():
    return train_bpe([f"the quick brown fox jumps over the lazy dog {n} don't" for n in range(50)], 330)


def refused(call, *words, kind=CoreError):
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)
