"""`core new`: a working start for an op, a variant, a plugin or a model, in a folder of its own.

What it writes passes its check and trains as it is. The texts are in `templates/`; a variant starts from the code of
one that is there. Nothing that exists is overwritten.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import click

from core.cli.show import plugin_option
from core.errors import BuildError, UsageError
from core.op import NAME, Op, Reference, Variant

if TYPE_CHECKING:
    from core.registry import Registry

TEMPLATES = Path(__file__).parent / "templates"
TAKEN = ("np", "cdiv", "i32", "u64", "auto", "reference")  # names that the written files or the core use
OWN_FOLDERS = ("core", "tests")  # what a plugin's package cannot be called
WIDTH = 120  # of lines

out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder to make.  [default: ./NAME]"
)


@click.group("new")
def command() -> None:
    """Write a working start of an op, a variant, a plugin or a model."""


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
        raise UsageError(f'"{name}" cannot be the name of a plugin: its module would hide another of that name',
                         hint="another name")  # fmt: skip
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
@click.option("--alone", is_flag=True, help="Write the whole graph, not what differs from a model that is there.")
def new_model(name: str, out: Path | None, alone: bool) -> None:
    """Write a model called NAME, GPT-2 with one thing changed, and a run config that trains it small."""
    registry, folder = _start("a model", name, out, ())
    if name in registry.models:
        raise UsageError(f'there is a model "{name}" already, from {registry.models[name].origin}', hint="another name")
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
@click.option("--base", default="", metavar="VARIANT", help="Bring a forward alone; all else stays this variant's.")
@plugin_option
def new_variant(op: str, name: str, out: Path | None, source: str, base: str, plugin: tuple[str, ...]) -> None:
    """Write a variant of OP called NAME: a copy of its simplest kernels and launchers, to be changed.

    With --base, only the forward is copied, and backward comes from that variant.
    """
    registry, folder = _start("a variant", name, out, plugin)
    schema = registry.op(op)
    if name in registry.variants[op]:
        held = registry.variants[op][name]
        raise UsageError(f'there is a variant "{op}.{name}" already, from {held.origin}', hint="another name")
    if source and base:
        raise UsageError("--from and --base cannot both be given", hint="--base copies that variant's forward")
    start = _model_of(registry, op, source or base)
    _write(folder, _variant_files(registry, schema, start, name, bool(base)))
    given = " ".join(f"--plugin {path}" for path in (*plugin, _typed(folder)))
    device = " --device sim" if start.device == "cuda" else ""
    _next(
        f"core check {op}.{name} {given}",
        f"core train tiny {given} --set ops.{op}={name}{device} --set train.steps=2",
    )


# --- names and files -------------------------------------------------------------------------------------------------


def _start(what: str, name: str, out: Path | None, plugins: tuple[str, ...]) -> tuple[Registry, Path]:
    """What there is, and the folder to make. Raises UsageError for a name or a folder that cannot be."""
    from core.loader import load_registry

    if not NAME.fullmatch(name):
        raise UsageError(
            f'"{name}" cannot be the name of {what}: expected lower-case letters, digits and _, a letter first'
        )
    if keyword.iskeyword(name) or hasattr(builtins, name) or name in TAKEN:
        raise UsageError(f'"{name}" cannot be the name of {what}: Python or the core uses it', hint="another name")
    folder = out if out is not None else Path(name)
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"{folder} is there already, and nothing is overwritten", hint="another folder: --out DIR, or remove it"
        )
    registry = load_registry(plugins)
    if folder.name in {record.name for record in registry.plugins}:
        raise UsageError(f'there is a plugin "{folder.name}" already, and a folder\'s name is its plugin\'s',
                         hint="another folder: --out DIR")  # fmt: skip
    return registry, folder


def _new_op(registry: Registry, name: str) -> None:
    """Raises UsageError where there is an op of that name."""
    if name in registry.ops:
        raise UsageError(
            f'there is an op "{name}" already, from {registry.ops[name].origin}',
            hint=f"another name, or a variant of it: core new variant {name} mine",
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


def _model_of(registry: Registry, op: str, asked: str) -> Variant:
    """The variant to start from: the one asked for, or the simplest with kernels. UsageError where none can be."""
    if asked:
        found = registry.variant(op, asked)
        if not isinstance(found, Reference):
            return found
        raise UsageError(f"{op}.{asked} is NumPy without launchers: there is nothing to copy")
    kernels = [v for v in registry.variants[op].values() if v.device == "cuda" and v.priority >= 0]
    if kernels:
        return min(kernels, key=lambda v: (v.priority, v.name))
    others = [n for n, v in registry.variants[op].items() if not isinstance(v, Reference)]
    raise UsageError(
        f'op "{op}" has no variant with kernels to start from',
        hint=f"copy another: --from {' or '.join(others)}" if others else "see docs/plugins.md, A faster variant",
    )


PRIORITY = "    priority = -1  # runs only when asked for; above 10, it becomes what `auto` takes\n"


def _variant_files(registry: Registry, op: Op, start: Variant, name: str, forward_only: bool) -> dict[str, str]:
    """name -> text of a plugin with one variant that does what `start` does."""
    from core.cli.excerpt import class_excerpt

    cls = _class_of(start)
    title = cls.__name__.removesuffix(_title(start.name)) + _title(name)
    text = _forward_class(cls, op, name, title) if forward_only else _whole_class(cls, op, name, title)
    owner = _owner_of_forward(cls) if forward_only else cls
    taken = class_excerpt(owner, text)
    sources = start.sources.get("forward", ())
    kernels = _kernels(registry, op, start, forward_only, "\n".join(taken.parts)) if sources else []
    part = "the forward" if forward_only else "a copy"
    said = f'"""{op.name}.{name}, which started as {part} of {start.op}.{start.name}."""'
    whole = "\n\n".join([said, taken.header(), *_spaced(taken.parts)]) + "\n"
    cuda = _homes(op, start, kernels) if sources else {}
    if len(cuda) > 1 or (not forward_only and _inherits_source(cls)):
        whole = whole.replace(PRIORITY, PRIORITY + _source_line(list(cuda)), 1)
    renamed = {} if forward_only else {k: _renamed(k, start.name, name) for k in kernels}
    words = {"op": op.name, "name": name, "title": title}
    files = {
        "__init__.py": _filled("variant/__init__.py", words),
        f"{op.name}.py": _rename_in_launchers(whole, renamed, start.name, name),
        f"test_{op.name}_{name}.py": _filled("variant/test.py", words),
    }
    for file, (text_of_source, own) in cuda.items():
        files[file] = _cuda(text_of_source, own, renamed, op, start, name)
    return files


def _spaced(parts: list[str]) -> list[str]:
    """Two empty lines around classes and functions."""
    block = re.compile(r"(?:#[^\n]*\n)*(?:class|def|@)")
    blocks = [bool(block.match(part)) for part in parts]
    return [f"\n{part}" if here or before else part
            for part, here, before in zip(parts, blocks, [False, *blocks], strict=False)]  # fmt: skip


def _class_of(variant: Variant) -> type:
    """The class as its author wrote it, which `base` may have wrapped."""
    found = type(variant)
    written: type = getattr(sys.modules[found.__module__], found.__name__, found)
    return written


def _owner_of_forward(cls: type) -> type:
    return next(c for c in cls.__mro__ if "forward" in vars(c))


def _head(op: Op, name: str, title: str, parents: str, doc: str) -> str:
    return f'class {title}({parents}):\n    """{doc}"""\n\n    op, name = "{op.name}", "{name}"\n{PRIORITY}'


def _whole_class(cls: type, op: Op, name: str, title: str) -> str:
    from core.cli.excerpt import members, without

    parents = ", ".join(parent.__name__ for parent in cls.__bases__)
    doc = (cls.__doc__ or "Say here what this one does better, and what limits it.").strip()
    body = [without(text, ("op", "name", "priority", "source")) for text, _ in members(cls)]
    held = [f"{WHY_EXAMPLES}{text}" if text.lstrip().startswith("examples") else text for text in body]
    own = [] if held != body else [_examples(op)]
    return _head(op, name, title, parents, doc) + _joined([*own, *held])


# what a copy says about its own examples
WHY_EXAMPLES = """\
    # Checked besides the op's own. Give sizes just beyond each block, tile and stride of these kernels: what is wrong
    # only behind them passes on everything smaller. `core check --shape` tries sizes without writing them down.
