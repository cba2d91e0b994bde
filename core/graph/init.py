"""Initial values of parameters: the init rules, and the draws.

Each parameter is drawn without its padding from a stream of its own, seeded by the run's seed and the parameter's
name: its initial values depend neither on the others, nor on the padding, nor on the precision.
"""

from __future__ import annotations

import fnmatch
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
FORMS = "ones, zeros, constant(VALUE), normal(STD), uniform(LIMIT), orthogonal(GAIN), index(EXPRESSION)"
KINDS = tuple(form.partition("(")[0] for form in FORMS.split(", "))
SAME = KINDS[2]  # one value for all
DRAWN = ("normal", "uniform", "orthogonal")
_RULE = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def settle(rule: Any, names: Mapping[str, Any], where: str) -> str:
    """`rule` with its arithmetic done over `names`: "normal(0.02 / sqrt(2*L))" -> "normal(0.00408...)".

    Raises BuildError for a rule outside of `FORMS`.
    """
    form = _RULE.fullmatch(rule) if isinstance(rule, str) else None
    if form is None:
        raise BuildError(f"{where}: init is {rule!r}; expected one of {FORMS}")
    kind, inside = form[1], form[2]
    if kind not in KINDS:
        raise BuildError(f'{where}: init "{rule}" is not one of {FORMS}{did_you_mean(kind, KINDS)}')
    if (kind in ("ones", "zeros")) != (inside is None):
        raise BuildError(f'{where}: init "{rule}" is not one of {FORMS}')
    if inside is None:
        return kind
    if kind == "index":
        from core.graph.shaped_init import settle_index  # of the models that have one

        return f"index({settle_index(inside, names, where)})"
    scale = float(evaluate(inside, names, where))
    if scale < 0 and kind != SAME:
        raise BuildError(f'{where}: init "{rule}" is {kind}({scale!r}); expected 0 or more')
    return f"{kind}({scale!r})"


def settle_state(rule: Any, names: Mapping[str, Any], where: str) -> str:
    """`settle` of the contents that a state has before the first token, which no rule may draw. Raises BuildError."""
    settled = settle(rule, names, where)
    if settled.partition("(")[0] in DRAWN:
        raise BuildError(
            f'{where}: init "{rule}" draws numbers, and every row of a state begins with the same ones',
            hint="zeros, ones, constant(VALUE) or index(EXPRESSION)",
        )
    return settled


def check_shape(init: str, shape: tuple[int, ...], where: str) -> None:
    """BuildError where an orthogonal matrix is to be a vector."""
    if init.startswith("orthogonal") and len(shape) < 2:
        raise BuildError(f'{where}: init "{init}" is for matrices, and the shape is {tuple(map(int, shape))}')


def parameter_glob(glob: str) -> re.Pattern[str]:
    """A glob over parameter names; `{i}` in it is a number, the group `i`: "h.{i}.proj.*"."""
    marked = re.sub(r"\{([A-Za-z_]\w*)\}", "\x01\\1\x02", glob)
    return re.compile(re.sub("\x01(.*?)\x02", r"(?P<\1>\\d+)", fnmatch.translate(marked)))


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
    if kind == SAME:
        inner[...] = np.float32(scale)
        return result
    stream = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    if kind in ("index", "orthogonal"):
        from core.graph.shaped_init import by_index, orthogonal  # of the models that have one

        shaped = by_index(parameter, parameter.init[6:-1]) if kind == "index" else None
        shaped = orthogonal(inner.shape, float(scale), stream) if shaped is None else shaped
        inner[...] = shaped.astype(np.float32)
        return result
    direct = inner.dtype == np.float32 and inner.flags.c_contiguous
    numbers = inner if direct else np.empty(inner.shape, np.float32)
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
