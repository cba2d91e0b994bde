"""Model files and configs, altered in 1,000 ways each: read as they are, or refused by a CoreError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w
from alterations import CUT, EDITS, altered, cut, fuzz, only_expected
from hypothesis import given
from hypothesis import strategies as st

from core.config import load_config
from core.errors import CoreError
from core.graph import load_model
from core.loader import load_registry


def as_toml(document: Any) -> bytes | None:
    """The document as TOML; None where TOML has no form for it."""
    try:
        return tomli_w.dumps(document).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError):
        return None


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
