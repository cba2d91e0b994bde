"""The CUDA C++ source of a kernel's PTX, as far as findings need it: the text of a line, and the `if`s around it.

This is no parser of C++. It blanks comments, strings and directives, and follows brackets; where these do not suffice,
a function returns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

LONG = 100  # characters of a line that are quoted
_HIDDEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.DOTALL | re.MULTILINE
)
_KEYWORD = re.compile(r"\b(if|for|while|switch|do)\b")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def blanked(text: str) -> str:
    """The text with comments, strings and directives as spaces; places stay unchanged."""
    return _HIDDEN.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


@dataclass(frozen=True)
class Span:
    """A half-open range of places in a text."""

    start: int
    stop: int

    def __contains__(self, place: int) -> bool:
        return self.start <= place < self.stop


@dataclass(frozen=True)
class CudaStatement:
    """An `if`, or a loop or switch (branching is False): the place of its condition, and its body."""

    branching: bool
    header: Span
    body: Span
    otherwise: Span | None = None  # of the else

    @property
    def stop(self) -> int:
        return (self.otherwise or self.body).stop


class SourceText:
    """One source file."""

    def __init__(self, text: str) -> None:
        self.whole = text
        self.lines = text.splitlines()
        self.plain = blanked(text)

    @cached_property
    def starts(self) -> list[int]:
        """The offset of each line."""
        return [0, *(match.end() for match in re.finditer("\n", self.plain))]

    def quoted(self, number: int) -> str:
        """A line, without indent, comment and semicolon; "" where the file has no such line."""
        if not 1 <= number <= len(self.lines):
            return ""
        code = self.lines[number - 1].split("//")[0].strip().rstrip(";").rstrip()
        return code if len(code) <= LONG else f"{code[:LONG]}..."

    def of_line(self, number: int) -> Span:
        if not 1 <= number <= len(self.starts):
            return Span(0, 0)
        return Span(self.starts[number - 1], self.starts[number] if number < len(self.starts) else len(self.plain) + 1)

    @cached_property
    def statements(self) -> list[CudaStatement]:
        return list(self._statements())

    def _statements(self) -> Iterator[CudaStatement]:
        for match in _KEYWORD.finditer(self.plain):
            if match[1] == "do":
                body = Span(match.end(), self._statement(match.end()))
                yield CudaStatement(False, Span(match.start(), match.end()), body)
                continue
            opening = re.compile(r"\s*(?:constexpr\b\s*)?\(").match(self.plain, match.end())
            if not opening:
                continue
            header = Span(match.start(), self._closed(opening.end() - 1))
            body = Span(header.stop, self._statement(header.stop))
            other = re.compile(r"\s*else\b").match(self.plain, body.stop) if match[1] == "if" else None
            otherwise = Span(other.end(), self._statement(other.end())) if other else None
            yield CudaStatement(match[1] == "if", header, body, otherwise)

    def _closed(self, opening: int) -> int:
        """One past the bracket that closes the one at `opening`."""
        depth = []
        for place in range(opening, len(self.plain)):
            letter = self.plain[place]
            if letter in _CLOSING:
                depth.append(_CLOSING[letter])
            elif depth and letter == depth[-1]:
                depth.pop()
                if not depth:
                    return place + 1
        return len(self.plain)

    def _statement(self, start: int) -> int:
        """The end of the statement that begins at or after `start`."""
        text, place = self.plain, start
        while place < len(text) and text[place].isspace():
            place += 1
        if text[place : place + 1] == "{":
            return self._closed(place)
        keyword = _KEYWORD.match(text, place)
        if keyword and keyword[1] == "do":
            place = self._statement(keyword.end())
        elif keyword:
            opening = text.find("(", keyword.end())
            end = self._statement(self._closed(opening)) if opening >= 0 else len(text)
            other = re.compile(r"\s*else\b").match(text, end) if keyword[1] == "if" else None
            return self._statement(other.end()) if other else end
        while place < len(text) and text[place] != ";":
            if text[place] in "})]":
                return place
            place = self._closed(place) if text[place] in _CLOSING else place + 1
        return place + 1


@dataclass
class Sources:
    """The texts that findings quote: those given by file name, and files that can be read.

    defines: macros of the compilation. quotable: the files that may be read; None for all.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    defines: Mapping[str, str | int] = field(default_factory=dict)
    known: dict[str, SourceText | None] = field(default_factory=dict)
    quotable: Callable[[Path], bool] | None = None

    def text(self, file: str) -> SourceText | None:
        if file not in self.known:
            self.known[file] = self._read(file)
        return self.known[file]

    def _read(self, file: str) -> SourceText | None:
        path = Path(file)
        if path.name in self.given:
            return SourceText(self.given[path.name])
        if self.quotable is not None and not self.quotable(path):
            return None
        try:
            return SourceText(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def quoted(self, file: str, line: int) -> str:
        """The text of a line, "" where it cannot be had."""
        source = self.text(file)
        return source.quoted(line) if source else ""

    def assignments(self, file: str, line: int) -> int:
        """The number of assignments in a line, without those of a loop's header."""
        text = self.text(file)
        row = text.of_line(line) if text else Span(0, 0)
        plain = re.sub(r"\bfor\s*\([^)]*\)", " ", text.plain[row.start : row.stop]) if text else ""
        return len(re.findall(r"(?<![=!<>])=(?!=)|\+\+|--", plain))
