"""Muon: whole weight matrices stepped along an orthogonal direction, AdamW for all else. [optimizer] name = "muon"."""

from core import Op, Optimizer, Variant, contents_of

from . import muon


def core_ops():
    return contents_of(Op, muon)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda
        from .cuda import mma

        kernels = (cuda, mma)
    return contents_of(Variant, muon, *kernels)


def core_optimizers():
    return contents_of(Optimizer, muon)
