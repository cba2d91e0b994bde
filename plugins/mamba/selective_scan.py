"""The selective scan of Mamba, arXiv:2312.00752: a linear recurrence whose coefficients depend on the token.

For a channel e of a sequence, with s_t = softplus(dt_t) and A = -exp(A_log), for each of the N states n:
    a_tn = exp(s_t A_n),  h_tn = a_tn h_(t-1)n + s_t x_t b_tn,  y_t = sum_n c_tn h_tn + D x_t
bc holds, for each token, the N b and then the N c, which all channels share. Backward, with g_tn the gradient of h_tn:
    g_tn = c_tn dy_t + a_(t+1)n g_(t+1)n,  dx_t = D dy_t + s_t sum_n g_tn b_tn
    ddt_t = sigmoid(dt_t) sum_n g_tn (x_t b_tn + A_n a_tn h_(t-1)n),  dA_log_n = sum_t g_tn s_t A_n a_tn h_(t-1)n
    dD = sum_t dy_t x_t,  db_tn = sum_e g_tn s_t x_t,  dc_tn = sum_e dy_t h_tn
Before the first token h is 0. While decoding, h is the state.
"""

import numpy as np

from core import BuildError, Op, Param, Reference, State


def settle(dims):
    if dims["W"] % 2:
        raise BuildError(f"bc has {dims['W']} features; expected an even number: b and c of each state")
    dims["N"] = dims["W"] // 2


def far_steps():
    """Steps softplus(dt) from 1e-5, where a state keeps all, to 40, where it forgets all."""
    drawn = np.random.default_rng(0)
    x, bc = drawn.standard_normal((1, 9, 4)), drawn.standard_normal((1, 9, 6))
    return {"x": x, "dt": np.linspace(-12, 40, 36).reshape(1, 9, 4), "bc": bc}


selective_scan = Op(
    "selective_scan",
    inputs={"x": "B T E", "dt": "B T E", "bc": "B T W"},
    outputs={"y": "B T E"},
    params={
        "A_log": Param("E N", init="index(log(column + 1))", decay=False),
        "D": Param("E", init="ones", decay=False),
    },
    state={"h": State("B E N : acc")},
    infer=settle,
    uses=("counts",),
    examples=[
        {"x": (2, 7, 5), "dt": (2, 7, 5), "bc": (2, 7, 6)},
        {"x": (3, 2, 19), "dt": (3, 2, 19), "bc": (3, 2, 6)},
        {"x": (1, 1, 2), "dt": (1, 1, 2), "bc": (1, 1, 2)},
        {"x": (2, 37, 3), "dt": (2, 37, 3), "bc": (2, 37, 6)},
        {"x": (1, 1031, 2), "dt": (1, 1031, 2), "bc": (1, 1031, 2)},  # many chunks
        {"x": (1, 2, 1031), "dt": (1, 2, 1031), "bc": (1, 2, 6)},
        far_steps(),
    ],
    doc="Mamba's recurrence: a token sets how much each state forgets and takes in; a state of constant size.",
)


def softplus(dt):
    return np.maximum(dt, 0) + np.log1p(np.exp(-np.abs(dt)))


class SelectiveScanReference(Reference):
    op = "selective_scan"
    reads = ("x", "dt", "bc", "A_log", "D")
    can_add = ("x", "dt", "bc")

    def states(self, t):
        """a, h of every token, (B, T, E, N), and s (B, T, E). Of a padded token, h is that before it."""
        s, A = softplus(t.dt), -np.exp(t.A_log)
        a = np.exp(s[..., None] * A)
        into = (s * t.x)[..., None] * t.bc[:, :, None, : t.N]
        hs, h = np.empty_like(a), np.zeros_like(a[:, 0]) if t.h is None else t.h.astype(a.dtype)
        for i in range(t.T):
            now = a[:, i] * h + into[:, i]
            h = now if t.counts is None else np.where((i < t.counts)[:, None, None], now, h)
            hs[:, i] = h
        return a, hs, s

    def forward(self, t):
        _, hs, _ = self.states(t)
        t.y[...] = (hs @ t.bc[..., t.N :, None])[..., 0] + t.D * t.x
        if t.h is not None:
            t.h[...] = hs[:, -1]

    def backward(self, t):
        a, hs, s = self.states(t)
        b, c, A = t.bc[:, :, None, : t.N], t.bc[:, :, None, t.N :], -np.exp(t.A_log)
        g = c * t.dy[..., None]
        for i in reversed(range(t.T - 1)):
            g[:, i] += a[:, i + 1] * g[:, i + 1]
        before = np.concatenate([np.zeros_like(hs[:, :1]), hs[:, :-1]], axis=1)
        along = g * a * before * A
        gb = (g * b).sum(-1)
        t.add("dx", t.D * t.dy + s * gb)
        t.add("ddt", -np.expm1(-s) * (t.x * gb + along.sum(-1)))  # sigmoid(dt) = 1 - exp(-softplus(dt))
        t.add("dA_log", (along * s[..., None]).sum((0, 1)))
        t.add("dD", (t.dy * t.x).sum((0, 1)))
        db = np.einsum("bten,bte->btn", g, s * t.x)
        t.add("dbc", np.concatenate([db, np.einsum("bten,bte->btn", hs, t.dy)], axis=-1))

    def parts(self, t, tensor, index):
        every = slice(None)
        if tensor in ("dA_log", "dD"):
            e = index[0]
            own = dict.fromkeys(("x", "dy"), (every, every, e))
            if tensor == "dD":
                return own
            n = slice(index[1], None, t.N)
            return own | {"dt": (every, every, e), "bc": (every, every, n), "A_log": index}
        b, i = index[:2]
        past, future = slice(0, i + 1), slice(i, t.T)
        if tensor == "dbc":
            n = index[2] % t.N
            times = future if index[2] < t.N else past
            bc = (b, future, t.N + n) if index[2] < t.N else (b, past, n)
            parts = {"bc": bc, "A_log": (every, n), "dt": (b, times, every)}
            own = {"x": (b, i, every), "dy": (b, times, every)}
            return parts | (own if index[2] < t.N else {"x": (b, past, every), "dy": (b, i, every)})
        e = index[2]
        parts = {"A_log": (e, every)}
        if tensor == "y":
            bc = [(b, past, slice(0, t.N)), (b, i, slice(t.N, None))]
            return parts | {"x": (b, past, e), "dt": (b, past, e), "bc": bc, "D": (e,)}
        if tensor == "dx":
            bc = [(b, i, slice(0, t.N)), (b, future, slice(t.N, None))]
            return parts | {"dy": (b, future, e), "dt": (b, future, e), "bc": bc, "D": (e,)}
        bc = [(b, past, slice(0, t.N)), (b, future, slice(t.N, None))]
        return parts | {"x": (b, past, e), "dt": (b, every, e), "dy": (b, future, e), "bc": bc}
