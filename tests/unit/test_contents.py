"""`contents_of`: the ops and variants that modules define, for a plugin's hooks."""

from __future__ import annotations

import importlib.util

import pytest

from core import Op, Optimizer, Variant, contents_of

FIRST = """
from core import Op, Optimizer, Reference, Variant

b = Op("b", inputs={"x": "..."}, outputs={"y": "..."})
a = Op("a", inputs={"x": "..."}, outputs={"y": "..."})

class BReference(Reference):
    op = "b"

class _Shared(Variant):
    op, name = "b", "shared"

class NoName(Variant):
    op = "b"

class BFast(_Shared):
    name = "fast"

class Step(Optimizer):
    name = "step"

    def step(self, p, launch): ...
"""
SECOND = """
from first import BFast, b
from core import Op, Variant

c = Op("c", inputs={"x": "..."}, outputs={"y": "..."})
also_c = c

class CFast(BFast):
    op = "c"
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    made = []
    for name, text in (("first", FIRST), ("second", SECOND)):
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(__import__("sys").modules, name, module)
        spec.loader.exec_module(module)
        made.append(module)
    return made


def test_contents_stand_in_the_order_of_their_files_and_imports_are_not_among_them(modules):
    first, second = modules
    assert [op.name for op in contents_of(Op, *modules)] == ["b", "a", "c"]
    assert contents_of(Variant, *modules) == [first.BReference, first.BFast, second.CFast]
    assert contents_of(Op, second) == [second.c]
    assert contents_of(Optimizer, *modules) == [first.Step]


def test_another_kind_and_something_else_than_a_module_are_errors(modules):
    with pytest.raises(TypeError, match="expected Op, Variant, Optimizer or Schedule"):
        contents_of(int, *modules)
    with pytest.raises(TypeError, match="is not a module"):
        contents_of(Op, modules[0].b)
