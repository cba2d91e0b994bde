"""Tokenizers in Hugging Face's form: ours as a tokenizer.json of the `tokenizers` library, and such a file as ours.

Both have byte-level BPE with GPT-2's pattern, which is `ByteLevel` there: written so, every tokenizer here gives the
same ids in that library. A file with anything else (another pattern, a normalizer, more special tokens than end of
text) would get other ids from ours: the library itself reads such a file, see `library.py`.
"""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import signals
from core.errors import DataError, UsageError, words_of
from core.outside import parse_json, read_whole, reads
from core.tokenizers.byte_pairs import GPT2_HASH, BytePairTokenizer
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.token_files import byte_letters
from core.tokenizers.tokenizer import END_OF_TEXT, Tokenizer
from core.tokenizers.vocabulary import BYTE_LEVEL, VOCAB, document_of

FILE, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIAL = "special_tokens_map.json"  # where older folders name special tokens
LONGEST_TOKEN, MOST_BYTES = 1 << 14, 1 << 23  # bytes of a token, and of all; 250,000 have a quarter of it
OTHER_FORMS = ("vocab.json", "merges.txt", "tokenizer.model", "vocab.txt", "spiece.model")
# Settings of a BPE that change ids, and their values without an effect.
PLAIN_MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("BPE", None),
    "dropout": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def write_files(tokenizer: Tokenizer, longest: int | None) -> dict[str, bytes]:
    """File name -> contents of the files of transformers' AutoTokenizer. longest: tokens that the model takes."""
    if isinstance(tokenizer, LibraryTokenizer):
        return tokenizer.files
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        **({"model_max_length": longest} if longest else {}),
    }
    return {
        FILE: json.dumps(to_tokenizers(tokenizer), indent=1, ensure_ascii=False).encode(),
        CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
    }


def to_tokenizers(tokenizer: Tokenizer) -> dict[str, Any]:
    """The document that `tokenizers.Tokenizer.from_str` reads. DataError for tokens that no merges lead to."""
    if tokenizer.kind not in ("gpt2", "bpe", "bytes"):
        raise DataError(
            f"tokenizer {tokenizer.name} is llama2.c's, which has no form there", hint="only byte-level BPE has one"
        )
    letters = byte_letters()
    written = ["".join(letters[byte] for byte in token) for token in tokenizer.tokens]
    end = {"id": tokenizer.eot, "content": END_OF_TEXT, "special": True, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": {**BYTE_LEVEL, "trim_offsets": False},
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {**{token: i for i, token in enumerate(written)}, END_OF_TEXT: tokenizer.eot},
            "merges": [" ".join("".join(letters[b] for b in part) for part in parts) for parts in _merges(tokenizer)],
        },
    }


def _merges(tokenizer: Tokenizer) -> list[list[bytes]]:
    """The two parts of each token of several bytes, in the order of ids."""
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    merges = []
    longest, total = max(map(len, tokenizer.tokens), default=0), sum(map(len, tokenizer.tokens))
    if longest > LONGEST_TOKEN or total > MOST_BYTES:
        raise DataError(
            f"tokenizer {tokenizer.name}: its tokens have {total:,} bytes, the longest {longest:,}; at most "
            f"{MOST_BYTES:,} and {LONGEST_TOKEN:,} are written",
            hint="no model's vocabulary has as many",
        )
    for rank, token in enumerate(tokenizer.tokens):
        signals.check()
        if len(token) > 1:
            parts = _split(token, ranks, rank)
            if len(parts) != 2:
                raise DataError(
                    f"tokenizer {tokenizer.name}: token {rank} ({token!r}) is not a merge of two tokens before it",
                    hint="only a byte-level BPE can be written for Hugging Face",
                )
            merges.append(parts)
    return merges


