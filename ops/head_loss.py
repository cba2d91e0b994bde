"""The language-model head and its loss, in chunks of rows: loss = cross_entropy(x weight^T, targets).

The logits, by far the largest tensor of a small model, exist for `chunk` rows at a time (0: the variant's own number);
loss and gradients of a chunk are done while it is in memory. See matmul.py and cross_entropy.py for the formulas. The
pattern defines the result, and with it the reference of the op check.
"""

from core import BuildError, Op, Param, unpadded
from core.examples import far_rows


def settle(dims):
    features = unpadded(dims["features"])
    dims["classes"] = unpadded(dims["classes"]) or features
    if not 0 < dims["classes"] <= features:
        raise BuildError(f"classes = {dims['classes']}, but the head has {features} features")
    if dims["chunk"] < 0:
        raise BuildError(f"chunk = {dims['chunk']}; expected a number of rows, or 0 for the variant's own")


head_loss = Op(
    "head_loss",
    inputs={"x": "... K", "targets": "... : i32 < classes"},
    outputs={"loss": "... : acc"},
    params={"weight": Param("features K", init="normal(0.02)")},
    attrs={"features": int, "classes": 0, "chunk": 0},
    replaces="l = matmul(x, weight, bias=False); loss = cross_entropy(l, targets)",
    infer=settle,
    padding=("K", "features", "classes"),
    examples=[
        {"x": (2, 7, 16), "targets": (2, 7), "features": 32, "classes": 29, "chunk": 5},
        {"x": (5, 33), "targets": (5,), "features": 11, "chunk": 2},
        {"x": (1, 1), "targets": (1,), "features": 1},
        {"x": (3, 4), "targets": (3,), "features": 5, "chunk": 1},
        {"x": (2, 3), "targets": (2,), "features": 4111, "classes": 4103},  # beyond any tile in each way
        {"x": (1031, 2), "targets": (1031,), "features": 3},
        {"x": (2, 1031), "targets": (2,), "features": 3},
        {"x": far_rows(33), "targets": (3,), "features": 7},  # logits far from zero
    ],
    doc="Head and loss in one, without the logits as a whole.",
)
