"""Sizes and names that no type can check: micro-steps, output folders, run names."""

from __future__ import annotations

import os
from pathlib import Path

from core.config.spelling import show
from core.errors import UsageError

LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes that common file systems take in a component, and in a path


def micro_steps(tokens_per_step: int, B: int, T: int, ranks: int = 1, where: str = "[train] tokens_per_step") -> int:
    """The number of micro-batches of B * T tokens that each of `ranks` does for one optimizer step.

    Raises UsageError with the values and the nearest legal ones unless they divide.
    """
    one = B * T * ranks
    if tokens_per_step >= one and tokens_per_step % one == 0:
        return tokens_per_step // one
    below = tokens_per_step // one * one
    legal = f"{below} and {below + one}" if below else f"{one}"
    product, sizes = ("B * T * ranks", f"{B} * {T} * {ranks}") if ranks > 1 else ("B * T", f"{B} * {T}")
    raise UsageError(
        f"{where}: expected a multiple of {product} = {sizes} = {one}, got {tokens_per_step}",
        hint=f"nearest legal: {legal}; or change [dims] B or T",
    )


def check_out(path: str | Path) -> Path:
    """An output folder that can be: `--out`.

    Any path, absolute ones included, without `..`, NUL or a component over 255 bytes, and whose nearest existing
    ancestor is a folder. Whether it may be written to, and whether it exists, is the caller's question. Raises
    UsageError; touches nothing.
    """
    text = os.fspath(path)
    why = name_problem(text)
    if not why and ".." in Path(text).parts:
        why = 'it holds ".."'
    if not why and text.startswith("~"):
        why = 'a folder called "~" would be made, since the shell has not put your home in its place'
    if not why:
        existing = next((p for p in (Path(text), *Path(text).parents) if os.path.exists(p)), Path("."))
        why = "" if existing.is_dir() else f"{show(str(existing))} is not a folder"
    if why:
        raise UsageError(f"--out {show(text)}: {why}", hint="give a path to a folder, as in --out runs/mine")
    return Path(text)


def check_run_name(name: str) -> str:
    """The name of a run: one component of a path under runs/. Raises UsageError."""
    why = name_problem(name)
    if not why and (name in (".", "..") or any(mark in name for mark in "/\\:") or name.startswith("~")):
        why = "it is a path"
    if why:
        raise UsageError(f"run name {show(name)}: {why}", hint="a run name is one folder under runs/, as in tiny-2")
    return name


def name_problem(text: str) -> str:
    """Why no file system takes this path; "" when one does."""
    if not text.strip():
        return "it is empty"
    if any(ord(letter) < 32 for letter in text):
        return "it holds a NUL or control character"
    longest = max(len(os.fsencode(part)) for part in Path(text).parts or ("",))
    if longest > LONGEST_NAME:
        return f"a component has {longest} bytes; at most {LONGEST_NAME} are possible"
    if len(os.fsencode(text)) > LONGEST_PATH:
        return f"it has {len(os.fsencode(text))} bytes; at most {LONGEST_PATH} are possible"
    return ""
