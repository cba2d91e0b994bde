"""The attention of gpt-oss, arXiv:2508.10925: sinks, windows in every other layer, YaRN; its op and a model with it."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import sink_attention


def core_ops():
    return contents_of(Op, sink_attention)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = (cuda.sink_attention,)
    return contents_of(Variant, sink_attention, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
