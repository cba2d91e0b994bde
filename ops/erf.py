"""The error function, which NumPy lacks: W. J. Cody, Math. Comp. 23 (1969), rational Chebyshev approximations.

Three ranges: |x| <= 0.46875 by x P(x^2)/Q(x^2); up to 4 by 1 - exp(-x^2) P(x)/Q(x); beyond by an asymptotic form in
1/x^2. Within 1e-15 in f64. Not an op.
"""

import math

import numpy as np

# highest power first
NEAR = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
FAR = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip


def _ratio(table, x):
    above, below = (_polynomial(coefficients, x) for coefficients in table)
    return above / below


def _polynomial(coefficients, x):
    value = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value *= x
        value += c
    return value


def erf(x):
    """erf(x), elementwise, in the dtype of x (f32 or f64)."""
    size = np.abs(x)
    near, far = size <= 0.46875, size > 4
    middle = ~(near | far)
    y = np.empty_like(x)
    a = size[near]
    y[near] = a * _ratio(NEAR, a * a)
    a = size[middle]
    y[middle] = 1 - np.exp(-a * a) * _ratio(MIDDLE, a)
    a = np.minimum(size[far], 10)  # erf is 1 from 6 on, and exp(-x^2) must not overflow on its way to 0
    z = 1 / (a * a)
    y[far] = 1 - np.exp(-a * a) / a * (1 / math.sqrt(math.pi) - z * _ratio(FAR, z))
    y[np.isnan(x)] = math.nan
    return np.copysign(y, x)
