"""A convolution over each channel's own last tokens: y_t = bias + sum_k w_k x_(t - width + 1 + k), for k below width.

The tokens before the first are zeros. dx_t = sum_k w_k dy_(t + width - 1 - k), dw_k = sum_t dy_t x_(t - width + 1 + k),
dbias = sum_t dy_t. While decoding, the state holds the last width - 1 tokens of x.
"""

import numpy as np

from core import BuildError, Op, Param, Reference, State


def wide_enough(dims):
    if dims["width"] < 2:
        raise BuildError(f"width is {dims['width']}; expected 2 or more tokens, the last of which is the token itself")


causal_conv = Op(
    "causal_conv",
    inputs={"x": "B T E"},
    outputs={"y": "B T E"},
    params={  # the weight in the shape of PyTorch's Conv1d with a group for each channel
        "weight": Param("E 1 width", init="uniform(1 / sqrt(width))"),
        "bias": Param("E", init="zeros", decay=False, optional=True),
    },
    attrs={"width": 4},
    state={"kept": State("B width-1 E")},
    infer=wide_enough,
    uses=("counts",),
    examples=[
        {"x": (2, 7, 5)},
        {"x": (3, 11, 33), "width": 3},
        {"x": (1, 1, 2), "bias": False},
        {"x": (2, 3, 4), "width": 7},  # a window longer than the sequence
        {"x": (1, 1031, 3), "width": 2},
        {"x": (1, 2, 1031)},
    ],
    doc="A convolution over each channel's own last tokens, with a state of constant size.",
)


class CausalConvReference(Reference):
    op = "causal_conv"
    reads = ("x", "weight")
    can_add = ("x",)

    def forward(self, t):
        before = t.width - 1
        earlier = np.zeros((t.B, before, t.E), t.x.dtype) if t.kept is None else t.kept
        tokens = np.concatenate([earlier, t.x], axis=1)
        y = np.zeros_like(t.x) if t.bias is None else np.broadcast_to(t.bias, t.x.shape).astype(t.x.dtype)
        for k in range(t.width):
            y += t.weight[:, 0, k] * tokens[:, k : k + t.T]
        t.y[...] = y
        if t.kept is not None:
            for b, count in enumerate(t.counts.tolist()):
                t.kept[b] = tokens[b, count : count + before]

    def backward(self, t):
        before = t.width - 1
        later = np.concatenate([t.dy, np.zeros((t.B, before, t.E), t.dy.dtype)], axis=1)
        if t.dx is not None:
            dx = np.zeros_like(t.dy)
            for k in range(t.width):
                dx += t.weight[:, 0, k] * later[:, before - k : before - k + t.T]
            t.add("dx", dx)
        if t.dweight is not None:
            parts = [np.einsum("bte,bte->e", t.x[:, : t.T - n], t.dy[:, n:]) for n in range(min(t.width, t.T))]
            parts += [np.zeros(t.E, t.dy.dtype)] * (t.width - len(parts))
            t.add("dweight", np.stack(parts[::-1], axis=1)[:, None])
        t.add("dbias", t.dy.sum((0, 1)))

    def parts(self, t, tensor, index):
        if tensor in ("dweight", "dbias"):
            every = (slice(None), slice(None), index[0])
            if tensor == "dbias":
                return {"dy": every}
            far = t.width - 1 - index[2]
            if far >= t.T:
                return {}
            return {"x": (slice(None), slice(0, t.T - far), index[0]), "dy": (slice(None), slice(far, None), index[0])}
        b, i, e = index
        if tensor == "y":
            near = slice(max(0, i - t.width + 1), i + 1)
            own = {"x": (b, near, e), "weight": (e, 0, slice(t.width - near.stop + near.start, t.width))}
            return own | ({} if t.bias is None else {"bias": (e,)})
        near = slice(i, min(t.T, i + t.width))
        return {"dy": (b, near, e), "weight": (e, 0, slice(t.width - near.stop + near.start, t.width))}
