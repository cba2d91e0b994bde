"""Hugging Face folders: config.json and safetensors files, read by a model's [hf] tables.

Each key of config.json and each tensor is mapped, on the model's ignore list, or refused by name. A pickle
(pytorch_model.bin) is never read. The module knows no architecture: that is the models' data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError, CoreError, did_you_mean
from core.expr import Number, trim
from core.interop import CONFIG as COMPARED
from core.interop import (
    MOST,
    Array,
    Dims,
    Generation,
    Graph,
    ModelDocument,
    ModelMatch,
    ModelSource,
    Parameter,
    Registry,
    TensorFile,
    Weights,
    about,
    build,
    check_dims,
    find_model,
    load_model,
    raise_some,
    with_length,
)
from core.outside import MOST as MOST_BYTES
from core.outside import parse_json, read_whole, reads

from .config import CONFIG, TABLE, listed, matches, read_config, sizes
from .rules import Rule, rules

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
LONGEST_CONFIG = 1 << 22  # bytes of config.json; a thousand times a usual one
MOST_FILES = 10_000  # of one model; a published one of a terabyte has some hundreds
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


@dataclass(frozen=True)
class Folder:
    """A folder that was opened: its config, and which file holds each tensor. No data was read."""

    path: Path
    config: dict[str, Any]
    files: dict[str, TensorFile]

    @property
    def architectures(self) -> list[str]:
        return list(self.config["architectures"])


def open_folder(path: Path) -> Folder:
    """Read config.json and all headers. CheckpointError names the file and the fault."""
    config = _read_json(path / CONFIG)
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise CheckpointError(f'{path / CONFIG}: "architectures" is {names!r:.200}; expected a list of names')
    files: dict[str, TensorFile] = {}
    for file in _tensor_files(path):
        for name in file:
            if name in files:
                both = f"{files[name].path.name} and {file.path.name}"
                raise CheckpointError(f'{path}: tensor "{name:.100}" is in {both}')
            files[name] = file
    return Folder(path, config, files)


def _read_json(path: Path, most: int = LONGEST_CONFIG) -> dict[str, Any]:
    try:
        with reads(CheckpointError, path):
            value = parse_json(read_whole(path, most), unique=True)
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def _tensor_files(path: Path) -> list[TensorFile]:
    whole, index = (path / WHOLE).is_file(), (path / INDEX).is_file()
    if whole and index:
        raise CheckpointError(f"{path}: holds {WHOLE} and {INDEX}", hint="move one of them away")
    if whole:
        return [TensorFile(path / WHOLE)]
    if index:
        return _sharded(path)
    pickles = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{path}: {pickles[0]} is not a safetensors file; a pickle runs code when it is read, so none is read",
            hint="save the model again where it came from: model.save_pretrained(FOLDER, safe_serialization=True)",
        )
    raise CheckpointError(f"{path}: there is neither {WHOLE} nor {INDEX} beside {CONFIG}")


def _sharded(path: Path) -> list[TensorFile]:
    """The files that the index names, each of which must hold the tensors that the index has for it."""
    table = _read_json(path / INDEX, MOST_BYTES).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f'{path / INDEX}: "weight_map" is {table!r:.200}; expected tensor -> file')
    named = {name for name in table.values() if isinstance(name, str)}
    if len(named) > MOST_FILES:
        problem = f"its weights are in {len(named):,} files; at most {MOST_FILES:,} are read"
        raise CheckpointError(f"{path / INDEX}: {problem}", hint="fetch it again")
    opened: dict[str, TensorFile] = {}
    for tensor, name in table.items():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            problem = f'tensor "{tensor:.100}" is declared to be in {name!r:.200}, not a file here'
            raise CheckpointError(f"{path / INDEX}: {problem}")
        if name not in opened:
            opened[name] = TensorFile(path / name)
        if tensor not in opened[name]:
            raise CheckpointError(f'{path / name}: there is no tensor "{tensor:.100}", which {INDEX} puts there')
    return list(opened.values())


# --- which model ---------------------------------------------------------------------------------------------------


def find(folder: Folder, registry: Registry, overrides: Mapping[str, Number | str]) -> ModelMatch:
    """The registered model that a folder holds, with the sizes of its config.json; `overrides` are dims on top.

    Raises CheckpointError for a folder that no model fits, or not wholly.
    """

    def attempt(source: ModelSource) -> ModelMatch | None:
        if not set(listed(source, "architectures")) & set(folder.architectures):
            return None
        dims = {**with_length(source, _dims(source, folder)), **overrides}
        return ModelMatch(source, dims, weights(folder, build(source, registry, dims)))

    with about(str(folder.path)):
        match = find_model(registry, TABLE, attempt)
    if match is None:
        raise _unknown(folder, registry)
    return match


def match_of(path: Path, registry: Registry, overrides: Mapping[str, Number | str]) -> ModelMatch:
    """`find` of the folder at `path`, with the ends of its texts and its deviations from this model."""
    opened = open_folder(path)
    fitted = find(opened, registry, overrides)
    return replace(fitted, generation=generation(path, opened.config), notes=tuple(notes(fitted)))


def _unknown(folder: Folder, registry: Registry) -> CheckpointError:
    """For an architecture that no model answers to: the model whose config.json is nearest, and its differences alone.

    The nearest has the fewest of them; of several, the likest name of an architecture, then the base of the others.
    """
    theirs = ", ".join(folder.architectures)
    message, far = f"{folder.path}: no model answers to {theirs}", []
    for name in registry.models:
        with contextlib.suppress(CoreError):
            source = load_model(name, registry)
            names = listed(source, "architectures")
            problems = read_config(source, folder.config)[1] if names else []
            alike = max((SequenceMatcher(None, ours, theirs).ratio() for ours in names), default=0.0)
            far += [(len(problems), -alike, len(source.files), name, problems)] if names else []
    if far:
        count, *_, name, problems = min(far)
        more = [f"... and {count - MOST} more"] if count > MOST else []
        own = ", ".join(listed(load_model(name, registry), "architectures"))
        message += f"; the nearest is {name} ({own})" + (", but for" if problems else "")
        message += "".join(f"\n  {problem}" for problem in [*problems[:MOST], *more])
    hint = "`core models` lists the models; a plugin may bring this one (plugins=[PATH]), see docs/models.md"
    return CheckpointError(message, hint=hint)


def notes(match: ModelMatch) -> list[str]:
    """The remarks of a model's [hf.dims] on computations that differ from its own program's."""
    return [size.note for dim, size in sizes(match.source).items() if size.note and match.dims.get(dim)]


def architectures(registry: Registry) -> set[str]:
    """The architectures that registered models answer to. A model that cannot be read answers to none."""
    names: set[str] = set()
    for name in registry.models:
        with contextlib.suppress(CoreError):
            names.update(listed(load_model(name, registry), "architectures"))
    return names


def fitting(folder: Folder, graph: Graph) -> Weights:
    """The folder's parameters for a model that is settled. CheckpointError unless it is the same model and size."""
    source = graph.source
    if TABLE not in source.document:
        raise CheckpointError(f"{folder.path}: {source.where()} has no [{TABLE}] to read Hugging Face's names with")
    if not set(listed(source, "architectures")) & set(folder.architectures):
        raise CheckpointError(
            f"{folder.path}: holds {', '.join(folder.architectures)}; model {graph.name} answers to "
            f"{', '.join(listed(source, 'architectures'))}"
        )
    with about(str(folder.path)):
        return weights(folder, graph)


