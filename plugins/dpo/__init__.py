"""DPO: a model learns to prefer one answer to another, by the table [adapt.dpo] of its TOML and a frozen reference."""


def core_ops():
    from . import preference

    return [preference.dpo_loss]


def core_variants(device):
    from . import preference

    kernels = []
    if device in ("", "cuda"):
        from . import cuda

        kernels = [cuda.DpoLossWarp]
    return [preference.DpoLossReference, *kernels]


def core_adapters():
    from . import preference

    return [preference.Preference]


def core_commands():
    from .command import dpo

    return [dpo]
