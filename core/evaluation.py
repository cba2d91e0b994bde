"""An evaluation: a benchmark that `core eval --NAME FILE` scores; `core get NAME` fetches its file where it is public.

A plugin brings one by the hook `core_evaluations`. It computes with a loaded model (`core.load`) and knows no engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

Score = Mapping[str, float | int]
Progress = Callable[[int, int], None]  # examples done, of how many


class Download(NamedTuple):
    """Published files of one repository on the Hugging Face hub. kind: "dataset" or "model"."""

    repository: str
    kind: str
    files: tuple[str, ...]


class Evaluation(ABC):
    """The base class of a plugin's benchmark: its facts, and `score`, which measures a model.

    name: the option and the key in `core eval --json`. help: the option's sentence. tokenizer: the tokenizer whose ids
    the file holds, such as "gpt2"; a model with another one is refused. download: where the file is published.
    """

    name: ClassVar[str] = ""
    help: ClassVar[str] = ""
    tokenizer: ClassVar[str] = ""
    download: ClassVar[Download | None] = None
    origin: str = ""  # the plugin's name and place; set while it is registered

    @abstractmethod
    def score(self, model: Any, file: Path, most: int | None, progress: Progress) -> Score:
        """Figures by name, of the first `most` examples or all; `model` is a `core.load` result.

        Raises DataError for a damaged file.
        """

    @abstractmethod
    def line(self, score: Mapping[str, Any]) -> str:
        """The score in one line, its title first, as `core eval` prints it."""
