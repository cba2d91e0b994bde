"""Qwen 2, arXiv:2407.10671: LLaMA with biases of queries, keys and values; and Qwen 3, arXiv:2505.09388, which norms
the heads of queries and keys instead. Their other ops are those of plugins/llama."""

from pathlib import Path

from . import cpu, cuda, qk_norm


def core_ops():
    return [qk_norm.qk_norm]


def core_variants():
    return [qk_norm.QkNormReference, cpu.QkNormBlocked, *cuda.VARIANTS]


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
