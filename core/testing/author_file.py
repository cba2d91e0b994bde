"""Python files with one object for the project: a problem of the judge, a puzzle of a course. Such a file is its
author's code, and runs as such; an exception of it becomes an error that names its line.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core.errors import BuildError, CoreError, UsageError, words_of
from core.outside import read_whole, reads

LONGEST = 1 << 20  # bytes of a file
T = TypeVar("T")


def load_object(path: Path, kind: type[T], word: str, example: str) -> T:
    """The one object of a class in a Python file.

    Raises UsageError for a file that cannot be read, BuildError for one that raises or has no such object.
    """
    with reads(UsageError, path):
        text = read_whole(path, LONGEST)
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec"), names)
    except CoreError as error:
        raise BuildError(f"{path}: {error.message}", hint=error.hint) from None
    except SyntaxError as error:
        raise BuildError(f"{path}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        places = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        raise BuildError(f"{path}{f':{places[-1]}' if places else ''} raised {words_of(error)}") from None
    objects = [value for value in names.values() if isinstance(value, kind)]
    if len(objects) != 1:
        raise BuildError(f"{path} has {len(objects)} {word}s; expected one", hint=example)
    return objects[0]


def foreign(label: str, function: Callable[..., Any], *args: Any, **names: Any) -> Any:
    """Call a function of an author's file. Its exceptions become a BuildError that names the line."""
    try:
        with np.errstate(all="ignore"):
            return function(*args, **names)
    except (CoreError, MemoryError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f for f in frames if "site-packages" not in f.filename and f.filename != __file__]
        place = places[-1] if places else None
        at = f" ({Path(place.filename).name}:{place.lineno})" if place else ""
        raise BuildError(f"{label} raised {words_of(error)}{at}") from None
