"""llama2.c's model files (https://github.com/karpathy/llama2.c), which its run.c reads."""

from .formats import Llama2C


def core_formats():
    return [Llama2C]
