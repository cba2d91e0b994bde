"""The house has floors: a file of core/ imports only from floors below its own, and core/ knows nobody by name."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from core.loader import load_registry

ROOT = Path(__file__).parents[2]

# From the ground up. A name is a module or a folder of core/; a folder may import from itself.
FLOORS = (
    ("errors", "lazy"),
    ("outside", "variables", "departure"),
    ("files", "held_files", "words"),
    ("atomic_files", "checkpoint"),
    ("roles", "expr", "dtypes", "scalars", "cache", "signals", "examples", "blas", "processor"),
    ("terminal", "containment", "threads", "outputs", "download", "signal_handlers"),
    ("kernels", "pool", "silence"),
    ("sim",),
    ("step_record",),
    ("op", "products", "evaluation", "weight_format", "devices", "tokenizers", "data_reader", "lens"),
    ("ranks",),
    ("hooks", "contents"),
    ("discovery",),
    ("mentions",),
    ("generated",),
    ("registry", "path_import"),
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

# Words of core/ that happen to be names of ops, models, plugins, optimizers or schedules, each with its reason.
ALLOWED = {
    ("sim", "add"): "an instruction of PTX",
    ("device", "add"): "the device's own sum of two gradients",
    ("plan/backward.py", "add"): "a kind of step: the device's own sum of two gradients",
    ("tokenizers/folder.py", "dropout"): "a field of Hugging Face's tokenizer.json",
    ("tokenizers", "huggingface"): "the kind that records of tokenizers have",
    ("step_record.py", "scale"): "a slot of the control record",
    ("testing/case.py", "scale"): "that slot",
    ("testing/small_model.py", "adamw"): "the optimizer that torch has too, which both sides train with",
}


def files(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path, package: str) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import in a file, those inside functions included, relative ones resolved."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name


def package_of(path: Path, folder: Path, name: str) -> str:
    """The package that relative imports of a file start from."""
    return ".".join([name, *path.relative_to(folder).parent.parts])


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


# Public modules for ops and plugins, the last line for formats of weights.
KIT = (
    *("core.examples", "core.kernels.width", "core.kernels.columns", "core.kernels.blocks"),
    *("core.atomic_files", "core.errors", "core.expr", "core.files", "core.outside", "core.outputs"),
    *("core.data.magics", "core.tokenizers.folder", "core.tokenizers.scored"),
)
# Packages and modules whose `__all__` is public, to plugins and to their tests.
DOORS = ("core", "core.cli", "core.data", "core.interop", "core.sim", "core.testing", "core.testing.mutation")


# One of each: a call of the standard library -> the only file of core/ that may make it.
ONE_PLACE = {
    ("os", "replace"): "files.py",
    ("os", "rename"): "files.py",
    ("shutil", "move"): "files.py",
    ("urllib", "request"): "download.py",
}


def calls_of(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line, (module, function)) of every `module.function` in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, (node.value.id, node.attr)


def test_each_of_these_calls_is_made_in_one_file() -> None:
    made = {
        (path.relative_to(ROOT / "core").as_posix(), line, call)
        for path in files("core")
        for line, call in calls_of(path)
        if call in ONE_PLACE
    }
    assert not {(file, line, call) for file, line, call in made if file != ONE_PLACE[call]}
    assert ("files.py", ("os", "replace")) in {(file, call) for file, _, call in made}


def several(names: Iterator[str]) -> dict[str, int]:
    return {name: count for name, count in Counter(names).items() if count > 1}


def class_names() -> Iterator[str]:
    """Every class of core/, those inside of functions too."""
    for path in files("core"):
        tree = ast.parse(path.read_text("utf-8"))
        yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def module_names() -> Iterator[str]:
    """Every module's basename, without commands, which are called as their verbs, and lenses, as their views."""
    for path in files("core"):
        folder = path.parent.relative_to(ROOT / "core").as_posix()
        if not path.stem.startswith("__") and folder not in ("cli", "view/lenses"):
            yield path.stem


