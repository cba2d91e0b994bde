"""The samples of a run: a continuation of its prompt by the present model. Only runs with samples load it."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.errors import UsageError
from core.generate import Sampling, generate, prompt_ids
from core.signals import Stop

SAMPLE_STREAM = 1  # beside the run's seed: samples draw from a stream of their own


def sample(job: Any, step: int, stop: Stop) -> tuple[dict[str, Any], str]:
    """(record, text with the prompt) of a `Job`'s sample at a step. UsageError for a prompt that is too long."""
    prompt = prompt_ids(job.tokenizer, job.table.sample_prompt)
    session = job.engine.session(1)
    room = session.room + 1 - len(prompt)
    if room < 1:
        raise UsageError(f"[train] sample_prompt has {len(prompt)} tokens; the model holds {session.room}")
    continuation = generate(
        session,
        [prompt],
        min(job.table.sample_tokens, room),
        Sampling(temperature=job.table.sample_temperature, top_k=0, seed=sample_seed(job.seed, step)),
        vocabulary=job.tokenizer.vocab_size,
        cancelled=lambda: stop.requested,
    )[0]
    text = job.table.sample_prompt + job.tokenizer.decode(continuation)
    return {"step": step, "prompt": job.table.sample_prompt, "text": text, "tokens": [*prompt, *continuation]}, text


def sample_seed(seed: int, step: int) -> int:
    """The seed of the sample at a step: another one each time, the same in every repetition of the run."""
    return int(np.random.SeedSequence([seed, SAMPLE_STREAM, step]).generate_state(1, np.uint64)[0])
