"""Is a reference's backward the derivative of its forward? Numeric derivatives in f64 say so.

Central differences along random directions, extrapolated twice (Richardson 1911: the error falls with the sixth
power of the step), one tensor at a time, so that an error in a small gradient is seen at its own scale.
"""

from __future__ import annotations

import numpy as np

from core.testing.case import padding
from core.testing.compare import Array
from core.testing.log import Log
from core.testing.trial import Trial

DIRECTIONS = 2  # random directions for each input and parameter
DERIVATIVE = 1e-7  # relative error allowed between a gradient and the numeric derivative along a direction
NOISE = 1e-10  # and this part of what comes from above, where a gradient is that small
STEPS = (1e-3, 1e-5, 3e-2)  # of differences: the later ones for functions with kinks, or of great scale


def check_derivative(log: Log, trial: Trial, name: str, gradient: Array) -> None:
    """<gradient, u> against the derivative of <outputs, their gradients> along random directions u of one tensor."""
    rng = np.random.default_rng([len(name), gradient.size])
    size = float(np.linalg.norm(gradient))
    above = float(np.sqrt(sum(float(np.sum(np.square(s))) for s in trial.seeds.values())))
    allowed = DERIVATIVE * size + NOISE * above if np.isfinite(size) else 0.0
    outside = padding(trial.case.spec(name, "f64").shape)
    for _ in range(DIRECTIONS):
        u = np.asarray(rng.standard_normal(gradient.shape))
        u[outside] = 0.0
        error = derivative_error(trial, name, gradient, u, allowed)
        relative = error / (size or 1.0)
        if not error <= allowed:
            log.failed("gradient", worst_element(trial, name, gradient), relative)
            return
        log.passed("gradient", relative)


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
    base = trial.values[name[1:]]
    assert base is not None
    plus, minus = (
        trial.again(values={**trial.values, name[1:]: base + side * h * u}).train().outputs for side in (1, -1)
    )
    return sum(float(np.sum(s * (plus[n[1:]] - minus[n[1:]]))) for n, s in trial.seeds.items()) / (2 * h)


def worst_element(trial: Trial, name: str, gradient: Array) -> str:
    """Halve the tensor, keeping the half that is more wrong, until one element is left; say how wrong it is."""
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
