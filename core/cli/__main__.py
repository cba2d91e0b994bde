"""`python -m core.cli`: the command where the script `core` is not on the path."""

from core.cli import main

if __name__ == "__main__":
    main()
