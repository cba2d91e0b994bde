"""Qwen 2, arXiv:2407.10671: LLaMA with biases of queries, keys and values; and Qwen 3, arXiv:2505.09388, which norms
the heads of queries and keys instead. Their other ops are those of plugins/llama."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import cpu, qk_norm


def core_ops():
    return contents_of(Op, qk_norm)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = cuda.MODULES
    return contents_of(Variant, qk_norm, cpu, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
