"""Mixtures of experts as Mixtral has them, arXiv:2401.04088: a router sends each token to the best of many MLPs.

The ops, in the order of a layer: route, expert_matmul twice around plugins/llama's swiglu, combine; and balance, a term
of the loss.
"""

from pathlib import Path

from core import Op, Variant, contents_of

from . import balance, combine, expert_matmul, route


def core_ops():
    return contents_of(Op, route, expert_matmul, combine, balance)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = cuda.MODULES
    return contents_of(Variant, route, expert_matmul, combine, balance, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
