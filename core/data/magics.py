"""Magic numbers of llm.c's files: the date of a format as the first int32. Token shards have two of them.

https://github.com/karpathy/llm.c: dataloader.h, train_gpt2.py (write_model, write_state, write_tokenizer),
dev/data/data_common.py and dev/data/hellaswag.py.
"""

from __future__ import annotations

GPT2_SHARD, LLAMA3_SHARD = 20240520, 20240801
FILES = {
    20240326: "a model checkpoint",
    20240327: "the gradients of a test (debug_state)",
    20240328: "a tokenizer",
    GPT2_SHARD: "a shard of tokens",
    20240522: "HellaSwag's questions",
    LLAMA3_SHARD: "a shard of tokens",
}  # first number -> the kind of file
DATES = range(20240000, 20250000)  # first numbers of llm.c's files, future ones included