def test_a_class_name_stands_for_one_thing() -> None:
    assert not several(class_names())


def test_a_modules_basename_stands_for_one_thing() -> None:
    assert not several(module_names())


def shipped() -> list[Path]:
    """Files of ops/ and plugins/, the plugins' tests included."""
    return [*files("ops"), *files("plugins")]


def programs_imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of the imports from core in programs that are strings of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
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


def words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a file that is data: docstrings and messages with blanks are prose."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            prose |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_core_names_no_op_model_plugin_optimizer_or_schedule() -> None:
    registry = load_registry()
    plugins = {p.name for p in registry.plugins if p.kind != "built-in"}
    names = {*registry.ops, *registry.models, *registry.optimizers, *registry.schedules, *plugins}
    found = [
        (path.relative_to(ROOT / "core").as_posix(), line, text)
        for path in files("core")
        for line, text in words(path)
        if text in names
    ]
    allowed = [{(file, text), (file.split("/")[0], text)} & set(ALLOWED) for file, _, text in found]
    named = [f"core/{at}:{n} names {text!r}" for (at, n, text), why in zip(found, allowed, strict=True) if not why]
    assert not named, "\n".join(named)
    unneeded = set(ALLOWED) - set().union(*allowed)
    assert not unneeded, f"exceptions without a use: {sorted(unneeded)}"


# Places in core/ that may spell the name of a device, each with its reason. Elsewhere it is the table's row.
SPELL_DEVICES = {
    "devices/residents.py": "the table",
    "device/cpu.py": "the class that the row opens",
    "device/cuda.py": "the class that the row opens",
    "device/simulated.py": "the class that the row opens; `cpu` is a key of its record",
    "device/planned.py": "a cuda device without a GPU",
    "device/recording.py": "what all devices of kernels run",
    "op/variant.py": "what a variant is written for where it says nothing",
    "engine/settings.py": "the device where Python names none",
    "api.py": "the same",
    "train/run.py": "a key of the record of the machine: the kind of its processor",
    "kernels/toolkit.py": "the name of a folder of headers",
    "cli/doctor.py": "a row of the doctor: the kind of the processor",
    "cli/__init__.py": "the verb `sim`, which runs kernels and opens no device",
    "cli/sim.py": "that verb",
}


def test_core_compares_no_name_of_a_device() -> None:
    names = {name for kind in load_registry().devices.values() for name in (kind.name, kind.runs)}
    named = {
        (path.relative_to(ROOT / "core").as_posix(), line)
        for path in files("core")
        for line, text in words(path)
        if text in names and path.relative_to(ROOT / "core").parts[0] != "sim"
    }
    assert not {(file, line) for file, line in named if file not in SPELL_DEVICES}
    assert {file for file, _ in named} == SPELL_DEVICES.keys(), "exceptions without a use"
    compared = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files("core")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare | ast.match_case)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in names
    }
    assert not compared


def test_a_parameter_or_field_called_device_has_a_type() -> None:
    """`device: Any` hides what a device must have; core/device/nested.py is below the type."""
    untyped = {
        path.relative_to(ROOT / "core").as_posix()
        for path in files("core")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.arg | ast.AnnAssign)
        and (node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)) == "device"
        and node.annotation is not None
        and ast.unparse(node.annotation) == "Any"
    }
    assert untyped == {"device/nested.py"}


def test_importing_core_imports_no_floor() -> None:
    code = "import sys, core; print([m for m in sys.modules if m.startswith('core.') or m == 'numpy'])"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_contributing_lists_the_floors_as_they_are() -> None:
    """The page's block names every module of FLOORS, in the same order; a floor may take several lines."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("From the ground up:")[2].split("```")[1]
    listed = [name for line in page.splitlines()[1:] for name in line.split("  ")[0].split(", ")]
    assert listed == [name for names in FLOORS for name in names]


def test_contributing_names_files_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:core|tests|docs|ops|plugins)/[\w./]+)`", page))
    assert named and not [path for path in named if not (ROOT / path).exists()]
