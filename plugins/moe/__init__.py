"""Mixtures of experts as Mixtral has them, arXiv:2401.04088: a router sends each token to the best of many MLPs.

The ops, in the order of a layer: route, expert_matmul twice around plugins/llama's swiglu, combine; and balance, a term
of the loss.
"""

from pathlib import Path

from . import balance, combine, cuda, expert_matmul, route


def core_ops():
    return [route.route, expert_matmul.expert_matmul, combine.combine, balance.balance]


def core_variants():
    return [
        route.RouteReference,
        expert_matmul.ExpertMatmulReference,
        combine.CombineReference,
        balance.BalanceReference,
        *cuda.VARIANTS,
    ]


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
