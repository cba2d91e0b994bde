"""Adapters in PEFT's format, added to the weights of their base model. Names of modules are Hugging Face's, by [hf]."""

import math
from pathlib import Path

import core
from core import CheckpointError
from core.interop import TensorFile
from core.outside import parse_json, read_whole, reads

from .adapters import CONFIG, WEIGHTS, rows_of

LONGEST = 1 << 20  # bytes of adapter_config.json
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# keys of adapter_config.json that would make it another computation, with the values that do not
PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": ([],),
    "trainable_token_indices": ([], {}),
}


def apply(path, adapter, out, plugins):
    """Write the model of `path` with the adapters of a folder added to its weights; the number of adapted modules.
    CheckpointError for adapters that are not of this model, or not plain LoRA."""
    adapter = Path(adapter)
    alpha, root = settings(adapter / CONFIG)
    file = TensorFile(adapter / WEIGHTS)
    modules = pairs(file)
    model = core.load(path, plugins=plugins)
    places = places_of(model)
    for module, (a, b) in modules.items():
        if module not in places:
            raise CheckpointError(
                f'{file.path}: model {model.graph.name} has no matrix "{module}.weight" in [hf.params]'
            )
        name, first, rows = places[module]
        whole = model.params[name]
        if a.shape != (b.shape[1], whole.shape[1]) or b.shape[0] != rows:
            wanted = f"(rank, {whole.shape[1]}) and ({rows}, rank)"
            raise CheckpointError(f"{file.path}: {module} has A {a.shape} and B {b.shape}; expected {wanted}")
        scale = alpha / (math.sqrt(len(a)) if root else len(a))
        whole[first : first + rows] += whole.dtype.type(scale) * (b @ a).astype(whole.dtype)
    model.save(out)
    return len(modules)


def settings(path):
    """alpha, and whether it is divided by the root of the rank, of adapter_config.json."""
    try:
        with reads(CheckpointError, path):
            config = parse_json(read_whole(path, LONGEST), unique=True)
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise CheckpointError(f"{path}: expected an object with peft_type, as PEFT saves it")
    for key, values in PLAIN.items():
        if (value := config.get(key)) is not None and value not in values:
            raise CheckpointError(f"{path}: {key} is {value!r}; plain LoRA with {key} = {values[0]!r} is read")
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise CheckpointError(f"{path}: lora_alpha is {alpha!r}; expected a number")
    return float(alpha), config.get("use_rslora") is True


def pairs(file):
    """module -> (A, B) of all tensors of the file."""
    modules = {}
    for name in file:
        module = name.removeprefix(PREFIX).removesuffix(A).removesuffix(B)
        if name not in (PREFIX + module + A, PREFIX + module + B):
            raise CheckpointError(f'{file.path}: tensor "{name:.100}" is not lora_A or lora_B of a module')
        modules.setdefault(module, {})[name.removeprefix(PREFIX + module)] = file[name]
    for module, parts in modules.items():
        if len(parts) < 2 or any(array.ndim != 2 for array in parts.values()):
            raise CheckpointError(f"{file.path}: {module} has {', '.join(parts)}; expected two matrices, {A} and {B}")
    return {module: (parts[A], parts[B]) for module, parts in modules.items()}


def places_of(model):
    """module -> (parameter, first row, rows): a packed matrix is several modules."""
    places = {}
    for name, theirs in model.names("hf").items():
        several = [theirs] if isinstance(theirs, str) else list(theirs)
        if model.params[name].ndim != 2:
            continue
        first = 0
        for tensor, rows in zip(several, rows_of(model, name, len(several)), strict=True):
            places[tensor.removesuffix(".weight")] = name, first, rows
            first += rows
    return places
