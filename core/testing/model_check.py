"""The conformance check of a model with an [hf] table: compared with transformers' class, on small sizes.

`check_model("mistral_7b", peer="MistralForCausalLM")` in a plugin's test is all that most authors need.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoint.safetensors_file import write_tensors
from core.devices import SIM
from core.errors import BuildError, CheckFailed
from core.expr import Number
from core.loader import load_registry
from core.registry import Registry
from core.testing.small_model import CHOICES, RATE, Array, Objective, SmallModel
from core.testing.transformers_peer import peers_values

# relative 2-norms. transformers computes norms and angles in f32 in any precision
LOGITS, GRADIENT, LOSSES = 2e-6, 1e-5, 1e-5
SIMULATED = {"f32": LOSSES, "bf16": 2**-7, "fp16": 2**-10}  # of losses in the simulator, by the bits that are kept
FRESH = 4e-6  # of golden values computed afresh: f32 sums are taken in another order on another CPU


def distance(got: Any, expected: Any) -> float:
    """Relative 2-norm of the difference."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


@dataclass
class ModelReport:
    """The outcome of `check_model`.

    held_to: "transformers VERSION" and "golden values", those of the two that there were. errors: comparison -> the
    largest relative error. failures: sentences. skipped: the reason why no numbers of transformers were compared.
    """

    name: str
    held_to: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: str = ""

    def compare(self, label: str, got: Any, expected: Any, allowed: float) -> None:
        """One tensor compared with another; a failure has the error and the bound."""
        shapes = np.shape(got), np.shape(expected)
        error = distance(got, expected) if shapes[0] == shapes[1] else float("inf")
        self.errors[label] = max(error, self.errors.get(label, 0.0))
        if not error <= allowed:
            why = f"shape {shapes[0]}, expected {shapes[1]}" if shapes[0] != shapes[1] else f"{allowed:.0e} allowed"
            self.failures.append(f"{label}: relative error {error:.2e} ({why})")

    def losses(self, label: str, got: Sequence[float], expected: Sequence[float] | Array, allowed: float) -> None:
        """Losses of the same steps, f64 (steps,), each by its relative error."""
        far = self.errors[label] = max(abs(float(a) / float(b) - 1) for a, b in zip(got, expected, strict=True))
        if not far <= allowed:
            self.failures.append(f"{label}: relative error {far:.2e} ({allowed:.0e} allowed)")

    def raise_failures(self) -> None:
        """CheckFailed with every failure, unless there is none."""
        if self.failures:
            text = "\n  ".join([f"{self.name} disagrees in {len(self.failures)} places:", *self.failures])
            raise CheckFailed(text, hint="a wrong [hf.params] rule shows in the logits, a wrong op in its gradients")


