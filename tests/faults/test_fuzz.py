"""Files from outside, altered in 2,000 ways each: they are read as what they say, or a CoreError says why not.

The alterations start from valid files, so that they come far: keys are removed, renamed, doubled and swapped, values
take the place of others or are odd ones; headers of shards and tensors are changed number by number and cut short.
Nothing else may come out, at most 2 GiB more may be asked for, and none may take 10 seconds of CPU.
"""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core import checkpoint
from core.checkpoint import Contents
from core.checkpoint.tensor_file import TensorFile
from core.config import load_config
from core.data import TokenSource
from core.data.data_names import resolve
from core.data.match import check_record, shards_record
from core.errors import CheckpointError, CoreError
from core.graph import load_model
from core.loader import load_registry

MORE_MEMORY = 2 << 30  # bytes
CPU_SECONDS = 10.0

fuzz = settings(
    max_examples=2000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def here(workdir: Path) -> Path:
    return workdir


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """What asks for much more memory gets a MemoryError, which is no CoreError. POSIX only."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(pages.read_text().split()[0]) * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def only_expected(read: Callable[[], Any]) -> Any:
    """What `read` returns, or the CoreError that it raises. Anything else comes through; a hang becomes one."""

    def hangs(*_: Any) -> None:
        raise AssertionError(f"more than {CPU_SECONDS} seconds of CPU")

    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        return read()
    except CoreError as error:
        assert str(error)
        return error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# --- alterations -------------------------------------------------------------------------------------------------

ODD: list[Any] = [
    *(0, -1, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320, True, False),
    *(
        float("inf"),
        float("nan"),
        "",
        " ",
        "x",
        "\0",
        "\ud800",
        "é",
        "a" * 300,
        "../../x",
        "/etc/passwd",
        "~",
        "*",
        "[",
    ),
    *("9**9**9", "1/0", "C", "B", "T", "L", "3*C", "pad(V, 0)", "pad(V, 10**9)", "normal(C)", "normal(1/0)", "zeros"),
    *("B T : i32 < V", "B T : i32 < -1", ": acc", "... C", "... ...", "i32", "F32", "BF16", "wte.weight", "logits"),
    *("h", "h.0.x", "tokens", "layer", "add", "matmul", "attention", "embedding", "gelu", "in", "out", "h.*", "none"),
    *([], {}, [[]], [1], ["x"], [0, 2**61], {"x": 1}, {"": {}}, [{"x": []}], {"op": "gelu", "in": "x"}, [None], None),
    *({"block": "layer", "in": "h", "repeat": 3}, {"loss": 1e300}, {"weight": "wte.weight"}, "cpu", "adamw", "cosine"),
]
KINDS = ("replace", "remove", "rename", "swap", "double", "insert", "wrap")
EDITS = st.lists(st.integers(0, 2**40), min_size=1, max_size=3)  # one number an edit: drawing several takes longer
CUT = st.tuples(st.integers(0, 9999), st.integers(0, 40), st.binary(max_size=6))  # where, how much, what instead


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: (table or list, key or index)."""
    found: list[tuple[Any, Any]] = []
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in items:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += slots(inner)
    return found


def altered(document: Any, edits: list[int]) -> Any:
    """A copy of a document after some edits, each at a place and with an odd value or another place."""
    document = copy.deepcopy(document)
    for number in edits:
        places = slots(document)
        if not places:
            break
        number, kind = number // len(KINDS), KINDS[number % len(KINDS)]
        number, odd = number // len(ODD), ODD[number % len(ODD)]
        table, key = places[number % len(places)]
        there, its = places[number // len(places) % len(places)]
        value = copy.deepcopy(odd)
        if kind == "replace":
            table[key] = value
        elif kind == "remove":
            del table[key]
        elif kind == "swap":
            table[key], there[its] = copy.deepcopy(there[its]), copy.deepcopy(table[key])
        elif kind == "double":
            table[key] = copy.deepcopy(there[its])
        elif kind == "wrap":
            table[key] = [table[key]]
        elif isinstance(table, list):
            table.append(value)
        elif kind == "rename":
            table[odd if isinstance(odd, str) else str(its)] = table.pop(key)
        else:
            table[str(its)] = value
    return document


def as_toml(document: Any) -> bytes | None:
    """The document as TOML; None where TOML has no form for it."""
    try:
        return tomli_w.dumps(document).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError):
        return None


def cut(data: bytes, where: tuple[int, int, bytes]) -> bytes:
    at, length, put = where
    at %= len(data) + 1
    return data[:at] + put + data[at + length :]


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
            check_record(record, path, None, ["bytes"], 300, "[data] tokenizer")
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


# --- TOML --------------------------------------------------------------------------------------------------------

MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = { loss = 1.0 }
[dims]
B = 2
T = 8
V = 50
P = "pad(V, 64)"
C = 32
L = 2
[graph]
wte    = { op = "embedding", in = "tokens", rows = "P", cols = "C" }
h      = { block = "layer", in = "wte", repeat = "L" }
logits = { op = "matmul", in = "h", features = "P", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }
[block.layer]
in  = ["x"]
out = "y"
qkv  = { op = "matmul", in = "x", features = "3*C" }
attn = { op = "attention", in = { qkv = "qkv" }, heads = 2 }
y    = { op = "add", in = ["x", "attn"] }
[init]
"h.*.qkv.weight" = "normal(0.02 / sqrt(2*L))"
[hf]
architectures = ["X"]
[hf.dims]
C = ["hidden", "n_embd"]
[hf.params]
"wte.weight" = "wte"
"h.{i}.qkv.weight" = { from = "a.{i}", transpose = true }
"""
CONFIG = """
model = "gpt2_124m"
extends = "base.toml"
[dims]
B = 4
T = "8*B"
[data]
train = "a.txt"
val = ["b.txt", "c/*.txt"]
[train]
steps = 10
tokens_per_step = 512
freeze = ["h.*"]
[optimizer]
name = "adamw"
lr = 3e-4
betas = [0.9, 0.95]
[schedule]
name = "cosine"
warmup = 2
[ops]
matmul = "auto"
generate = { matmul = "naive" }
[nodes]
"h.*.fc" = "naive"
[fuse]
head_loss = { chunk = 64 }
[on.cpu]
dims = { B = 2 }
train = { steps = 3 }
"""


@pytest.fixture(scope="module")
def registry() -> Any:
    return load_registry()


def test_model_files(here: Path, registry: Any) -> None:
    document = tomli.loads(MODEL)

    @fuzz
    @given(st.one_of(EDITS, EDITS, EDITS, CUT))
    def attempt(alteration: Any) -> None:
        text = (
            cut(MODEL.encode(), alteration) if isinstance(alteration, tuple) else as_toml(altered(document, alteration))
        )
        if text is None:
            return
        Path("m.toml").write_bytes(text)
        only_expected(lambda: load_model("m.toml", registry).build(registry))

    attempt()


def test_configs_their_bases_and_overrides(here: Path) -> None:
    document = tomli.loads(CONFIG)
    Path("base.toml").write_text(CONFIG.replace('extends = "base.toml"\n', ""))
    override = st.one_of(
        st.none(),
        st.tuples(
            st.sampled_from(["train.steps", "dims.B", "nodes.h.*", "extends", "on.cpu.seed", ""]), st.text(max_size=9)
        ),
        st.tuples(st.text(max_size=9), st.just("1")),
    )

    @fuzz
    @given(st.one_of(EDITS, EDITS, CUT), override, st.sampled_from(["cpu", "cuda", "sim"]))
    def attempt(alteration: Any, override: tuple[str, str] | None, device: str) -> None:
        text = (
            cut(CONFIG.encode(), alteration)
            if isinstance(alteration, tuple)
            else as_toml(altered(document, alteration))
        )
        if text is None:
            return
        Path("run.toml").write_bytes(text)
        overrides = ["=".join(override)] if override else []
        found = only_expected(lambda: load_config("run.toml", overrides=overrides, device=device))
        assert not isinstance(found, CoreError) or found.exit_code == 2

    attempt()
