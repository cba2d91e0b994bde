"""Cerebras-GPT, arXiv:2304.03208, and DistilGPT-2, arXiv:1910.01108: GPT-2 in other sizes, and with the exact GELU."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
