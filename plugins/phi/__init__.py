"""Phi-3 and Phi-4, arXiv:2404.14219: LLaMA with queries, keys and values in one tensor, gates and rest in another."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
