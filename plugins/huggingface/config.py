"""config.json by a model's [hf] table: keys that give sizes, keys with required values, keys to ignore.

Absent and null are two things, as in transformers: an absent key has its class's default, a null is a value. Of two
keys for one thing, the values must agree. The module knows no architecture: the models' data give keys their meaning,
and `BASE` has the keys of the base class of all configs.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from core.expr import Number
from core.interop import Dims, Graph, ModelDocument

TABLE, CONFIG = "hf", "config.json"
ABSENT, NULL = "absent", "null"  # how [hf.expect] writes a key that is not there, and JSON's null
EVERY = ".*"  # after a key: each element of its list
MISSING = object()

# Keys of PretrainedConfig (transformers 2 to 5) and of programs around it, which no model's forward pass reads: glob ->
# the values that carry nothing, None for all values. A model's own [hf.dims] and [hf.expect] come first.
BASE: dict[str, tuple[Any, ...] | None] = {
    # bookkeeping
    **dict.fromkeys(("_name_or_path", "_commit_hash", "transformers_version", "auto_map", "unsloth_*")),
    **dict.fromkeys(("_attn_implementation*", "attn_implementation", "_flash_attn_2_enabled", "_experts_impl*")),
    **dict.fromkeys(("transformers.js_config", "model_name", "loss_type")),
    **dict.fromkeys(("torch_dtype", "dtype", "torchscript", "use_bfloat16", "tf_legacy_loss", "_num_labels")),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "return_dict", "use_cache")),
    **dict.fromkeys(("return_dict_in_generate", "gradient_checkpointing", "chunk_size_feed_forward", "output_past")),
    # tasks and their heads
    **dict.fromkeys(("finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params")),
    **dict.fromkeys(("tokenizer_class", "prefix", "*_token_id", "cross_attention_hidden_size", "is_decoder")),
    # generation, before generation_config.json
    **dict.fromkeys(("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups")),
    **dict.fromkeys(("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty")),
    **dict.fromkeys(("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids")),
    **dict.fromkeys(("num_return_sequences", "remove_invalid_values", "exponential_decay_length_penalty")),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "max_new_tokens", "num_assistant_tokens*")),
    # the start of a training from nothing, and dropout while it trains
    **dict.fromkeys(("initializer_range", "attention_dropout", "*_dropout", "*_pdrop")),
    # keys that describe another model with any other value
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}


@dataclass(frozen=True)
class Size:
    """The place of a dim in config.json. absent, null: the dim for an absent key, and for JSON's null: a number
    or arithmetic over the dims; None where that is refused. A number of `null` stands for null, and is written so.
    flag: config.json has true or false, the dim 1 or 0. values: config.json has these words, the dim their numbers. A
    list of config.json is a list of the dim. loss: the dim is of the loss alone, so a run that starts from
    the weights may have another. note: a warning where the dim is not 0."""

    keys: tuple[str, ...]
    absent: Number | str | None = None
    null: Number | str | None = None
    flag: bool = False
    values: Mapping[str, Number] | None = None
    loss: bool = False
    note: str = ""

    @property
    def sentinel(self) -> Number | None:
        """The dim's number that means null and is none of config.json's; None without one."""
        return None if self.flag or isinstance(self.null, str) else self.null


@dataclass(frozen=True)
class Expected:
    """Keys of config.json for one thing, and the values that it may have; ABSENT among them where all may be absent."""

    keys: tuple[str, ...]
    allowed: tuple[Any, ...]


def listed(source: ModelDocument, key: str) -> list[str]:
    """[hf] `key` as a list; empty where it is not there."""
    return _list(source.document.get(TABLE, {}).get(key, []))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def sizes(source: ModelDocument) -> dict[str, Size]:
    """[hf.dims]: dim -> where it is."""
    dims = {}
    for dim, entry in source.document[TABLE].get("dims", {}).items():
        table = entry if isinstance(entry, dict) else {"from": entry}
        dims[dim] = Size(tuple(_list(table["from"])), **{key: table[key] for key in table if key != "from"})
    return dims


def expected(source: ModelDocument) -> list[Expected]:
    """[hf.expect], in its order."""
    entries = []
    for key, entry in source.document[TABLE].get("expect", {}).items():
        table = entry if isinstance(entry, dict) else {"from": key, "is": entry}
        entries.append(Expected(tuple(_list(table["from"])), tuple(_list(table["is"]))))
    return entries


def matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def read_config(source: ModelDocument, config: Mapping[str, Any]) -> tuple[Dims, list[str]]:
    """The dims that config.json gives, and everything in it that is not this model's, a line each."""
    problems: list[str] = []
    refused: set[str] = set()  # tables with a value of another model: their other values are no problem
    for entry in expected(source):
        unexpected = list(_unexpected(entry, config))
        problems += unexpected
        refused |= {key.rpartition(".")[0] for key in entry.keys if unexpected and "." in key}
    problems += _unknown(source, config, refused)
    dims: Dims = {}
    for dim, size in sizes(source).items():
        value, problem = _size(size, config, dim)
        if problem:
            problems.append(problem)
        elif value is not None:
            dims[dim] = value
    return dims, [f"{CONFIG}: {problem}" for problem in problems]


