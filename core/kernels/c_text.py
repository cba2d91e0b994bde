"""Text from C, as drivers, compilers and kernels give it."""

from __future__ import annotations


def c_string(raw: bytes | bytearray) -> str:
    """The text before the first zero byte; bytes that are not UTF-8 are replaced."""
    return bytes(raw).partition(b"\0")[0].decode("utf-8", "replace")
