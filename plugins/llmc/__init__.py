"""llm.c's model files (https://github.com/karpathy/llm.c), which its train_gpt2 reads and writes."""

from .formats import LlmC


def core_formats():
    return [LlmC]
