"""Other programs' tokenizers, through the `tokenizers` library: any tokenizer.json, with its own ids.

The library is the extra `tokenizers`, imported when such a tokenizer is made. Its file is kept unchanged, so that a
checkpoint carries it and an export writes it back. The template in the same folder turns a chat into text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import DataError, UsageError, words_of
from core.outside import parse_json
from core.signals import Ended
from core.silence import native_silenced
from core.tokenizers.bounds import check_document, check_ids
from core.tokenizers.byte_pairs import LIBRARY_FORMAT, BytePairTokenizer
from core.tokenizers.templates import EXTRA, RENDERER
from core.tokenizers.token_files import byte_letters
from core.tokenizers.tokenizer import UNKNOWN, Tokenizer, without_surrogates

if TYPE_CHECKING:
    import tokenizers

KIND = "huggingface"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
OVER_BLANKS = re.compile(rb"[0-9A-Za-z\x80-\xff][ \t\r\n]")  # bytes of a token that continues after a word
BLANK = "\u2581"  # a blank in SentencePiece's tokens
ANSWER = "\u2042answer\u2042"  # an answer in the search for the template's end of one


class LibraryTokenizer(Tokenizer):
    """A tokenizer.json and the special tokens and chats of its tokenizer_config.json.

    document: the text of tokenizer.json. config: of tokenizer_config.json. Special tokens are not read from text, but
    from a chat's template. `begin`: the ids that it puts before a text, such as LLaMA's <s>; `eot` and `bos` are the
    ids of `eos_token` and `bos_token`. template_file: where the chat template came from, for errors. Truncation and
    padding of the file are left out, as transformers leaves them out. UsageError without the library, DataError for
    files that it cannot read, values beyond the bounds of bounds.py, and tokens whose bytes are not known.
    """

    def __init__(
        self,
        document: str,
        config: Mapping[str, Any],
        *,
        name: str,
        where: str = "tokenizer.json",
        template_file: str = "",
    ) -> None:
        self.kind, self.name, self.where = KIND, name, where
        self.template_file = template_file or where
        self.document, self.config = document, dict(config)
        parsed = _parsed(document, where)
        self._library = _library(document, where)
        self._library.encode_special_tokens = True
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        check_ids(vocabulary, where)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._special = {i for i, token in self._library.get_added_tokens_decoder().items() if token.special}
        bytes_of = _bytes_of(parsed, where)
        pieces = {i: bytes_of(token) for token, i in vocabulary.items()}  # added ones go through the decoder too
        self.tokens = tuple(pieces.get(i, UNKNOWN) for i in range(self.vocab_size))
        self.eot, self.bos = (vocabulary.get(_content(self.config.get(f"{end}_token"))) for end in ("eos", "bos"))
        self.begin = self._begin()
        first = self.encode("a")
        self.dummy = int(self.decode_bytes(first) == b" a")
        self._blank = int(first[0]) if len(first) > 1 and self.dummy else vocabulary.get(BLANK)

    def _begin(self) -> tuple[int, ...]:
        with _guarded(self.where):
            encoding = self._library.encode("a")
        first = encoding.special_tokens_mask.index(0) if 0 in encoding.special_tokens_mask else 0
        return tuple(encoding.ids[:first])

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A document begins as its own program begins a text, and its end of text is between two; one that puts nothing
        before a text has the end of text there."""
        end = () if self.eot is None else (self.eot,)
        return (end, self.begin) if self.begin else ((), end)

    @cached_property
    def _whole(self) -> bool:
        return any(OVER_BLANKS.search(token) for i, token in enumerate(self.tokens) if i not in self._special)

    @property
    def whole(self) -> bool:
        return self._whole

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the folder that it came from."""
        config = json.dumps(self.config, indent=2, ensure_ascii=False) + "\n"
        return {"tokenizer.json": self.document.encode(), "tokenizer_config.json": config.encode()}

    def encode(self, text: str) -> NDArray[np.int32]:
        """Ids (n,) int32. DataError where the library fails: a regular expression that takes too long panics there."""
        with _guarded(self.where):
            encoding = self._library.encode(without_surrogates(text), add_special_tokens=False)
        return np.array(encoding.ids, np.int32)

    def encode_more(self, text: str) -> NDArray[np.int32]:
        """The ids of a later part of a text. The blank that is put before every text stands for the part's own first
        blank; before anything else its token is left out."""
        if self.dummy and text[:1] == " " and not text[1:2].isspace():
            return self.encode(text[1:])
        ids = self.encode(text)
        return ids[1:] if self.dummy and len(ids) and ids[0] == self._blank else ids

    def encode_template(self, text: str) -> NDArray[np.int32]:
        """The ids of a chat template's text, in which special tokens are read."""
        return np.array(self.encoding(text).ids, np.int32)

    def encoding(self, text: str) -> tokenizers.Encoding:
        """The library's encoding of a chat template's text, with the characters of each token."""
        self._library.encode_special_tokens = False
        try:
            with _guarded(self.where):
                return self._library.encode(without_surrogates(text), add_special_tokens=False)
        finally:
            self._library.encode_special_tokens = True

    def decode(self, ids: ArrayLike) -> str:
        with _guarded(self.where):
            return str(self._library.decode(np.asarray(ids).reshape(-1).tolist(), skip_special_tokens=False))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(vocab_size,) bytes of text of each id; 0 for special ones."""
        return np.array([0 if i in self._special else len(t) for i, t in enumerate(self.tokens)], np.int64)

    @property
    def _table(self) -> Sequence[bytes]:
        return self.tokens

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(f"{LIBRARY_FORMAT}\n{self.document}".encode()).hexdigest()

    @cached_property
    def hashes(self) -> frozenset[str]:
        """The hash, and that of corelm's tokenizer with these tokens, as for a GPT-2 with a chat template."""
        try:
            return frozenset([self.hash, BytePairTokenizer("bpe", self.tokens[: self.eot]).hash])
        except DataError:
            return frozenset([self.hash])

    def to_json(self) -> str:
        whole = {"format": LIBRARY_FORMAT, **self.record(), "config": self.config, "document": self.document}
        return json.dumps(whole, indent=1) + "\n"

    # --- chats -------------------------------------------------------------------------------------------------

    @property
    def chat_template(self) -> str | None:
        """Jinja; of several, the one called default."""
        template = self.config.get("chat_template")
        if isinstance(template, list):
            named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
            template = named.get("default")
        return template if isinstance(template, str) and template.strip() else None

    def chat(self, messages: Sequence[Mapping[str, str]]) -> NDArray[np.int32]:
        """The ids of a chat, {"role", "content"} each, up to where the model's answer begins.

        UsageError without a template or without jinja2, DataError for a template that fails, as one does that takes
        no system message.
        """
        return self.encode_template(self.written(messages, add_generation_prompt=True))

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The ids (n,) of a whole chat, and which of them are the assistant's. Errors as of `chat`."""
        from core.tokenizers.turns import conversation

        return conversation(self, messages)

    @cached_property
    def answer_ends(self) -> frozenset[int]:
        """The special token that the chat template puts after an answer, which is not always `eot`: empty for none."""
        try:
            text = self.written([{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}])
        except DataError:
            return frozenset()
        after = self.encode_template(text.rpartition(ANSWER)[2].lstrip()) if ANSWER in text else ()
        return frozenset(int(i) for i in after[:1] if int(i) in self._special)

    def written(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        marks: tuple[str, str] | None = None,
    ) -> str:
        """The text that the chat template makes of messages. marks: texts around each `{% generation %}`."""
        if self.chat_template is None:
            raise UsageError(
                f"tokenizer {self.name} has no chat template: its model was made to continue text, not to answer",
                hint="core sample continues a text",
            )
        named = {key: value for key, value in self.config.items() if key.endswith("_token")}
        tokens = {key: _content(value) for key, value in named.items() if isinstance(value, str | dict)}
        variables: dict[str, Any] = {
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **tokens,
        }
        variables["messages"] = list(messages)
        return RENDERER.render(self.chat_template, variables, self.template_file, marks)


