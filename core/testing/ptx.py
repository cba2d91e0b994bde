"""Hand-written PTX for tests of single instructions: a kernel around them, one thread an element.

The result is plain PTX of sm_90a, so that the same test can run on a GPU. The module compares nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import core.sim

HEAD = ".version 8.7\n.target sm_90a\n.address_size 64\n"
WIDTH = {1: "b8", 2: "b16", 4: "b32", 8: "b64"}  # by bytes


def lanes(body: str, *inputs: Any, out: Any = np.uint32, threads: int = 0, declare: str = "") -> Any:
    """Run `body` for every element: it finds inputs in %a, %b, %c (as bits) and leaves its result in %d.

    The result is an array of dtype `out`, one element per thread.
    """
    arrays = [np.ascontiguousarray(np.atleast_1d(i)) for i in inputs]
    count = threads or max([len(a) for a in arrays], default=32)
    arrays = [np.ascontiguousarray(np.broadcast_to(a, (count,))) for a in arrays]
    result = np.zeros(count, out)
    names = "abcef"[: len(arrays)]
    loads = ""
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        size = array.dtype.itemsize
        loads += (
            f"ld.param.u64 %p, [k_{i}];\nmad.wide.u32 %p, %t, {size}, %p;\nld.global.{WIDTH[size]} %{name}, [%p];\n"
        )
    registers = "".join(f".reg .{WIDTH[max(a.dtype.itemsize, 2)]} %{n};\n" for n, a in zip(names, arrays, strict=True))
    size = result.dtype.itemsize
    parameters = ", ".join(f".param .u64 k_{i}" for i in range(len(arrays) + 1))
    ptx = f"""{HEAD}
.visible .entry k({parameters})
{{
{registers} .reg .{WIDTH[max(size, 2)]} %d; .reg .b64 %p; .reg .b32 %t; .reg .pred %q<4>; .reg .b32 %r<8>;
.reg .b64 %rd<8>; .reg .b16 %h<8>;
{declare}
mov.u32 %t, %tid.x;
{loads}
{body}
ld.param.u64 %p, [k_{len(arrays)}];
mad.wide.u32 %p, %t, {size}, %p;
st.global.{WIDTH[size]} [%p], %d;
ret;
}}"""
    core.sim.run(ptx, "k", 1, count, [*arrays, result])
    return result


def f32(*values: float) -> Any:
    return np.array(values, np.float32)
