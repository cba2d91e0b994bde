"""Muon: whole weight matrices stepped along an orthogonal direction, AdamW for all else. [optimizer] name = "muon"."""

from . import cuda, muon


def core_ops():
    return [muon.muon_update]


def core_variants():
    return [muon.MuonUpdateReference, *cuda.VARIANTS]


def core_optimizers():
    return [muon.Muon]
