"""[y | rest] = x along the last dim: packed values for nodes that read parts of them. dx joins both gradients."""

import numpy as np

from core import BuildError, Op, Reference


def inside(dims):
    if not 0 < dims["first"] < dims["E"]:
        raise BuildError(f"first is {dims['first']}; expected a part of the {dims['E']} features of x")


split = Op(
    "split",
    inputs={"x": "... E"},
    outputs={"y": "... first", "rest": "... E-first"},
    attrs={"first": int},
    infer=inside,
    examples=[
        {"x": (4, 7, 96), "first": 64},
        {"x": (3, 34), "first": 33},
        {"x": (1, 3), "first": 1},
        {"x": (2, 1036), "first": 1031},
        {"x": (1031, 5), "first": 2},
    ],
    doc="The first features of a tensor, and the others.",
)


class SplitReference(Reference):
    op = "split"
    can_add = ("x",)

    def forward(self, t):
        t.y[...] = t.x[..., : t.first]
        t.rest[...] = t.x[..., t.first :]

    def backward(self, t):
        if t.dx is None:
            return
        dx = t.dx if t.add_dx else np.zeros_like(t.dx)
        if t.dy is not None:
            dx[..., : t.first] += t.dy
        if t.drest is not None:
            dx[..., t.first :] += t.drest
        t.dx[...] = dx

    def parts(self, t, tensor, index):
        *row, at = index
        if tensor == "dx":
            return {"dy": index} if at < t.first else {"drest": (*row, at - t.first)}
        return {"x": (*row, at + (t.first if tensor == "rest" else 0))}
