"""Sources from the results of readers: layouts, arrays by input, aligned tables, mixes. Text alone needs none of it.

`[data] train` is a list of names, whose contents follow one another, or a table: input -> names, aligned by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.data.array_source import UNNAMED
from core.data.data_names import resolve
from core.data.inputs import Inputs
from core.data.source import DataSource
from core.data.text_pieces import STREAM, Names, as_list, token_pieces
from core.errors import DataError, UsageError, did_you_mean
from core.graph import Value
from core.roles import DOCUMENTS, POSITIONS, ROLES, TARGETS, TOKENS

if TYPE_CHECKING:
    from core.data.data_names import Readers
    from core.data.documents import Progress, Reading
    from core.tokenizers.tokenizer import Tokenizer

PACKED = "packed"
TEXT = ""  # the name of a list's own inputs among groups


@dataclass(frozen=True)
class Setting:
    """The inputs that sources fill. feeds: role, or input without one -> the graph's input, (B, ...). places: a config
    key such as "data.train" to its place."""

    B: int
    T: int
    seed: int
    vocab: int | None
    feeds: Mapping[str, Value]
    layout: str
    tokenizer: Tokenizer | None
    notes: list[str]
    progress: Progress | None
    where: Any = str


Groups = Mapping[str, Inputs]  # of a list, or of one of its weighted names; of a table, by input


def source_of(groups: Groups, data: Any, setting: Setting, part: str) -> DataSource:
    """The source of one part, "train" or "val", of a config's `[data]`.

    DataError where it does not give the model's inputs, and for contents that do not fit.
    """
    at = setting.where(f"data.{part}")
    sizes = (setting.B, setting.T, setting.seed)
    weights = getattr(data, "mix", {}) if part == "train" else {}
    if isinstance(getattr(data, part), Mapping):
        from core.data.joined_sources import Aligned

        named = {key: _keyed(key, inputs, setting, part) for key, inputs in groups.items()}
        first = [key for key in named if TOKENS in named[key].keys]  # its targets give way to a source of their own
        order = [*first, *(key for key in named if key not in first)]
        source: DataSource = Aligned({key: named[key] for key in order}, *sizes, part)
    elif weights:
        from core.data.joined_sources import Mixture

        members = {name: _listed(inputs, setting, part, f"{part}: {name}") for name, inputs in groups.items()}
        _same_keys(members, at)
        source = Mixture(members, weights, *sizes, part)
    else:
        source = _listed(groups[TEXT], setting, part)
    missing = [key for key in setting.feeds if key not in source.keys]
    if missing:
        names = ", ".join(setting.feeds[key].name for key in missing)
        table = f"[data.{part}]"
        raise DataError(
            f"{at}: the model reads the input {names}; this data gives {', '.join(source.keys)}",
            hint=f"write {table} as a table, with a source for each input: {setting.feeds[missing[0]].name} = "
            '"FILE.npy"; or remove the input in a model that extends this one',
        )
    return source


def parts_of(
    data: Any, where: Callable[[str], str], notes: list[str], reading: Reading, readers: Readers | None
) -> dict[str, Groups]:
    """Part -> its groups, of a config's `[data]`."""
    mix = getattr(data, "mix", {})
    return {
        part: groups_of(names, part, where, notes, reading, readers, mix if part == "train" else {})
        for part, names in (("train", data.train), ("val", data.val))
    }


def groups_of(
    names: Names,
    part: str,
    where: Callable[[str], str],
    notes: list[str],
    reading: Reading,
    readers: Readers | None,
    weights: Mapping[str, float],
) -> dict[str, Inputs]:
    """The sources of the names: under "" that of a list, under its own name that of each name with a weight, by input
    that of a table. UsageError for weights of other names than the list's."""
    key = f"data.{part}"
    lists = {f"{name}": as_list(own) for name, own in names.items()} if isinstance(names, Mapping) else {}
    if not lists:
        listed = as_list(names)
        if part == "val" and not listed:
            return {}
        if weights and set(weights) != set(listed):
            from core.data.data_faults import wrong_weights

            raise wrong_weights(where("data.mix"), weights, listed)
        lists = {name: [name] for name in listed} if weights else {"": listed}
    elif weights:
        raise UsageError(
            f"{where('data.mix')}: a mix is one of the names of a list, and [data] {part} is a table",
            hint="a table's sources are aligned by row: leave the mix out",
        )
    return {
        name: resolve(own, part, where(f"{key}.{name}" if isinstance(names, Mapping) else key), notes, reading, readers)
        for name, own in lists.items()
    }


def joined(groups: Mapping[str, Inputs]) -> Inputs:
    """The inputs of all groups."""
    whole = Inputs()
    for inputs in groups.values():
        whole.add(inputs)
    return whole


def default_feeds(B: int, T: int, vocab: int | None) -> dict[str, Value]:
    """The values of a model that reads tokens and targets."""
    return {role: Value(role, (B, T), "i32", vocab) for role in (TOKENS, TARGETS)}


def _same_keys(members: Mapping[str, DataSource], at: str) -> None:
    kinds = {name: tuple(sorted(source.keys)) for name, source in members.items()}
    if len(set(kinds.values())) > 1:
        listed = "; ".join(f"{name} gives {', '.join(keys)}" for name, keys in kinds.items())
        raise DataError(f"{at}: the sources of a mix give different inputs: {listed}", hint="mix sources of one kind")


