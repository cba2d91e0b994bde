"""Variants made from an op's formulas: a reference in NumPy, forward and backward kernels in CUDA C++."""
