"""Takes one class out of a Python module, or some kernels out of a .cu file, with all that they need and no more.

So `core new variant` gives an author a copy of a working variant to change. Text is kept as it was written, comments
included. It knows neither ops nor plugins.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

from core.errors import BuildError

# --- Python ----------------------------------------------------------------------------------------------------------

Statement = ast.stmt


@dataclass
class Excerpt:
    """The parts of a module that stand for themselves: `imports` first, then `parts` in order."""

    imports: dict[str, set[str]] = field(default_factory=dict)  # module -> names; {} for `import module`
    modules: set[str] = field(default_factory=set)  # `import math`, `import numpy as np`
    parts: list[str] = field(default_factory=list)

    def header(self) -> str:
        """The import lines: the standard library's and others', then the core's."""
        froms = {module: f"from {module} import {', '.join(sorted(names, key=_isort))}"
                 for module, names in self.imports.items()}  # fmt: skip
        lines = [*sorted(self.modules), *(froms[m] for m in sorted(froms))]
        kinds = [[line for line in lines if _kind(line) == kind] for kind in range(3)]
        return "\n\n".join("\n".join(group) for group in kinds if group)


def _isort(name: str) -> tuple[int, str]:
    """Constants, classes, the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def _kind(line: str) -> int:
    top = line.split()[1].partition(".")[0]
    return 0 if top in sys.stdlib_module_names else 2 if top == "core" else 1


def class_excerpt(cls: type, replaced: str = "") -> Excerpt:
    """`cls`, what its module defines that it uses, and what that uses. `replaced`: text to take the class's place.

    Raises BuildError where it uses a module of its own package as a whole, which has no place in another.
    """
    found = Excerpt()
    module = sys.modules[cls.__module__]
    _take(module, [cls.__name__], found, {cls.__name__: replaced} if replaced else {}, set())
    return found


def _take(
    module: ModuleType, names: Iterable[str], found: Excerpt, replaced: dict[str, str], done: set[tuple[str, str]]
) -> None:
    """Put the statements of `module` that define `names` into `found`, what they use first."""
    source = Path(str(module.__file__)).read_text("utf-8")
    tree = ast.parse(source)
    places = {name: statement for statement in tree.body for name in _defined(statement)}
    for name in names:
        statement = places.get(name)
        if statement is None or (module.__name__, name) in done:
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            done.add((module.__name__, name))
            _take_import(module, statement, name, found, done)
            continue
        done |= {(module.__name__, n) for n in _defined(statement)}
        text = replaced.get(name) or _text(source, statement)
        _take(module, _used(ast.parse(text)), found, replaced, done)
        found.parts.append(text)


def _take_import(
    module: ModuleType, statement: ast.Import | ast.ImportFrom, name: str, found: Excerpt, done: set[tuple[str, str]]
) -> None:
    (alias,) = (a for a in statement.names if (a.asname or a.name.partition(".")[0]) == name)
    if isinstance(statement, ast.Import):
        found.modules.add(ast.unparse(ast.Import([alias])))
    elif not statement.level:
        found.imports.setdefault(str(statement.module), set()).add(ast.unparse(alias))
    else:
        other = sys.modules.get(resolve_name("." * statement.level + (statement.module or ""), module.__package__))
        if not statement.module or other is None or alias.asname:
            raise BuildError(f"{module.__file__}:{statement.lineno}: `{ast.unparse(statement)}` cannot be copied alone")
        _take(other, [alias.name], found, {}, done)


def _defined(statement: Statement) -> list[str]:
    """The names that a statement of a module binds."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [a.asname or a.name.partition(".")[0] for a in statement.names]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def _used(tree: ast.AST) -> list[str]:
    """Every name that is read, in order of appearance."""
    return list(dict.fromkeys(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)))


def _text(source: str, statement: Statement) -> str:
    """A statement's whole lines, with the comment above it."""
    lines = source.splitlines()
    decorators = [d.lineno for d in getattr(statement, "decorator_list", ())]
    first = min([statement.lineno, *decorators]) - 1
    while first and lines[first - 1].startswith("#") and not lines[first - 1].startswith("# ---"):
        first -= 1
    return "\n".join(lines[first : statement.end_lineno])


def members(cls: type) -> list[tuple[str, list[str]]]:
    """The members of a class as (text with its indent, names), docstring left out, in order."""
    source = Path(str(sys.modules[cls.__module__].__file__)).read_text("utf-8")
    (node,) = (s for s in ast.parse(source).body if isinstance(s, ast.ClassDef) and s.name == cls.__name__)
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return [(_text(source, s), _defined(s)) for s in body]


