"""LLaMA, arXiv:2302.13971, and what followed: its ops, their kernels, its models."""

from pathlib import Path

from . import cpu, cuda, mlp_swiglu, rmsnorm, rope, rope_attention, swiglu


def core_ops():
    return [rmsnorm.rmsnorm, rope.rope, swiglu.swiglu, mlp_swiglu.mlp_swiglu, rope_attention.rope_attention]


def core_variants():
    return [
        rmsnorm.RmsNormReference,
        rope.RopeReference,
        swiglu.SwigluReference,
        cpu.RmsNormBlocked,
        cpu.RopeBlocked,
        cpu.SwigluBlocked,
        cpu.MlpSwigluBlas,
        cpu.RopeAttentionDecode,
        *cuda.VARIANTS,
    ]


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
