"""Names of packages that are imported at their first use."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

import core

ROOT = Path(core.__file__).parent
PACKAGES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if "\n__getattr__ = imports_of(" in path.read_text("utf-8")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_a_package_imports_later_is_there(package: str) -> None:
    module = import_module(package)
    assert all(hasattr(module, name) for name in module.__all__) and len(module.__all__) > 2


def test_a_name_is_imported_at_its_first_use_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["from typing import TYPE_CHECKING", "from core.lazy import imports_of", "from core.words import ms as ms"]
    lines += ["if TYPE_CHECKING:", "    from lazy_part import A as A", "    from lazy_part import B"]
    (tmp_path / "lazy_whole.py").write_text("\n".join([*lines, "__getattr__ = imports_of(__name__, 'C')\n"]))
    (tmp_path / "lazy_part.py").write_text("A = B = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    whole = import_module("lazy_whole")
    assert whole.__all__ == ["ms", "A", "C"] and "lazy_part" not in sys.modules
    assert whole.A == 1 and "lazy_part" in sys.modules
    with pytest.raises(AttributeError, match="module 'lazy_whole' has no attribute 'B'"):
        _ = whole.B
