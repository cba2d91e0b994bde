"""Gemma, arXiv:2403.08295: LLaMA with scaled embeddings, norms by 1 + weight, and GELU in its gates. The op of the
embeddings is here, all else is plugins/llama's."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, scale


def core_ops():
    return contents_of(Op, scale)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = (cuda.scale,)
    return contents_of(Variant, scale, cpu, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
