"""Demangling: the C++ name of a kernel or variable for a symbol of PTX, by the Itanium C++ ABI."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

LIBRARIES = ("libstdc++.so.6", "libc++abi.dylib", "libc++.1.dylib")
TAG = re.compile(r"\[abi:[^\]]*\]")
CAST = re.compile(r"\((?:int|unsigned int|long|unsigned long|bool|char)\)(?=-?\d)|(?<=\d)(?:u?l{0,2}|U?L{0,2})(?=[,>])")


@cache
def _demangler() -> Any:
    """__cxa_demangle of the platform's C++ library; None where there is none."""
    for name in LIBRARIES:
        try:
            demangle = ctypes.CDLL(name).__cxa_demangle
        except (OSError, AttributeError):
            continue
        demangle.restype, demangle.argtypes = (
            ctypes.c_void_p,
            [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
        )
        return demangle
    return None


@cache
def readable(symbol: str) -> str:
    """_Z6kernelIfLi3EEvPT_i -> "kernel<float, 3>(float*, int)"; a name that C++ did not mangle stays."""
    if not symbol.startswith("_Z"):
        return symbol
    demangle = _demangler()
    status = ctypes.c_int()
    raw = demangle(symbol.encode(), None, None, ctypes.byref(status)) if demangle else None
    if not raw:
        return _base(symbol)
    text = ctypes.string_at(raw).decode()
    return TAG.sub("", _without_result(text))


def _without_result(text: str) -> str:
    """Templates are written with their result: "void k<float>(float*)"."""
    depth = 0
    for place, letter in enumerate(text):
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(letter, 0)
        if letter == " " and depth == 0 and not text[:place].endswith("operator"):
            return text[place + 1 :]
        if letter == "(" and depth == 1:
            break
    return text


def _base(symbol: str) -> str:
    """Without a demangler: the parts of the name, up to template arguments and parameters."""
    at, parts = (3, list[str]()) if symbol.startswith("_ZN") else (2, list[str]())
    while match := re.compile(r"L?(\d+)").match(symbol, at):
        start = match.end()
        at = start + int(match[1])
        parts.append(symbol[start:at])
        if not symbol.startswith("_ZN"):
            break
    return "::".join(parts) or symbol


def head(symbol: str) -> str:
    """The name without its parameters: "ns::kernel<float, 3>"."""
    text, depth = readable(symbol), 0
    for place, letter in enumerate(text):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0 and not text[:place].endswith("::") and place:
            return text[:place]
    return text


def plain(text: str) -> str:
    """For comparing: without spaces, and without casts and suffixes of template arguments."""
    return CAST.sub("", text).replace(" ", "")


def matching(name: str, symbols: Iterable[str]) -> list[str]:
    """The symbols that a name as people write it may mean: the symbol itself, or by its C++ name with or without
    parameters, template arguments or namespace. The closest kind of match alone."""
    every, wanted = list(symbols), plain(name)
    ways = (
        lambda s: s == name,
        lambda s: plain(readable(s)) == wanted,
        lambda s: plain(head(s)) == wanted,
        lambda s: _bare(plain(head(s))) == wanted,
        lambda s: _bare(plain(head(s))).rpartition("::")[2] == wanted,
        lambda s: plain(head(s)).endswith(f"::{wanted}"),
    )
    return next((named for way in ways if (named := [s for s in every if way(s)])), [])


def _bare(text: str) -> str:
    """Without template arguments."""
    return text.partition("<")[0]
