"""Qwen 2, arXiv:2407.10671: LLaMA with biases of queries, keys and values. Its ops are those of plugins/llama."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
