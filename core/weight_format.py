"""WeightFormat: recognises, reads and writes another program's files of a model.

A plugin brings one by the hook `core_formats`. The class has the facts that the core needs before it reads anything;
its methods import the modules that do the work, so that a run without such files loads none of them. The parts that
the methods are made of are public as `core.interop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from core.errors import BuildError


class WeightFormat:
    """The base class of a plugin's format: its facts and its methods. A format that is only read
    has no `targets`, one that is only written no `recognise`.

    name: an identifier. kind: a noun with its article: "a Hugging Face folder". expected: how an error lists the
    contents that a path may hold; `kind` where it is empty. table: the table of a model's TOML that describes the
    model's files in this format; "" for none. targets: the values of `core export --to` -> the ending of an export
    without `--out`. precisions: the values of `core export --precision` that its files can have, of "f32", "bf16",
    "fp16". named: whether `names` has the parameters' names. merged: whether `extends` merges a model's table with that
    of its base, key by key, or replaces it whole. tables: of those in it, the ones that are merged too, where `false`
    removes a key.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    expected: ClassVar[str] = ""
    table: ClassVar[str] = ""
    targets: ClassVar[Mapping[str, str]] = {}
    precisions: ClassVar[tuple[str, ...]] = ("f32",)
    named: ClassVar[bool] = False
    merged: ClassVar[bool] = True
    tables: ClassVar[tuple[str, ...]] = ()
    # member -> the methods that a class with that member must define
    promises: ClassVar[Mapping[str, tuple[str, ...]]] = {"recognise": ("open", "fit"), "targets": ("write",)}
    origin: str = ""  # the plugin's name and place; set while it is registered

    @property
    def claims(self) -> list[str]:
        """The names that only one format may have: a table of the models' TOML, and each target of `core export`."""
        return [*([f"table [{self.table}]"] if self.table else []), *(f"target --to {name}" for name in self.targets)]

    def recognise(self, path: Path, head: bytes) -> str:
        """The mark by which `path` is of this format ("config.json"); "" for a path of another format.

        head: the first 256 bytes of a file, or all of a shorter one; b"" for a folder. OSError passes.
        """
        return ""

    def lacking(self, path: Path) -> str:
        """For a path that no format recognises: the parts that it lacks for this one; "" where it is unlike it."""
        return ""

    def check(self, source: Any, table: Any, path: tuple[str, ...], problems: Any) -> None:
        """Report the faults of the model's [table] to `problems`, whose key is `path`: see `core.interop.wrong`.

        source: a `core.interop.ModelDocument`.
        """

    def open(self, path: Path, registry: Any, dims: Mapping[str, Any]) -> Any:
        """The registered model that a path holds: a `core.interop.ModelMatch`. dims: the caller's own, over the file's.

        Raises CheckpointError for files that are damaged or fit no model, BuildError for a format that is not read.
        """
        raise BuildError(f"the format of weights {self.name} defines no open")

    def fit(self, path: Path, graph: Any, registry: Any) -> Any:
        """The parameters at a path for a model that is settled: a `core.interop.Fitted`.

        Raises CheckpointError unless they are of the same model and size, BuildError for a format that is not read.
        """
        raise BuildError(f"the format of weights {self.name} defines no fit")

    def tokenizer(self, path: Path) -> Any:
        """The tokenizer beside the weights, None without one. DataError for a damaged one."""
        return None

    def other_tokenizer(self, path: Path) -> str:
        """A tokenizer's other files in the folder, and the program that makes one of them that `tokenizer` reads;
        ""."""
        return ""

    def write(self, export: Any, registry: Any, out: Path, target: str) -> str:
        """Write an export (`core.interop.Export`) to the new path `out`, whole or not at all; a line to print, or "".

        target: one of `targets`. Raises BuildError for a model that the format cannot hold, CheckpointError when the
        disk refuses.
        """
        raise BuildError(f"the format of weights {self.name} defines no write")

    def names(self, graph: Any) -> dict[str, str | tuple[str, ...]]:
        """Parameter -> the format's name of it, or of the tensors whose rows it stacks; {} where it has no names."""
        return {}
