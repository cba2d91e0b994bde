"""Initial values: constants, orthogonal matrices, an expression over the element's index."""

from __future__ import annotations

import numpy as np
import pytest
from small_graph import HEAD, model, shipped

from core.errors import BuildError, CoreError
from core.expr import Padded
from core.graph import load_model
from core.graph.init import draw
from core.graph.types import Parameter

GRAPH = 'x = { op = "matmul", in = "wte", features = "C" }\n' + HEAD


def drawn(tmp_path, rule, name="x.weight"):
    path = model(tmp_path, GRAPH)
    path.write_text(path.read_text() + f'[init]\n"{name}" = "{rule}"\n')
    return draw(load_model(str(path), shipped()).build(shipped(), {}).parameters[name], 1, np.float64)


def test_mambas_a_log_follows_from_the_index(tmp_path):
    np.testing.assert_array_equal(
        drawn(tmp_path, "index(log(column + 1))"), np.tile(np.log(np.arange(1, 9)), (8, 1)).astype("f")
    )
    np.testing.assert_array_equal(drawn(tmp_path, "index(min(row, 2) - C / 4)")[:, 0], [-2, -1, *[0] * 6])
    np.testing.assert_array_equal(drawn(tmp_path, "index(column)", "x.bias"), np.arange(8))
    assert (drawn(tmp_path, "constant(1 / C - 1)") == -0.875).all()


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 4)])
def test_rows_or_columns_are_orthogonal_and_padding_is_zero(shape):
    padded = (*shape[:-2], Padded(8, shape[-2]), shape[-1])
    w = draw(Parameter("w", padded, "orthogonal(0.5)", True, "x", "w"), 1, np.float64)
    assert not w[..., shape[-2] :, :].any()
    inner = w[..., : shape[-2], :]
    inner = inner if shape[-2] <= shape[-1] else np.swapaxes(inner, -1, -2)
    expected = np.broadcast_to(0.25 * np.eye(min(shape[-2:])), (*shape[:-2], min(shape[-2:]), min(shape[-2:])))
    np.testing.assert_allclose(inner @ np.swapaxes(inner, -1, -2), expected, atol=1e-7)


WRONG = [
    ("index(log(column))", "index(log(column)) is -inf at (0, 0)"),
    ("index(log(col + 1))", '"col" is not known; did you mean "column"'),
    ("index(open(row))", "'open(row)' is not allowed"),
    ("constant", 'init "constant" is not one of'),
    ("orthogonl(1)", 'did you mean "orthogonal"'),
]


@pytest.mark.parametrize(("rule", "words"), WRONG)
def test_rules_that_give_no_numbers_are_refused(tmp_path, rule, words):
    with pytest.raises(CoreError) as refused:
        drawn(tmp_path, rule)
    assert words in str(refused.value)


def test_a_vector_is_no_orthogonal_matrix(tmp_path):
    with pytest.raises(BuildError, match="is for matrices, and the shape is .8,"):
        drawn(tmp_path, "orthogonal(1)", "x.bias")
