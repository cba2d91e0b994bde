"""Text from a model: sampling from logits, and the loop over a cached decode session."""

from core.generate.sample import Sampling, generate, generate_steps, prompt_ids, sample_logits

__all__ = ["Sampling", "generate", "generate_steps", "prompt_ids", "sample_logits"]