def _size(size: Size, config: Mapping[str, Any], dim: str) -> tuple[Any, str]:
    """A dim as config.json has it, or the problem with it."""
    there = {key: value for key in size.keys if (value := look_up(config, key)) is not MISSING}
    shown = [f"{key} is {json.dumps(value):.100}" for key, value in there.items()]
    values = list(there.values())
    if not values:
        lacking = f"there is no {' or '.join(size.keys)}, which the model's {dim} comes from"
        return size.absent, lacking if size.absent is None else ""
    if any(value != values[0] or (value is None) != (values[0] is None) for value in values):
        return None, f"{' and '.join(shown)}: expected one value, which the model's {dim} comes from"
    value = values[0]
    if value is None and size.null is not None:
        return size.null, ""
    if isinstance(value, list) and value:
        read = [_number(size, part, shown[0]) for part in value]
        return [number for number, _ in read], next((problem for _, problem in read if problem), "")
    return _number(size, value, shown[0])


def _number(size: Size, value: Any, shown: str) -> tuple[Number | None, str]:
    """The number of a value of config.json, or the problem with it."""
    if size.values is not None:
        number = size.values.get(value) if isinstance(value, str) else None
        return number, f"{shown}; expected {' or '.join(size.values)}" if number is None else ""
    if size.flag:
        wrong = "" if isinstance(value, bool) else f"{shown}; expected true or false"
        return (None, wrong) if wrong else (int(value), "")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, f"{shown}; expected a number" + (" or null" if size.null is not None else "")
    if size.sentinel is not None and value == size.sentinel:
        return None, f"{shown}; expected another number, or null for none"
    return (int(value) if float(value).is_integer() else value), ""


def _unexpected(entry: Expected, config: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the values that a model expects."""
    words = " or ".join(json.dumps(a) if a not in (ABSENT, NULL) else str(a) for a in entry.allowed)
    there = [(key, value) for key in entry.keys for value in _values(config, key) if value is not MISSING]
    if not there and ABSENT not in entry.allowed:
        yield f"{' or '.join(k.removesuffix(EVERY) for k in entry.keys)} is absent, expected {words}"
    for key, value in {key: value for key, value in there if not _is(value, entry.allowed)}.items():
        yield f"{key.removesuffix(EVERY)} is {json.dumps(value):.100}, expected {words}"


def _is(value: Any, allowed: Sequence[Any]) -> bool:
    plain = [a for a in allowed if a not in (ABSENT, NULL)]
    return (value is None and NULL in allowed) or any(
        isinstance(value, bool) == isinstance(a, bool) and bool(value == a) for a in plain
    )


def _unknown(source: ModelDocument, config: Mapping[str, Any], refused: Set[str]) -> Iterator[str]:
    """A line for each key that nothing accounts for, those in the tables `refused` left out."""
    ignore = listed(source, "ignore")
    of = [size.keys for size in sizes(source).values()] + [entry.keys for entry in expected(source)]
    keys_known = {"architectures", *(key.removesuffix(EVERY) for keys in of for key in keys)}
    tables = {table for key in keys_known for table in _up_to(key)[:-1]}
    for key in _leaves(config):
        no_table = key in tables and not look_up(config, key)  # null where a table may be: it is not there
        if no_table or any(name in keys_known or name in refused or matches(name, ignore) for name in _up_to(key)):
            continue
        allowed = next((values for name in _up_to(key) for glob, values in BASE.items() if matches(name, [glob])), ())
        if allowed is None or look_up(config, key) in allowed:
            continue
        if allowed:
            yield f"{key} is {json.dumps(look_up(config, key)):.100}, expected {json.dumps(allowed[0])}"
        else:
            yield f'key "{key}" is unknown: neither mapped nor on the ignore list of [{TABLE}]'


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, MISSING when it is not there."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def _values(config: Mapping[str, Any], key: str) -> list[Any]:
    """The value of a key, or those of its list's elements."""
    value = look_up(config, key.removesuffix(EVERY))
    return value if key.endswith(EVERY) and isinstance(value, list) else [value]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of everything that is no table with something in it."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _up_to(key: str) -> list[str]:
    """`a.b.c` and the tables around it: a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


# --- writing -------------------------------------------------------------------------------------------------------


def written(graph: Graph) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of config.json for a model: the first value that [hf.expect] allows, and the dims under
    their first keys, a dim that means none as null."""
    for entry in expected(graph.source):
        first = entry.allowed[0]
        if first != ABSENT:
            yield entry.keys[0], None if first == NULL else first
    for dim, size in sizes(graph.source).items():
        number = graph.dims[dim]
        shown = [_shown(size, part) for part in number] if isinstance(number, tuple) else _shown(size, number)
        yield size.keys[0], None if size.sentinel is not None and number == size.sentinel else shown


def _shown(size: Size, number: Number) -> Any:
    """A number of a dim as config.json has it."""
    if size.values is not None:
        return next((word for word, n in size.values.items() if n == number), number)
    if isinstance(size.absent, float):
        return float(number)  # a class of transformers may refuse 30 for 30.0
    return bool(number) if size.flag else int(number) if isinstance(number, int) else number
