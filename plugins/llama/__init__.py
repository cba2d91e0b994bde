"""LLaMA, arXiv:2302.13971, and what followed: its ops, their kernels, its models."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, cuda, mlp_swiglu, rmsnorm, rope, rope_attention, swiglu


def core_ops():
    return contents_of(Op, rmsnorm, rope, swiglu, mlp_swiglu, rope_attention)


def core_variants():
    return contents_of(Variant, rmsnorm, rope, swiglu, cpu, *cuda.MODULES)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
