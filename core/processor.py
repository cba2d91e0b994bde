"""The kind of processor that NumPy computes on. NumPy's choice of loops, and so the last bits, follow from it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

LEVELS = ("X86_V4", "X86_V3", "X86_V2", "SVE", "ASIMD", "VSX4", "VSX3", "VSX2", "VXE2", "LSX")  # the widest first
DIGITS = 8


@functools.cache
def describe() -> str:
    """Model, architecture, and the instruction sets that NumPy uses: `AMD EPYC, x86_64, X86_V4 (36 features, 1f0c...)`.

    The hexadecimal digits are of all features' names: two processors with the same ones run the same loops.
    """
    used = sorted(features())
    widest = next((level for level in LEVELS if level in used), "baseline")
    digest = hashlib.sha256(" ".join(used).encode()).hexdigest()[:DIGITS]
    return f"{model()}, {platform.machine()}, {widest} ({len(used)} features, {digest})"


def features() -> set[str]:
    """Names of the instruction sets that NumPy found and uses (NPY_DISABLE_CPU_FEATURES)."""
    with suppress(ImportError):  # where numpy.show_runtime() looks too
        flags: dict[str, Any] = getattr(import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})
        return {name for name, there in flags.items() if there}
    return set()


def model() -> str:
    """The processor's name as the system gives it; its architecture where there is none."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        if match := re.search(r"^(?:model name|Model|cpu)\s*:\s*(.+)$", text, re.M):
            return " ".join(match[1].split())
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.machine()  # platform.processor() runs `uname` of PATH
