"""LoRA: low-rank matrices beside frozen ones, by the table [adapt.lora] of a model; `core lora save` and `merge`."""


def core_ops():
    from . import low_rank

    return [low_rank.lora_add]


def core_variants(device):
    from . import low_rank

    kernels = []
    if device in ("", "cuda"):
        from . import cuda

        kernels = [cuda.LoraAddNaive]
    return [low_rank.LoraAddReference, *kernels]


def core_adapters():
    from . import low_rank

    return [low_rank.LowRank]


def core_commands():
    from .command import lora

    return [lora]
