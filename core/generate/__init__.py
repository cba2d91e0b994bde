"""Text from a model: sampling from logits, the loop over a cached decode session, growing texts, conversations."""

from core.generate.chat import Answer, Chat, Form, plain_form
from core.generate.sample import Sampling, generate, generate_steps, prompt_ids, sample_logits
from core.generate.text import Continuation

__all__ = [
    "Answer",
    "Chat",
    "Continuation",
    "Form",
    "Sampling",
    "generate",
    "generate_steps",
    "plain_form",
    "prompt_ids",
    "sample_logits",
]
