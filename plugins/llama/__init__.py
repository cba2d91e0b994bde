"""LLaMA, arXiv:2302.13971, and what followed: its ops (rmsnorm, rope, swiglu), their kernels, its models."""

from pathlib import Path

from . import cpu, cuda, rmsnorm, rope, swiglu


def core_ops():
    return [rmsnorm.rmsnorm, rope.rope, swiglu.swiglu]


def core_variants():
    return [
        rmsnorm.RmsNormReference,
        rope.RopeReference,
        swiglu.SwigluReference,
        cpu.RmsNormBlocked,
        cpu.RopeBlocked,
        cpu.SwigluBlocked,
        *cuda.VARIANTS,
    ]


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
