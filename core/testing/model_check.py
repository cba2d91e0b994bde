"""The conformance check of a model with an [hf] table: our numbers against transformers' class, on small sizes.

`check_model("mistral_7b", peer="MistralForCausalLM")` in a plugin's test is all that most authors need. transformers
shares no line with our ops. Weights and the batch come from `numpy.random.RandomState`, whose streams NumPy has frozen,
so that a committed file of golden values holds results alone. No model and no op is named here.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from core.devices import SIM
from core.engine import Engine, Settings
from core.errors import BuildError, CheckFailed
from core.expr import Number, trim
from core.graph import Graph, ModelSource, load_model
from core.interop.export import prepare
from core.interop.opened import Opened
from core.interop.tensors import TensorFile, write_tensors
from core.interop.weights import MODEL
from core.loader import load_registry
from core.registry import Registry

Array = np.ndarray[Any, Any]

SEED = 20230227
IGNORED = -1  # a target that does not count
STEPS = 10
RATE, OPTIONS = 1e-2, {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
SMALL: Mapping[str, Number | str] = {
    "B": 2, "T": 13, "S": 64, "V": 37, "P": "pad(V, 64)", "C": 16, "H": 4, "K": 2, "F": 24, "L": 2,
}  # fmt: skip

# relative 2-norms. transformers has norms and angles in f32, whatever the precision
LOGITS, GRADIENT, LOSSES = 2e-6, 1e-5, 1e-5
SIMULATED = {"f32": LOSSES, "bf16": 2**-7}  # of losses in the simulator; bf16 keeps eight bits
FRESH = 4e-6  # of golden values computed afresh: f32 sums are taken in another order on another CPU
CHOICES = ("auto", "references", "unfused")

TABLE, TARGET, CONFIG = "hf", "hf", "config.json"  # of the format that transformers reads

Objective = Callable[[Any, Any, Any], Any]  # (transformers' model, tokens, targets) -> the loss, a tensor


def distance(got: Any, expected: Any) -> float:
    """Relative 2-norm of the difference."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


