"""NVIDIA's libraries of functions, through ctypes: one that is installed, with the types of its functions' arguments.

For plugins that call one, such as cuBLASLt or NCCL. The compiler and the driver have bindings of their own: nvrtc.py.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from typing import Any


def open_nvidia_library(
    name: str, label: str, functions: Mapping[str, Sequence[Any]], install: str
) -> tuple[ctypes.CDLL | None, str]:
    """(the library, ""), or (None, the reason for its absence and the remedy).

    name: as cuda.pathfinder has it, "nccl". label: its name in messages. functions: name -> the ctypes of its
    arguments; each returns an int until the caller sets another `restype`. install: the command that installs it.
    """
    try:
        pathfinder: Any = importlib.import_module("cuda.pathfinder")  # it has no types
        library = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
    except Exception:  # pathfinder has kinds of its own
        return None, f"{label} is not installed: {install}"
    why = declare(library, label, functions, install)
    return (None, why) if why else (library, "")


def declare(library: ctypes.CDLL, label: str, functions: Mapping[str, Sequence[Any]], install: str) -> str:
    """Set the types of functions' arguments; the reason where the library lacks one of them, else ""."""
    for function, arguments in functions.items():
        try:
            getattr(library, function).argtypes = arguments
        except AttributeError as error:
            return f"this version of {label} lacks a function ({error}): {install}"
    return ""
