"""Sizes that no type can check: micro-steps."""

from __future__ import annotations

from core.errors import UsageError


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
