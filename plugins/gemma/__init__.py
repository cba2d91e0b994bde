"""Gemma, arXiv:2403.08295: LLaMA with scaled embeddings, norms by 1 + weight, and GELU in its gates. All else
is plugins/llama's."""

from pathlib import Path

from . import cpu, cuda, geglu, scale


def core_ops():
    return [scale.scale, geglu.geglu]


def core_variants():
    return [scale.ScaleReference, geglu.GegluReference, cpu.ScaleBlocked, cpu.GegluBlocked, *cuda.VARIANTS]


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
