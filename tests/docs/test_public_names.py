"""Ops, plugins and their tests import public names of core and their own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from imported_names import ROOT, files, imports, package_of
from parsed import nodes_of

# Public modules for ops and plugins, the last line for formats of weights.
KIT = (
    *(
        "core.examples",
        "core.kernels.width",
        "core.kernels.columns",
        "core.kernels.mma_product",
        "core.kernels.teams",
        "core.kernels.blocks",
        "core.kernels.nvidia_library",
    ),
    *("core.atomic_files", "core.errors", "core.expr", "core.files", "core.outside", "core.outputs", "core.endings"),
    *("core.data.magics", "core.tokenizers.folder", "core.tokenizers.scored"),
)
# Packages and modules whose `__all__` is public, to plugins and to their tests.
DOORS = (
    *("core", "core.cli", "core.data", "core.interop", "core.judge", "core.learning", "core.sim"),
    *("core.testing", "core.testing.mutation", "core.testing.puzzle"),
)


def shipped() -> list[Path]:
    """Files of ops/ and plugins/, the plugins' tests included."""
    return [*files("ops"), *files("plugins")]


def programs_imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of the imports from core in programs that are strings of a file."""
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in re.findall(r"^from (core[\w.]*) import ([\w, ]+)$", node.value, re.MULTILINE):
                yield from ((node.lineno, module, name.strip()) for name in names.split(","))


@pytest.mark.parametrize("path", shipped(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_ops_and_plugins_and_their_tests_import_public_names_of_core_and_their_own(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    own = f"core.{parts[0]}" if parts[0] == "ops" else f"core.plugins.{parts[1]}"
    doors = {door.removeprefix("core.") for door in (*DOORS, *KIT)}
    for line, module, name in (*imports(path, package_of(path, ROOT, "core")), *programs_imports(path)):
        where = f"{path.relative_to(ROOT)}:{line}"
        if module in DOORS and name:
            public = {*import_module(module).__all__, *(doors if module == "core" else ())}
            assert name in public, f"{where}: {module}.{name} is not public"
        elif module in KIT or module in DOORS:
            continue
        elif module.split(".")[0] == "core":
            assert f"{module}.".startswith(f"{own}."), f"{where}: {module} is neither public nor its own"
        else:
            assert module.split(".")[0] not in ("ops", "plugins", "models", "configs"), f"{where}: {module}"


# Files of plugins that use a file of tests/, which only a checkout has; their tests skip without one.
CHECKOUT = {"plugins/cublaslt/tests/test_cublaslt.py": "the stub of the driver, for a library of NVIDIA's"}


def test_plugins_and_their_tests_use_no_file_of_the_checkouts_tests() -> None:
    """Programs in strings too. A name is that of a module of tests/, which pytest puts on the path."""
    names = "|".join(sorted(path.stem for path in (ROOT / "tests").glob("*.py")))
    imported = re.compile(rf"^\s*(?:from|import) ({names})\b|spec_from_file_location", re.MULTILINE)
    used = {p.relative_to(ROOT).as_posix() for p in files("plugins") if imported.search(p.read_text("utf-8"))}
    assert used == CHECKOUT.keys()


def test_imports_of_programs_in_strings_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('CODE = f"""\nfrom core.engine import Engine, Settings\n{1}"""\n', "utf-8")
    assert [(m, n) for _, m, n in programs_imports(tmp_path / "a.py")] == [
        ("core.engine", "Engine"),
        ("core.engine", "Settings"),
    ]


def test_the_page_lists_the_public_modules() -> None:
    page = (ROOT / "docs/plugins.md").read_text("utf-8").partition("## Public modules")[2].partition("\n## ")[0]
    assert {name for name in re.findall(r"`(core[\w.]*)`", page) if name in (*DOORS, *KIT)} == {*DOORS, *KIT}
