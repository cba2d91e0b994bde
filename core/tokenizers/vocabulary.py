"""vocab.json and merges.txt, the form of byte-level BPE before tokenizer.json, as the document of a tokenizer.json.

It is built only where the folder names one of `CLASSES`: the class decides how a text is cut into pieces, and the files
do not record it. Source: transformers, models/gpt2/tokenization_gpt2.py and models/qwen2/tokenization_qwen2.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import DataError, words_of
from core.outside import parse_json, read_whole, reads
from core.tokenizers.tokenizer import END_OF_TEXT

VOCAB, MERGES, ADDED, MODEL = "vocab.json", "merges.txt", "added_tokens.json", "config.json"
DECODER = "added_tokens_decoder"  # of tokenizer_config.json: id -> an added token with its flags
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class Class:
    """A tokenizer class of transformers. names: without `Fast`; models: the model types that have it where a folder
    names none; pattern: the cuts of a text into pieces, "" for GPT-2's; defaults: its special tokens."""

    names: tuple[str, ...]
    models: tuple[str, ...]
    pattern: str = ""
    normalizer: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def pre_tokenizer(self, blank: bool) -> dict[str, Any]:
        """blank: whether a text gets one before it."""
        level = {**BYTE_LEVEL, "add_prefix_space": blank}
        if not self.pattern:
            return level
        cut = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [cut, {**level, "use_regex": False}]}


CLASSES = (
    Class(
        ("GPT2Tokenizer",),
        ("gpt2", "starcoder2"),
        defaults=dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
    ),
    Class(
        ("Qwen2Tokenizer",),
        ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
        QWEN2,
        {"type": "NFC"},
        dict.fromkeys(("eos_token", "unk_token", "pad_token"), END_OF_TEXT),
    ),
)


def document_of(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The document of a tokenizer.json, and tokenizer_config.json with the special tokens of the class. None where the
    two files are not there, or their class is none of `CLASSES`, or the config has settings beyond those of the class.

    config: tokenizer_config.json. DataError, naming the file, for damaged ones and for added tokens without an id.
    """
    if not (folder / VOCAB).is_file() or not (folder / MERGES).is_file():
        return None
    kind = _class(folder, config)
    if kind is None or config.get("add_bos_token") or config.get("add_eos_token"):
        return None
    config = {**kind.defaults, **config}
    vocab, merges = _json(folder / VOCAB), _merges(folder / MERGES)
    if sorted(i for i in vocab.values() if type(i) is int) != list(range(len(vocab))):
        raise DataError(f"{folder / VOCAB}: its ids are not 0 to {len(vocab) - 1}", hint="fetch it again")
    try:
        added = _added(folder, config, vocab)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{folder}: the added tokens of tokenizer_config.json or {ADDED} are damaged: {words_of(error)}"
        raise DataError(problem, hint="fetch both again") from None
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": kind.normalizer,
        "pre_tokenizer": kind.pre_tokenizer(bool(config.get("add_prefix_space"))),
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return document, config


def _class(folder: Path, config: Mapping[str, Any]) -> Class | None:
    """The class that transformers selects: tokenizer_config.json's, config.json's, or that of its model type."""
    model = _json(folder / MODEL) if (folder / MODEL).is_file() else {}
    name = config.get("tokenizer_class") or model.get("tokenizer_class")
    if name:
        return next((kind for kind in CLASSES if str(name).removesuffix("Fast") in kind.names), None)
    kinds = [kind for kind in CLASSES if model.get("model_type") in kind.models]
    return kinds[0] if kinds else None


def _json(path: Path) -> dict[str, Any]:
    try:
        with reads(DataError, path):
            value = parse_json(read_whole(path), unique=True)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value
    except ValueError as error:
        raise DataError(f"{path}: damaged: {words_of(error)}", hint="fetch it again") from None


def _merges(path: Path) -> list[str]:
    """The lines of merges.txt, a pair each, without the line of its version."""
    try:
        with reads(DataError, path):
            lines = read_whole(path).decode().split("\n")
    except ValueError as error:
        raise DataError(f"{path}: damaged: {words_of(error)}", hint="fetch it again") from None
    merges = []
    for number, line in enumerate((line.rstrip("\r") for line in lines), 1):
        if not line or line.startswith("#version"):
            continue
        if len(line.split(" ")) != 2:
            raise DataError(
                f"{path}:{number}: expected a merge of two tokens, got {line[:40]!r}", hint="fetch it again"
            )
        merges.append(line)
    return merges


def _added(folder: Path, config: Mapping[str, Any], vocab: Mapping[str, int]) -> list[dict[str, Any]]:
    """Added and special tokens by id, as tokenizer.json lists them."""
    named = list(_named(config))
    special = {token["content"] for token in named}
    ids: dict[str, Any] = _json(folder / ADDED) if (folder / ADDED).is_file() else {}
    tokens = [{"content": content, "normalized": content not in special, "id": i} for content, i in ids.items()]
    tokens += [{**token, "id": ids.get(token["content"], vocab.get(token["content"]))} for token in named]
    tokens += [{**token, "id": int(i)} for i, token in config.get(DECODER, {}).items()]
    last = {token["content"]: token for token in tokens if token["id"] is not None}  # the later source has its flags
    without = sorted(special - set(last))
    free = [token["id"] for content, token in last.items() if content not in vocab]
    moved = [content for content, token in last.items() if vocab.get(content, token["id"]) != token["id"]]
    if without or moved or sorted(free) != list(range(len(vocab), len(vocab) + len(free))):
        wrong = [*without, *moved] or [f"ids {sorted(free)[:4]}"]
        raise DataError(
            f"{folder}: added tokens do not fit {VOCAB} ({len(vocab):,} tokens): {', '.join(wrong[:4])}",
            hint=f'AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}") writes a tokenizer.json',
        )
    return [
        {
            "id": token["id"],
            "content": content,
            "special": bool(token.get("special", content in special)),
            **{flag: bool(token.get(flag, False)) for flag in FLAGS},
        }
        for content, token in sorted(last.items(), key=lambda item: item[1]["id"])
    ]


def _named(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The special tokens that the config names, once each."""
    named = [value for key, value in config.items() if key.endswith("_token") and not key.startswith("add_")]
    more = config.get("additional_special_tokens") or []
    seen = set()
    for value in [*named, *more]:
        token = value if isinstance(value, dict) else {"content": value}
        content = token.get("content")
        if isinstance(content, str) and content not in seen:
            seen.add(content)
            yield {"content": content, **{flag: token.get(flag, False) for flag in FLAGS}}
