"""OLMo 2, arXiv:2501.00656: LLaMA with norms after attention and MLP in place of before them, and queries and keys
normed over their whole width. Its ops are those of plugins/llama and plugins/qwen."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