def strict(path: Path, graph: Graph) -> Weights:
    """The parameters of a folder for `graph`. CheckpointError for a config.json with anything of another model."""
    folder = open_folder(path)
    raise_some([f"{path / CONFIG}: {problem}" for problem in read_config(graph.source, folder.config)[1]])
    return weights(folder, graph)


def _dims(source: ModelDocument, folder: Folder) -> Dims:
    """The dims that config.json gives the model. Misfit for a config that is not this model's, with all reasons."""
    dims, problems = read_config(source, folder.config)
    raise_some(
        problems, f"the values that a model reads are in its [{TABLE}]; a model that extends it may have more", COMPARED
    )
    return dims


# --- tensors -------------------------------------------------------------------------------------------------------


def weights(folder: Folder, graph: Graph) -> Weights:
    """The folder's tensors as the graph's parameters: names and shapes checked, data read on demand, as floats.

    Raises CheckpointError for sizes that are not the graph's, then with every tensor that is missing, has another
    shape, or belongs to nothing.
    """
    dims = {dim: size for dim, size in sizes(graph.source).items() if not size.loss}
    keys = {dim: f"{CONFIG}: {' or '.join(size.keys)}" for dim, size in dims.items()}
    dims_here = _dims(graph.source, folder)
    check_dims({dim: dims_here[dim] for dim in dims if dim in dims_here}, graph, keys)
    reader = _Reader(folder, graph)
    for name, rule in rules(graph).items():
        reader.parameter(graph.parameters[name], rule)
    for copy, owner in graph.source.document[TABLE].get("tied", {}).items():
        reader.tied(copy, owner)
    reader.left()
    raise_some(reader.problems)
    return Weights(reader.makers)


