"""The entry point of the script `core`, and of `python -m core`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. Failures before errors can be printed (a file of the program that cannot be read, no
    descriptor or thread for the signals) is one sentence, in place of a traceback."""
    try:
        from core import cli

        cli.main()
    except (ImportError, OSError, RuntimeError) as error:
        _say(
            f"core: error: the program cannot start: {type(error).__name__}: {error}\n"
            "  hint: look after the disk, `ulimit -n` and `ulimit -u`, or install corelm again"
        )
        sys.exit(3)  # as for a plugin or a kernel that cannot be loaded


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.stderr = None


if __name__ == "__main__":
    main()
