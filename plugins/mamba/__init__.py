"""Mamba, arXiv:2312.00752: a causal convolution and a selective scan, whose states have a constant size; its models."""

from pathlib import Path

from core import Op, Variant, contents_of

from . import causal_conv, cpu, selective_scan


def core_ops():
    return contents_of(Op, causal_conv, selective_scan)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = (cuda.causal_conv, cuda.selective_scan)
    return contents_of(Variant, causal_conv, selective_scan, cpu, *kernels)


def core_models():
    return sorted((Path(__file__).parent / "models").glob("*.toml"))
