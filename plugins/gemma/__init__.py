"""Gemma, arXiv:2403.08295: LLaMA with scaled embeddings, norms by 1 + weight, and GELU in its gates. The op of the
embeddings is here, all else is plugins/llama's."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, cuda, scale


def core_ops():
    return contents_of(Op, scale)


def core_variants():
    return contents_of(Variant, scale, cpu, cuda.scale)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
