"""HellaSwag (arXiv:1905.07830) as llm.c scores it: which of four completions the model finds likeliest."""

from . import hellaswag


def core_evaluations():
    return [hellaswag.HellaSwag]
