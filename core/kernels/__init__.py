"""Kernels before any device: their files, NVRTC, arguments, tensors, tensor maps, the limits of chips, prelude.cuh."""