"""


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
    return f"{WHY_EXAMPLES}    examples = [{{{text}}}]"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _inherits_source(cls: type) -> bool:
    return any("source" in vars(parent) and parent is not Variant for parent in cls.__mro__[1:])


def _source_line(files: Sequence[str]) -> str:
    quoted = ", ".join(f'"{file}"' for file in files)
    return f"    source = {quoted if len(files) == 1 else f'({quoted})'}\n"


def _forward_class(cls: type, op: Op, name: str, title: str) -> str:
    from core.cli.excerpt import members

    base = str(getattr(cls, "name", ""))
    doc = f"A forward of its own; all that is not here, backward too, is {base}'s."
    forward = [text for text, names in members(_owner_of_forward(cls)) if names == ["forward"]]
    return _head(op, name, title, "Variant", doc) + f'    base = "{base}"\n' + _joined([_examples(op), *forward])


def _joined(body: list[str]) -> str:
    lines = ""
    for text in filter(None, body):
        lines += ("\n" if text.lstrip().startswith(("def", "@")) else "") + text + "\n"
    return lines.rstrip("\n")


def _kernels(registry: Registry, op: Op, start: Variant, forward_only: bool, launchers: str) -> list[str]:
    """The kernels of the variant's own files that it launches at its examples, and those that `launchers` name."""
    from core.cli.excerpt import kernels_in
    from core.device.nvrtc import whole_text
    from core.testing.check import trials_of
    from core.testing.compiles import launches_of

    sources = start.sources["forward"]
    trials, _ = trials_of(op, start, registry)
    launches = [x for x in launches_of(trials) if x.kernel.source in sources]
    own = [x.kernel.name for x in launches if not forward_only or x.method == "forward"]
    literals = [n.value for n in ast.walk(ast.parse(launchers)) if isinstance(n, ast.Constant)]
    written = {name for path in sources for name in kernels_in(whole_text(path))}
    return list(dict.fromkeys([*own, *(name for name in literals if name in written)]))