@cache
def shared() -> Registry:
    """The built-in, shipped and installed plugins, loaded once in a process."""
    return load_registry()


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
        """One tensor against another; a failure has the error and the bound."""
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
class ModelCase:
    """A model on small sizes, with weights that are drawn by the names of Hugging Face's tensors.

    dims: over `SMALL`, of which only the dims that the model has are taken. config: keys of config.json over those
    that export writes, None for null. peer, golden, objective: see `check_model`.
    """

    name: str
    dims: Mapping[str, Number | str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""
    golden: Path | None = None
    objective: Objective | None = None
    registry: Registry = field(default_factory=shared)

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

    def simulate(
        self, precision: str = "f32", variants: Mapping[str, str] | None = None, steps: int = 3
    ) -> ModelReport:
        """The first AdamW losses of the golden values by the kernels, in the simulator.

        variants: op -> the variant that must run it. Raises CheckFailed.
        """
        report, built = ModelReport(self.name), self.engine(device=SIM.name, precision=precision)
        losses = [built.step([self.batch], RATE).loss for _ in range(steps)]
        report.losses(f"AdamW's losses (sim, {precision})", losses, self.kept["losses"][:steps], SIMULATED[precision])
        ran = {row["op"]: row["variant"] for row in built.report(built.plan("train")).table()}
        for op, variant in (variants or {}).items():
            if ran.get(op) != variant:
                report.failures.append(f"{op} ran {ran.get(op, 'not at all')}, expected {variant}")
        report.raise_failures()
        return report

    @property
    def kept(self) -> dict[str, Array]:
        """The golden values, f32: logits (B, T, V), loss, gradients as "d" + our parameter, each of its shape, and the
        losses of `STEPS` AdamW steps. BuildError where there are none."""
        if self.golden is None or not self.golden.is_file():
            raise BuildError(
                f"{self.golden}: there are no golden values", hint="check_model(..., write=True) writes them"
            )
        return dict(TensorFile(self.golden))

    @cached_property
    def format(self) -> Any:
        """The format that [hf] tables describe. BuildError where the plugin that brings it is not loaded."""
        return self.registry.format_of(TABLE)

    @cached_property
    def source(self) -> ModelSource:
        """The model's document by its registered name."""
        return load_model(self.name, self.registry)

    @cached_property
    def sizes(self) -> dict[str, Number | str]:
        """The dims of the check: `SMALL` where the model has them, and the case's own over these."""
        known = self.source.document.get("dims", {})
        return {dim: size for dim, size in SMALL.items() if dim in known} | dict(self.dims)

    @cached_property
    def graph(self) -> Graph:
        """Raises BuildError for a model that has no [hf] table."""
        graph = self.source.build(self.registry, self.sizes)
        if TABLE not in self.source.document:
            raise BuildError(f"{self.source.where()} has no [{TABLE}]", hint="docs/models.md shows the table")
        return graph

    @cached_property
    def weights(self) -> dict[str, Array]:
        """Our parameters, f32, without padding: normal(0, 0.25), a norm's weight around 1. Nothing is 0 or equal."""
        drawn = {}
        for name, tensors in self.format.tensors(self.graph).items():
            whole = drawn[name] = np.empty(trim(self.graph.parameters[name].shape), np.float32)
            for tensor, view in tensors:
                part = view(whole)
                stream = np.random.RandomState(zlib.crc32(tensor.encode()))
                part[...] = 0.25 * stream.standard_normal(part.shape) + ("norm" in tensor)
        return drawn

    @property
    def batch(self) -> dict[str, Array]:
        """{"tokens", "targets"} of (B, T) i32; three of the targets do not count."""
        stream, shape = np.random.RandomState(SEED), (self.graph.dims["B"], self.graph.dims["T"])
        tokens, targets = (stream.randint(0, self.graph.dims["V"], shape).astype(np.int32) for _ in range(2))
        targets.reshape(-1)[stream.permutation(targets.size)[:3]] = IGNORED
        return {"tokens": tokens, "targets": targets}

    def engine(self, choice: str = "auto", **how: Any) -> Engine:
        """Our model with those weights and AdamW. choice: one of `CHOICES`. how: device and precision of Settings."""
        chosen: dict[str, Any] = {}
        if choice == "references":
            variants = self.registry.variants
            chosen["ops"] = {op: "reference" for op in variants if "reference" in variants[op]}
        elif choice == "unfused":
            chosen["fusion"] = {name: False for name, op in self.registry.ops.items() if op.replaces}
        options = {**OPTIONS, "clip": 1e9}
        settings = {"precision": "f32", "optimizer": "adamw", "options": options, "dims": self.sizes, **chosen, **how}
        built = Engine(load_model(self.name, self.registry), self.registry, Settings(**settings))
        built.load_parameters(self.weights)
        return built

    def folder(self, path: Path, **changes: Any) -> Path:
        """An export of ours at `path`, config.json with `config` and `changes`; a value `...` removes a key."""
        opened = Opened(MODEL, path, self.source, self.sizes, self.weights)
        self.format.write(prepare(opened, self.registry, "f32"), self.registry, path, TARGET)
        config = json.loads((path / CONFIG).read_text("utf-8")) | dict(self.config) | changes
        config = {key: value for key, value in config.items() if value is not ...}
        (path / CONFIG).write_text(json.dumps(config), "utf-8")
        return path

    def read(self, path: Path) -> Mapping[str, Array]:
        """The parameters that this model's [hf] finds in a folder, f32 arrays of the same shape as the graph's.
        CheckpointError for a folder of another model."""
        found: Mapping[str, Array] = self.format.read_strictly(path, self.graph)
        return found


# --- transformers ------------------------------------------------------------------------------------------------


def peers_values(case: ModelCase) -> dict[str, Array]:
    """What transformers' class computes: logits, loss, gradients as "d" + our parameter, and `STEPS` losses.

    It loads our export, and its gradients come back through `save_pretrained` and our reader, so that neither side's
    names are written twice. Sums are in f64 where transformers has the choice. CheckFailed for what transformers reads
    as another model, or saves with other values.
    """
    import torch

    torch.set_num_threads(1)  # for tensors this small, its threads only wait for each other
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = case.folder(Path(place) / "ours"), Path(place) / "theirs"
        model = loaded(ours, case.peer)
        model.float().save_pretrained(theirs)
        check_saved(case, theirs)
        model.double()
        tokens, targets = (torch.tensor(case.batch[name], dtype=torch.long) for name in ("tokens", "targets"))

        def loss() -> Any:
            return (case.objective or cross_entropy)(model, tokens, targets)

        now = loss()
        now.backward()
        values = {"logits": model(tokens).logits.detach().numpy(), "loss": now.detach().numpy()}
        held = list(model.parameters())
        before = [p.data for p in held]
        for p in held:
            p.data = p.grad.float()
        model.save_pretrained(theirs)
        (theirs / CONFIG).write_bytes((ours / CONFIG).read_bytes())
        values |= {"d" + name: np.array(value) for name, value in case.read(theirs).items()}
        for p, value in zip(held, before, strict=True):
            p.data = value
        losses = adamw_losses(held, loss)
    return {**{name: value.astype(np.float32) for name, value in values.items()}, "losses": np.array(losses)}


def loaded(folder: Path, peer: str) -> Any:
    """transformers' model of a folder, in f64. Raises CheckFailed for another class or tensors that do not fit."""
    import torch
    from transformers import AutoModelForCausalLM

    how = {"attn_implementation": "eager", "experts_implementation": "eager"}
    reader: Any = AutoModelForCausalLM
    model, report = reader.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **how)
    if type(model).__name__ != peer:
        raise CheckFailed(f"transformers reads our export as {type(model).__name__}, expected {peer}")
    wrong = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if wrong:
        raise CheckFailed(f"transformers reads our export with tensors that do not fit {peer}: {wrong}")
    return model.double()


