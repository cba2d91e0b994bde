"""The sources that a verdict on a variant depends on, and their hash.

They are the files of the op and its references, of the variant, of their imports from their own plugins and from
core.kernels, and of the kernels with their headers.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from core.op import Variant
from core.registry import REFERENCE, Registry

KIT = 5  # raised when the sub-checks become stricter, so that old verdicts are void


def key_of(variant: Variant, registry: Registry) -> str:
    """Cache key of a variant's verdicts: a hash of its sources and of its references', the same on every machine.

    Comments, docstrings, blank lines and line ends are left out, and the statements of dependencies of numbers
    (`Reference.parts`): they change no result.
    """
    digest = hashlib.sha256(f"{KIT} {variant.op}.{variant.name}".encode())
    for part in sorted(_part(path) for path in sources_of(variant, registry)):
        digest.update(part)
    return digest.hexdigest()[:16]


def sources_of(variant: Variant, registry: Registry) -> set[Path]:
    """The files that a verdict depends on: of the op and those that it replaces, of the variant and of the
    references, their imports from their plugins, and the kernels."""
    op = registry.op(variant.op)
    ops = [op, *(registry.op(s.op) for s in op.statements)]
    held_to = [registry.variants_of(o.name).get(REFERENCE) for o in ops]
    kinds = [kind for v in (variant, *held_to) if v is not None for kind in type(v).__mro__]
    start = [sys.modules.get(kind.__module__) for kind in kinds]
    paths = {Path(o.where.rpartition(":")[0]) for o in ops}
    paths |= {Path(str(m.__file__)) for m in _reachable([m for m in start if m is not None])}
    if variant.sources:
        from core.kernels.sources import prelude_file, with_headers

        kernels = {path for those in variant.sources.values() for path in those}
        paths |= {prelude_file(), *(path for kernel in kernels for path in with_headers(kernel))}
    return {p for p in paths if p.is_file()}


SHARED = "core.kernels."  # shared by the launchers of many plugins


def _reachable(start: list[ModuleType]) -> Iterator[ModuleType]:
    """Modules of the plugins in `start`, and those of the same plugins and of core.kernels that they use."""
    seen: set[str] = set()
    waiting = [m for m in start if _plugin(m.__name__)]
    homes = {_plugin(m.__name__) for m in waiting}
    while waiting:
        module = waiting.pop()
        if module.__name__ in seen or not getattr(module, "__file__", None):
            continue
        seen.add(module.__name__)
        yield module
        for value in list(vars(module).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            imported = sys.modules.get(name) if isinstance(name, str) else None
            if imported is not None and (_plugin(imported.__name__) in homes or imported.__name__.startswith(SHARED)):
                waiting.append(imported)


def _plugin(module: str) -> str:
    """The plugin's package that a module belongs to; "" for the engine itself and for everything foreign to it."""
    parts = module.split(".")
    if parts[0] != "core":
        return parts[0] if parts[0] not in sys.stdlib_module_names | {"numpy"} else ""
    if len(parts) > 1 and parts[1] == "ops":
        return "core.ops"
    return ".".join(parts[:3]) if len(parts) > 2 and parts[1] == "plugins" else ""


def _part(path: Path) -> bytes:
    """A file's name and code."""
    try:
        stat = path.stat()
        return _hashed(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return b""


@functools.lru_cache(maxsize=1024)
def _hashed(path: Path, changed: int, size: int) -> bytes:
    text = path.read_text("utf-8", "replace")  # which also makes one kind of line end of all
    return hashlib.sha256(f"{path.name}\0{CODE.get(path.suffix, str)(text)}".encode()).digest()


EXPLAINS = ("made_of", "parts", "maps")
STRINGS = r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
PYTHON = re.compile(rf'''("""(?:\\.|[^\\])*?"""|{"'" * 3}(?:\\.|[^\\])*?{"'" * 3})|{STRINGS}|\#[^\n]*''', re.DOTALL)
C = re.compile(rf"{STRINGS}|//[^\n]*|/\*.*?\*/", re.DOTALL)


def explanations(node: ast.AST) -> list[ast.stmt]:
    """Statements of a reference about its results, which no other method of the class uses: `made_of`, `parts` and
    `maps`."""
    if not isinstance(node, ast.ClassDef) or not any(ast.unparse(base).endswith("Reference") for base in node.bases):
        return []
    named = [(_name_of(one), one) for one in node.body]
    others = [one for name, one in named if name not in EXPLAINS]
    used = {n.attr for one in others for n in ast.walk(one) if isinstance(n, ast.Attribute)}
    return [one for name, one in named if name in EXPLAINS and name not in used]


def _name_of(statement: ast.stmt) -> str:
    """The name that a statement of a class defines; "" for one that defines none."""
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    return statement.name if isinstance(statement, ast.FunctionDef) else ""


def python_code(text: str) -> str:
    """Python source without comments, docstrings, blank lines and `explanations`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        for stated in explanations(node):
            lines[stated.lineno - 1 : stated.end_lineno] = [""] * ((stated.end_lineno or 0) - stated.lineno + 1)
        first = node.body[0]
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        if isinstance(first.value.value, str) and not lines[first.lineno - 1][: first.col_offset].strip():
            end = first.end_lineno or first.lineno
            lines[first.lineno - 1 : end] = [""] * (end - first.lineno + 1)
    return _written(PYTHON.sub(lambda m: m[1] or m[2] or "", "\n".join(lines)))


def c_code(text: str) -> str:
    """C++ source without comments and blank lines."""
    return _written(C.sub(lambda m: m[1] or " ", text))


def _written(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


CODE = {".py": python_code, ".cu": c_code, ".cuh": c_code, ".h": c_code}
