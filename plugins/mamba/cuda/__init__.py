"""The ops' CUDA variants: kernels in a .cu file, launchers in a .py file for each op."""

from . import causal_conv as causal_conv
from . import selective_scan as selective_scan