def _listed(inputs: Inputs, setting: Setting, part: str, name: str = "") -> DataSource:
    """The source of a list of names: text, or arrays that their files name. name: of a source of a mix."""
    texts: list[Any] = [*inputs.shards, *inputs.pieces, *inputs.documents, *inputs.conversations]
    if not inputs.arrays:
        return _tokens(inputs, setting, part, name)
    if texts:
        raise DataError(
            f"{part}: {texts[0].name} is text and {_first(inputs)} an array; a list has sources of one kind",
            hint=f"[data.{part}] as a table has a source for each input",
        )
    if UNNAMED in inputs.arrays:
        raise DataError(
            f"{part}: {_first(inputs)}: the array has no input",
            hint=f'[data.{part}] INPUT = "FILE.npy", with INPUT one of {_names(setting)}',
        )
    from core.data.joined_sources import Aligned

    keys = {_key(name, setting, part): name for name in inputs.arrays}
    sources = {key: _array(key, inputs.arrays[name], setting, part) for key, name in keys.items()}
    return Aligned(sources, setting.B, setting.T, setting.seed, name or part)


def _keyed(name: str, inputs: Inputs, setting: Setting, part: str) -> DataSource:
    """The source of one line of a table: text under the tokens' name, or an array."""
    key = _key(name, setting, part)
    if not inputs.arrays:
        if key != TOKENS:
            raise DataError(
                f'{part}: {name}: expected arrays (.npy, .safetensors); text feeds the input of the role "{TOKENS}"',
                hint=f"the inputs of the model are {_names(setting)}",
            )
        return _tokens(inputs, setting, part)
    chosen = [n for n in (UNNAMED, name, key) if n in inputs.arrays]
    if not chosen:
        held = ", ".join(inputs.arrays)
        raise DataError(f'{part}: {name}: no array is called "{name}"; the file has {held}', hint="rename it there")
    arrays = [array for n in dict.fromkeys(chosen) for array in inputs.arrays[n]]
    return _array(key, arrays, setting, part)


def _array(key: str, arrays: Sequence[Any], setting: Setting, part: str) -> DataSource:
    from core.data.array_source import ArraySource

    return ArraySource(key, arrays, setting.feeds[key], setting.B, setting.T, setting.seed, part)


def _key(name: str, setting: Setting, part: str) -> str:
    """The role or name of an input of the graph. DataError for one that the model has not."""
    for key, value in setting.feeds.items():
        if name in (key, value.name):
            return key
    names = [value.name for value in setting.feeds.values()]
    raise DataError(
        f'{setting.where(f"data.{part}")}: the model has no input "{name}"{did_you_mean(name, names)}',
        hint=f"its inputs are {', '.join(names)}",
    )


def _names(setting: Setting) -> str:
    return ", ".join(value.name for value in setting.feeds.values())


def _first(inputs: Inputs) -> str:
    return next(array.name for arrays in inputs.arrays.values() for array in arrays)


def _tokens(inputs: Inputs, setting: Setting, part: str, name: str = "") -> DataSource:
    """Text, shards and conversations in the layout of the config."""
    from core.data.conversations import conversation_pieces
    from core.data.token_source import TokenSource

    notes, progress, tokenizer = setting.notes, setting.progress, setting.tokenizer
    if TOKENS not in setting.feeds:
        raise DataError(
            f"{setting.where(f'data.{part}')}: text feeds tokens, and no input of the model has the role {TOKENS}",
            hint=f'declare it in the model: roles = {{ {TOKENS} = "INPUT" }}',
        )
    pieces = [*inputs.shards, *inputs.pieces, *token_pieces(inputs.documents, tokenizer, notes, progress, part)]
    marked = conversation_pieces(inputs.conversations, tokenizer, notes, progress)
    keys = [role for role in ROLES if role in setting.feeds or role == TOKENS]
    common: dict[str, Any] = {
        "seed": setting.seed,
        "vocab": setting.vocab,
        "name": name or part,
        "least": 2 if part == "val" else None,
    }
    if setting.layout == STREAM and not marked and not {DOCUMENTS, POSITIONS} & set(keys):
        source: Any = TokenSource(pieces, setting.B, setting.T, **common)
        source.keys = keys
    else:
        source = _of_documents(pieces, marked, keys, common, setting)
    source.check_tokens()
    if TARGETS not in keys:
        notes.append(f"{part}: no input of the model has the role {TARGETS}: those of the text are left out")
    return source  # type: ignore[no-any-return]


def _of_documents(
    pieces: Sequence[Any], marked: Sequence[Any], keys: list[str], common: dict[str, Any], setting: Setting
) -> DataSource:
    settings = {"keys": keys, "tokenizer": setting.tokenizer, **common}
    if setting.layout == STREAM:
        from core.data.marked_source import MarkedSource

        return MarkedSource(pieces, marked, setting.B, setting.T, **settings)
    if setting.layout == PACKED and DOCUMENTS not in keys:
        raise UsageError(
            f'{setting.where("data.layout")}: "{PACKED}" puts several documents into a row, and no input of the model '
            f"has the role {DOCUMENTS}: tokens would see other documents",
            hint=f'connect one in the model, in = {{ qkv = "qkv", {DOCUMENTS} = "{DOCUMENTS}" }} of its attention; or '
            'layout = "rows"',
        )
    from core.data.packed_source import PackedSource

    source = PackedSource(pieces, marked, setting.B, setting.T, layout=setting.layout, notes=setting.notes, **settings)
    setting.notes.append(
        f"{source.name}: {source.documents:,} documents in {source.sequences:,} rows of {setting.T}, "
        f"{source.share:.1%} full"
    )
    return source