def _split(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """`token` after all merges with a rank below `below`, the lowest first, of equal ones the first.

    Takes n log n look-ups for n bytes: pairs wait in a heap, and one whose parts were merged meanwhile is passed over.
    """
    ends = list(range(1, len(token) + 1))  # of the part that starts at each byte; 0: none does any more
    begins = list(range(-1, len(token)))  # of the part before the one that starts at each byte
    waiting: list[tuple[int, int, int, int]] = []  # rank, begin, middle, end

    def pair(begin: int) -> None:
        middle = ends[begin] if begin >= 0 else len(token)
        if middle < len(token):
            rank = ranks.get(token[begin : ends[middle]], below)
            if rank < below:
                heapq.heappush(waiting, (rank, begin, middle, ends[middle]))

    for begin in range(len(token) - 1):
        pair(begin)
    count = len(token)
    while waiting and count > 2:
        _, begin, middle, end = heapq.heappop(waiting)
        if ends[begin] == middle and ends[middle] == end:
            ends[begin], ends[middle], count = end, 0, count - 1
            begins[end] = begin
            pair(begins[begin])
            pair(begin)
    return [token[begin:end] for begin, end in enumerate(ends) if end]


def read_folder(folder: Path) -> Tokenizer | None:
    """The tokenizer in a Hugging Face folder: its tokenizer.json, or its vocab.json and merges.txt where their class is
    known; None without, and with a warning where only the tokenizers library reads it, and that one is not here.

    Raises DataError for a file that is damaged, or whose tokens' bytes are not known.
    """
    path = folder / FILE
    if path.is_file():
        return read_file(path)
    older = document_of(folder, _config(folder))
    if older is None:
        return None
    document, config = older
    return _made(json.dumps(document, ensure_ascii=False), config, folder / VOCAB)


def other_forms(folder: Path) -> str:
    """The other files of a tokenizer in a folder, and the program that makes a tokenizer.json of them; "" for none."""
    files = [name for name in OTHER_FORMS if (folder / name).is_file()]
    if not files:
        return ""
    call = f'AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")'
    return f"{', '.join(files)} are there and no {FILE}: transformers' {call} makes one of them"


def read_file(path: Path) -> Tokenizer | None:
    """The tokenizer of the tokenizers library in a file, with the files beside it; as `read_folder`."""
    try:
        with reads(DataError, path):
            document = read_whole(path).decode()
    except ValueError as error:
        raise _damaged(path, error) from None
    return _made(document, _config(path.parent), path)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: not a file of the tokenizers library, or damaged: {words_of(error)}",
        hint="fetch it again, or move it away: the model can be used without",
    )


def _made(document: str, config: dict[str, Any], path: Path) -> Tokenizer | None:
    """The tokenizer of a document, corelm's where it is one of corelm; path: its origin, for errors."""
    folder = path.parent
    try:
        tokens = _tokens(parse_json(document, unique=True))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if tokens is None or config.get("chat_template"):
        try:
            template = str(folder / (TEMPLATE if (folder / TEMPLATE).is_file() else CONFIG))
            name = folder.resolve().name
            return LibraryTokenizer(document, config, name=name, where=str(path), template_file=template)
        except UsageError as error:  # the library is an extra, and a model is of use without text, or without chats
            missing = "no tokenizer" if tokens is None else "no chat template"
            warnings.warn(f"{error.message}, so the model has {missing}: {error.hint}", stacklevel=2)
            if tokens is None:
                return None
    tokenizer = BytePairTokenizer("bpe", tokens, name=folder.resolve().name)
    return BytePairTokenizer("gpt2", tokens) if tokenizer.hash == GPT2_HASH else tokenizer


def _config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template that newer folders have in a file of its own. {} without."""
    config: dict[str, Any] = {}
    path = folder / CONFIG
    try:
        if path.is_file():
            config = dict(parse_json(read_whole(path)))
        path = folder / SPECIAL
        if path.is_file() and "added_tokens_decoder" not in config:  # as transformers decides whom to believe
            config |= {key: value for key, value in parse_json(read_whole(path)).items() if key.endswith("_token")}
        path = folder / TEMPLATE
        if path.is_file():
            config["chat_template"] = read_whole(path).decode()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="fetch it again, or move it away") from None
    return config


def _tokens(document: Any) -> list[bytes] | None:
    """The tokens by id; None for a tokenizer that is not byte-level BPE in the order of its merges."""
    model, pre = document["model"], document.get("pre_tokenizer") or {}
    if document.get("normalizer") is not None or any(model.get(k) not in ok for k, ok in PLAIN_MODEL.items()):
        return None
    if pre.get("type") != "ByteLevel" or pre.get("add_prefix_space") or pre.get("use_regex") is False:
        return None
    vocab: dict[str, int] = dict(model["vocab"])
    added = [(token["content"], token["id"]) for token in document.get("added_tokens", [])]
    vocab.pop(END_OF_TEXT, None)
    if added != [(END_OF_TEXT, len(vocab))]:
        return None
    byte_of = {letter: byte for byte, letter in byte_letters().items()}
    written = sorted(vocab, key=lambda token: vocab[token])
    merged = [_joined(merge) for merge in model["merges"]]
    in_order = [vocab[token] for token in written] == list(range(len(written)))
    if not in_order or [token for token in written if len(token) > 1] != merged:
        return None  # ids that are not the order of merging: our encoder takes them for it
    return [bytes(byte_of[letter] for letter in token) for token in written]


def _joined(merge: str | Sequence[str]) -> str:
    """A merge's token: written "a b", or ["a", "b"] by newer versions."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first + second
