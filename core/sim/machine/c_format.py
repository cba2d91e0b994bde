"""C's printf: a format and its arguments, as the compiler lays them out in memory, to text."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

SPECIFIER = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d*))?"
    r"(?P<length>hh|h|ll|l|z|j|t|L)?(?P<kind>[a-zA-Z%])"
)
SIGNED, UNSIGNED, FLOATS = "di", "uoxX", "fFeEgGaA"
LONG = ("l", "ll", "z", "j", "t")
SHORT = {"h": 16, "hh": 8}


class ArgumentReader:
    """Reads arguments one after the other, each at the next multiple of its size. raw: the bytes."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.read = read
        self.offset = 0
        self.count = 0

    def take(self, code: str) -> int | float:
        """code: of struct, such as i, q or d."""
        size = struct.calcsize(f"<{code}")
        at = -(-self.offset // size) * size
        self.offset, self.count = at + size, self.count + 1
        value: int | float = struct.unpack(f"<{code}", self.read(at, size))[0]
        return value


def c_format(text: str, read: Callable[[int, int], bytes], string: Callable[[int], str]) -> tuple[str, int]:
    """(the output of printf, its number of arguments). read: (offset, size) -> bytes of the argument buffer; string:
    address -> the C string there. A specifier that C does not have is printed as it is."""
    arguments = ArgumentReader(read)
    return SPECIFIER.sub(lambda match: _one(match, arguments, string), text), arguments.count


def _one(match: re.Match[str], arguments: ArgumentReader, string: Callable[[int], str]) -> str:
    flags, kind, length = match["flags"], match["kind"], match["length"] or ""
    if kind == "%":
        return "%"
    width = int(arguments.take("i")) if match["width"] == "*" else int(match["width"] or 0)
    if width < 0:
        flags, width = f"{flags}-", -width
    precision = int(arguments.take("i")) if match["precision"] == "*" else _number(match["precision"])
    body = f"%{flags}{width or ''}" + (f".{precision}" if precision is not None and precision >= 0 else "")
    if kind in SIGNED or kind in UNSIGNED:
        bits = SHORT.get(length, 64 if length in LONG else 32)
        value = int(arguments.take("q" if length in LONG else "i")) & ((1 << bits) - 1)
        if kind in SIGNED and value >> (bits - 1):
            value -= 1 << bits
        return _integer(body, "d" if kind == "u" else kind, flags, value)
    if kind in FLOATS:
        number = float(arguments.take("d"))
        if kind in "aA":
            return f"{number.hex() if kind == 'a' else number.hex().upper():>{width or 1}}"
        return f"{body}{kind}" % number
    if kind == "c":
        return f"%{flags}{width or ''}c" % chr(int(arguments.take("i")) & 255)
    if kind == "s":
        return f"{body}s" % string(int(arguments.take("Q")))
    if kind == "p":
        return f"%{flags}{width or ''}s" % f"{int(arguments.take('Q')):#x}"
    return match[0]


def _integer(body: str, kind: str, flags: str, value: int) -> str:
    """C's # writes octal as 017, Python's as 0o17; zero has no prefix in C."""
    if "#" in flags and kind == "o":
        return f"{body.replace('#', '')}s" % f"0{value:o}"
    return f"{body.replace('#', '') if '#' in flags and not value else body}{kind}" % value


def _number(text: str | None) -> int | None:
    return None if text is None else int(text or 0)
