"""Falcon, arXiv:2311.16867."""

from pathlib import Path


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
