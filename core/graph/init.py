"""Initial values of parameters: the init rules, and the draws.

Each parameter is drawn without its padding from a stream of its own, seeded by the run's seed and the parameter's
name: its initial values depend neither on the others, nor on the padding, nor on the precision.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from core import signals
from core.errors import BuildError, did_you_mean
from core.expr import evaluate, trim
from core.graph.types import Graph, Parameter

Array = np.ndarray[Any, np.dtype[Any]]
FORMS = "ones, zeros, normal(STD), uniform(LIMIT)"
_RULE = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def settle(rule: Any, names: Mapping[str, Any], where: str) -> str:
    """`rule` with its arithmetic done over `names`: "normal(0.02 / sqrt(2*L))" -> "normal(0.00408...)".

    Raises BuildError for a rule that is none of `FORMS`.
    """
    form = _RULE.fullmatch(rule) if isinstance(rule, str) else None
    if form is None:
        raise BuildError(f"{where}: init is {rule!r}; expected one of {FORMS}")
    kind, inside = form[1], form[2]
    takes = {"ones": False, "zeros": False, "normal": True, "uniform": True}
    if kind not in takes:
        raise BuildError(f'{where}: init "{rule}" is not one of {FORMS}{did_you_mean(kind, takes)}')
    if takes[kind] != (inside is not None):
        raise BuildError(f'{where}: init "{rule}" is not one of {FORMS}')
    if inside is None:
        return kind
    scale = float(evaluate(inside, names, where))
    if scale < 0:
        raise BuildError(f'{where}: init "{rule}" is {kind}({scale!r}); expected 0 or more')
    return f"{kind}({scale!r})"


def draw(parameter: Parameter, seed: int, dtype: Any = np.float32, *, out: Array | None = None) -> Array:
    """The first value of `parameter`, shape with padding, padding zero; written to `out` when it is given.

    The numbers are drawn in f32 under every `dtype` (f32 or f64), so that f64 starts where f32 does.
    """
    result = np.empty(parameter.shape, dtype) if out is None else out
    if result.shape != parameter.shape:
        raise BuildError(f"{parameter.name} has shape {tuple(parameter.shape)}, out has {result.shape}")
    inner = result[tuple(slice(n) for n in trim(parameter.shape))]
    if inner.shape != result.shape:
        result[...] = 0
    kind, _, scale = parameter.init.rstrip(")").partition("(")
    if kind in ("ones", "zeros"):
        inner[...] = 1 if kind == "ones" else 0
        return result
    direct = inner.dtype == np.float32 and inner.flags.c_contiguous
    numbers = inner if direct else np.empty(inner.shape, np.float32)
    stream = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    if kind == "normal":
        stream.standard_normal(dtype=np.float32, out=numbers)
        numbers *= np.float32(scale)
    else:  # uniform over [-scale, scale)
        stream.random(dtype=np.float32, out=numbers)
        numbers *= np.float32(2 * float(scale))
        numbers -= np.float32(scale)
    if not direct:
        inner[...] = numbers
    return result


def draw_all(graph: Graph, seed: int, place: Callable[[str], Array], threads: int = 4) -> None:
    """Draw every parameter into `place(name)`. The streams are independent: the number of threads changes no bit."""
    largest_first = sorted(graph.parameters.values(), key=lambda p: -p.size)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        signals.results(pool, [pool.submit(draw, p, seed, out=place(p.name)) for p in largest_first])
