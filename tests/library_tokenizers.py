"""Tokenizers as other programs have them, made by the tokenizers library, and a tiny LLaMA's folder with one."""

from __future__ import annotations

import json

import published

from core.tokenizers.folder import read_folder

TEXT = ["the cat sat on the mat and the dog sat on the log.", "It's 12 o'clock! été, naïve"] * 20
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' + m.role) }}{% endif %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONFIG = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "unk_token": "<unk>",
          "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast",
          "clean_up_tokenization_spaces": False}  # fmt: skip


def sentencepiece():
    """As LLaMA 2's: blanks are letters, unknown characters are bytes."""
    import tokenizers

    made = tokenizers.SentencePieceBPETokenizer()
    made.train_from_iterator(TEXT, vocab_size=160, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    document = json.loads(made.to_str())
    vocabulary, merges = document["model"]["vocab"], document["model"]["merges"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    document["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True, "merges": merges}
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}  # fmt: skip
    document["pre_tokenizer"] = None
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}  # fmt: skip
    document["post_processor"] = begins("<s>", vocabulary["<s>"])
    return document


def begins(token, number):
    single = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single,
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}  # fmt: skip


def byte_level():
    """As LLaMA 3's: bytes, another pattern than GPT-2's, several special tokens."""
    import tokenizers

    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(TEXT, vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    document = json.loads(made.to_str())
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|\s?\p{L}+|\s+|[^\s]"}, "behavior": "Isolated"}
    level = {**document["pre_tokenizer"], "use_regex": False}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{**split, "invert": False}, level]}
    document["post_processor"] = begins("<s>", document["model"]["vocab"]["<s>"])
    return document


KINDS = {"sentencepiece": sentencepiece, "byte_level": byte_level}
LLAMA = published.READ["tinyllama-chat"].config


def write_tokenizer(folder, kind="sentencepiece", config=CONFIG, **changes):
    """A folder with a tokenizer; `changes` of tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({**KINDS[kind](), **changes}), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def write_model(folder, kind="sentencepiece", generation=None, **changes):
    """A tiny LLaMA with a tokenizer; `changes` of config.json."""
    tokenizer = read_folder(write_tokenizer(folder / "made", kind))
    config = {
        **LLAMA,
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    C, V, F = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,), "lm_head.weight": (V, C)}
    for i in range(config["num_hidden_layers"]):
        of, heads = f"model.layers.{i}", {"q": C, "k": C // 2, "v": C // 2, "o": C}
        shapes |= {f"{of}.self_attn.{name}_proj.weight": (rows, C) for name, rows in heads.items()}
        shapes |= {f"{of}.mlp.{name}_proj.weight": (F, C) for name in ("gate", "up")}
        shapes |= {f"{of}.mlp.down_proj.weight": (C, F)}
        shapes |= {f"{of}.{name}_layernorm.weight": (C,) for name in ("input", "post_attention")}
    published.write_folder(folder / "hf", config, shapes)
    for file in (folder / "made").iterdir():
        (folder / "hf" / file.name).write_bytes(file.read_bytes())
    if generation is not None:
        (folder / "hf" / "generation_config.json").write_text(json.dumps(generation))
    return folder / "hf"
