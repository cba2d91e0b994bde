"""nanochat, 2025: the models that Karpathy's nanochat trains, as transformers has them."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
