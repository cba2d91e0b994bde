"""Granite 3: LLaMA with four multipliers, of embedding, residuals, attention scores and logits."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