def from_json(value: Mapping[str, Any], where: str) -> LibraryTokenizer:
    """The tokenizer that `to_json` wrote."""
    try:
        document, config, name, digest = value["document"], value["config"], str(value["name"]), value["hash"]
        tokenizer = LibraryTokenizer(document, config, name=name, where=where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{where}: not a tokenizer of this project: {error!r:.200}", hint="import the model again"
        ) from None
    if tokenizer.hash != digest:
        raise DataError(f"{where}: damaged: its sha256 is not the recorded one", hint="import the model again")
    return tokenizer


def _library(document: str, where: str) -> tokenizers.Tokenizer:
    try:
        import tokenizers
    except ImportError:
        raise UsageError(f"{where} needs the library tokenizers", hint=EXTRA) from None
    with _guarded(where):
        library = tokenizers.Tokenizer.from_str(document)
        library.no_truncation()
        library.no_padding()
    return library


def _parsed(document: str, where: str) -> Any:
    try:
        parsed = parse_json(document, unique=True)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}", hint="fetch it again") from None
    check_document(parsed, where)
    return parsed


@contextlib.contextmanager
def _guarded(where: str) -> Iterator[None]:
    """DataError for any exception of the library: its panics are no Exceptions, and are printed before."""
    try:
        with native_silenced():
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | Ended):
            raise
        problem = f"{where}: the tokenizers library fails: {words_of(error)}"
        raise DataError(problem, hint="fetch the tokenizer again, or leave such a text out") from None


def _bytes_of(document: Any, where: str) -> Any:
    """A function from a token as it is written to its bytes, by the file's decoder."""
    decoder = document.get("decoder") or {}
    kinds = {part.get("type") for part in decoder.get("decoders", [decoder]) if isinstance(part, dict)}
    if "ByteLevel" in kinds:
        byte_of = {letter: byte for byte, letter in byte_letters().items()}
        return lambda token: bytes(byte_of[c] for c in token) if set(token) <= set(byte_of) else token.encode()
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        return functools.partial(_sentencepiece_bytes, fallback="ByteFallback" in kinds)
    raise DataError(
        f"{where}: the decoder {', '.join(map(str, kinds))} is unknown",
        hint="known: bytes (GPT-2, LLaMA 3) and SentencePiece (LLaMA 2); core.load takes token ids without one",
    )


def _sentencepiece_bytes(token: str, fallback: bool) -> bytes:
    byte = BYTE.fullmatch(token) if fallback else None
    return bytes([int(byte[1], 16)]) if byte else token.replace(BLANK, " ").encode()


def _content(token: Any) -> str:
    """A special token in tokenizer_config.json: its text, or a table that has it."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")
