"""A lens: one view of `core view`: its question, its data, and how these are drawn in a page and in a terminal.

A plugin brings one by the hook `core_lenses`. Its data are plain JSON, drawn by the marks that every page knows: a
plugin brings no script. The subject that a lens collects from is `core.view.Subject`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from core.errors import BuildError

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class LensMark:
    """One drawing of a lens, made by the method of its kind; None stands for a number that is absent.

    Names and texts are drawn as text, never as HTML. Raises BuildError for parts whose sizes do not fit.
    """

    kind: str
    title: str
    parts: Mapping[str, Any]

    @classmethod
    def table(cls, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> LensMark:
        """Rows of texts and numbers below a header of as many cells. BuildError for a row of another length."""
        wrong = [row for row in rows if len(row) != len(header)]
        if wrong:
            raise BuildError(f'table "{title}": a row has {len(wrong[0])} cells, and the header {len(header)}')
        return cls("table", title, {"header": list(header), "rows": [list(row) for row in rows]})

    @classmethod
    def matrix(
        cls, title: str, values: Sequence[Numbers], rows: Sequence[str] = (), columns: Sequence[str] = ()
    ) -> LensMark:
        """A number a cell, blue below zero and orange above. rows, columns: names, of all or of none.

        Raises BuildError for rows of different lengths, and for too few names.
        """
        widths = {len(row) for row in values}
        if len(widths) > 1:
            raise BuildError(f'matrix "{title}": rows have {min(widths)} to {max(widths)} cells')
        for names, count in ((rows, len(values)), (columns, max(widths, default=0))):
            if names and len(names) != count:
                raise BuildError(f'matrix "{title}": {len(names)} names for {count} rows or columns')
        cells = [list(row) for row in values]
        return cls("matrix", title, {"values": cells, "rows": list(rows), "columns": list(columns)})

    @classmethod
    def lines(cls, title: str, x: Sequence[float], series: Mapping[str, Numbers], x_name: str = "step") -> LensMark:
        """Curves over common places `x`, by name. BuildError for a curve of another length."""
        for name, values in series.items():
            if len(values) != len(x):
                raise BuildError(f'lines "{title}": {name} has {len(values)} numbers for {len(x)} places')
        curves = {name: list(values) for name, values in series.items()}
        return cls("lines", title, {"x": list(x), "series": curves, "x_name": x_name})

    @classmethod
    def bars(cls, title: str, values: Mapping[str, float], unit: str = "") -> LensMark:
        """A bar a name."""
        return cls("bars", title, {"values": dict(values), "unit": unit})

    @classmethod
    def text(cls, title: str, lines: Sequence[str]) -> LensMark:
        """Lines of text in a type of one width."""
        return cls("text", title, {"lines": list(lines)})

    @classmethod
    def colours(cls, title: str, values: Mapping[str, float]) -> LensMark:
        """A number for nodes of the graph, by their names: the view draws the graph in these colours."""
        return cls("colours", title, {"values": dict(values)})

    def as_json(self) -> dict[str, Any]:
        """The mark as the page has it."""
        return {"kind": self.kind, "title": self.title, **self.parts}


class Lens(ABC):
    """The declaration of a lens in a plugin, and its methods.

    name: an identifier, the key of its data in `core view --json`. title: its tab. question: the line below it, such
    as "Who owns the peak?". scripts: for the core's own lenses, the files of core/view/page that draw it; the marks
    draw all others.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    question: ClassVar[str] = ""
    scripts: ClassVar[tuple[str, ...]] = ()
    origin: str = ""  # the plugin's name and place; set while it is registered

    def command(self, subject: Any) -> str:
        """The command that makes the data of this lens where there are none: the page names it."""
        return " ".join(["core view", *subject.words, "--lens", self.name])

    @abstractmethod
    def collect(self, subject: Any) -> dict[str, Any] | None:
        """The data as plain JSON of a `core.view.Subject`; None where there are none to show."""

    @abstractmethod
    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """The data for a terminal, which `core view --lens NAME` prints."""

    def marks(self, data: Mapping[str, Any]) -> list[LensMark]:
        """The drawings of the data, for a lens without a script."""
        return []
