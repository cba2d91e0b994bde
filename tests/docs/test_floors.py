"""The house has floors: a file of core/ imports only from floors below its own, and core/ knows nobody by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imported_names import ROOT, files, imports, package_of

# From the ground up. A name is a module or a folder of core/; a folder may import from itself.
FLOORS = (
    ("errors", "lazy", "by_name"),
    ("outside", "variables", "departure"),
    ("files", "held_files", "words"),
    ("atomic_files", "checkpoint"),
    ("roles", "expr", "dtypes", "scalars", "cache", "signals", "examples", "blas", "processor"),
    ("terminal", "containment", "threads", "outputs", "download", "signal_handlers"),
    ("kernels", "pool", "silence", "endings"),
    ("sim",),
    ("step_record",),
    ("op", "products", "evaluation", "weight_format", "devices", "tokenizers", "data_reader", "lens", "adapter"),
    ("ranks",),
    ("hooks", "contents"),
    ("discovery",),
    ("mentions",),
    ("generated",),
    ("registry", "path_import"),
    ("hook_results",),
    ("loader",),
    ("config",),
    ("graph",),
    ("device",),
    ("variant_sources",),
    ("verdicts",),
    ("plan",),
    ("engine",),
    ("data", "interop", "generate"),
    ("resident_rows",),
    ("testing", "measure"),
    ("judge",),
    ("train",),
    ("api",),
    ("learning",),
    ("view",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# The same inside a folder: its modules and subfolders, from the ground up.
ROOMS = {
    "sim": (
        ("faults",),
        ("ptx",),
        ("machine",),
        ("strict", "counting"),
        ("tape_rows",),
        ("tape_flight",),
        ("tape",),
        ("resident",),
        ("instructions",),
        ("native",),
        ("launching", "packing"),
        ("standalone",),
    ),
}


def core_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module or folder of core/) for every import from core, those for type checkers included."""
    for line, module, name in imports(path, package_of(path, ROOT / "core", "core")):
        parts = module.split(".")
        if parts[0] != "core":
            continue
        target = parts[1] if len(parts) > 1 else name
        if target in FLOOR or len(parts) > 1:
            yield line, target


def test_every_module_of_core_has_a_floor_and_every_floor_a_module() -> None:
    here = {p.relative_to(ROOT / "core").parts[0].removesuffix(".py") for p in files("core")} - {"__init__"}
    assert here <= set(FLOOR), f"say on which floor: {sorted(here - set(FLOOR))}"
    assert set(FLOOR) <= here, f"floors without a module: {sorted(set(FLOOR) - here)}"
    for folder, rooms in ROOMS.items():
        inside = {p.relative_to(ROOT / "core" / folder).parts[0].removesuffix(".py") for p in files(f"core/{folder}")}
        assert inside - {"__init__"} == {name for names in rooms for name in names}, folder


@pytest.mark.parametrize("path", files("core"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_imports_only_from_floors_below_its_own(path: Path) -> None:
    own = path.relative_to(ROOT / "core").parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the front door hands out names of every floor, when they are asked for
    for line, target in core_imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports core.{target}"
        assert target in FLOOR, f"{where}, which has no floor"
        assert target == own or FLOOR[target] < FLOOR[own], f"{where}, which is not below {own}"


@pytest.mark.parametrize("path", [p for folder in ROOMS for p in files(f"core/{folder}")], ids=lambda p: p.as_posix())
def test_a_file_imports_only_from_rooms_below_its_own(path: Path) -> None:
    folder, own = path.relative_to(ROOT / "core").parts[:2]
    own = own.removesuffix(".py")
    if own == "__init__":
        return  # a front door
    room = {name: number for number, names in enumerate(ROOMS[folder]) for name in names}
    for line, module, name in imports(path, package_of(path, ROOT / "core", "core")):
        parts = [*module.split("."), name]
        if parts[:2] == ["core", folder]:
            where = f"{path.relative_to(ROOT)}:{line} imports {module}.{name}"
            assert parts[2] in room, f"{where}, which is not a room"
            assert parts[2] == own or room[parts[2]] < room[own], f"{where}, which is not below {own}"


def modules() -> dict[str, Path]:
    """Dotted name below core -> file; a package has its folder's name."""
    found = {}
    for path in files("core"):
        parts = path.relative_to(ROOT / "core").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows() -> dict[str, set[str]]:
    """Module -> the modules of core that it imports, anywhere in its file and for type checkers too.

    The front doors of core and core.sim hand out names of every room when they are asked for: their own imports
    do not count.
    """
    every = modules()
    found: dict[str, set[str]] = {name: set() for name in every}
    for own, path in every.items():
        for _, module, name in imports(path, package_of(path, ROOT / "core", "core")):
            base, _, rest = module.partition(".")
            if base == "core" and own not in ("", "sim"):
                inner = f"{rest}.{name}".strip(".")
                found[own].add(inner if inner in every else rest)
        found[own] &= every.keys() - {own, ""}
    return found


def circles(arrows: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """The largest sets of modules of which each reaches each other one."""
    reached: dict[str, set[str]] = {}
    for start in arrows:
        seen, stack = set[str](), [start]
        while stack:
            for one in arrows[stack.pop()] - seen:
                seen.add(one)
                stack.append(one)
        reached[start] = seen
    return {tuple(sorted(m for m in reached[n] if n in reached[m])) for n in arrows if n in reached[n]}


def test_no_file_of_core_imports_itself_by_way_of_others() -> None:
    assert not circles(arrows())


def test_circles_are_found_among_files_and_for_type_checkers() -> None:
    """The test above has teeth: a made-up tree of three files with one circle."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {("b", "c")}
    everything = arrows()
    assert "sim.ptx.program" in everything["sim.resident"] and "graph.types" in everything["graph.build"]


def test_importing_core_imports_no_floor_but_the_lazy_names() -> None:
    code = "import sys, core; print([m for m in sys.modules if m.startswith('core.') or m == 'numpy'])"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert done.stdout.strip() == "['core.lazy']"


def test_contributing_lists_the_floors_as_they_are() -> None:
    """The page's block names every module of FLOORS, in the same order; a floor may take several lines."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("From the ground up:")[2].split("```")[1]
    listed = [name for line in page.splitlines()[1:] for name in line.split("  ")[0].split(", ")]
    assert listed == [name for names in FLOORS for name in names]


def test_contributing_names_files_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:core|tests|docs|ops|plugins)/[\w./]+)`", page))
    assert named and not [path for path in named if not (ROOT / path).exists()]
