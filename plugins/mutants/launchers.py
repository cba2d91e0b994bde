"""Mutants of a variant's launchers by faults_python.py, run through the op check on the cpu.

Only code that backward reaches is broken (of an update: its forward), so that a wrong forward does not hide a fault.
"""

from __future__ import annotations

import ast
import inspect
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

from core import Op, Reference, Variant
from core.testing import check_variant
from core.testing.mutation import Registry

from .bench import Mutant, numbered
from .faults_python import HELPERS, Fault, faults

LAUNCHERS = ("backward", "forward_backward")


@dataclass(frozen=True)
class LauncherMutant(Mutant):
    """`owner` is the class whose launcher is broken; `base` may have brought it."""

    owner: type = object

    def build(self) -> Variant:
        """The broken variant: forward is the original's, and only the code of backward is broken."""
        module = sys.modules[self.owner.__module__]
        namespace: dict[str, Any] = {
            "__name__": module.__name__,
            "__package__": module.__package__,
            "__file__": module.__file__,
            **HELPERS,
        }
        tree = self.fault.put_into(ast.parse(inspect.getsource(module)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(tree, f"{module.__file__} [{self.fault.after}]", "exec"), namespace)
        broken = namespace[self.owner.__qualname__]
        methods: dict[str, Any] = {}
        if self.op.gradient:
            original = self.variant
            methods["forward"] = lambda _, *arguments: original.forward(*arguments)
        variant: Variant = type(broken.__name__, (broken, type(self.variant)), methods)()
        vars(variant).update(vars(self.variant))
        return variant


class LauncherBench:
    """One variant, ready to be broken: every mutant of its backward; of an update's forward, unless it is the
    reference, which defines it."""

    def __init__(self, op: Op, variant: Variant, registry: Registry) -> None:
        self.op, self.variant, self.registry = op, variant, registry

    @cached_property
    def mutants(self) -> list[LauncherMutant]:
        return numbered(
            LauncherMutant(self.op, self.variant, " and ".join(methods), fault, owner=kind)
            for kind, methods in launchers_of(self.op, self.variant).items()
            for fault in faults_of(self.op, self.variant, kind, methods)
        )

    def unbroken(self) -> list[str]:
        return check_variant(self.op, self.variant, self.registry).failed_checks()

    def caught(self, mutant: LauncherMutant) -> str:
        variant = mutant.build()
        own = variant if isinstance(variant, Reference) else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as overflows, of mutants in the pool's threads
                report = check_variant(self.op, variant, self.registry, stop=True, reference=own)
        except Exception as error:  # any failure is a caught mutant
            return type(error).__name__
        return report.failures[0].check if report.failures else ""


def launchers_of(op: Op, variant: Variant) -> dict[type, list[str]]:
    """The functions to break: class -> its launchers. The reference of an update defines it, and is left alone."""
    if op.gradient:
        names = [
            n for n, has in zip(LAUNCHERS, (variant.has_backward, variant.has_forward_backward), strict=True) if has
        ]
    else:
        names = [] if isinstance(variant, Reference) else ["forward"]
    by_class: dict[type, list[str]] = {}
    for name in names:
        kind = next(c for c in type(variant).__mro__ if isinstance(vars(c).get(name), FunctionType))
        by_class.setdefault(kind, []).append(name)
    return by_class


def faults_of(op: Op, variant: Variant, kind: type, methods: Sequence[str]) -> Iterator[Fault]:
    module = sys.modules[kind.__module__]
    tree = ast.parse(inspect.getsource(module))
    numbers = {n for n, v in vars(module).items() if isinstance(v, int | float) and n.isupper()}
    return faults(reached(tree, kind.__name__, methods), same_shape(op, variant), numbers)


def reached(module: ast.Module, kind: str, start: Sequence[str]) -> list[ast.FunctionDef]:
    """The launchers and the functions and methods of their module that they call, directly or not."""
    functions = {f.name: [f] for f in module.body if isinstance(f, ast.FunctionDef)}
    classes = {c.name: c for c in module.body if isinstance(c, ast.ClassDef)}
    methods = {n: {f.name: f for f in c.body if isinstance(f, ast.FunctionDef)} for n, c in classes.items()}
    functions |= {n: list(held.values()) for n, held in methods.items()}  # a class that is made use of: all of it
    own: dict[str, ast.FunctionDef] = {}
    line = [kind]
    for name in line:  # the class, then its bases in this module
        own = {**methods[name], **own}
        line += [ast.unparse(b) for b in classes[name].bases if ast.unparse(b) in classes]
    launchers: list[ast.FunctionDef] = []
    waiting = [own[name] for name in start]
    while waiting:
        function = waiting.pop(0)
        if function in launchers:
            continue
        launchers.append(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Name):
                waiting += functions.get(node.id, [])
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr in own:
                waiting.append(own[node.attr])
    return launchers


def same_shape(op: Op, variant: Variant) -> dict[str, tuple[str, ...]]:
    """Name in `t` -> the other tensors of that shape that backward may read."""
    shapes = {n: s.pattern.text.partition(":")[0] for n, s in (*op.inputs.items(), *op.outputs.items())}
    shapes |= {p: pattern.text.partition(":")[0] for p, pattern in op.param_patterns.items()}
    shapes |= {n: text.partition(":")[0] for n, text in variant.saved.items()}
    shapes = {n: " ".join(text.split()) for n, text in shapes.items()}
    readable = {n: shapes[n] for n in (*variant.reads, *variant.saved) if n in shapes}
    readable |= {"d" + n: shapes[n] for n in op.outputs}
    return {n: tuple(o for o, text in readable.items() if text == shape and o != n) for n, shape in readable.items()}
