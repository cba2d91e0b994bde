"""The CUDA variants: a .cu file with the kernels and a .py file with the launchers."""

from . import qk_norm

MODULES = (qk_norm,)
