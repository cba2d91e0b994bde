"""Small ops of many architectures: activations, a cap and norms without weights, by formulas alone; concat, split."""

from core import Op, Variant, contents_of

from . import concat, ops, split


def core_ops():
    return contents_of(Op, ops, concat, split)


def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda

        kernels = (cuda.concat, cuda.split)
    return contents_of(Variant, concat, split, *kernels)
