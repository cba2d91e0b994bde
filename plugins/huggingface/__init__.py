"""Hugging Face's files: folders of config.json and safetensors, which transformers reads and writes."""

from .formats import HuggingFace


def core_formats():
    return [HuggingFace]
