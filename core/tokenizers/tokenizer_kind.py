"""TokenizerKind: a name in `[data] tokenizer`, and the ways to make, read and restore a tokenizer of that kind.

A plugin brings one by the hook `core_tokenizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from core.errors import BuildError
from core.tokenizers.tokenizer import Tokenizer

DEFAULT_VOCAB = 4096


@dataclass(frozen=True)
class TokenizerRequest:
    """A request for a tokenizer. `text` gives the training text, or is None where there is none; `digest` names
    that text, so that a trained tokenizer can be cached; `max_vocab` is the model's vocabulary."""

    text: Callable[[], Iterable[str]] | None = None
    digest: str | None = None
    vocab_size: int = DEFAULT_VOCAB
    max_vocab: int | None = None
    offline: bool = False


class TokenizerKind:
    """The base class of a plugin's kind: its facts and its methods.

    name: the value of `[data] tokenizer`, and the `kind` of its tokenizers. forms: the values that it takes, for
    errors: ("words", "words:PATH"); () where only files and checkpoints bring it. fixed: there is one, which needs no
    text. any_file: `NAME:PATH` is any tokenizer's file, so that `make` sees no path. format: of the JSON that
    `Tokenizer.to_json` writes, which `restore` reads; "" for none. hash: of the one tokenizer that shards of tokens
    promise by this name.
    """

    name: ClassVar[str] = ""
    forms: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[bool] = False
    any_file: ClassVar[bool] = False
    format: ClassVar[str] = ""
    hash: ClassVar[str] = ""
    # member -> the methods that a class with that member must define
    promises: ClassVar[Mapping[str, tuple[str, ...]]] = {"forms": ("make",), "reads": ("read",), "format": ("restore",)}
    origin: str = ""  # the plugin's name and place; set while it is registered

    @property
    def claims(self) -> list[str]:
        """The names that only one kind may have."""
        return [f'format of tokenizers "{self.format}"'] if self.format else []

    def make(self, path: Path | None, request: TokenizerRequest) -> Tokenizer:
        """The tokenizer of `NAME:PATH`, or of `NAME`. DataError where there is none: the next of the list is tried.

        UsageError for a path where none is taken, BuildError for a kind without `forms`.
        """
        raise BuildError(f"the kind of tokenizers {self.name} defines no make")

    def why(self, request: TokenizerRequest) -> str:
        """The origin of one that was made without a path, to follow its name: ", trained on the run's own text"."""
        return ""

    def reads(self, document: Mapping[str, Any]) -> bool:
        """Whether a .json file that has no "format" of this project, and holds `document`, is of this kind."""
        return False

    def read(self, path: Path) -> Tokenizer:
        """The tokenizer of such a file. DataError for a damaged one, BuildError for a kind without `reads`."""
        raise BuildError(f"the kind of tokenizers {self.name} defines no read")

    def restore(self, value: Mapping[str, Any], where: str) -> Tokenizer:
        """The tokenizer whose `to_json` wrote `value`; where: its place, for errors.

        DataError for a damaged one, BuildError for a kind without `format`.
        """
        raise BuildError(f"the kind of tokenizers {self.name} defines no restore")


Kinds = Mapping[str, TokenizerKind]  # by name
