"""The tokenizer that a run's token shards were made with, and its place.

The sidecar of a shard of corelm names it; one of another program has only the header's magic number. A tokenizer
that differs from the one in the config is refused; without its files a run only lacks samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data.shards import Shard, json_sidecar
from core.data.tokenizer_sidecar import tokenizer_record
from core.errors import DataError
from core.tokenizers.kinds import own_kinds
from core.tokenizers.preference import TokenizerChoice, TokenizerNeed, parse_spec, recorded_choice
from core.tokenizers.recorded import load_tokenizer
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds, TokenizerRequest


def promised_hash(name: str, kinds: Kinds | None = None) -> str:
    """The hash of the tokenizer that a shard's header or an evaluation promises by name; "" where no kind states it."""
    kind = (kinds or own_kinds()).get(name)
    return kind.hash if kind is not None else ""


def choose_for_shards(need: TokenizerNeed, shards: Sequence[Shard], beside: bool) -> TokenizerChoice | None:
    """A recorded tokenizer, else that of the shards; None, with a note, where it is not here.

    beside: whether there is text to train on too, which needs a tokenizer. Raises DataError for another tokenizer than
    the shards' own.
    """
    record = shards_record(shards)
    if record is not None:
        check_record(need, record, shards[0].path)
    if need.recorded is not None:
        check_promise(shards, need.recorded, need.notes, need.kinds)
        return recorded_choice(need.recorded, need.why)
    try:
        if record is not None:
            return find_tokenizer(need, record, [shard.path for shard in shards])
        return promised_tokenizer(need, shards)
    except DataError as error:
        if beside:
            raise
        need.notes.append(f"no samples: the shards' tokenizer is not here ({error.message})")
        return None


def shards_record(shards: Sequence[Shard]) -> dict[str, Any] | None:
    """The one tokenizer that all sidecars name, or None without sidecars. DataError when there are two."""
    named: dict[str, tuple[Path, dict[str, Any]]] = {}
    for shard in shards:
        record = tokenizer_record(shard.path)
        if record is not None:
            named.setdefault(record["hash"], (shard.path, record))
    if len(named) > 1:
        (a, first), (b, second) = list(named.values())[:2]
        raise DataError(
            f"two tokenizers: {a} was made with {_short(first)}, {b} with {_short(second)}",
            hint="prepare both from their text with one tokenizer",
        )
    if len({shard.format for shard in shards}) > 1:
        raise DataError(
            "shards of GPT-2's and of LLaMA-3's format in one run: they have different tokenizers",
            hint="choose one kind",
        )
    return next(iter(named.values()))[1] if named else None


def check_record(need: TokenizerNeed, record: dict[str, Any], shard: Path) -> None:
    """DataError where the tokenizer that a shard's sidecar names is not the run's, or does not fit the model."""
    recorded, preference, vocab = need.recorded, need.preference, need.vocab
    made = f"the shards ({shard}) were made with {_short(record)}"
    if recorded is not None and recorded.hash != record["hash"]:
        raise DataError(
            f"{made}, the run with {_short(recorded.record())}",
            hint="prepare the text again with the run's tokenizer.json, as bpe:PATH",
        )
    kind, path = (
        parse_spec(preference[0], need.where, need.kinds) if len(preference) == 1 else (record.get("kind"), None)
    )
    if path is None and kind != record.get("kind"):
        raise DataError(
            f"{need.where}: {made}, the config has {preference[0]}", hint=f'write tokenizer = "{record.get("kind")}"'
        )
    if vocab is not None and int(record.get("vocab_size", 0)) > vocab:
        raise DataError(
            f"{made}, whose {record['vocab_size']:,} ids do not fit the model's vocabulary of {vocab:,}",
            hint="raise the model's vocabulary in [dims]",
        )


def check_promise(shards: Sequence[Shard], tokenizer: Tokenizer, notes: list[str], kinds: Kinds | None = None) -> None:
    """For shards whose sidecar names no tokenizer: DataError where their header promises another one than `tokenizer`,
    a note where there is no record of it."""
    for shard in shards:
        if tokenizer_record(shard.path) is not None:
            continue
        promised = None if json_sidecar(shard.path).exists() else shard.format.tokenizer
        if promised is None:
            notes.append(
                f"{shard.path}: no record names the tokenizer of its ids; they are treated as those of {tokenizer.name}"
            )
        elif (digest := promised_hash(promised, kinds)) and digest not in tokenizer.hashes:
            raise DataError(
                f"{shard.path}: a shard of {shard.format.name}'s format without a sidecar holds the ids of {promised}; "
                f"the model's tokenizer is {_short(tokenizer.record())}",
                hint="prepare the text again: core data prepare TEXT --tokenizer FILE, with the model's tokenizer.json",
            )


def find_tokenizer(need: TokenizerNeed, record: dict[str, Any], shards: Sequence[Path]) -> TokenizerChoice:
    """The tokenizer with the recorded hash: in a file beside a shard or named by the config, or a known one."""
    files = [*dict.fromkeys(shard.parent / "tokenizer.json" for shard in shards)]
    files += [path for path in (parse_spec(spec, "", need.kinds)[1] for spec in need.preference) if path is not None]
    why = f"{record.get('name')}, by the shards' sidecars"
    for file in files:
        if file.is_file():
            tokenizer = load_tokenizer(file, str(record.get("kind")), need.kinds)
            if tokenizer.hash == record["hash"]:
                return TokenizerChoice(tokenizer, why)
    kind = (need.kinds or own_kinds()).get(str(record.get("kind")))
    if kind is not None and kind.fixed:
        tokenizer = kind.make(None, TokenizerRequest(offline=need.offline))
        if tokenizer.hash == record["hash"]:
            return TokenizerChoice(tokenizer, why)
    raise DataError(f"no file has the tokenizer {_short(record)}", hint="put its tokenizer.json beside the shards")


def promised_tokenizer(need: TokenizerNeed, shards: Sequence[Shard]) -> TokenizerChoice:
    """For shards without a sidecar: the tokenizer of their header, or a file that the config names."""
    promised = shards[0].format.tokenizer
    parsed = [(spec, *parse_spec(spec, need.where, need.kinds)) for spec in need.preference]
    specs = [spec for spec, kind, path in parsed if kind == promised or path is not None]
    if promised and promised not in specs:
        specs.append(promised)
    if not specs:
        raise DataError(
            f"shards of {shards[0].format.name}'s format name no tokenizer", hint='name a file: tokenizer = "bpe:PATH"'
        )
    return need.choose(specs)


def _short(record: dict[str, Any]) -> str:
    return f"{record.get('name')} (sha256 {str(record.get('hash'))[:16]}...)"


def choose_without_text(need: TokenizerNeed) -> TokenizerChoice | None:
    """A tokenizer for pieces of tokens that name none: one that needs no text. None, with a note, without one."""
    try:
        return need.choose(need.preference)
    except DataError as error:
        need.notes.append(f"no samples: no tokenizer of these tokens is here ({error.message})")
        return None
