"""Files from outside, altered in 1,000 ways each: they are read as what they say, or a CoreError says why not.

The alterations start from valid files, so that they come far: keys are removed, renamed, doubled and swapped, values
take the place of others or are odd ones; headers of shards and tensors are changed number by number and cut short.
Nothing else may come out, at most 2 GiB more may be asked for, and none may take 10 seconds of CPU.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alterations import CUT, EDITS, ODD, altered, cut, fuzz, only_expected
from hypothesis import example, given
from hypothesis import strategies as st

from core import checkpoint
from core.checkpoint import Contents
from core.checkpoint.tensor_file import TensorFile
from core.data import TokenSource
from core.data.data_names import resolve
from core.data.match import check_record, shards_record
from core.errors import CheckpointError, CoreError
from core.tokenizers.preference import TokenizerNeed

# --- token shards ------------------------------------------------------------------------------------------------

COUNT = 60
RECORD = {
    "tokenizer": {"kind": "bytes", "name": "bytes", "hash": "ab" * 32, "vocab_size": 257, "eot": 256},
    "tokens": 60,
}
NUMBERS = st.one_of(st.sampled_from([n for n in ODD if type(n) is int and -(2**31) <= n < 2**31]), st.integers(0, 300))
HEADER = st.lists(st.tuples(st.sampled_from([0, 1, 2, 2, 3, 255]), NUMBERS), max_size=2)


@fuzz
@given(
    header=HEADER,
    kind=st.sampled_from([(20240520, 1, "<u2"), (20240801, 7, "<u4")]),
    size=st.one_of(st.none(), st.integers(0, 1300)),
    sidecar=st.one_of(st.none(), EDITS, CUT),
    digest=st.one_of(st.none(), st.just(True), st.binary(max_size=80)),
)
@example(header=[(2, -1)], kind=(20240520, 1, "<u2"), size=None, sidecar=None, digest=None)
def test_shards_and_their_sidecars(
    here: Path, header: list[tuple[int, int]], kind: tuple[int, int, str], size: int | None, sidecar: Any, digest: Any
) -> None:
    magic, version, dtype = kind
    numbers = np.zeros(256, "<i4")
    numbers[:3] = magic, version, COUNT
    for place, number in header:
        numbers[place] = number
    data = (numbers.tobytes() + np.arange(COUNT).astype(dtype).tobytes())[:size]
    path = here / "a.bin"
    path.write_bytes(data)
    for name, contents in (
        ("a.bin.json", sidecar_text(sidecar)),
        ("a.bin.sha256", digest if digest is not True else hashlib.sha256(data).hexdigest().encode()),
    ):
        (here / name).unlink(missing_ok=True)
        if contents is not None:
            (here / name).write_bytes(contents)

    def read() -> TokenSource:
        shards = resolve([str(path)], "train", "[data] train", []).shards
        record = shards_record(shards)
        if record is not None:
            check_record(TokenizerNeed(["bytes"], 300, where="[data] tokenizer"), record, path)
        source = TokenSource(list(shards), 2, 8, vocab=300)
        source.batch(0)
        source.check_tokens()
        return source

    found = only_expected(read)
    if not isinstance(found, CoreError):
        assert found.tokens == COUNT == (len(data) - 1024) // np.dtype(dtype).itemsize


def sidecar_text(alteration: Any) -> bytes | None:
    if alteration is None:
        return None
    if isinstance(alteration, tuple):
        return cut(json.dumps(RECORD).encode(), alteration)
    return json.dumps(altered(RECORD, alteration)).encode()


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(here: Path) -> dict[str, bytes]:
    """The files of a valid checkpoint."""
    weights = {"a.weight": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.ones(3, np.float32)}
    state = {
        "step": 4,
        "tokens": 640,
        "best_val": 2.5,
        "windows": {"loss": [1.5, 1.25]},
        "data": {
            "train": {"name": "train", "seed": 1, "T": 8, "tokens": 90, "sequences": 11, "files": []},
            "val": None,
        },
        "variants": {"h.0.fc": "blas"},
    }
    moments = {"m": weights, "v": weights}
    (here / "run" / "checkpoints").mkdir(parents=True)
    path = checkpoint.save(here / "run" / "checkpoints", 4, Contents(weights, moments, "name = 'x'\n", "{}", state))
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_checkpoints_manifest_and_state(here: Path, saved: dict[str, bytes], name: str) -> None:
    """A manifest that fits lets an altered state come past the hashes."""
    folder = here / "step_00000004"
    folder.mkdir()
    for file, contents in saved.items():
        (folder / file).write_bytes(contents)
    document, manifest = json.loads(saved[name]), json.loads(saved["manifest.json"])

    @fuzz
    @given(st.one_of(EDITS, EDITS, CUT))
    def attempt(alteration: Any) -> None:
        data = cut(saved[name], alteration) if isinstance(alteration, tuple) else dumped(altered(document, alteration))
        (folder / name).write_bytes(data)
        if name != "manifest.json":
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            (folder / "manifest.json").write_text(json.dumps(manifest))
        found = only_expected(lambda: checkpoint.load(folder))
        assert isinstance(found, CheckpointError) or found.step >= 0

    attempt()


SIZES = st.sampled_from([0, 0, 1, 2, 3, 4, 6, 12, 2**31, 2**61, 2**62, 2**64, -1, 1.0, True, "3", None, [3]])
OFFSETS = st.sampled_from([0, 0, 4, 12, 24, 24, 48, 48, 2**62, -4, 4.0, True, None, "0"])
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F32", "BF16", "F64", "I32", "BOOL", "F8", "f32", "", 3, None, ["F32"]]),
        "shape": st.one_of(st.lists(SIZES, max_size=3), st.sampled_from([[1] * 17, None, 3, "3", {"0": 3}])),
        "data_offsets": st.one_of(st.lists(OFFSETS, min_size=1, max_size=3), st.sampled_from([None, 0, {}])),
    },
    optional={"extra": st.just(1)},
)
WHOLE = {"a.weight": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}}


@fuzz
@given(
    added=st.dictionaries(st.sampled_from(["b", "a.weight", "", "../x", "__metadata__"]), TENSOR, max_size=2),
    edits=st.one_of(st.none(), EDITS, CUT),
    claimed=st.one_of(st.none(), st.none(), st.integers(0, 2**64 - 1)),
    size=st.sampled_from([48, 48, 48, 0, 47, 49, 96]),
)
@example(
    added={"none": {"dtype": "BF16", "shape": [2**61, 0], "data_offsets": [0, 0]}}, edits=None, claimed=None, size=48
)
@example(added={}, edits=None, claimed=2**62, size=48)
def test_headers_of_tensors(here: Path, added: dict[str, Any], edits: Any, claimed: int | None, size: int) -> None:
    header = {**WHOLE, **added}
    text = cut(dumped(header), edits) if isinstance(edits, tuple) else dumped(altered(header, edits or []))
    path = here / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + bytes(size))
    found = only_expected(lambda: {name: array.nbytes for name, array in TensorFile(path).items()})
    if not isinstance(found, CoreError):
        assert sum(found.values()) <= 2 * size  # bf16 comes as f32


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()