def check_saved(case: ModelCase, folder: Path) -> None:
    """What transformers saves, with all that it writes into config.json, is read as the same weights."""
    back = case.read(folder)
    wrong = [name for name, value in case.weights.items() if not np.array_equal(back[name], value)]
    if wrong:
        raise CheckFailed(f"{case.name}: transformers saves other values than it read: {', '.join(wrong)}")


def cross_entropy(model: Any, tokens: Any, targets: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def adamw_losses(held: Sequence[Any], loss: Callable[[], Any]) -> list[float]:
    """The losses before each of `STEPS` steps of torch's AdamW; matrices decay, vectors do not."""
    import torch

    groups = [
        {"params": [p for p in held if p.ndim > 1], "weight_decay": OPTIONS["weight_decay"]},
        {"params": [p for p in held if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=RATE, betas=tuple(OPTIONS["betas"]), eps=OPTIONS["eps"])  # type: ignore[arg-type]
    losses = []
    for _ in range(STEPS):
        adamw.zero_grad()
        now = loss()
        now.backward()
        adamw.step()
        losses.append(float(now.detach()))
    return losses


# --- ours, held to it ----------------------------------------------------------------------------------------------


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
    choices: Sequence[str] = CHOICES,
) -> ModelReport:
    """Hold a model with an [hf] table to transformers' class `peer`, where that is installed, and to `golden` values.

    Compared are logits, loss, every gradient and ten AdamW losses, with each of `choices` of variants; then decoding
    through the KV cache with the whole, and an export with what our reader finds in it. dims, config: see `ModelCase`.
    golden: a safetensors file of the same values, which needs no transformers; `write=True` writes it. objective: the
    loss of transformers' model where it is not the cross-entropy alone.

    Raises CheckFailed with every disagreement; BuildError for a model without [hf], or a golden file that is missing.
    """
    case = ModelCase(name, dims or {}, config or {}, peer, golden, objective, registry or load_registry(plugins))
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
    kept = case.kept
    report.held_to.append("golden values")
    for name, value in (fresh or {}).items():
        if name in kept:
            report.compare(f"golden {name}", value, kept[name], FRESH)
        else:
            report.failures.append(f"{case.golden}: {name} is missing")
    return kept


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
    """Logits through the KV cache, some tokens at a time, are those of the whole."""
    built, tokens = case.engine(), case.batch["tokens"]
    whole = built.logits(tokens)
    session, fed = built.session(*tokens.shape), 0
    takes = [5, 1, 1]
    for take in [*takes, tokens.shape[1] - sum(takes)]:
        fed += take
        logits = session.feed(tokens[:, fed - take : fed])
        report.compare(f"decoding token {fed}", logits, whole[:, fed - 1], LOGITS)


def export(case: ModelCase, report: ModelReport) -> None:
    """Our reader finds the same bits in our export."""
    with tempfile.TemporaryDirectory() as place:
        back = case.read(case.folder(Path(place) / "export"))
        for name, value in case.weights.items():
            if not np.array_equal(back[name], value):
                report.failures.append(f"export: {name} comes back with other values")
