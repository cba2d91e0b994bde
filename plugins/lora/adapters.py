"""Adapters of a trained model: merged into its weights, or alone in the format of PEFT, whose names are Hugging Face's.

A packed matrix (queries, keys and values) is several modules there: each has the whole A, and its own rows of B.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import tomli_w

import core
from core import CheckpointError, UsageError
from core.expr import evaluate
from core.files import write_durably
from core.interop import name_pattern, write_tensors
from core.outputs import new_path, staged

A, B = ".lora_a.weight", ".lora_b.weight"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def opened(path, plugins):
    """The model at a path, the options of its adapters, and the names of their nodes. UsageError without any."""
    model = core.load(path, plugins=plugins)
    table = model.graph.source.document.get("adapt", {}).get("lora")
    if table is None:
        raise UsageError(f"{path}: model {model.graph.name} has no table [adapt.lora]")
    settled = {**model.engine.registry.adapters["lora"].options, **table}
    return model, settled, [name.removesuffix(A) for name in model.params if name.endswith(A)]


def base_of(model, folder, plugins):
    """The model without its adapters, whose parameters are those of the same names."""
    document = model.graph.source.document
    adapt = {name: table for name, table in document["adapt"].items() if name != "lora"}
    rest = {name: value for name, value in document.items() if name != "adapt"}
    file = Path(folder) / f"{model.graph.name}.toml"
    file.write_text(tomli_w.dumps({**rest, **({"adapt": adapt} if adapt else {})}))
    base = core.load(file, plugins=plugins)
    base.tokenizer = model.tokenizer
    for name, values in base.params.items():
        values[...] = model.params[name]
    return base


def merge(path, out, plugins):
    model, options, nodes = opened(path, plugins)
    with tempfile.TemporaryDirectory() as folder:
        base = base_of(model, folder, plugins)
        tied = [node for node in nodes if base.graph.node(node).params["weight"] != f"{node}.weight"]
        if tied:
            raise UsageError(f"{tied[0]}: its weight is tied to another node's: adapters cannot be merged into it")
        for node in nodes:
            weight, product = base.params[f"{node}.weight"], model.params[node + B] @ model.params[node + A]
            weight += weight.dtype.type(options["alpha"] / options["rank"]) * product
        base.save(out)


def save(path, out, plugins, base_name):
    """Write PEFT's two files; the number of parameters in them. CheckpointError for a node that has no such name."""
    model, options, nodes = opened(path, plugins)
    with tempfile.TemporaryDirectory() as folder:
        base = base_of(model, folder, plugins)
        names = base.names("hf")
        tensors, modules, transposed = {}, [], set()
        for node in nodes:
            theirs = names.get(f"{node}.weight")
            if theirs is None:
                raise CheckpointError(f"{node}.weight has no name in [hf.params]: PEFT cannot have its adapter")
            several = [theirs] if isinstance(theirs, str) else list(theirs)
            a, b = model.params[node + A], model.params[node + B]
            first = 0
            for name, rows in zip(several, rows_of(base, f"{node}.weight", len(several)), strict=True):
                module = name.removesuffix(".weight")
                modules.append(module)
                tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
                tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b[first : first + rows])
                first += rows
            transposed.add(is_transposed(base, f"{node}.weight"))
        if len(transposed) > 1:
            raise CheckpointError(
                "some of the adapted matrices are transposed in Hugging Face's model and some are not"
            )
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name or None,
        "r": options["rank"],
        "lora_alpha": options["alpha"],
        "lora_dropout": options["dropout"],
        "target_modules": modules,
        "fan_in_fan_out": True in transposed,
        "bias": "none",
        "inference_mode": True,
    }
    with staged(new_path(out)) as folder:
        folder.mkdir(exist_ok=True)
        write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
        write_durably(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return sum(array.size for array in tensors.values())


def rule_of(base, name):
    """The rule of [hf.params] that a parameter's tensors follow."""
    rules = base.graph.source.document["hf"]["params"]
    return next(rule for template, rule in rules.items() if name_pattern(template).fullmatch(name))


def rows_of(base, name, count):
    """The rows of each of the tensors that a parameter is made of."""
    rule = rule_of(base, name)
    if isinstance(rule, dict) and "sizes" in rule:
        return [int(evaluate(size, base.graph.dims, name)) for size in rule["sizes"]]
    return [base.params[name].shape[0] // count] * count


def is_transposed(base, name):
    """Whether Hugging Face's file has the transpose of a matrix, as GPT-2's Conv1D."""
    rule = rule_of(base, name)
    return isinstance(rule, dict) and bool(rule.get("transpose"))
