"""Broken versions of a CUDA C++ kernel, made from its text: one small fault each.

Faults are of the kinds that hand-written kernels have: a sign, a factor, a missing term, `=` for `+=`, a bound or a
tail that is off by one, a wrong size or stride, a wrong tensor, x for y, a flag ignored, a missing barrier, a skipped
statement. This module reads text in the style of this repository (blanks around operators) and parses no C++: the
caller drops mutants that do not compile. No loop is made endless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Edit(NamedTuple):
    """`new` is put in place of [start, end)."""

    start: int
    end: int
    new: str
    kind: str  # of fault, in a word or two

    def made_in(self, text: str) -> str:
        """The text with the edit."""
        return text[: self.start] + self.new + text[self.end :]


INVISIBLE = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"|^[ \t]*#(?:\\\n|[^\n])*", re.DOTALL | re.MULTILINE)
WORD = re.compile(r"[A-Za-z_]\w*")
MACROS = re.compile(r"(?:__launch_bounds__|alignas|__align__)\s*\(")

OPERATORS = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "+=": "-=", "-=": "+=", "*=": "+=", "/=": "*="}
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
JUNCTIONS = {"&&": "||", "||": "&&"}
BINARY = re.compile(r"(?<=[\w)\]\n]) *\s(\+|-|\*|/|%|<|<=|>|>=|==|!=|&&|\|\|)\s(?=[\w(\-!])")
BINDING = {"*": 2, "/": 2, "%": 2, "+": 1, "-": 1}
WHOLE = {"int", "u8", "u16", "u32", "u64"}
TYPES = {
    "const",
    "elem",
    "float",
    "double",
    "int",
    "bool",
    "auto",
    "u8",
    "u16",
    "u32",
    "u64",
    "T",
    "A",
    "B",
    "bf16",
    "fp16",
}
# a function -> one that is put in its place; "" leaves its argument alone
FUNCTIONS: Mapping[str, str] = {
    "fmaxf": "fminf", "min": "max", "max": "min", "expf": "expm1f", "fast_exp": "expm1f", "tanhf": "atanf",
    "logf": "log1pf", "rsqrtf": "sqrtf", "warp_sum": "", "block_sum": "", "block_max": "", "warp_max": "",
}  # fmt: skip
UNTOUCHED = re.compile(r"\s*(?:__shared__|extern|using|typedef|constexpr|static|struct|asm|template|dependent_start)\b")
DECLARED = re.compile(r"(?:const\s+)?(float|double|bool)\b(?!\s*\*)")
ASSIGNED = re.compile(r"(?P<target>[*\w][^=;{}]*?) (?P<sign>=|\+=|-=|\*=) (?P<value>(?!\{).*)", re.DOTALL)


class Fault(NamedTuple):
    """One broken version: `before` and `after` are the line's text, `edit` is of the whole text."""

    function: str
    line: int
    before: str
    after: str
    edit: Edit

    @property
    def kind(self) -> str:
        return self.edit.kind


@dataclass(frozen=True)
class Function:
    """A function or a struct of a file: its body is [start, end), `head` the text before it."""

    name: str
    head: str
    start: int
    end: int
    kernel: bool

    @property
    def returns(self) -> str:
        """The type that it returns."""
        words = WORD.findall(self.head[: self.head.rindex(self.name)])
        return words[-1] if words else ""

    def parameters(self) -> dict[str, str]:
        """name -> type without qualifiers, in order."""
        inside = self.head[self.head.rindex(self.name) + len(self.name) :]
        opening = inside.find("(")
        if opening < 0:
            return {}
        types = {}
        for text in split(inside[opening + 1 : closing(inside, opening)]):
            words = re.sub(r"\b__restrict__\b|\bconst\b", " ", text).strip()
            if match := re.fullmatch(r"(.*?[\s*&])(\w+)", words, re.DOTALL):
                types[match[2]] = "".join(match[1].split())
        return types


def visible(text: str) -> str:
    """`text` with comments, strings and directives blanked, every character where it was."""
    return INVISIBLE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def functions_of(text: str) -> list[Function]:
    """The functions and structs at the top of a file, in order."""
    code = visible(text)
    functions, begin, at = [], 0, 0
    while (opening := code.find("{", at)) >= 0:
        end = closing(code, opening)
        begin = max(begin, code.rfind(";", begin, opening) + 1)
        head = code[begin:opening]
        name = name_in(head)
        if name:
            functions.append(Function(name, head, opening + 1, end, "__global__" in head))
        begin = at = end + 1
    return functions


def name_in(head: str) -> str:
    """The name that a head declares; "" for one that declares nothing of interest."""
    bare = head
    while match := MACROS.search(bare):
        bare = bare[: match.start()] + bare[closing(bare, match.end() - 1) + 1 :]
    if match := re.search(r"\bstruct\s+(\w+)", bare):
        return match[1]
    match = re.search(r"(\w+)\s*\(", bare)
    return match[1] if match else ""


