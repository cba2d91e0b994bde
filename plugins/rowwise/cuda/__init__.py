"""CUDA variants of the ops that are no formulas: kernels in a .cu file, launchers in a .py file."""

from . import concat as concat
from . import split as split
