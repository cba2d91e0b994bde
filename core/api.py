"""`core.load`: a model in Python: logits, loss, gradients, updates by hand, generation, and an op-by-op trace of a
training step.

It runs one node at a time, each tensor in memory of its own, unless `fuse=True`, so that a trace shows the model as
its TOML states it. A loop with data, checkpoints and metrics is `core train`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from core.engine import Engine, Record, Settings, TraceEvent
from core.engine.checked_inputs import as_arrays, checked_ids, checked_rate, checked_seeds
from core.engine.settings import precision_on
from core.errors import BuildError, CheckpointError, DataError, NumericsError, UsageError
from core.generate import Sampling, generate_steps
from core.graph import Graph
from core.interop.opened import Dims, Opened, open_path
from core.loader import load_registry
from core.measure.evaluate import token_loss
from core.measure.weight_maps import weight_maps
from core.registry import Registry
from core.roles import S
from core.tokenizers.tokenizer import Tokenizer
from core.train.tokenizers import tokenizer_of
from core.verdicts import Verdicts

Array = np.ndarray[Any, Any]
Seeds = Mapping[str, Any]  # loss term -> d objective / d term


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str = "f32",
    ops: Mapping[str, str] | None = None,
    plugins: Sequence[str | os.PathLike[str]] = (),
    dims: Dims | None = None,
    seed: int = 1337,
    fuse: bool = False,
    optimizer: str = "",
    options: Mapping[str, Any] | None = None,
    freeze: Sequence[str] = (),
) -> Model:
    """The model at `path`, which is found by looking to be one of

    - a run's folder (its newest valid checkpoint) or a checkpoint's,
    - another program's files, of a format that a plugin brings: a Hugging Face folder (config.json with
      model.safetensors, or shards and their index), an llm.c model file (.bin, all f32 or all bf16),
    - the name of a model or the path of its TOML: its weights are then drawn from `seed`.

    A checkpoint brings its tokenizer, other files one whose ids we give too; `tokenizer` is None otherwise.

    device: "cpu", or "auto" or any value of `core train --device`. precision: "f32", "f64" (cpu only), "auto".
    ops: op -> variant, as in a config's [ops], such as {"layernorm": "reference"}. plugins: folders or files that
    bring ops and models. dims: overrides of the model's dims. fuse: plan as a training run does, with fused ops and
    shared memory; a trace then shows fewer nodes. optimizer: the one of `Model.step` and `Model.update`, such as
    "adamw", whose state begins at 0; options: its options and `clip`, as in a config's [optimizer]. freeze: globs of
    parameters that do not train.

    Raises UsageError for nothing found, two answers, or a wrong argument; CheckpointError for files that are damaged
    or fit no model; BuildError for a model that cannot be built; DeviceError.
    """
    registry = load_registry([plugins] if isinstance(plugins, str | os.PathLike) else list(plugins))
    saved = open_path(_path(path), registry, dims)
    training = {"optimizer": optimizer, "options": _options(optimizer, options or {}, registry), "freeze": freeze}
    return build_model(saved, registry, device, precision, ops or {}, seed, fuse, training)


def _options(name: str, options: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """An optimizer's options, and "clip". UsageError for one that it does not have, or without an optimizer."""
    if not name:
        if options:
            raise UsageError("core.load: options without an optimizer", hint='give one, as optimizer="adamw"')
        return {}
    from core.config import check_options  # of models that train

    one = registry.optimizer(name, "core.load(optimizer=...)")
    return check_options(options, {"clip": 1.0, **one.options}, "core.load(options=...)", (), one.below)


def build_model(
    saved: Opened,
    registry: Registry,
    device: str = "cpu",
    precision: str = "f32",
    ops: Mapping[str, str] | None = None,
    seed: int = 1337,
    fuse: bool = False,
    training: Mapping[str, Any] | None = None,
) -> Model:
    """The model that was opened, on a device: the second half of `load`. training: fields of the engine's settings."""
    fusion = {} if fuse else {name: False for name, op in registry.ops.items() if op.replaces}
    opened = registry.device(device).open()
    engine = Engine(
        saved.source,
        registry,
        Settings(
            device=opened.name,
            precision=precision,
            dims=dict(saved.dims),
            ops=dict(ops or {}),
            recorded=saved.recorded,
            resumes=False,
            fusion=fusion,
            seed=seed,
            failed=Verdicts(registry).failures_on(opened, precision_on(opened, precision)),
            alias=fuse,
            in_place=fuse,
            **(training or {}),
        ),
        opened,
    )
    if saved.weights is None:
        engine.initialize(seed)
    else:
        try:
            engine.load_parameters(saved.weights)
            saved.release()
        except BuildError as error:
            raise CheckpointError(f"{saved.path}: does not fit the model: {error.message}", hint=error.hint) from None
    return Model(engine, tokenizer_of(saved, registry.tokenizers))


