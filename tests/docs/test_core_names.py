"""core/ names no op, model, plugin or device, and one name stands for one thing."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from imported_names import ROOT, files
from parsed import nodes_of

from core.loader import load_registry

# Words of core/ that happen to be names of ops, models, plugins, optimizers or schedules, each with its reason.
ALLOWED = {
    ("sim", "relu"): "a modifier of PTX instructions",
    ("sim", "add"): "an instruction of PTX",
    ("device", "add"): "the device's own sum of two gradients",
    ("plan/backward.py", "add"): "a kind of step: the device's own sum of two gradients",
    ("cli/learn.py", "course"): "a key of a student's report",
    ("cli/learn_desk.py", "course"): "the folder of a student",
    ("cli/new.py", "course"): "the command that starts one",
    ("learning", "course"): "a key of progress.json",
    ("tokenizers/folder.py", "dropout"): "a field of Hugging Face's tokenizer.json",
    ("tokenizers", "huggingface"): "the kind that records of tokenizers have",
    ("step_record.py", "scale"): "a slot of the control record",
    ("testing/case.py", "scale"): "that slot",
    ("testing/small_model.py", "adamw"): "the optimizer that torch has too, which both sides train with",
}


# One of each: a call of the standard library -> the only file of core/ that may make it.
ONE_PLACE = {
    ("os", "replace"): "files.py",
    ("os", "rename"): "files.py",
    ("shutil", "move"): "files.py",
    ("urllib", "request"): "download.py",
}


def calls_of(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line, (module, function)) of every `module.function` in a file."""
    for node in nodes_of(path):
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
        yield from (node.name for node in nodes_of(path) if isinstance(node, ast.ClassDef))


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


def words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a file that is data: docstrings and messages with blanks are prose."""
    prose = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            prose |= {id(part) for part in node.values}
    for node in nodes_of(path):
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
        for node in nodes_of(path)
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
        for node in nodes_of(path)
        if isinstance(node, ast.arg | ast.AnnAssign)
        and (node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)) == "device"
        and node.annotation is not None
        and ast.unparse(node.annotation) == "Any"
    }
    assert untyped == {"device/nested.py"}
