"""One table over everything that is built in: each variant of each op passes the op check. Plugins check their own.

Kernels, which the simulator runs, are in test_cuda_variants.py.
"""

from __future__ import annotations

import pytest

from core.loader import load_registry
from core.testing import check_op

REGISTRY = load_registry(only=())
VARIANTS = [
    f"{op}.{name}"
    for op, held in REGISTRY.variants.items()
    for name, variant in held.items()
    if variant.device == "cpu"
]


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_passes_the_op_check(name: str) -> None:
    check_op(name, registry=REGISTRY)


def test_every_op_has_a_variant_in_the_table_or_stands_for_ops_that_have() -> None:
    assert {name.partition(".")[0] for name in VARIANTS} >= {op.name for op in REGISTRY.ops.values() if not op.replaces}
    assert all(REGISTRY.variants[name] for name in REGISTRY.ops)
