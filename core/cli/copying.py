"""A copy of one variant for its author to change: the files of its launchers and kernels whole, one class renamed.

`core new variant` writes the files that `copy_of` returns. They keep their names and their places beside each other, so
that relative imports and `#include "..."` work in the copy as they did before. Two lines change: the name of the class,
and its `name` with a priority of -1.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import BuildError
from core.kernels.sources import is_public, with_headers
from core.op import Variant
from core.registry import LAUNCHERS
from core.registry.inherited import written_class

PRIORITY = "    priority = -1  # runs only if it is named; above 10, `auto` takes it\n"
RELATIVE = re.compile(r"^from (\.+)([\w.]*) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
NAME_LINE = r'^    ((?:\w+, )*)name((?:, \w+)*) = (.*)"{old}"(.*)$'
# a copy's comment above its own examples
WHY_EXAMPLES = """\
    # Checked in addition to the op's own. Give sizes just beyond each block, tile and stride of these kernels: a
    # fault beyond them passes on everything smaller. `core check --shape` tries sizes without writing them down.
"""


@dataclass(frozen=True)
class Copied:
    """`files`: path in the new folder -> text. `module`: the dotted module, in that folder, that defines `title`."""

    files: Mapping[str, str]
    module: str
    title: str


def copy_of(variant: Variant, name: str, title: str, examples: str, forward_only: bool = False) -> Copied:
    """`variant` under the name `name`, its class called `title`, with a line of `examples` where it has none.

    forward_only: the class has the variant's forward alone, and names the variant as its `base`.
    Raises BuildError for a class that takes values from its package's own __init__.py.
    """
    cls = written_class(variant)
    owner = next(c for c in cls.__mro__ if "forward" in vars(c)) if forward_only else cls
    module = Path(str(sys.modules[owner.__module__].__file__))
    launchers = ("forward",) if forward_only else LAUNCHERS
    sources = dict.fromkeys(path for method in launchers for path in variant.sources.get(method, ()))
    if not forward_only:  # inherited parts stay there
        own = folder_sources(variant, cls)
        sources = dict.fromkeys(path for path in sources if path in own) or sources
    headers = [path for source in sources for path in with_headers(source) if not is_public(path)]
    paths = list(dict.fromkeys([module, *imported(module), *headers]))
    top = common_folder(paths, module)
    texts = {path.relative_to(top).as_posix(): path.read_text("utf-8") for path in paths}
    place = module.relative_to(top).as_posix()
    if forward_only:
        texts[place] += _forward_class(variant, owner, name, title, examples, [path.name for path in sources])
    else:
        texts[place] = _renamed(texts[place], cls, variant.name, name, title, examples)
    parts = PurePosixPath(place).with_suffix("").parts
    return Copied(texts, ".".join(parts[:-1] if parts[-1] == "__init__" else parts), title)


def folder_sources(variant: Variant, cls: type) -> set[Path]:
    """The kernel files that the class itself names, without those of its `base`."""
    source = getattr(cls, "source", "")
    names = (source,) if isinstance(source, str) else source
    return {variant.folder / (name or f"{variant.op}.cu") for name in names}


def imported(module: Path) -> list[Path]:
    """Every file that a module's relative imports reach."""
    reached: dict[Path, None] = {}
    pending = [module]
    while pending:
        path = pending.pop()
        for dots, dotted, inside, line in RELATIVE.findall(path.read_text("utf-8")):
            base = path.parents[len(dots) - 1]
            names = [n.split(" as ")[0].strip() for n in (inside or line.partition("#")[0]).split(",") if n.strip()]
            for target in [dotted] if dotted else names:
                file = _module_file(base.joinpath(*target.split(".")))
                if file is None:
                    raise BuildError(
                        f"{path}: `from {dots} import {target}` reads a value of the package's __init__.py",
                        hint="copy a variant whose modules import from each other alone",
                    )
                if file not in reached:
                    reached[file] = None
                    pending.append(file)
    return list(reached)


def _module_file(base: Path) -> Path | None:
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def common_folder(paths: Iterable[Path], module: Path) -> Path:
    """The innermost folder that has `module` and every other path."""
    top = module.parent
    for path in paths:
        while not path.is_relative_to(top) and top.parent != top:
            top = top.parent
    return top if module.name != "__init__.py" or top != module.parent else top.parent


# --- the text of the class --------------------------------------------------------------------------------------------


def _renamed(text: str, cls: type, old: str, new: str, title: str, examples: str) -> str:
    """The module with `cls` called `title`, its `name` changed, a priority of -1, and examples of its own."""
    body, first = inspect.getsourcelines(cls)
    lines = text.splitlines(keepends=True)
    head, tail = lines[: first - 1], lines[first - 1 + len(body) :]
    block = _without_priority("".join(body))
    named = re.compile(NAME_LINE.format(old=re.escape(old)), re.MULTILINE)
    if named.search(block) is None:  # inherited: a line of its own after the op's
        block = re.sub(r"^(    op = .*\n)", rf'\1    name = "{old}"\n', block, count=1, flags=re.MULTILINE)
    own = re.search(r"^    examples = ", block, re.MULTILINE)
    extra = PRIORITY + ("" if own else examples)
    block = named.sub(lambda m: f'    {m[1]}name{m[2]} = {m[3]}"{new}"{m[4]}\n{extra}'.rstrip("\n"), block, count=1)
    if own:
        block = re.sub(r"^    examples = ", f"{WHY_EXAMPLES}    examples = ", block, count=1, flags=re.MULTILINE)
    return re.sub(rf"\b{cls.__name__}\b", title, "".join([*head, block, *tail]))


def _without_priority(block: str) -> str:
    """A class's text without its priority, alone on a line or the last of a tuple: `op, name, priority = ...`."""
    block = re.sub(r"^    priority = .*\n", "", block, count=1, flags=re.MULTILINE)
    return re.sub(r"^(    [\w, ]*name), priority = (.*), -?\d+", r"\1 = \2", block, count=1, flags=re.MULTILINE)


def _forward_class(base: Variant, owner: type, name: str, title: str, examples: str, sources: list[str]) -> str:
    """A class after the copied module: the forward of `owner`, `base` for all else."""
    source = "" if sources == [f"{base.op}.cu"] or not sources else f"    source = {_quoted(sources)}\n"
    return (
        f"\n\nclass {title}(Variant):\n"
        f'    """A forward of its own; all that is not here, backward too, is that of {base.name}."""\n\n'
        f'    op, name = "{base.op}", "{name}"\n{PRIORITY}    base = "{base.name}"\n{source}{examples}\n'
        f"{inspect.getsource(vars(owner)['forward']).rstrip()}\n"
    )


def _quoted(names: list[str]) -> str:
    texts = [f'"{name}"' for name in names]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
