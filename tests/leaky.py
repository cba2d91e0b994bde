"""An op with a state of constant size, h = keep * h + x, and faults of its decoding; helper of tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from core import Op, Reference, State

START = 2.0


def leak_op(init: str = "constant(2)") -> Op:
    return Op(
        "leak",
        inputs={"x": "B T C"},
        outputs={"y": "B T C"},
        attrs={"keep": 0.5},
        state={"h": State("B C : acc", init=init)},
        uses=("counts",),
        examples=[{"x": (3, 7, 5)}, {"x": (2, 1, 4)}, {"x": (1, 13, 3), "keep": 0.9}],
    )


class LeakReference(Reference):
    op = "leak"

    def first(self, t: Any) -> Any:
        return np.full((t.B, t.C), START, t.y.dtype) if t.h is None else t.h.astype(t.y.dtype)

    def real(self, t: Any, i: int) -> Any:
        return True if t.counts is None else (i < t.counts)[:, None]

    def keeps(self, t: Any, h: Any) -> None:
        t.h[...] = h

    def forward(self, t: Any) -> None:
        h = self.first(t)
        for i in range(t.T):
            h = np.where(self.real(t, i), t.keep * h + t.x[:, i], h)
            t.y[:, i] = h
        if t.h is not None:
            self.keeps(t, h)

    def backward(self, t: Any) -> None:
        dh, dx = np.zeros((t.B, t.C), t.dy.dtype), np.empty_like(t.dy)
        for i in reversed(range(t.T)):
            dh = dh + t.dy[:, i]
            dx[:, i] = dh
            dh = t.keep * dh
        t.add("dx", dx)


class CountsPadding(LeakReference):
    def real(self, t: Any, i: int) -> Any:
        return True


class NeverKeeps(LeakReference):
    def keeps(self, t: Any, h: Any) -> None:
        pass


class StartsAtZero(LeakReference):
    def first(self, t: Any) -> Any:
        return super().first(t) - (START if t.h is not None else 0)


class WrongAlone(LeakReference):
    """Wrong where one token is decoded, as a kernel of that alone may be."""

    def forward(self, t: Any) -> None:
        super().forward(t)
        if t.h is not None and t.T == 1:
            t.h[...] *= 1.01


class LeavesPadding(LeakReference):
    def forward(self, t: Any) -> None:
        super().forward(t)
        if t.counts is not None:
            t.y[np.arange(t.T) >= t.counts[:, None]] = np.nan


FAULTS = {
    CountsPadding: ("decode", "rows apart"),
    NeverKeeps: ("decode", "y (the last token)"),
    StartsAtZero: ("decode", "all tokens at once"),
    WrongAlone: ("decode", "y (one by one)"),
    LeavesPadding: ("written", "after t.counts"),
}