def closing(code: str, opening: int) -> int:
    """The place of the bracket that closes the one at `opening`."""
    depth = 0
    for at in range(opening, len(code)):
        depth += (code[at] in "([{") - (code[at] in ")]}")
        if depth == 0:
            return at
    return len(code)


def split(text: str) -> list[str]:
    """At the commas that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for at, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]


def reached(functions: Iterable[Function], text: str, start: Iterable[str]) -> list[Function]:
    """The named kernels and the functions that they use, directly or not, in the file's order."""
    code = visible(text)
    held = list(functions)
    names = set(start)
    while True:
        bodies = " ".join(code[f.start : f.end] for f in held if f.name in names)
        more = {f.name for f in held if not f.kernel} & set(WORD.findall(bodies))
        if more <= names:
            return [f for f in held if f.name in names]
        names |= more


def faults(text: str, kernels: Iterable[str]) -> Iterator[Fault]:
    """Every fault in the named kernels and in the functions of the file that they reach."""
    code = visible(text)
    seen = {text}
    for function in reached(functions_of(text), text, kernels):
        for edit in sorted(edits(code, function)):
            lo, hi, new, _ = edit
            broken = edit.made_in(text)
            if broken in seen:
                continue
            seen.add(broken)
            first, last = text.rfind("\n", 0, lo) + 1, text.find("\n", hi)
            before, after = code[first:last], code[first:lo] + new + code[hi:last]
            line = text.count("\n", 0, lo) + 1
            yield Fault(function.name, line, shortened(before), shortened(after), edit)


def shortened(text: str) -> str:
    return " ".join(text.split())


def edits(code: str, function: Function) -> Iterator[Edit]:
    """All faults of one function, in no order."""
    left_alone = [(lo, hi) for lo, hi in statements(code, function.start, function.end) if UNTOUCHED.match(code, lo)]
    steps = [*increments(code, function)]

    def free(at: int, spans: list[tuple[int, int]]) -> bool:
        return not any(lo <= at < hi for lo, hi in spans)

    for edit in (*of_operators(code, function), *of_numbers(code, function), *of_names(code, function)):
        unending = not free(edit.start, steps) and ("=" in code[edit.start : edit.end] or edit.new in ("0", "2"))
        if free(edit.start, left_alone) and not unending:
            yield edit
    for lo, hi in statements(code, function.start, function.end):
        if free(lo, left_alone):
            yield from of_statement(code, lo, hi, function.returns)
    yield from of_conditions(code, function)


