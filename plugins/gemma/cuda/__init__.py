"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import geglu, scale

MODULES = (scale, geglu)
