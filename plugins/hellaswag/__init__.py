"""HellaSwag (arXiv:1905.07830) as llm.c scores it: the likeliest of four completions by the model."""


def core_evaluations():
    from . import hellaswag

    return [hellaswag.HellaSwag]