def statements(code: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """[from, to) of every simple statement, its semicolon not included. Heads of if and for are none."""
    at = begin = start
    while at < end:
        c = code[at]
        head = re.compile(r"\s*(?:if|for|while|switch)\s*(?:constexpr\s*)?\(|\s*else\b|\s*do\b").match(code, at)
        if at == begin and head:
            begin = at = closing(code, head.end() - 1) + 1 if head[0].endswith("(") else head.end()
        elif c in "([" or (c == "{" and code[begin:at].strip()):
            at = closing(code, at) + 1
        elif c in "{}":
            begin = at = at + 1
        elif c == ";":
            lead = len(code[begin:at]) - len(code[begin:at].lstrip())
            if code[begin:at].strip():
                yield begin + lead, at
            begin = at = at + 1
        else:
            at += 1


def headed(code: str, function: Function, word: str) -> Iterator[tuple[int, int]]:
    """[from, to) inside the brackets of every `if` or `for`."""
    for match in re.compile(rf"\b{word}\s*\(").finditer(code, function.start, function.end):
        yield match.end(), closing(code, match.end() - 1)


def increments(code: str, function: Function) -> Iterator[tuple[int, int]]:
    """The last part of every loop's head."""
    for lo, hi in headed(code, function, "for"):
        yield code.rfind(";", lo, hi) + 1, hi


def of_operators(code: str, function: Function) -> Iterator[Edit]:
    """Another operator, or its right operand left out; a sign lost; the choice of `?:` fixed."""
    for match in BINARY.finditer(code, function.start, function.end):
        symbol, at = match[1], match.start(1)
        word = re.search(r"(\w+)\s*$", code[: match.start() + 1])
        if symbol == "*" and word and word[1] in TYPES:
            continue  # a pointer's declaration
        if symbol == "<" and re.match(r"\s[A-Z_]+; \w+\+\+\)", code[at + 1 : at + 40]):
            continue  # one more round over registers: nothing is after them, and the compiler may do as it likes
        for table, kind in ((OPERATORS, "operator"), (COMPARISONS, "bound"), (JUNCTIONS, "condition")):
            if symbol in table:
                yield Edit(at, at + len(symbol), table[symbol], kind)
        if symbol in BINDING or symbol in JUNCTIONS:
            end = operand_end(code, at + len(symbol), symbol)
            yield Edit(match.start() + (code[match.start()] not in " \n"), end, " ", "missing term")
    for match in re.compile(r"(?<=[(=,?:] )-(?=[\w(])|(?<=[(\[,])-(?=[\w(])").finditer(
        code, function.start, function.end
    ):
        yield Edit(match.start(), match.end(), "", "sign")
    for match in re.compile(r" \? ").finditer(code, function.start, function.end):
        yield Edit(match.start(), match.start(), " || true", "condition")
        yield Edit(match.start(), match.start(), " && false", "condition")


def operand_end(code: str, at: int, symbol: str) -> int:
    """The end of a binary operator's right operand."""
    mine = BINDING.get(symbol, 0)
    while at < len(code):
        if code[at] in "([{":
            at = closing(code, at) + 1
            continue
        if code[at] in ")]};,":
            return at
        if match := re.match(r"\s(\+|-|\*|/|%|<|<=|>|>=|==|!=|&&|\|\||\?|:)\s", code[at : at + 4]):
            if symbol in JUNCTIONS and match[1] not in (*JUNCTIONS, "?", ":"):
                at += 1
                continue
            if BINDING.get(match[1], 0) <= mine and code[:at].rstrip()[-1] not in "+-*/%<>=&|":
                return at
        at += 1
    return at


def of_numbers(code: str, function: Function) -> Iterator[Edit]:
    """Whole numbers off by one, others by one percent."""
    for match in re.compile(r"(?<![\w.\]])\d+(?![\w.])").finditer(code, function.start, function.end):
        number = int(match[0])
        yield Edit(match.start(), match.end(), str(number + 1), "number")
        if number:
            yield Edit(match.start(), match.end(), str(number - 1), "number")
    for match in re.compile(r"(?<![\w.])\d+\.\d*f").finditer(code, function.start, function.end):
        yield Edit(match.start(), match.end(), f"({match[0]} * 1.01f)", "factor")


def of_names(code: str, function: Function) -> Iterator[Edit]:
    """Another parameter of the same type, x for y, another function, a number that must be added left out."""
    types = function.parameters()
    for match in WORD.finditer(code, function.start, function.end):
        name, before = match[0], code[match.start() - 1]
        if before == ".":
            other = {"x": "y", "y": "x"}.get(name)
            if other and re.search(r"(?:Idx|Dim)\.$", code[: match.start()]):
                yield Edit(match.start(), match.end(), other, "x for y")
        elif name in types:
            same = [n for n, kind in types.items() if kind == types[name]]
            other = same[(same.index(name) + 1) % len(same)]
            if other != name:
                yield Edit(match.start(), match.end(), other, "other argument")
        elif name in FUNCTIONS and code[match.end() : match.end() + 1] == "(":
            yield Edit(match.start(), match.end(), FUNCTIONS[name], "other function")


def of_statement(code: str, lo: int, hi: int, returns: str) -> Iterator[Edit]:
    """A statement skipped; a value with a wrong sign, off by one percent, or not added."""
    text = code[lo:hi]
    if declared := DECLARED.match(text):
        if re.search(r"= \{", text):
            return
        at = lo + declared.end()
        for part in split(text[declared.end() :]):
            if match := re.fullmatch(r"\s*[\w\s*]+? = (.*)", part, re.DOTALL):
                span = at + match.start(1), at + match.end(1)
                yield from of_value(code, *span, truth=declared[1] == "bool")
            at += len(part) + 1
    elif text.startswith("return") and text[6:].strip():
        if returns not in WHOLE:
            yield from of_value(code, lo + 7, hi, truth=returns == "bool")
    elif not re.match(r"(?:const\s+)?(?:int|u64|u32|u16|u8|auto|elem|Pack\b|return|continue|break)", text):
        if not re.match(r"\w+ [\w*]+ = ", text):
            yield Edit(lo, hi, "", "skipped")
        if match := ASSIGNED.fullmatch(text):
            at = lo + match.start("sign")
            if match["sign"] != "=":
                yield Edit(at, at + 2, "=", "not added")
                yield Edit(at, at + 2, OPERATORS[match["sign"]], "operator")
            if "u64" not in match["value"]:
                yield from of_value(code, lo + match.start("value"), hi)


def of_value(code: str, lo: int, hi: int, truth: bool = False) -> Iterator[Edit]:
    if truth:
        yield Edit(lo, hi, f"!({code[lo:hi]})", "condition")
    elif code[lo:hi].strip("0. ") not in ("", "-INFINITY"):
        yield Edit(lo, hi, f"-({code[lo:hi]})", "sign")
        yield Edit(lo, hi, f"1.01f * ({code[lo:hi]})", "factor")


def of_conditions(code: str, function: Function) -> Iterator[Edit]:
    """An `if` that always or never holds."""
    for lo, hi in headed(code, function, "if"):
        yield Edit(lo, hi, "true", "condition")
        yield Edit(lo, hi, "false", "condition")
