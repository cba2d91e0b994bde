"""`core new`: a working start for an op, a variant, a plugin, a model or a course, in a folder of its own.

The files that it writes pass the check and train unchanged. The texts are in `templates/`; a variant starts from the
code of an existing one. No file is overwritten.
"""

from __future__ import annotations

import builtins
import keyword
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import click

from core.cli.copying import WHY_EXAMPLES, copy_of
from core.cli.show import plugin_option
from core.errors import BuildError, UsageError
from core.op import NAME, Op, Reference, Variant
from core.registry.inherited import written_class

if TYPE_CHECKING:
    from core.registry import Registry

TEMPLATES = Path(__file__).parent / "templates"
TAKEN = ("np", "cdiv", "i32", "u64", "auto", "reference")  # names that the written files or the core use
OWN_FOLDERS = ("core", "tests")  # names that a plugin's package cannot have
WIDTH = 120  # of lines

out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder to make.  [default: ./NAME]"
)


@click.group("new")
def command() -> None:
    """Create a working op, variant, plugin, model or course to edit."""


@command.command("op")
@click.argument("name")
@out_option
def new_op(name: str, out: Path | None) -> None:
    """Write an op called NAME: schema, NumPy reference, CUDA kernels forward and backward, a test, and a model."""
    registry, folder = _start("an op", name, out, ())
    _new_op(registry, name)
    _write(folder, _op_files(name))
    plugin = f"--plugin {_typed(folder)}"
    _next(
        f"core check {name} {plugin}",
        f"core train tiny {plugin} --set model=gpt2_{name}",
        f"core train tiny {plugin} --set model=gpt2_{name} --device sim --set train.steps=2",
    )


@command.command("plugin")
@click.argument("name")
@out_option
def new_plugin(name: str, out: Path | None) -> None:
    """Write a plugin called NAME that pip can install: an op of that name, a model that has it, a test, a README."""
    registry, folder = _start("a plugin", name, out, ())
    _new_op(registry, name)
    taken = PathFinder.find_spec(name)
    if name in OWN_FOLDERS or name in sys.builtin_module_names or (taken is not None and taken.origin):
        raise UsageError(f'"{name}" cannot be the name of a plugin: its module would hide an existing one',
                         hint="choose another name")  # fmt: skip
    words = {"name": name, "dashed": name.replace("_", "-")}
    package = {f"{name}/{file}": text for file, text in _op_files(name).items() if not file.startswith("test_")}
    project = {
        "pyproject.toml": "plugin/pyproject.toml",
        "README.md": "plugin/README.md",
        f"tiny_{name}.toml": "plugin/run.toml",
        f"tests/test_{name}.py": "plugin/test.py",
    }
    _write(folder, package | {file: _filled(template, words) for file, template in project.items()})
    plugin, config = f"--plugin {_typed(folder / name)}", _quoted((folder / f"tiny_{name}.toml").as_posix())
    _next(
        f"core check {name} {plugin}",
        f"core train {config} {plugin}",
        f"core train {config} {plugin} --device sim",
        f"pip install -e {_typed(folder)}",
    )


@command.command("model")
@click.argument("name")
@out_option
@click.option("--alone", is_flag=True, help="Write the whole graph, not only the differences from an existing model.")
def new_model(name: str, out: Path | None, alone: bool) -> None:
    """Write a model called NAME, GPT-2 with one thing changed, and a run config that trains it small."""
    registry, folder = _start("a model", name, out, ())
    if name in registry.models:
        raise UsageError(
            f'there is a model "{name}" already, from {registry.models[name].origin}', hint="choose another name"
        )
    model, config = folder / f"{name}.toml", folder / f"tiny_{name}.toml"
    words = {"name": name, "model": model.as_posix()}
    _write(
        folder,
        {
            model.name: _filled("model/alone.toml" if alone else "model/extends.toml", words),
            config.name: _filled("model/run.toml", words),
        },
    )
    typed = _quoted(config.as_posix())
    _next(f"core plan {typed}", f"core train {typed}")


@command.command("variant")
@click.argument("op")
@click.argument("name")
@out_option
@click.option("--from", "source", default="", metavar="VARIANT", help="Copy this one.  [default: the simplest kernels]")
@click.option("--base", default="", metavar="VARIANT", help="Copy the forward alone; the rest stays this variant's.")
@plugin_option
def new_variant(op: str, name: str, out: Path | None, source: str, base: str, plugin: tuple[str, ...]) -> None:
    """Write a variant of OP called NAME: a copy of its simplest kernels and launchers, to be changed.

    With --base, only the forward is copied, and backward is that variant's.
    """
    registry, folder = _start("a variant", name, out, plugin)
    schema = registry.op(op)
    if name in registry.variants[op]:
        held = registry.variants[op][name]
        raise UsageError(f'there is a variant "{op}.{name}" already, from {held.origin}', hint="choose another name")
    if source and base:
        raise UsageError("--from and --base exclude each other", hint="--base copies that variant's forward")
    start = _model_of(registry, op, source or base)
    _write(folder, _variant_files(schema, start, name, bool(base)))
    options = " ".join(f"--plugin {path}" for path in (*plugin, _typed(folder)))
    device = f" --device {registry.home(start).name}" if registry.has_kernels(start) else ""
    _next(
        f"core check {op}.{name} {options}",
        f"core train tiny {options} --set ops.{op}={name}{device} --set train.steps=2",
    )


