"""HellaSwag (arXiv:1905.07830) as llm.c scores it: the likeliest of four completions by the model."""

from . import hellaswag


def core_evaluations():
    return [hellaswag.HellaSwag]
