"""Grouped linear maps: y = x weight[expert]^T for each of a token's k experts; no token is dropped, none padded.

x has a row for each token, which all of its k experts take, or k rows, one for each. With row m of y that of a token's
expert e, and x_m the row that it takes:
    y_m = x_m weight_e^T,  dweight_e = sum of dy_m^T x_m over the rows of e,  dx of a row = sum of dy_m weight_e over
    the rows m that take it.
"""

import numpy as np

from core import BuildError, Op, Param, Reference, product


def settle(dims):
    tokens, rows = (dims["B"], dims["T"]), dims["..."]
    if rows not in (tokens, (*tokens, dims["k"])):
        raise BuildError(
            f"x has rows {rows} for {tokens} tokens with {dims['k']} experts each",
            hint=f"expected a row for each token, {tokens}, or for each of its experts, {(*tokens, dims['k'])}",
        )
    dims["takers"] = dims["k"] if rows == tokens else 1  # rows of y that take one row of x


expert_matmul = Op(
    "expert_matmul",
    inputs={"x": "... K", "expert": "B T k : i32 < experts"},
    outputs={"y": "B T k features"},
    params={"weight": Param("experts features K", init="normal(0.02)")},
    attrs={"experts": int, "features": int},
    infer=settle,
    flops="2*B*T*k*K*features",
    examples=[
        {"x": (2, 7, 16), "expert": (2, 7, 2), "experts": 4, "features": 24},
        {"x": (2, 5, 3, 33), "expert": (2, 5, 3), "experts": 5, "features": 7},
        {"x": (1, 3, 6), "expert": np.full((1, 3, 1), 2, np.int32), "experts": 4, "features": 5},  # three have no token
        {"x": (1, 1, 1), "expert": (1, 1, 1), "experts": 1, "features": 1},
        {"x": (1, 5, 1031), "expert": (1, 5, 1), "experts": 2, "features": 3},  # beyond any tile in each way
        {"x": (1, 5, 3), "expert": (1, 5, 1), "experts": 2, "features": 1031},
        {"x": (1, 1031, 2), "expert": (1, 1031, 1), "experts": 17, "features": 3},
    ],
    doc="A linear layer with a weight for each expert.",
)


class ExpertMatmulReference(Reference):
    op = "expert_matmul"
    reads = ("x", "expert", "weight")
    can_add = ("x",)

    def groups(self, t):
        """For each expert: the rows of y that are its, and the rows of x that they take."""
        expert = t.expert.reshape(-1)
        order = np.argsort(expert, kind="stable")
        ends = np.cumsum(np.bincount(expert, minlength=t.experts))
        for e, rows in enumerate(np.split(order, ends[:-1])):
            yield e, rows, rows // t.takers

    def forward(self, t):
        x, y = t.x.reshape(-1, t.K), t.y.reshape(-1, t.features)
        for e, rows, taken in self.groups(t):
            y[rows] = product(x[taken], t.weight[e].T)

    def backward(self, t):
        x, dy = t.x.reshape(-1, t.K), t.dy.reshape(-1, t.features)
        dx = np.empty((len(dy), t.K), dy.dtype)
        dweight = np.empty_like(t.weight)
        for e, rows, taken in self.groups(t):
            if t.dx is not None:
                dx[rows] = product(dy[rows], t.weight[e])
            if t.dweight is not None:
                product(dy[rows].T, x[taken], out=dweight[e])
        t.add("dx", dx.reshape(-1, t.takers, t.K).sum(1))
        t.add("dweight", dweight)

    def parts(self, t, tensor, index):
        rows = t.x.ndim - 1  # of y's three, those that x has too
        if tensor == "y":
            *row, feature = index
            weight = (t.expert[(*row,)], feature, slice(None))
            return {"x": (*row[:rows], slice(None)), "expert": (*row,), "weight": weight}
        if tensor == "dx":
            *row, k = index
            weights = [(expert, slice(None), k) for expert in np.unique(t.expert[(*row,)])]
            return {"dy": (*row, ...), "expert": (*row, ...), "weight": weights}
        expert, feature, k = index
        own = np.argwhere(t.expert == expert)
        x, dy = [(*row[:rows], k) for row in own], [(*row, feature) for row in own]
        return {"x": x, "expert": (...,), "dy": dy}
