"""LLaMA, arXiv:2302.13971, and its successors: ops, their kernels, models."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, gated, gated_cpu, mlp_swiglu, rmsnorm, rope, rope_attention


def core_ops():
    return contents_of(Op, rmsnorm, rope, gated, mlp_swiglu, rope_attention)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = cuda.MODULES
    return contents_of(Variant, rmsnorm, rope, gated, cpu, gated_cpu, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