class _Reader:
    """Takes tensors out of a folder, and keeps account of them."""

    def __init__(self, folder: Folder, graph: Graph) -> None:
        self.folder, self.source = folder, graph.source
        self.prefixes = listed(graph.source, "prefix") or [""]
        self.unused = dict.fromkeys(folder.files)
        self.problems: list[str] = []
        self.makers: dict[str, Callable[[], Array]] = {}

    def find(self, name: str) -> str | None:
        """A tensor's name in the files, with one of the prefixes."""
        match = next((p + name for p in self.prefixes if p + name in self.folder.files), None)
        if match is not None:
            self.unused.pop(match, None)
        return match

    def shape(self, name: str) -> tuple[int, ...]:
        return self.folder.files[name].shapes[name]

    def parameter(self, parameter: Parameter, rule: Rule) -> None:
        groups: list[list[str]] = []
        for group in rule.tensors:
            tensors = [self.find(name) for name in group]
            for name, at in zip(group, tensors, strict=True):
                if at is None:
                    near = did_you_mean(name, self.unused)
                    self.problems.append(f'tensor "{name}", for {parameter.name}, is missing{near}')
            groups.append([at for at in tensors if at is not None])
        if [len(g) for g in groups] != [len(g) for g in rule.tensors]:
            return
        whole = np.broadcast_to(np.float32(0), trim(parameter.shape))  # no memory: only its shape counts
        misfits = [
            f'"{name}" {self.shape(name)}, expected {expected}'
            for e, group in enumerate(groups)
            for r, name in enumerate(group)
            if self.shape(name) != (expected := rule.part(whole, e, r).shape)
        ]
        if not misfits:
            self.makers[parameter.name] = lambda: _read(self.folder, groups, rule)
            return
        turned = " transposed" if rule.transpose else ""
        shown = "; ".join(misfits[:MOST])
        self.problems.append(f"tensor {shown}: does not fit{turned}: {parameter.name} has shape {whole.shape}")

    def tied(self, copy: str, owner: str) -> None:
        """A tensor that may be there a second time: it must equal its owner."""
        tensor, made = self.find(copy), self.makers.get(owner)
        if tensor is None or made is None:
            return

        def checked() -> Array:
            ours = made()
            if not np.array_equal(_tensor(self.folder, tensor), ours):
                raise CheckpointError(
                    f'{self.folder.path}: tensor "{tensor}" differs from {owner}, which the model ties it to',
                    hint="a model whose head is a parameter of its own reads such a file",
                )
            return ours

        self.makers[owner] = checked

    def left(self) -> None:
        """Tensors that no parameter uses: the names listed as ignored are skipped, others are refused."""
        ignore = listed(self.source, "ignore")
        for name in self.unused:
            bare = [name.removeprefix(prefix) for prefix in self.prefixes]
            if not any(matches(form, ignore) for form in (name, *bare)):
                self.problems.append(f'tensor "{name}" is unknown: no parameter of the model reads it')


def _read(folder: Folder, groups: list[list[str]], rule: Rule) -> Array:
    parts = []
    for group in groups:
        tensors = [_tensor(folder, name) for name in group]
        tensors = [t.T for t in tensors] if rule.transpose else tensors
        parts.append(tensors[0] if len(tensors) == 1 else np.concatenate(tensors))
    return np.stack(parts) if rule.stack else parts[0]


def _tensor(folder: Folder, name: str) -> Array:
    array = folder.files[name][name]
    if array.dtype.kind != "f":
        raise CheckpointError(f'{folder.path}: tensor "{name}" holds {array.dtype}; expected floating point')
    return array


# --- texts ---------------------------------------------------------------------------------------------------------


def generation(folder: Path, config: Mapping[str, Any]) -> Generation:
    """The start and end of texts of a folder whose config.json is `config`.

    CheckpointError for a damaged generation_config.json.
    """
    path, more = folder / GENERATION, None
    if path.is_file():
        try:
            more = parse_json(read_whole(path))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}", hint="fetch it again, or move it away") from None
        if not isinstance(more, dict):
            raise CheckpointError(f"{path}: not a JSON object", hint="fetch it again, or move it away")
    return Generation({key: value for key, value in config.items() if key.endswith("_token_id")}, more)
