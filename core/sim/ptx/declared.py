"""Variables as the source declares them: the type of an element and the dims, for the names of findings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import CoreError
from core.expr import evaluate

SIZES = {
    "float": 4, "double": 8, "int": 4, "unsigned": 4, "unsigned int": 4, "i32": 4, "u32": 4, "uint": 4, "bf16": 2,
    "__nv_bfloat16": 2, "half": 2, "__half": 2, "char": 1, "unsigned char": 1, "u8": 1, "uint8_t": 1, "bool": 1,
    "short": 2, "unsigned short": 2, "u16": 2, "long long": 8, "unsigned long long": 8, "u64": 8, "i64": 8, "size_t": 8,
    "int32_t": 4, "uint32_t": 4, "int64_t": 8, "uint64_t": 8,
}  # fmt: skip
WORD = re.compile(r"[A-Za-z_]\w*$")
_VARIABLE = re.compile(r"\b__(?:shared|device|constant)__\b([^;{}()]*(?:\([^()]*\)[^;{}()]*)*)([;{=])")
_TRIMMINGS = re.compile(r"\b(?:alignas|__align__)\s*\([^()]*\)|\b(?:extern|static|volatile|const|__\w+__)\b")
STRUCT = "struct"
OPEN, UNKNOWN = 0, -1  # dims that are left open, or cannot be computed


def plain_name(symbol: str) -> str:
    """_ZZ6kernelE4tile -> tile: a variable's own name, from its C++ symbol."""
    last = symbol.rpartition("/")[2]
    if not last.startswith("_Z"):
        return last
    for at in range(len(last)):
        digits = re.match(r"[EZ](\d+)", last[at:])
        name = last[at + len(digits[0]) :][: int(digits[1])] if digits else ""
        inner = last[at + len(digits[0]) + len(name) :] if digits else ""
        if digits and len(name) == int(digits[1]) and WORD.match(name) and not re.search(r"E\d+[A-Za-z_]", inner):
            return name
    return last


def declares(plain: str, name: str) -> tuple[str, list[str]] | None:
    """(type, dims as written) of `name` among a text's __shared__ and __device__ variables."""
    for match in _VARIABLE.finditer(plain):
        words = _TRIMMINGS.sub(" ", match[1])
        if match[2] == "{" and re.match(r"\s*(?:struct|union|class)\b", words):
            after = re.match(r"[^}]*\}\s*(\w+)", plain[match.end() :])
            if after and after[1] == name:
                return STRUCT, []
            continue
        first, *others = _parts(words)
        head = re.match(r"\s*((?:\w|::|\s)+?)[\s*&]*\b(\w+)\s*((?:\[[^\]]*\]\s*)*)$", first)
        for written in (f"{head[2]} {head[3]}", *others) if head else ():
            one = re.match(r"[\s*]*(\w+)\s*((?:\[[^\]]*\]\s*)*)$", written)
            if head and one and one[1] == name:
                kind, dims = " ".join(head[1].split()), re.findall(r"\[([^\]]*)\]", one[2])
                return (STRUCT if kind not in SIZES and not dims else kind), dims
    return None


def _parts(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def constants(text: str, defines: Mapping[str, str | int]) -> dict[str, int]:
    """Whole numbers that a text or the compilation gives a name."""
    written = re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+([^\n/]+)", text, re.MULTILINE)
    written += re.findall(r"\bconst(?:expr)?\s+(?:\w+\s+)*?(\w+)\s*=\s*([^;,{}]+)", text)
    values: dict[str, int] = {}
    for name, value in [*((n, str(v)) for n, v in defines.items()), *written]:
        size = size_of(value, values)
        if size > 0:
            values.setdefault(name, size)
    return values


def size_of(text: str, values: Mapping[str, int]) -> int:
    """A dim; OPEN where none is written, UNKNOWN where it cannot be computed."""
    if not text.strip():
        return OPEN
    try:
        value = evaluate(text.strip().replace("/", "//"), values)
    except CoreError:
        return UNKNOWN
    return int(value) if value == int(value) and value > 0 else UNKNOWN