@command.command("course")
@click.argument("name")
@out_option
def new_course(name: str, out: Path | None) -> None:
    """Write a course called NAME: a page, and a puzzle with its wrong answers and a test."""
    registry, folder = _start("a course", name, out, ())
    if name in registry.courses:
        raise UsageError(
            f'there is a course "{name}" already, from {registry.courses[name].origin}', hint="choose another name"
        )
    words = {"name": name, "title": _title(name)}
    files = {
        "__init__.py": "__init__.py",
        f"{name}.toml": "course.toml",
        "pages/01_squares.md": "page.md",
        "puzzles/p01_square.py": "puzzle.py",
        "puzzles/p01_square.cu": "puzzle.cu",
        f"test_{name}.py": "test.py",
    }
    _write(folder, {file: _filled(f"course/{template}", words) for file, template in files.items()})
    options = f"--plugin {_typed(folder)} --course {name}"
    _next(f"core learn list {options}", f"core learn start p01 {options}", f"core learn prove {options}")


# --- names and files -------------------------------------------------------------------------------------------------


def _start(kind: str, name: str, out: Path | None, plugins: tuple[str, ...]) -> tuple[Registry, Path]:
    """The registry and the folder to make. Raises UsageError for an invalid name or folder."""
    from core.loader import load_registry

    if not NAME.fullmatch(name):
        raise UsageError(
            f'"{name}" cannot be the name of {kind}: expected lower-case letters, digits and _, a letter first'
        )
    if keyword.iskeyword(name) or hasattr(builtins, name) or name in TAKEN:
        raise UsageError(
            f'"{name}" cannot be the name of {kind}: Python or the core uses it', hint="choose another name"
        )
    folder = out if out is not None else Path(name)
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"{folder} exists already; no file was overwritten", hint="choose another folder: --out DIR, or remove it"
        )
    registry = load_registry(plugins)
    if folder.name in {record.name for record in registry.plugins}:
        raise UsageError(f'there is a plugin "{folder.name}" already, and a folder\'s name is its plugin\'s',
                         hint="choose another folder: --out DIR")  # fmt: skip
    return registry, folder


def _new_op(registry: Registry, name: str) -> None:
    """Raises UsageError where there is an op of that name."""
    if name in registry.ops:
        raise UsageError(
            f'there is an op "{name}" already, from {registry.ops[name].origin}',
            hint=f"choose another name, or write a variant of it: core new variant {name} mine",
        )


def _op_files(name: str) -> dict[str, str]:
    """File -> text of a folder with an op."""
    words = {"name": name, "title": _title(name)}
    return {
        "__init__.py": _filled("op/__init__.py", words),
        f"{name}.py": _filled("op/op.py", words),
        f"{name}.cu": _filled("op/op.cu", words),
        f"gpt2_{name}.toml": _filled("op/model.toml", words),
        f"test_{name}.py": _filled("op/test.py", words),
    }


def _title(name: str) -> str:
    """rms_norm -> RmsNorm"""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _filled(template: str, words: Mapping[str, str]) -> str:
    return Template((TEMPLATES / f"{template}.in").read_text("utf-8")).substitute(words)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """The files, none of which is there."""
    try:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            click.echo(f"wrote {folder / name}")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from None


def _typed(folder: Path) -> str:
    """The folder as one types it in a command."""
    text = str(folder) if folder.is_absolute() or str(folder).startswith(".") else f"./{folder.as_posix()}"
    return _quoted(text)


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


def _next(*commands: str) -> None:
    click.echo("\nnext:")
    for line in commands:
        click.echo(f"  {line}")


# --- a variant from another ------------------------------------------------------------------------------------------


def _model_of(registry: Registry, op: str, name: str) -> Variant:
    """The variant to start from: the named one, or the simplest with kernels. UsageError where there is none."""
    if name:
        named = registry.variant(op, name)
        if not isinstance(named, Reference):
            return named
        raise UsageError(f"{op}.{name} is NumPy without launchers, so it has no kernel to copy")
    kernels = [v for v in registry.variants[op].values() if registry.has_kernels(v) and v.priority >= 0]
    if kernels:
        return min(kernels, key=lambda v: (v.priority, v.name))
    others = [n for n, v in registry.variants[op].items() if not isinstance(v, Reference)]
    raise UsageError(
        f'op "{op}" has no variant with kernels to start from',
        hint=f"copy another: --from {' or '.join(others)}" if others else "see docs/plugins.md, A faster variant",
    )


def _variant_files(op: Op, start: Variant, name: str, forward_only: bool) -> dict[str, str]:
    """path -> text of a plugin with one variant that is a copy of `start`."""
    title = written_class(start).__name__.removesuffix(_title(start.name)) + _title(name)
    copied = copy_of(start, name, title, _examples(op), forward_only)
    package, _, module = copied.module.rpartition(".")
    words = {"op": op.name, "name": name, "title": title, "package": package, "module": module}
    return {
        "__init__.py": _filled("variant/__init__.py", words),
        **copied.files,
        f"test_{op.name}_{name}.py": _filled("variant/test.py", words),
    }


def _examples(op: Op) -> str:
    """A line of `examples` for a variant that has none: the op's largest one, with a row more where that can be."""
    from core.testing.case import make_case

    plain = [e for e in op.examples if all(isinstance(v, (tuple, int, float, str)) for v in e.values())]
    if not plain:
        return ""
    largest = max(plain, key=lambda e: make_case(op, e).longest)
    longer = {k: (v[0] + 1, *v[1:]) if k in op.inputs and isinstance(v, tuple) else v for k, v in largest.items()}
    try:
        make_case(op, longer)
    except BuildError:
        longer = largest
    text = ", ".join(f'"{k}": {_literal(v)}' for k, v in longer.items())
    return f"{WHY_EXAMPLES}    examples = [{{{text}}}]\n"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