def without(text: str, names: Iterable[str]) -> str:
    """A class's assignment without some of its names: `op, name, device = "a", "b", "cpu"` keeps the last."""
    statement = ast.parse(text.strip()).body[0]
    drop = set(names)
    if not isinstance(statement, ast.Assign) or not drop & set(_defined(statement)):
        return text
    target, value = statement.targets[0], statement.value
    if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple):
        return ""
    pairs = [(t, v) for t, v in zip(target.elts, value.elts, strict=True) if ast.unparse(t) not in drop]
    return "\n".join(f"    {ast.unparse(t)} = {ast.unparse(v)}" for t, v in pairs).replace("'", '"')


# --- CUDA ------------------------------------------------------------------------------------------------------------


def kernels_excerpt(text: str, kernels: Iterable[str]) -> str:
    """The kernels of a .cu file and every constant, type, macro and function that they use, in the file's order.

    The whole text where a kernel is not written out as a function, but made by a macro.
    """
    items = [(item, _names(item)) for item in _items(text)]
    wanted = list(kernels)
    if not all(any(name in names for _, names in items) for name in wanted):
        return text
    keep: set[int] = set()
    while wanted:
        name = wanted.pop()
        for index, (item, names) in enumerate(items):
            if name in names and index not in keep:
                keep.add(index)
                wanted += [n for other, others in items for n in others if _uses(item, n, _function(other) == n)]
    kept = [item for index, (item, _) in enumerate(items) if index in keep]
    texts = [f"{item}\n" if "\n" in item or "(" in _code(item) else item for item in kept]
    for i in range(1, len(texts)):  # an empty line between what stands on one line and what does not
        if texts[i].endswith("\n") and not texts[i - 1].endswith("\n"):
            texts[i - 1] += "\n"
    return "\n".join(texts).rstrip() + "\n"


def kernels_in(text: str) -> set[str]:
    """The names of a .cu file's `extern "C"` kernels that are written out as functions."""
    found = {_function(item) for item in _items(text) if 'extern "C"' in item and "__global__" in item}
    return found - {""}


def _uses(item: str, name: str, function: bool) -> bool:
    """Whether a declaration uses another: a local variable of a function's name does not count."""
    use = rf"\b{name}\s*[(<]|[(<,&]\s*{name}\b" if function else rf"\b{name}\b"
    return bool(re.search(use, _code(item)))


def _items(text: str) -> list[str]:
    """The declarations of a file, each with the comment that stands right above it."""
    items: list[str] = []
    held: list[str] = []
    depth = conditional = 0
    for line in text.splitlines():
        code = _code(line).strip()
        conditional += bool(re.match(r"#\s*if", code)) - bool(re.match(r"#\s*endif", code))
        depth += code.count("{") - code.count("}") + code.count("(") - code.count(")")
        if not line.strip() and depth == 0 and conditional == 0:
            held = []  # a comment that stands alone
            continue
        held.append(line)
        ended = code.endswith((";", "}")) or (code.startswith("#") and not code.endswith("\\"))
        if ended and depth == 0 and conditional == 0:
            items.append("\n".join(held))
            held = []
    return items


def _code(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)


FUNCTION = re.compile(r"(\w+)\s*(?:<[^<>()]*>)?\s*\(")
NOT_NAMES = r"\b(?:__launch_bounds__|alignas|__align__|__attribute__|asm)\s*\((?:[^()]|\([^()]*\))*\)"


def _names(item: str) -> set[str]:
    """What a declaration declares."""
    code = _code(item)
    found = set(re.findall(r"^\s*#\s*define\s+(\w+)", code, re.MULTILINE))
    found |= set(re.findall(r"\b(?:struct|class|union|enum|using|namespace)\s+(\w+)", re.sub(r"<[^<>]*>", "", code)))
    if re.search(r"\busing\b", code):
        return found  # what stands behind `=` is declared elsewhere
    enumerated = re.search(r"\benum\b[^{;]*\{([^}]*)\}", code)
    if enumerated:
        return found | set(re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", enumerated[1].strip()))
    function = _function(item)
    if function:
        return found | {function}
    head = code.partition("{")[0]
    return found | set(re.findall(r"(\w+)\s*(?:\[[^\]]*\]\s*)*(?==|,|;|\{)", head + (";" if "{" in code else "")))


def _function(item: str) -> str:
    """The name of the function that a declaration is of; "" where it is none."""
    head = re.sub(NOT_NAMES, " ", _code(item).partition("{")[0])
    found = FUNCTION.search(head)
    return found[1] if found and not re.search(r"=|^\s*#", head[: found.start()]) else ""