def _renamed(kernel: str, old: str, new: str) -> str:
    return f"{new}_{kernel.removeprefix(f'{old}_')}" if kernel.startswith(f"{old}_") else kernel


def _rename_in_launchers(text: str, renamed: Mapping[str, str], old: str, new: str) -> str:
    for kernel, now in renamed.items():
        text = re.sub(rf'"{kernel}"', f'"{now}"', text)
    if any(kernel != now for kernel, now in renamed.items()):  # kernels = "naive", which f-strings make names of
        text = re.sub(rf'^(    (?!base\b)\w.*= .*)"{old}"', rf'\1"{new}"', text, flags=re.MULTILINE)
    return text


def _homes(op: Op, start: Variant, kernels: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """The files of a copy: name -> (the source's text with its headers, the kernels that come from it).

    One file is called like the op; several keep their names, since each is compiled with macros of its own.
    """
    from core.cli.excerpt import kernels_in
    from core.device.nvrtc import whole_text

    texts = {path.name: whole_text(path) for path in start.sources["forward"]}
    if not kernels:
        raise BuildError(f"{start.op}.{start.name} launches no kernel of {', '.join(texts)} at its examples")
    first = next(iter(texts))  # which also has those that a macro writes
    home = {k: next((file for file, text in texts.items() if k in kernels_in(text)), first) for k in kernels}
    found = {
        file: (text, [k for k in kernels if home[k] == file]) for file, text in texts.items() if file in home.values()
    }
    return found if len(found) > 1 else {f"{op.name}.cu": next(iter(found.values()))}


def _cuda(whole: str, kernels: list[str], renamed: Mapping[str, str], op: Op, start: Variant, name: str) -> str:
    from core.cli.excerpt import kernels_excerpt

    text = _rename_kernels(kernels_excerpt(whole, kernels), renamed)
    return (
        f"// Kernels of {op.name}.{name}, which started as those of {start.op}.{start.name}.\n"
        "// The core puts prelude.cuh in front: `elem`, float or bf16, which reads as a float; sums over warps.\n"
        f"//\n// {', '.join(renamed.get(kernel, kernel) for kernel in kernels)}\n\n{text}"
    )


def _rename_kernels(text: str, renamed: Mapping[str, str]) -> str:
    """Kernels under their new names, parameters on further lines still below the first."""
    lines, shift = [], 0
    for line in text.splitlines():
        moved = line if shift == 0 else " " * max(len(line) - len(line.lstrip()) + shift, 0) + line.lstrip()
        for kernel, now in renamed.items():
            if re.search(rf"\b{kernel}\(", line):
                shift = len(now) - len(kernel)
            moved = re.sub(rf"\b{kernel}\b", now, moved)
        lines.append(moved)
        shift = shift if line.endswith(",") else 0
    return "\n".join(lines) + "\n"