class Model:
    """A model that was loaded: see `core.load`.

    tokens and targets are integers, lists or arrays, (B, T), or (T,) for one row; T may be any length that the model
    takes, and B and T may change from call to call. targets that are negative do not count. In their place a batch
    gives any inputs that the model declares: {"tokens": ..., "targets": ..., "pixels": ...}. Nothing that is given
    out has padding. Wrong shapes and ids raise DataError.

    seeds, by which an objective of one's own is trained: {term: d objective / d term}, in the term's shape, (B, T) for
    a loss per token; a term without has its weight in the model. {"loss": advantages} is a policy gradient.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self._params = MappingProxyType(engine.parameters())
        self._runs = 0  # a trace that was interrupted by another computation must not go on

    @property
    def graph(self) -> Graph:
        """The model's nodes, values, parameters and dims."""
        return self.engine.graph

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameter name -> its numbers: views, so that writing into one changes the model."""
        return self._params

    def names(self, scheme: str) -> dict[str, str | tuple[str, ...]]:
        """Our parameter names -> those of `scheme`, as "hf": a tensor's name, or several where their rows are stacked.

        scheme: a value of `core export --to` whose format has names. Some tensors are transposed:
        `[hf.params]` of the model lists them.
        """
        named = {name: one for one in self.engine.registry.formats.values() if one.named for name in one.targets}
        if scheme not in named:
            choices = " or ".join(f'"{name}"' for name in named) or "none"
            raise UsageError(f'names("{scheme}"): expected {choices}')
        return named[scheme].names(self.graph)

    def logits(self, tokens: Any) -> Array:
        """(B, T, V): for each token, the logits of the next one."""
        batch = as_arrays(tokens) if isinstance(tokens, Mapping) else self._tokens(tokens)
        self._runs += 1
        return self.engine.values(batch, [self.engine.logits_value])[0]

    def loss(self, tokens: Any, targets: Any = None) -> float:
        """The mean loss over the targets that are not negative, without gradients; dropout is off."""
        batch = self._batch(tokens, targets)
        self._runs += 1
        total, count = self.engine.evaluate(batch)
        return total / count

    def losses(self, tokens: Any, targets: Any = None) -> Array:
        """(B, T) f32: each target's own cross-entropy in nats, 0 for negative targets; other loss terms left out.

        Raises UsageError for a model whose loss has no term of that shape.
        """
        batch = self._batch(tokens, targets)
        self._runs += 1
        return self.engine.values(batch, [token_loss(self.engine)])[0]

    def gradients(self, tokens: Any, targets: Any = None, *, seeds: Seeds | None = None) -> dict[str, Array]:
        """The gradient of the mean loss by parameter name, in the parameter's shape; dropout is on. Copies.

        seeds: of another objective than the mean; see the class.
        """
        batch = self._batch(tokens, targets)
        own = self._seeds(batch, seeds)
        self._runs += 1
        return self.engine.gradients(batch, own)[1]

    def step(self, tokens: Any, targets: Any = None, *, lr: float, seeds: Any = None) -> Record:
        """Forward, backward and one update with this learning rate: its loss, gradient norm, and number of updates.

        tokens: also a list of batches, the micro-steps of one step; seeds: then a list too. The mean is over the
        targets of all of them. Raises UsageError without an optimizer, NumericsError, with nothing updated, for a loss
        or a norm that is not finite.
        """
        several = isinstance(tokens, list | tuple) and bool(tokens) and isinstance(tokens[0], Mapping)
        batches = [self._batch(one, None) for one in tokens] if several else [self._batch(tokens, targets)]
        seeds_of = seeds if several and seeds is not None else [seeds] * len(batches)
        if len(seeds_of) != len(batches):
            raise UsageError(f"there are {len(batches)} batches and {len(seeds_of)} seeds; expected one for each")
        own = [self._seeds(batch, one) for batch, one in zip(batches, seeds_of, strict=True)]
        self._runs += 1
        return _updated(self.engine.step(batches, checked_rate(lr), seeds=own))

    def update(self, gradients: Mapping[str, Array], *, lr: float) -> Record:
        """One update from `gradients`, as `gradients()` gives them: f32 or f64 in the parameters' shapes, such as
        (V, C), of each parameter that trains. `clip` and the optimizer's state apply. Raises UsageError without an
        optimizer, DataError for other names or shapes, NumericsError, with nothing updated, for a norm that is not
        finite.
        """
        self._runs += 1
        try:
            return _updated(self.engine.update(gradients, checked_rate(lr)))
        except BuildError as error:
            raise DataError(error.message, hint=error.hint) from None

    def trace(self, tokens: Any, targets: Any = None) -> Iterator[TraceEvent]:
        """One training step without its update, with a stop after each node's forward and then each one's backward.

        An event has `kind` ("forward", "backward"; "fill", "copy" and "add" for steps of no node), `node`,
        `variant`, and `tensors`: inputs, parameters, outputs and saved tensors by their names in the op's schema,
        gradients with a `d` before them. They are views of memory that later nodes use again: copy those that you keep.
        Asking the model for anything else ends the trace: its next event is a UsageError.
        """
        batch = self._batch(tokens, targets)
        self._runs += 1
        return self._guarded(self.engine.trace(batch), self._runs)

    def _guarded(self, events: Iterator[TraceEvent], run: int) -> Iterator[TraceEvent]:
        while True:
            if self._runs != run:
                raise UsageError(
                    "the model was used during its trace, which overwrote the trace's tensors",
                    hint="use it before or after the trace, or load the model twice",
                )
            event = next(events, None)
            if event is None:
                return
            yield event

    def maps(self, tokens: Any) -> dict[str, dict[str, Array]]:
        """Node -> name -> the weights by which it mixes, as its op's reference gives them: (B, heads, T, T) of queries
        over keys, (B, T, N) of tokens over experts, f32 or f64. Dropout is off.
        """
        batch = self._tokens(tokens)
        self._runs += 1
        maps: dict[str, dict[str, Array]] = {}
        for node, name, weights in weight_maps(self.engine, batch):
            maps.setdefault(node, {})[name] = weights
        return maps

    def generate(
        self,
        tokens: Any,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
    ) -> Array:
        """`tokens` and `max_new_tokens` more: (T + n,) i32 for (T,), else (B, T + n). Keys and values are cached.

        How tokens are drawn is `core.generate.Sampling`'s: temperature 0 takes the likeliest; top_k 0 and top_p 1 draw
        from all; one seed, one text. Ids that the tokenizer does not know are never drawn. Raises UsageError for more
        tokens than the model has positions.
        """
        prompt = self._tokens(tokens)[self.engine.token_input]
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 0:
            raise UsageError(f"max_new_tokens is {max_new_tokens!r}; expected a count")
        sampling = Sampling(temperature, top_k, seed, top_p, repetition_penalty)
        self._runs += 1
        needed = prompt.shape[1] + max_new_tokens
        session = self.engine.session(len(prompt), min(needed, int(self.graph.dims.get(S, needed))))
        vocabulary = self.tokenizer.vocab_size if self.tokenizer else None
        drawn = list(generate_steps(session, prompt.tolist(), max_new_tokens, sampling, vocabulary))
        whole = np.concatenate([prompt, *(column[:, None] for column in drawn)], axis=1)
        return whole[0] if np.ndim(tokens) == 1 else whole

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write the parameters as they are, in f32 or f64, with the model and the tokenizer, as a checkpoint that
        `core.load`, `core export` and `weights` take. Raises UsageError for an `out` that exists, CheckpointError when
        the disk refuses."""
        from core.interop.import_ import save_model  # of models that are saved

        text = self.tokenizer.to_json() if self.tokenizer else None
        toml = self.engine.model.to_toml(dict(self.engine.settings.dims))
        save_model(self.params, toml, Path(out), text, {"imported": {"from": self.graph.name, "as": "core.load"}})

    def __repr__(self) -> str:
        engine = self.engine
        return (
            f"<{self.graph.name}, {self.graph.parameter_count:,} parameters, {engine.precision} on "
            f"{engine.device.name}>"
        )

    # --- arguments ---------------------------------------------------------------------------------------------

    def _tokens(self, tokens: Any) -> dict[str, Array]:
        name = self.engine.token_input
        return {name: checked_ids(tokens, "tokens", self.graph.inputs[name].bound, negative=False)}

    def _batch(self, tokens: Any, targets: Any) -> dict[str, Array]:
        if not self.graph.loss:
            raise UsageError(f"model {self.graph.name} names no loss")
        if isinstance(tokens, Mapping):
            if targets is not None:
                raise UsageError("a batch by input names holds its targets too; got others beside it")
            return as_arrays(tokens)
        batch = self._tokens(tokens)
        name = self.graph.target_input
        batch[name] = checked_ids(targets, "targets", self.graph.inputs[name].bound, negative=True)
        shapes = [array.shape for array in batch.values()]
        if shapes[0] != shapes[1]:
            raise DataError(f"tokens are {shapes[0]} and targets {shapes[1]}; expected the same (B, T)")
        if not (batch[name] >= 0).any():
            raise DataError("every target is negative, which means ignored; expected at least one that is not")
        return batch

    def _seeds(self, batch: Mapping[str, Array], seeds: Any) -> dict[str, Array]:
        return checked_seeds(seeds, self.engine.term_shapes(batch))


def _updated(record: Record) -> Record:
    """The record of an update that was made. Raises NumericsError for one that was not."""
    if record.halted:
        raise NumericsError(
            f"update {record.step + 1}: loss {record.loss}, gradient norm {record.norm}: nothing was updated, and no "
            "later step will",
            hint="load the model again; a lower lr, or clip in core.load(options=...), may keep it finite",
        )
    return record


# --- contents of a path --------------------------------------------------------------------------------------------


def _path(path: str | os.PathLike[str]) -> str | Path:
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"core.load takes a path or a model's name, got {type(path).__name__}")
    return path if isinstance(path, str) else Path(path)
