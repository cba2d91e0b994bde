"""StarCoder2, arXiv:2402.19173: rotary positions, LayerNorm, biases and GELU, and a window."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
