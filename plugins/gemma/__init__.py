"""Gemma, arXiv:2403.08295: LLaMA with scaled embeddings, norms by 1 + weight, and GELU in its gates. All else
is plugins/llama's."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, cuda, geglu, scale


def core_ops():
    return contents_of(Op, scale, geglu)


def core_variants():
    return contents_of(Variant, scale, geglu, cpu, *cuda.MODULES)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
