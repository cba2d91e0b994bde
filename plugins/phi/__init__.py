"""Phi-3 and Phi-4, arXiv:2404.14219: LLaMA with qkv in one tensor, and both halves of the gated MLP in one."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
