"""config.json files of published models, as they were saved from 2019 to 2025: every key kept, and where each is from.

`config` is the published file. `small` shrinks its sizes and keeps every other key; what transformers computes with the
small one and with weights drawn by their names is in tests/golden/published.json, written by
`python tests/test_published.py`. The table of docs/interop.md is made from this one.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "published.json"
SEED, SHAPE, GREEDY = 20190214, (2, 13), 12  # of the batch, (B, T); tokens that are generated
PAD = 60  # the padding's id, which torch leaves without a gradient: it is not in the batch

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd"), 16),
    **dict.fromkeys(("intermediate_size",), 24),
    **dict.fromkeys(("n_inner",), 64),
    **dict.fromkeys(("moe_intermediate_size",), 8),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head"), 4),
    **dict.fromkeys(("vocab_size",), 61),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("original_max_position_embeddings",), 24),
    **dict.fromkeys(("num_local_experts", "num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    **dict.fromkeys(("sliding_window",), 5),
}


def small(config: dict[str, Any]) -> dict[str, Any]:
    """A config of small sizes. Heads of keys stay as many as heads of queries, or one, or become half as many; a width
    of heads that is not hidden_size / heads becomes 6; what is null stays null."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in SIZES and value is not None:
            found[key] = SIZES[key]
        elif key == "num_key_value_heads" and value is not None:
            found[key] = 1 if value == 1 else 4 if value == config["num_attention_heads"] else 2
        elif key == "head_dim" and value is not None:
            found[key] = 4 if value * config["num_attention_heads"] == config["hidden_size"] else 6
        elif key in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
            found[key] = small(value)
        elif key == "max_sequence_length" and "max_position_embeddings" in config:
            found[key] = SIZES["max_position_embeddings"]
        elif key == "pad_token_id" and value is not None and value >= 0:
            found[key] = PAD
        elif key.endswith("_token_id") and value is not None:
            found[key] = [i % 61 for i in value] if isinstance(value, list) else value if value < 61 else value % 61
        elif key == "layer_types" and value is not None:
            found[key] = value[:2]
        else:
            found[key] = value
    return found


