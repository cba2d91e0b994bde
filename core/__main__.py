"""The entry point of the script `core`, and of `python -m core`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. A program whose own files cannot be read says so, in place of a traceback."""
    try:
        from core import cli
    except (ImportError, OSError) as error:
        words = f"core: error: a part of the program cannot be loaded: {type(error).__name__}: {error}"
        sys.exit(_told(f"{words}\n  hint: look after the disk, or install corelm again"))
    cli.main()


def _told(text: str) -> int:
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.stderr = None
    return 3  # as a plugin or a kernel that cannot be loaded


if __name__ == "__main__":
    main()
