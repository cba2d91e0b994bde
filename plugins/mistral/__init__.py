"""Mistral, arXiv:2310.06825: LLaMA whose queries see the last `window` tokens. Its ops are those of plugins/llama."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
