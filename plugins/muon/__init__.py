"""Muon: whole weight matrices stepped along an orthogonal direction, AdamW for all else. [optimizer] name = "muon"."""

from core import Op, Optimizer, Variant, contents_of

from . import cuda, muon


def core_ops():
    return contents_of(Op, muon)


def core_variants():
    return contents_of(Variant, muon, cuda)


def core_optimizers():
    return contents_of(Optimizer, muon)