@dataclass(frozen=True)
class Published:
    """A published file. source: the repository on the hub and when its config.json was saved. family: of the table in
    docs/interop.md. model: the registered model that reads it, or why none does, as the error says."""

    source: str
    family: str
    model: str
    config: dict[str, Any]


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of a tensor, by its name alone: normal(0, 0.15), a norm's weight around 1. f32."""
    noise = 0.15 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return (noise + (1.0 if "norm" in name or "ln_" in name else 0.0)).astype(np.float32)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets, (B, T) i32."""
    stream = np.random.RandomState(SEED)
    return stream.randint(0, PAD, SHAPE).astype(np.int32), stream.randint(0, PAD, SHAPE).astype(np.int32)


# What transformers of each time wrote besides a model's own keys.
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "use_cache": True,
    "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DUMP = {  # PretrainedConfig.to_dict of 2023, which some tools saved whole
    "return_dict": True, "output_hidden_states": False, "output_attentions": False, "torchscript": False,
    "use_bfloat16": False, "tf_legacy_loss": False, "pruned_heads": {}, "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False, "is_decoder": False, "cross_attention_hidden_size": None,
    "add_cross_attention": False, "tie_encoder_decoder": False, "max_length": 20, "min_length": 0, "do_sample": False,
    "early_stopping": False, "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "remove_invalid_values": False, "exponential_decay_length_penalty": None,
    "suppress_tokens": None, "begin_suppress_tokens": None, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "tokenizer_class": None,
    "prefix": None, "pad_token_id": None, "sep_token_id": None, "decoder_start_token_id": None,
    "task_specific_params": None, "problem_type": None, "_name_or_path": "", "_attn_implementation_autoset": True,
}  # fmt: skip
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
}  # fmt: skip
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "initializer_range": 0.02, "max_window_layers": 24, "model_type": "qwen2",
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "torch_dtype": "bfloat16", "use_cache": True,
    "use_sliding_window": False,
}  # fmt: skip
QWEN3 = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
    "head_dim": 128, "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
GPT2 = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
    "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
}  # fmt: skip
LLAMA3 = {
    **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "torch_dtype": "bfloat16", "vocab_size": 128256,
}  # fmt: skip
ROPE3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
LLAMA_7B = {
    **LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
    "vocab_size": 32000,
}  # fmt: skip
TINY = {
    **LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 2048,
    "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
GEMMA = {
    "architectures": ["GemmaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2,
    "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "initializer_range": 0.02,
    "max_position_embeddings": 8192, "model_type": "gemma", "pad_token_id": 0, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0",
    "use_cache": True, "vocab_size": 256000,
}  # fmt: skip
OLMO2 = {
    "architectures": ["Olmo2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "eos_token_id": 100257,
    "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 4096, "model_type": "olmo2",
    "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 500000,
    "tie_word_embeddings": False, "torch_dtype": "float32", "use_cache": True, "vocab_size": 100352,
}  # fmt: skip
GRANITE = {
    "architectures": ["GraniteForCausalLM"], "attention_bias": False, "attention_dropout": 0.1,
    "attention_multiplier": 0.015625, "bos_token_id": 0, "embedding_multiplier": 12.0, "eos_token_id": 0,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
    "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "granite",
    "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "pad_token_id": 0,
    "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 5000000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
STARCODER2 = {
    "activation_function": "gelu", "architectures": ["Starcoder2ForCausalLM"], "attention_dropout": 0.1,
    "attention_softmax_in_fp32": True, "bos_token_id": 0, "embedding_dropout": 0.1, "eos_token_id": 0,
    "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "initializer_range": 0.018042,
    "intermediate_size": 12288, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 16384,
    "mlp_type": "default", "model_type": "starcoder2", "norm_epsilon": 1e-05, "norm_type": "layer_norm",
    "num_attention_heads": 24, "num_hidden_layers": 30, "num_key_value_heads": 2, "rope_theta": 999999.4420358813,
    "residual_dropout": 0.1, "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True,
    "sliding_window": 4096, "torch_dtype": "bfloat16", "transformers_version": "4.37.0.dev0", "use_bias": True,
    "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
PHI3 = {
    "architectures": ["Phi3ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
    "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
    "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0,
    "sliding_window": 2047, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2", "use_cache": True, "vocab_size": 32064,
}  # fmt: skip

READ = {
    "gpt2": Published("openai-community/gpt2, 2019", "GPT-2", "gpt2_124m", GPT2),
    "rugpt3small": Published(
        "ai-forever/rugpt3small_based_on_gpt2, 2020", "GPT-2", "gpt2_inner",
        {**GPT2, "n_inner": 3072, "n_positions": 2048, "n_ctx": 2048, "gradient_checkpointing": False},
    ),
    "distilgpt2": Published(
        "distilbert/distilgpt2, 2019", "DistilGPT-2", "distilgpt2_82m",
        {**GPT2, "_num_labels": 1, "n_layer": 6, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
    ),
    "cerebras-111m": Published(
        "cerebras/Cerebras-GPT-111M, 2023", "Cerebras-GPT", "cerebras_gpt_111m",
        {
            "activation_function": "gelu", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.0,
            "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256, "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_inner": 3072,
            "n_layer": 10, "n_positions": 2048, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
            "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "torch_dtype": "float32",
            "transformers_version": "4.20.1", "use_cache": True, "vocab_size": 50257,
        },
    ),
    "llama1-decapoda": Published(
        "decapoda-research/llama-7b-hf, 2023", "LLaMA 1", "llama_7b",
        {
            **{k: v for k, v in LLAMA_7B.items() if k != "tie_word_embeddings"},
            "architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "max_sequence_length": 2048,
            "pad_token_id": -1, "rms_norm_eps": 1e-06, "torch_dtype": "float16",
            "transformers_version": "4.27.0.dev0",
        },
    ),
    "llama1-huggyllama": Published(
        "huggyllama/llama-7b, 2023", "LLaMA 1", "llama_7b",
        {
            **LLAMA_7B, "max_position_embeddings": 2048, "max_sequence_length": 2048, "pad_token_id": 0,
            "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "torch_dtype": "float16",
            "transformers_version": "4.28.1",
        },
    ),
    "llama2-7b": Published(
        "meta-llama/Llama-2-7b-hf, 2023", "LLaMA 2", "llama_7b",
        {
            **LLAMA_7B, "_name_or_path": "meta-llama/Llama-2-7b-hf", "max_position_embeddings": 4096,
            "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
            "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.31.0.dev0",
        },
    ),
    "tinyllama-step": Published(
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T, 2023", "LLaMA 2", "tinyllama_1b",
        {**TINY, "torch_dtype": "float32", "transformers_version": "4.31.0.dev0"},
    ),
    "tinyllama-chat": Published(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0, 2024", "LLaMA 2", "tinyllama_1b",
        {
            **TINY, "attention_bias": False, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
            "transformers_version": "4.35.0",
        },
    ),
    "yi-6b": Published(
        "01-ai/Yi-6B, 2023", "LLaMA 2", "tinyllama_1b",
        {
            **LLAMA_7B, "attention_bias": False, "max_position_embeddings": 4096, "num_key_value_heads": 4,
            "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
            "rope_theta": 5000000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "transformers_version": "4.34.0", "vocab_size": 64000,
        },
    ),
    "llama3-8b": Published(
        "meta-llama/Meta-Llama-3-8B, 2024", "LLaMA 3", "tinyllama_1b",
        {
            **LLAMA3, "max_position_embeddings": 8192, "rope_scaling": None, "tie_word_embeddings": False,
            "transformers_version": "4.40.0.dev0",
        },
    ),
    "llama3.1-8b": Published(
        "meta-llama/Llama-3.1-8B-Instruct, 2024", "LLaMA 3", "llama3_8b",
        {
            **LLAMA3, "eos_token_id": [128001, 128008, 128009], "max_position_embeddings": 131072,
            "mlp_bias": False, "rope_scaling": ROPE3, "tie_word_embeddings": False,
            "transformers_version": "4.42.3",
        },
    ),
    "llama3.2-1b": Published(
        "meta-llama/Llama-3.2-1B, 2024", "LLaMA 3", "llama3_1b",
        {
            **LLAMA3, "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192,
            "max_position_embeddings": 131072, "mlp_bias": False, "num_hidden_layers": 16,
            "rope_scaling": {**ROPE3, "factor": 32.0}, "tie_word_embeddings": True,
            "transformers_version": "4.45.0.dev0",
        },
    ),
    "r1-distill-llama": Published(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B, 2025", "LLaMA 3", "llama3_8b",
        {
            **LLAMA3, "max_position_embeddings": 131072, "mlp_bias": False, "rope_scaling": ROPE3,
            "tie_word_embeddings": False, "transformers_version": "4.43.0.dev0",
        },
    ),
    "falcon3-1b": Published(
        "tiiuae/Falcon3-1B-Base, 2024", "LLaMA 3", "tinyllama_1b",
        {
            **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 11, "eos_token_id": 11,
            "head_dim": 256, "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 4096,
            "mlp_bias": False, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 4,
            "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000042,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.1",
            "vocab_size": 131072,
        },
    ),
    "smollm2-135m": Published(
        "HuggingFaceTB/SmolLM2-135M, 2024", "SmolLM2", "llama_125m",
        {
            **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0,
            "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
            "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 9,
            "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
            "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "vocab_size": 49152,
        },
    ),
    "smollm2-instruct": Published(
        "HuggingFaceTB/SmolLM2-135M-Instruct, 2025", "SmolLM2", "llama_125m",
        {
            **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
            "head_dim": None, "hidden_size": 576, "initializer_range": 0.041666666666666664,
            "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
            "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
            "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
            "transformers_version": "4.42.3", "vocab_size": 49152,
        },
    ),
    "unsloth-llama": Published(
        "unsloth/Llama-3.2-1B, 2025", "LLaMA 3", "llama3_1b",
        {
            **LLAMA3, "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192,
            "max_position_embeddings": 131072, "mlp_bias": False, "num_hidden_layers": 16, "pad_token_id": 128004,
            "rope_scaling": {**ROPE3, "factor": 32.0}, "tie_word_embeddings": True,
            "transformers_version": "4.49.0", "unsloth_fixed": True, "unsloth_version": "2025.2.15",
        },
    ),
    "mistral-v0.1": Published(
        "mistralai/Mistral-7B-v0.1, 2023", "Mistral", "mistral_7b_v01",
        {
            **MISTRAL, "max_position_embeddings": 32768, "rope_theta": 10000.0, "sliding_window": 4096,
            "transformers_version": "4.34.0.dev0", "vocab_size": 32000,
        },
    ),
    "mistral-v0.3": Published(
        "mistralai/Mistral-7B-v0.3, 2024", "Mistral", "mistral_7b",
        {
            **MISTRAL, "attention_dropout": 0.0, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
            "sliding_window": None, "transformers_version": "4.42.0.dev0", "vocab_size": 32768,
        },
    ),
    "mistral-dump": Published(
        "mistralai/Mistral-7B-v0.3 as to_dict() of transformers 4 writes it, 2024", "Mistral", "mistral_7b",
        {
            **DUMP, **MISTRAL, "attention_dropout": 0.0, "head_dim": 128, "max_position_embeddings": 32768,
            "rope_theta": 1000000.0, "sliding_window": None, "transformers_version": "4.46.0", "vocab_size": 32768,
        },
    ),
    "mistral-nemo": Published(
        "mistralai/Mistral-Nemo-Base-2407, 2024", "Mistral", "mistral_7b",
        {
            **MISTRAL, "attention_dropout": 0.0, "head_dim": 128, "hidden_size": 5120,
            "max_position_embeddings": 128000, "num_hidden_layers": 40, "rope_theta": 1000000.0,
            "sliding_window": None, "transformers_version": "4.43.0.dev0", "vocab_size": 131072,
        },
    ),
    "mixtral-8x7b": Published(
        "mistralai/Mixtral-8x7B-v0.1, 2023", "Mixtral", "mixtral_8x7b",
        {
            **MISTRAL, "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0,
            "max_position_embeddings": 32768, "model_type": "mixtral", "num_experts_per_tok": 2,
            "num_local_experts": 8, "output_router_logits": False, "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.02, "sliding_window": None, "transformers_version": "4.36.0.dev0",
            "vocab_size": 32000,
        },
    ),
    "qwen2.5-0.5b": Published(
        "Qwen/Qwen2.5-0.5B, 2024", "Qwen2", "qwen2_05b",
        {
            **QWEN2, "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768,
            "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "sliding_window": 32768,
            "tie_word_embeddings": True, "transformers_version": "4.40.1", "use_mrope": False, "vocab_size": 151936,
        },
    ),
    "qwen2.5-7b": Published(
        "Qwen/Qwen2.5-7B, 2024", "Qwen2", "qwen2_7b",
        {
            **QWEN2, "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
            "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
            "sliding_window": 131072, "tie_word_embeddings": False, "transformers_version": "4.40.1",
            "use_mrope": False, "vocab_size": 152064,
        },
    ),
    "qwen3-0.6b": Published(
        "Qwen/Qwen3-0.6B, 2025", "Qwen3", "qwen3_06b",
        {
            **QWEN3, "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072,
            "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 8, "tie_word_embeddings": True,
        },
    ),
    "qwen3-8b": Published(
        "Qwen/Qwen3-8B, 2025", "Qwen3", "qwen3_8b",
        {
            **QWEN3, "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
            "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
            "num_key_value_heads": 8, "tie_word_embeddings": False,
        },
    ),
    "qwen3-30b-a3b": Published(
        "Qwen/Qwen3-30B-A3B, 2025", "Qwen3-MoE", "qwen3_30b_a3b",
        {
            **QWEN3, "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 2048,
            "intermediate_size": 6144, "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
            "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128,
            "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
            "output_router_logits": False, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
        },
    ),
    "gemma-2b": Published(
        "google/gemma-2b, 2024", "Gemma 1", "gemma_2b",
        {
            **GEMMA, "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
            "num_hidden_layers": 18, "num_key_value_heads": 1,
        },
    ),
    "gemma-7b": Published(
        "google/gemma-7b, 2024", "Gemma 1", "gemma_2b",
        {
            **GEMMA, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": None, "hidden_size": 3072,
            "intermediate_size": 24576, "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 16,
        },
    ),
    "olmo2-7b": Published(
        "allenai/OLMo-2-1124-7B, 2024", "OLMo 2", "olmo2_1b",
        {
            **OLMO2, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
            "num_hidden_layers": 32, "num_key_value_heads": 32, "transformers_version": "4.47.0.dev0",
        },
    ),
    "olmo2-1b": Published(
        "allenai/OLMo-2-0425-1B, 2025", "OLMo 2", "olmo2_1b",
        {
            **OLMO2, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16,
            "num_hidden_layers": 16, "num_key_value_heads": 16, "transformers_version": "4.51.3",
        },
    ),
    "phi3-mini": Published(
        "microsoft/Phi-3-mini-4k-instruct, 2024", "Phi-3, Phi-4", "phi3_mini",
        {
            **PHI3, "_name_or_path": "Phi-3-mini-4k-instruct", "attention_bias": False,
            "auto_map": {
                "AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
            },
        },
    ),
    "phi4": Published(
        "microsoft/phi-4, 2025", "Phi-3, Phi-4", "phi4",
        {
            **PHI3, "attention_bias": False, "bos_token_id": 100257, "eos_token_id": 100265, "hidden_size": 5120,
            "intermediate_size": 17920, "max_position_embeddings": 16384, "num_attention_heads": 40,
            "num_hidden_layers": 40, "num_key_value_heads": 10, "original_max_position_embeddings": 16384,
            "pad_token_id": 100349, "rope_theta": 250000, "sliding_window": None,
            "transformers_version": "4.47.0", "vocab_size": 100352,
        },
    ),
    "granite-3.1-2b": Published(
        "ibm-granite/granite-3.1-2b-base, 2024", "Granite 3", "granite3_2b",
        {**GRANITE, "transformers_version": "4.46.0.dev0"},
    ),
    "starcoder2-3b": Published("bigcode/starcoder2-3b, 2024", "StarCoder2", "starcoder2_3b", STARCODER2),
    "starcoder2-15b": Published(
        "bigcode/starcoder2-15b, 2024", "StarCoder2", "starcoder2_15b",
        {
            **STARCODER2, "hidden_size": 6144, "intermediate_size": 24576, "num_attention_heads": 48,
            "num_hidden_layers": 40, "num_key_value_heads": 4, "rope_theta": 100000, "tie_word_embeddings": False,
        },
    ),
}  # fmt: skip

REFUSED = {
    "gemma2": Published(
        "google/gemma-2-2b, 2024", "Gemma 2", "no model answers to Gemma2ForCausalLM",
        {**GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "attn_logit_softcapping": 50.0,
         "num_attention_heads": 8, "hidden_size": 2304},
    ),
    "pythia": Published(
        "EleutherAI/pythia-70m, 2023", "Pythia (GPT-NeoX)", "no model answers to GPTNeoXForCausalLM",
        {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "rotary_pct": 0.25},
    ),
    "qwen2.5-yarn": Published(
        "Qwen/Qwen2.5-7B-Instruct with the README's rope_scaling, 2024", "Qwen2 beyond 32,768 tokens (YaRN)",
        'rope_scaling.type is "yarn"',
        {
            **QWEN2, "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 32768,
            "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 131072,
            "tie_word_embeddings": False, "vocab_size": 152064,
            "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
        },
    ),
    "deepseek-coder": Published(
        "deepseek-ai/deepseek-coder-1.3b-base, 2023", "LLaMA with linear position scaling",
        'rope_scaling.type is "linear"',
        {
            **LLAMA_7B, "max_position_embeddings": 16384, "num_key_value_heads": 16, "num_attention_heads": 16,
            "rms_norm_eps": 1e-06, "rope_scaling": {"factor": 4.0, "type": "linear"}, "rope_theta": 100000,
            "tie_word_embeddings": False,
        },
    ),
    "phi4-mini": Published(
        "microsoft/Phi-4-mini-instruct, 2025", "Phi-4 mini (part of a head turned)",
        "partial_rotary_factor is 0.75",
        {**PHI3, "partial_rotary_factor": 0.75},
    ),
    "llama-gptq": Published(
        "TheBloke/Llama-2-7B-GPTQ, 2023", "quantised weights (GPTQ, AWQ, bitsandbytes)", "quantization_config",
        {
            **LLAMA_7B, "max_position_embeddings": 4096, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
            "tie_word_embeddings": False, "quantization_config": {"bits": 4, "quant_method": "gptq"},
        },
    ),
    "llama-interleaved": Published(
        "a LLaMA whose rope_interleaved is true, as nanotron writes it, 2024", "LLaMA with interleaved positions",
        "rope_interleaved is true",
        {
            **LLAMA_7B, "max_position_embeddings": 2048, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
            "tie_word_embeddings": False, "rope_interleaved": True,
        },
    ),
}  # fmt: skip


# --- the table of docs/interop.md ------------------------------------------------------------------------------------

BEGIN, END = "<!-- made by tests/test_published.py -->", "<!-- until here -->"


def family_table(load: Any, sizes: Any, expected: Any) -> str:
    """The families as Markdown. load: a model's name -> its source; sizes, expected: of core.interop's table reader."""
    rows = ["| family | folders that tests read | model | written as | an absent key is | refused with any other |"]
    rows.append("|---|---|---|---|---|---|")
    for family in dict.fromkeys(entry.family for entry in READ.values()):
        entries = [entry for entry in READ.values() if entry.family == family]
        models = list(dict.fromkeys(entry.model for entry in entries))
        source = load(models[0])
        given = {size.keys[0]: size for size in sizes(source).values() if size.absent is not None}
        absent = [f"`{key}` {'null' if s.absent == s.sentinel else s.absent}" for key, s in given.items()]
        pinned = [
            f"`{entry.keys[0].removesuffix('.*')}`" for entry in expected(source) if entry.keys != ("model_type",)
        ]
        folders = ", ".join(entry.source.rpartition(", ")[0] for entry in entries)
        named = ", ".join(f"`{model}`" for model in models)
        written = source.document["hf"]["architectures"]
        written = written if isinstance(written, str) else written[0]
        rows.append(f"| {family} | {folders} | {named} | `{written}` | {', '.join(absent)} | {', '.join(pinned)} |")
    rows += ["", "| refused | as |", "|---|---|"]
    rows += [f"| {entry.family}: {entry.source.rpartition(', ')[0]} | {entry.model} |" for entry in REFUSED.values()]
    return "\n".join([BEGIN, *rows, END])


# --- what transformers computes ------------------------------------------------------------------------------------


def write_folder(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    """A folder of the config and of tensors drawn by their names."""
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: draw(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def peer(folder: Path) -> Any:
    """transformers' model of a folder, which must take every tensor and lack none. Sums in f64 where it can."""
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    assert not any(report.values()), report
    return model.double().eval()


def computed(model: Any) -> dict[str, Any]:
    """Logits, loss, gradients by transformers' names, and greedy tokens of the batch."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    tokens, targets = (torch.tensor(part, dtype=torch.long) for part in batch())
    logits = model(tokens).logits
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    named = {name: p.grad.numpy() for name, p in model.named_parameters()}
    norm = float(np.sqrt(sum((g**2).sum() for g in named.values())))
    how = {"do_sample": False, "use_cache": True, "eos_token_id": None, "pad_token_id": PAD}
    prompt = tokens[:, :4]
    greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=GREEDY, **how)
    return {
        "logits": logits.detach().numpy(),
        "loss": float(loss.detach()),
        "norm": norm,
        "gradients": named,
        "greedy": greedy[:, 4:].tolist(),
    }
