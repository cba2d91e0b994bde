"""The import of a plugin from a path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from types import ModuleType

from core.discovery import Candidate


def import_path(candidate: Candidate) -> ModuleType:
    """A module from a file or folder, under a name of its own, so that two of one stem never meet.

    Its relative imports work, and it is imported once in a process.
    """
    home = candidate.home
    assert home is not None
    stem = "".join(c if c.isalnum() else "_" for c in candidate.name)
    name = f"core_plugin_{stem}_{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    folder = home.is_dir()
    spec = importlib.util.spec_from_file_location(
        name, home / "__init__.py" if folder else home, submodule_search_locations=[str(home)] if folder else None
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for part in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[part]  # so that a second try imports it again
        raise
    return module
