"""Numeric derivatives in f64: the test that a reference's backward is the derivative of its forward.

Central differences along random directions, extrapolated twice (Richardson 1911: the error falls with the sixth
power of the step), one tensor at a time, so that an error in a small gradient is seen at its own scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.testing.case import padding
from core.testing.compare import Array
from core.testing.log import Log
from core.testing.pattern import Compared, Scene
from core.testing.pattern import seen as seen_in
from core.testing.trial import Trial

DIRECTIONS = 2  # random directions for each input and parameter
DERIVATIVE = 1e-7  # relative error allowed between a gradient and the numeric derivative along a direction
NOISE = 1e-10  # and this part of the output's gradient, where a gradient is that small
STEPS = (1e-3, 1e-5, 3e-2)  # of differences: the later ones for functions with kinks, or of great scale
KINK = (1e-6, 1e-7)  # steps to either side, whose slopes agree to about as much where there is a derivative
UNEQUAL = 1e-2  # and differ by more than this, relative, where there is none
ELEMENTS = 2000  # of all gradients together, up to which each is compared with its numeric derivative for a clue


def check_derivative(log: Log, trial: Trial, name: str, gradient: Array) -> None:
    """<gradient, u> and the derivative of <outputs, their gradients> along random directions u, compared."""
    rng = np.random.default_rng([len(name), gradient.size])
    size = float(np.linalg.norm(gradient))
    above = float(np.sqrt(sum(float(np.sum(np.square(s))) for s in trial.seeds.values())))
    allowed = DERIVATIVE * size + NOISE * above if np.isfinite(size) else 0.0
    outside = padding(trial.case.spec(name, "f64").shape)
    for _ in range(DIRECTIONS):
        u = np.asarray(rng.standard_normal(gradient.shape))
        u[outside] = 0.0
        with np.errstate(all="ignore"):
            error = derivative_error(trial, name, gradient, u, allowed)
            wrong = not error <= allowed and not kinked(trial, name, u, float(np.sum(gradient * u)))
        relative = error / (size or 1.0)
        if wrong:
            report_wrong(log, trial, name, gradient, relative)
            return
        log.passed("gradient", relative if error <= allowed else 0.0)


def report_wrong(log: Log, trial: Trial, name: str, gradient: Array, relative: float) -> None:
    """A failure with the worst element; the first one of a variant also with its clues."""
    with np.errstate(all="ignore"):
        seen = clue_of(trial, name) if log.clues and not any(f.seen for f in log.failures) else ""
        message = worst_element(trial, name, gradient)
    log.failed("gradient", message, relative, seen=seen)


def derivative_error(trial: Trial, name: str, gradient: Array, u: Array, allowed: float) -> float:
    """The smallest distance, over several step sizes, between <gradient, u> and the numeric derivative."""
    claimed = float(np.sum(gradient * u))
    best = float("inf")
    for h in STEPS if np.isfinite(claimed) else ():
        best = min(best, abs(derivative(trial, name, u, h) - claimed))
        if best <= allowed:
            break
    return best


def derivative(trial: Trial, name: str, u: Array, h: float) -> float:
    """Extrapolated from steps h, h/2 and h/4."""
    d1, d2, d4 = (slope(trial, name, u, h / k) for k in (1, 2, 4))
    first, second = (4 * d2 - d1) / 3, (4 * d4 - d2) / 3
    return (16 * second - first) / 15


def slope(trial: Trial, name: str, u: Array, h: float) -> float:
    """Central difference of <outputs, their gradients> along u."""
    plus, minus = (moved(trial, name, u, side * h) for side in (1, -1))
    return sum(float(np.sum(s * (plus[n[1:]] - minus[n[1:]]))) for n, s in trial.seeds.items()) / (2 * h)


def moved(trial: Trial, name: str, u: Array, step: float) -> dict[str, Array]:
    """The outputs with one tensor moved by `step` along u."""
    base = trial.values[name[1:]]
    assert base is not None
    return trial.moved(name[1:], base + step * u)


def total(trial: Trial, outputs: Mapping[str, Array]) -> float:
    return sum(float(np.sum(s * outputs[n[1:]])) for n, s in trial.seeds.items())


def kinked(trial: Trial, name: str, u: Array, claimed: float) -> bool:
    """Whether forward has no derivative here along u, as where equal numbers are sorted: the slopes to either side
    differ, however small the step, and not by rounding beside the one that is claimed. A wrong gradient of a smooth
    function is not excused."""
    gaps = []
    for h in KINK:
        there, back = (one_sided(trial, name, u, side * h) for side in (1, -1))
        gaps.append(abs(there - back) / max(abs(there), abs(back), abs(claimed), 1e-30))
    return min(gaps) > UNEQUAL


def one_sided(trial: Trial, name: str, u: Array, h: float) -> float:
    """The slope of <outputs, their gradients> between here and a step of h along u."""
    here, there = (total(trial, moved(trial, name, u, step)) for step in (0.0, h))
    return (there - here) / h


def clue_of(trial: Trial, name: str) -> str:
    """A clue from all gradients beside numeric ones, where these take no more than a second or two."""
    got = trial.train()
    infinite = [n for n, v in got.outputs.items() if not np.isfinite(v).all()]
    if infinite:
        return f"forward itself gives numbers here that are not finite, in {', '.join(infinite)}, from inputs that are"
    if sum(g.size for g in got.gradients.values()) > ELEMENTS:
        return ""
    pairs = {n: Compared(g, numeric_gradient(trial, n, g.shape)) for n, g in got.gradients.items()}
    return seen_in(Scene(pairs, trial.case.dims, trial.seeds, "f64"), name)


def numeric_gradient(trial: Trial, name: str, shape: tuple[int, ...]) -> Array:
    """Every element's central difference."""
    slopes = (slope(trial, name, one_hot(shape, np.array([i])), STEPS[1]) for i in range(int(np.prod(shape))))
    return np.fromiter(slopes, np.float64).reshape(shape)


def worst_element(trial: Trial, name: str, gradient: Array) -> str:
    """Halve the tensor, keeping the half that is more wrong, until one element is left; its error."""
    left = np.arange(gradient.size)
    while left.size > 1:
        left = max(np.array_split(left, 2), key=lambda half: error_on(trial, name, gradient, half))
    got, want = float(gradient.flat[left[0]]), derivative(trial, name, one_hot(gradient.shape, left), STEPS[0])
    index = [int(i) for i in np.unravel_index(int(left[0]), gradient.shape)]
    relative = abs(got - want) / max(abs(want), 1e-30)
    return (
        f"{name} is not the derivative of forward: at {index} got {got:.9g}, numeric {want:.9g}, "
        f"relative {relative:.2e}"
    )


def error_on(trial: Trial, name: str, gradient: Array, places: Array) -> float:
    u = one_hot(gradient.shape, places, np.random.default_rng(places.size).standard_normal(places.size))
    with np.errstate(all="ignore"):
        error = abs(derivative(trial, name, u, STEPS[0]) - float(np.sum(gradient * u)))
    return error if np.isfinite(error) else float("inf")


def one_hot(shape: tuple[int, ...], places: Array, values: Array | float = 1.0) -> Array:
    u: Array = np.zeros(shape)
    u.flat[places] = values
    return u