@dataclass
class ModelCase(SmallModel):
    """A model on small sizes, to be compared with its peer and with golden values. The fields are those of
    `SmallModel`."""

    def check(self, choices: Sequence[str] = CHOICES, write: bool = False) -> ModelReport:
        """`check_model` of this case."""
        report = ModelReport(self.name)
        _ = self.graph  # raises for a model without [hf]
        expected = expectations(self, report, write)
        if expected is not None:
            for choice in choices:
                agree(self, report, choice, expected)
        decode(self, report)
        export(self, report)
        report.raise_failures()
        return report

    def check_loaded(self, model: Any, new: int = 20) -> None:
        """Compare a loaded model (`core.load` of a result of `folder`) with the golden logits, and `new` greedy tokens
        through its KV cache with those without one. Raises CheckFailed."""
        tokens = self.batch["tokens"]
        report = ModelReport(self.name)
        report.compare("logits of the loaded folder", model.logits(tokens), self.golden_values["logits"], LOGITS)
        prompt = whole = tokens[:, :4]
        for _ in range(new):
            whole = np.concatenate([whole, model.logits(whole)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
        if not np.array_equal(model.generate(prompt, max_new_tokens=new, temperature=0), whole):
            report.failures.append("tokens through the KV cache differ from those without it")
        report.raise_failures()

    def simulate(
        self, precision: str = "f32", variants: Mapping[str, str] | None = None, steps: int = 3
    ) -> ModelReport:
        """The first AdamW losses of the golden values by the kernels, in the simulator.

        variants: op -> the variant that must run it. Raises CheckFailed.
        """
        report, built = ModelReport(self.name), self.engine(device=SIM.name, precision=precision)
        losses = [built.step([self.batch], RATE).loss for _ in range(steps)]
        golden = self.golden_values["losses"][:steps]
        report.losses(f"AdamW's losses (sim, {precision})", losses, golden, SIMULATED[precision])
        ran = {row["op"]: row["variant"] for row in built.report(built.plan("train")).table()}
        for op, variant in (variants or {}).items():
            if ran.get(op) != variant:
                report.failures.append(f"{op} ran {ran.get(op, 'not at all')}, expected {variant}")
        report.raise_failures()
        return report


def check_model(
    name: str,
    dims: Mapping[str, Number | str] | None = None,
    *,
    peer: str = "",
    config: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    registry: Registry | None = None,
    golden: Path | None = None,
    write: bool = False,
    objective: Objective | None = None,
    undecayed: Sequence[str] = (),
    choices: Sequence[str] = CHOICES,
) -> ModelReport:
    """Hold a model with an [hf] table to transformers' class `peer`, where that is installed, and to `golden` values.

    Compared are logits, loss, every gradient and ten AdamW losses, with each of `choices` of variants; then decoding
    through a session's state with the whole, and an export with our reader's view of it. dims, config: see `ModelCase`.
    golden: a safetensors file of the same values, which needs no transformers; `write=True` writes it. objective: the
    loss of transformers' model where it is not the cross-entropy alone. undecayed: globs over its parameters; weight
    decay applies to its other matrices.

    Raises CheckFailed with every disagreement; BuildError for a model without [hf], or a golden file that is missing.
    """
    registry = registry or load_registry(plugins)
    case = ModelCase(name, dims or {}, config or {}, peer, golden, objective, registry, undecayed)
    return case.check(choices, write)


def expectations(case: ModelCase, report: ModelReport, write: bool) -> dict[str, Array] | None:
    """The values to agree with: transformers' here, or the file's, which are compared where there are both."""
    fresh = None
    if case.peer and find_spec("transformers") and find_spec("torch"):
        import transformers

        fresh = peers_values(case)
        report.held_to.append(f"transformers {transformers.__version__}")
    if case.golden is None:
        report.skipped = "" if fresh else "no golden values, and no peer or no transformers"
        return fresh
    if write:
        if fresh is None:
            raise BuildError(f"{case.golden}: golden values are transformers', which is not installed")
        write_tensors(case.golden, fresh, {})
    golden = case.golden_values
    report.held_to.append("golden values")
    for name, value in (fresh or {}).items():
        if name in golden:
            report.compare(f"golden {name}", value, golden[name], FRESH)
        else:
            report.failures.append(f"{case.golden}: {name} is missing")
    return golden


def agree(case: ModelCase, report: ModelReport, choice: str, expected: Mapping[str, Array]) -> None:
    """Logits, loss, gradients, and the losses of AdamW."""
    built = case.engine(choice)
    report.compare(f"logits ({choice})", built.logits(case.batch["tokens"]), expected["logits"], LOGITS)
    loss, gradients = built.gradients(case.batch)
    report.compare(f"loss ({choice})", loss, expected["loss"], LOGITS)
    wanted = {name for name in expected if name.startswith("d")}
    for name in sorted(wanted ^ {"d" + name for name in gradients}):
        report.failures.append(f"{name} ({choice}): a gradient on one side only")
    for name, value in gradients.items():
        if "d" + name in wanted:
            report.compare(f"d{name} ({choice})", value, expected["d" + name], GRADIENT)
    losses = [built.step([case.batch], RATE).loss for _ in range(len(expected["losses"]))]
    report.losses(f"AdamW's losses ({choice})", losses, expected["losses"], LOSSES)


def decode(case: ModelCase, report: ModelReport) -> None:
    """Logits through the state of a session are those of the whole: some tokens at a time, then rows of different
    lengths, which are padded, continued by one token each."""
    built, tokens = case.engine(), case.batch["tokens"]
    whole = built.logits(tokens)
    session, fed = built.session(*tokens.shape), 0
    takes = [5, 1, 1]
    for take in [*takes, tokens.shape[1] - sum(takes)]:
        fed += take
        logits = session.feed(tokens[:, fed - take : fed])
        report.compare(f"decoding token {fed}", logits, whole[:, fed - 1], LOGITS)
    rows = np.arange(tokens.shape[0])
    counts = np.maximum(tokens.shape[1] - 1 - 4 * rows, 1).astype(np.int32)
    session = built.session(*tokens.shape)
    for numbers, next_ones in ((counts, tokens), (np.ones_like(counts), tokens[rows, counts][:, None])):
        logits = session.feed(next_ones, numbers)
        held = session.start
        report.compare(f"decoding rows of {held.tolist()} tokens", logits, whole[rows, held - 1], LOGITS)


def export(case: ModelCase, report: ModelReport) -> None:
    """Our reader finds the same bits in our export."""
    with tempfile.TemporaryDirectory() as place:
        back = case.read(case.folder(Path(place) / "export"))
        for name, value in case.weights.items():
            if not np.array_equal(back[name], value):
                report.failures.append(f"export: {name} has other values after a round trip")
