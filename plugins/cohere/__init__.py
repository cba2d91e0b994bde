"""Command R7B (Cohere 2), 2024."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
