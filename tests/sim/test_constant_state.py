"""An op with a state of constant size: its declaration, the faults of its decoding, and a session of a model of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaky import FAULTS, LeakReference, leak_op

from core.engine import Engine, Settings
from core.errors import BuildError
from core.graph.model_file import load_model
from core.loader import load_registry
from core.op import Op
from core.registry import Registry
from core.testing.check import check_variant

MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"
[dims]
B = 2
T = 16
V = 50
C = 8
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
mix    = { op = "leak", in = "wte", keep = 0.7 }
ln     = { op = "layernorm", in = "mix" }
last   = { op = "leak", in = "ln", keep = 0.9 }
logits = { op = "matmul", in = "last", features = "V", bias = false }
loss   = { op = "cross_entropy", in = ["logits", "targets"] }
"""


def report(reference: type[LeakReference], op: Op) -> Any:
    held = Registry()
    held.ops[op.name], held.variants[op.name] = op, {"reference": reference()}
    return check_variant(op, held.variant(op.name, "reference"), held)


def test_decoding_with_a_state_of_constant_size_passes_the_check() -> None:
    passed = report(LeakReference, leak_op())
    assert passed.passed, passed.describe_failures()
    assert passed.checks["decode"][0] > 100


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_fault_of_decoding_is_seen(fault: type[LeakReference]) -> None:
    check, words = FAULTS[fault]
    first = report(fault, leak_op()).first
    assert first.check == check and words in first.message, first


def test_a_state_that_padding_would_enter_is_refused() -> None:
    with pytest.raises(BuildError, match='the state "h" is "B C", of constant size') as refused:
        Op("scan", inputs={"x": "B T C"}, outputs={"y": "B T C"}, state={"h": "B C"}, uses=("start",))
    assert 'uses=("counts",)' in refused.value.hint


def test_initial_contents_that_are_drawn_are_refused() -> None:
    first = report(LeakReference, leak_op("normal(0.02)")).first
    assert first.check == "schema" and "every row of a state begins with the same ones" in first.message


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = Path(tmp_path_factory.mktemp("leak")) / "leaky_model.toml"
    path.write_text(MODEL)
    (path.parent / "leaky_plugin.py").write_text(
        "from leaky import LeakReference, leak_op\n\n\n"
        "def core_ops():\n    return [leak_op()]\n\n\ndef core_variants():\n    return [LeakReference]\n"
    )
    registry = load_registry([str(path.parent / "leaky_plugin.py")])
    made = Engine(load_model(str(path), registry), registry, Settings(device="cpu", precision="f64", optimizer=""))
    made.initialize(0)
    return made


def test_rows_of_different_lengths_are_continued_truncated_and_begun_anew(engine: Engine) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (3, 40)).astype(np.int32)
    whole, rows = engine.logits(tokens), np.arange(3)
    session, counts = engine.session(3, 40), np.array([40, 1, 37], np.int32)
    np.testing.assert_allclose(session.feed(tokens, counts), whole[rows, counts - 1], rtol=1e-9)
    session.rewind(37)
    assert session.start.tolist() == [0, 1, 37], "the state of 40 tokens does not give the first 37 back"
    more, new = np.array([5, 4, 2], np.int32), tokens.copy()
    for row, start in enumerate(session.start):
        new[row, : more[row]] = tokens[row, start : start + more[row]]
    places = session.start + more - 1
    np.testing.assert_allclose(session.feed(new[:, :5], more), whole[rows, places], rtol=1e-9)


def test_the_memory_of_a_session_does_not_grow_with_its_length(engine: Engine) -> None:
    def nbytes(capacity: int) -> int:
        return engine.report(engine.session(2, capacity).plan(1)).memory()["state"]

    assert nbytes(16) == nbytes(100_000) == 2 * 256  # one tensor of 2 x 8 f64 for each node, in units of 256 bytes
