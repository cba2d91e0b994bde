"""Nothing of a folder, a tokenizer or a text is read in another way than its own program reads it, without a word.

A tiny LLaMA with a tokenizer of SentencePiece's kind or of bytes, against transformers where it is installed, and
against what is written here where it is not.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import core
from core import cli
from core.cli.chat import form_of
from core.data.data_names import resolve
from core.data.documents import WHOLE, Reading
from core.data.shards import FORMATS
from core.data.text_files import folder_files, text_document
from core.data.tokenising import tokenise
from core.errors import DataError, UsageError
from core.generate import Continuation
from core.interop import checkpoint
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.folder import read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.preference import choose_tokenizer

tokenizers = pytest.importorskip("tokenizers")


def beside(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, next(Path(__file__).parents[1].rglob(f"{name}.py")))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


published = beside("published")
made = beside("test_library_tokenizer")
KINDS = made.KINDS
LLAMA = published.READ["tinyllama-chat"].config


def write_tokenizer(folder, kind="sentencepiece", config=made.CONFIG, **changes):
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


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(capsys, *words, code=0):
    assert cli.run([str(word) for word in words]) == code, capsys.readouterr()
    return capsys.readouterr()


def ids_of(path, tokenizer, reading=WHOLE):
    documents = resolve([str(path)], "train", "", [], reading).documents
    return np.concatenate(list(tokenise(documents, tokenizer))).tolist()


# --- tokenizers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_says_of_truncation_and_padding_is_left_out(kind, tmp_path):
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 40}, "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
            "pad_to_multiple_of": None}  # fmt: skip
    plain = read_folder(write_tokenizer(tmp_path / "plain", kind))
    for name, change in (("cut", {"truncation": cut}), ("filled", {"padding": fill})):
        found = read_folder(write_tokenizer(tmp_path / name, kind, **change))
        assert found.encode(made.TEXT[0]).tolist() == plain.encode(made.TEXT[0]).tolist()
        assert found.begin == plain.begin and len(found.begin) == 1
        again = core.tokenizers.recorded.from_json(found.to_json())  # and in a checkpoint
        assert again.encode(made.TEXT[0]).tolist() == plain.encode(made.TEXT[0]).tolist()


ADDED = {
    "sentencepiece": [("▁▁▁▁", False), ("<|tool|>", False), ("<0x41>x", False), ("été▁", False)],
    "byte_level": [("<|tool|>", False), ("ĠĠx", False), ("a b", False), ("☃", True)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_added_tokens_are_those_that_the_tokenizers_decoder_gives(kind, tmp_path):
    document = KINDS[kind]()
    first = 1 + max(document["model"]["vocab"].values())
    for i, (content, special) in enumerate(ADDED[kind]):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        document["added_tokens"] = [
            *document["added_tokens"],
            {"id": first + i, "content": content, "special": special, **flags},
        ]
    found = read_folder(write_tokenizer(tmp_path / "a", kind, added_tokens=document["added_tokens"]))
    anchor = found.encode("x").tolist()
    before = found._library.decode(anchor, skip_special_tokens=False)
    for i in range(len(ADDED[kind])):
        whole = found._library.decode([*anchor, first + i], skip_special_tokens=False)
        assert found.decode_bytes([first + i]).decode("utf-8", "replace") == whole.removeprefix(before), ADDED[kind][i]
    for text in ("def f():\n    return 1    # x", "été ☃"):
        got = found.decode_bytes(found.encode(text)).decode()
        assert got == (" " if found.dummy else "") + text
        assert int(found.lengths[found.encode(text)].sum()) - found.dummy == len(text.encode())


WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "log"]


@pytest.mark.parametrize("form", [*KINDS, "metaspace"])
@pytest.mark.parametrize("glue", [" ", "\n", "  ", " \n "])
def test_tokens_do_not_depend_on_where_a_text_is_cut(form, glue, tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_files.BLOCK_BYTES", 700)
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    change = {"normalizer": None, "pre_tokenizer": metaspace, "decoder": metaspace} if form == "metaspace" else {}
    found = read_folder(write_tokenizer(tmp_path / "t", "sentencepiece" if change else form, **change))
    order = np.random.RandomState(0).randint(0, len(WORDS), 900)
    text = "".join(WORDS[i] + (glue if n % 3 else " ") for n, i in enumerate(order)) + "été"
    (tmp_path / "a.txt").write_text(text, "utf-8")
    want = found._library.encode(text, add_special_tokens=False).ids
    assert ids_of(tmp_path / "a.txt", found) == [*found.begin, *want]


def test_a_tokenizer_whose_tokens_go_over_blanks_gets_whole_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_files.BLOCK_BYTES", 100)
    document = KINDS["sentencepiece"]()
    vocabulary = document["model"]["vocab"]
    pair = next(m for m in document["model"]["merges"] if (m if isinstance(m, list) else m.split(" "))[0] == "c")
    first, second = pair if isinstance(pair, list) else pair.split(" ")
    vocabulary[f"{first}{second}▁"] = len(vocabulary)
    document["model"]["merges"] = [*document["model"]["merges"], [first + second, "▁"]]
    found = read_folder(write_tokenizer(tmp_path / "t", model=document["model"]))
    assert found.whole
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 60)
    want = found._library.encode("the cat sat on the mat " * 60, add_special_tokens=False).ids
    assert ids_of(tmp_path / "a.txt", found) == [*found.begin, *want]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_begin_as_the_tokenizer_begins_them_with_end_of_text_between(kind, tmp_path):
    found = read_folder(write_tokenizer(tmp_path / "t", kind))
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("the cat")
    documents = [text_document(tmp_path / f"{name}.txt", []) for name in "ab"]
    text = found.encode("the cat").tolist()
    got = np.concatenate(list(tokenise(documents, found))).tolist()
    assert got == [*found.begin, *text, found.eot, *found.begin, *text]
    without = {key: value for key, value in KINDS[kind]().items() if key != "post_processor"}
    bare = LibraryTokenizer(json.dumps({**without, "post_processor": None}), made.CONFIG, name="x")
    assert np.concatenate(list(tokenise(documents, bare))).tolist() == [bare.eot, *text, bare.eot, *text]


SEEN = (
    "{{ bos_token is defined }}{{ unk_token is defined }}{{ tools is none }}{{ documents is none }}"
    "{% if tools is not none %}tools{% endif %}{{ messages | tojson(ensure_ascii=False, indent=None, "
    "separators=(',', ':'), sort_keys=True) }}{{ add_bos_token is defined }}"
)


def test_a_template_sees_what_transformers_gives_it(tmp_path):
    config = {**made.CONFIG, "bos_token": None, "add_bos_token": True, "chat_template": SEEN}
    folder = write_tokenizer(tmp_path / "t", config=config)
    chat = [{"role": "user", "content": "été <b>"}]
    got = read_folder(folder)._written(chat, add_generation_prompt=True)
    assert got == 'FalseTrueTrueTrue[{"content":"été <b>","role":"user"}]False'
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert got == theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


def test_special_tokens_of_an_older_folder_are_found(tmp_path, capsys):
    config = {key: value for key, value in made.CONFIG.items() if key != "eos_token"}
    folder = write_tokenizer(tmp_path / "t", config=config)
    assert read_folder(folder).eot is None
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert read_folder(folder).eot == KINDS["sentencepiece"]()["model"]["vocab"]["</s>"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": {}}))
    assert read_folder(folder).eot is None  # as transformers decides


def test_a_tokenizer_without_end_of_text_is_said(here, capsys):
    config = {key: value for key, value in made.CONFIG.items() if key != "eos_token"}
    write_tokenizer(here / "t", config=config)
    (here / "a.txt").write_text("the cat")
    assert (
        "has no end of text"
        in ran(capsys, "data", "prepare", "a.txt", "--out", "o", "--tokenizer", "t/tokenizer.json").out
    )


@pytest.mark.parametrize("spec", ["{}/tokenizer.json", "bpe:{}/tokenizer.json"])
def test_a_tokenizer_json_from_elsewhere_is_named_by_its_path(spec, tmp_path):
    folder = write_tokenizer(tmp_path / "t")
    found = choose_tokenizer([spec.format(folder)]).tokenizer
    assert isinstance(found, LibraryTokenizer) and found.hash == read_folder(folder).hash
    with pytest.raises(DataError, match="cannot be read"):
        choose_tokenizer([str(tmp_path / "none.json")])
    with pytest.raises(UsageError, match="unknown tokenizer"):
        choose_tokenizer(["file"])


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
def test_a_text_is_read_by_its_mark(encoding, tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_files.BLOCK_BYTES", 101)
    text = "the cat — été 🎉\r\n" * 40
    (tmp_path / "a.txt").write_bytes(("\ufeff" + text).encode(encoding))
    assert "".join(text_document(tmp_path / "a.txt", []).blocks()) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_without_a_mark_and_with_a_wrong_one_is_refused(encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes(("the cat\n" * 40).encode(encoding))
    with pytest.raises(DataError, match="byte-order mark"):
        list(text_document(tmp_path / "a.txt", []).blocks())
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe" + b"\x00\xdc" * 3)
    with pytest.raises(DataError, match="UTF-16"):
        list(text_document(tmp_path / "b.txt", []).blocks())


def test_a_json_file_with_an_object_a_line_is_read_as_a_jsonl_and_an_array_is_noted(here, capsys):
    lines = [json.dumps({"text": "the cat"}), json.dumps({"text": "a dog"})]
    (here / "a.json").write_text("\n".join(lines))
    (here / "array.json").write_text("[" + ",\n".join(lines) + "]")
    (here / "one.json").write_text('{\n  "text": "the cat"\n}\n')
    words = ("data", "prepare", "--tokenizer", "bytes")
    assert "--field text" in ran(capsys, *words, "a.json", "--out", "o", code=6).err
    assert ids_of(here / "a.json", core.tokenizers.byte_pairs.bytes_tokenizer(), Reading("text"))[:8] == [
        256,
        *b"the cat",
    ]
    said = ran(capsys, *words, "array.json", "--out", "o")
    assert "array.json: an array of JSON objects is read as plain text" in said.out + said.err
    said = ran(capsys, *words, "one.json", "--out", "p")
    assert "one.json:" not in said.out + said.err


def test_each_line_of_a_jsonl_is_a_document_by_its_field_and_never_braces(here, capsys):
    lines = [{"text": "the cat", "id": 1}, {"text": "the\ndog", "id": 2}]
    (here / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    said = ran(capsys, "data", "prepare", "a.jsonl", "--out", "o", "--tokenizer", "bytes", code=6).err
    assert "a.jsonl" in said and "--field text" in said
    bytes_ = core.tokenizers.byte_pairs.bytes_tokenizer()
    got = ids_of(here / "a.jsonl", bytes_, Reading("text"))
    assert got == [256, *b"the cat", 256, *b"the\ndog"]
    ran(capsys, "data", "prepare", "a.jsonl", "--out", "o", "--tokenizer", "bytes", "--field", "text")
    for bad, place in (
        ('{"tex": "a"}', "a.jsonl:4"),
        ("[1]", "a.jsonl:4"),
        ('{"text": 3}', "a.jsonl:4"),
        ("{", "a.jsonl:4"),
    ):
        (here / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n" + bad)
        with pytest.raises(DataError, match=place):
            ids_of(here / "a.jsonl", bytes_, Reading("text"))


def test_a_separator_makes_documents_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_files.BLOCK_BYTES", 16)
    (tmp_path / "a.txt").write_text("one cat\n<|endoftext|>\ntwo\n<|endoftext|><|endoftext|>three and four")
    bytes_ = core.tokenizers.byte_pairs.bytes_tokenizer()
    got = ids_of(tmp_path / "a.txt", bytes_, Reading(separator="<|endoftext|>"))
    assert got == [256, *b"one cat", 256, *b"two", 256, *b"three and four"]


def test_folders_behind_a_link_are_read_and_each_once(tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "sub" / "x.txt").write_text("x")
    data = tmp_path / "data"
    data.mkdir()
    os.symlink("../real", data / "link")
    os.symlink("../real", data / "second")
    os.symlink("..", tmp_path / "real" / "sub" / "up")  # a circle
    assert [path.relative_to(data).as_posix() for path in folder_files(data)] == ["link/sub/x.txt"]


# --- a model with its tokenizer ------------------------------------------------------------------------------------


def independent(folder, text):
    """bits per byte and loss of a text by transformers and the folder's own tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    ids = PreTrainedTokenizerFast.from_pretrained(folder)(text, split_special_tokens=True)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
    T, total = LLAMA["max_position_embeddings"], 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, T):
            window = torch.tensor([ids[start : start + T + 1]])
            logits = model(window[:, :-1]).logits[0]
            total += float(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum"))
    return total / math.log(2) / len(text.encode()), total / (len(ids) - 1), len(ids) - 1


GOLDEN = {  # kind -> bits per byte, loss, tokens: what `independent` gives
    "sentencepiece": (3.1673649846245624, 6.294918896305897, 226),
    "byte_level": (3.1533412048303213, 5.804724419777137, 244),
}
EVALUATED = "the cat sat on the mat.\nnaïve été ☃ and the dog    sat on the log. " * 9


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_byte_and_loss_are_those_of_an_independent_computation(kind, here, capsys):
    folder = write_model(here, kind)
    (here / "a.txt").write_text(EVALUATED, "utf-8")
    found = json.loads(
        ran(capsys, "eval", folder, "--data", "a.txt", "--tokens", 10**6, "--device", "cpu", "--json").out
    )
    bits, loss, tokens = GOLDEN[kind]
    assert found["tokens"] == tokens and found["bytes"] == len(EVALUATED.encode())
    assert abs(found["bits_per_byte"] / bits - 1) < 1e-4 and abs(found["loss"] / loss - 1) < 1e-4
    pytest.importorskip("transformers")
    assert np.allclose(independent(folder, EVALUATED), GOLDEN[kind], rtol=1e-5)


def test_every_end_of_generation_config_ends_a_text_and_an_answer(here, capsys, monkeypatch):
    generation = {"bos_token_id": 1, "eos_token_id": [2, 9], "temperature": 0.6, "_from_model_config": True}
    folder = write_model(here, generation=generation)
    plain = json.loads(
        ran(capsys, "sample", folder, "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    drawn = plain["tokens"][len(read_folder(folder).begin) + len(read_folder(folder).encode("the")) :]
    (folder / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [2, drawn[3]]}))
    at = drawn.index(drawn[3])
    ended = json.loads(
        ran(capsys, "sample", folder, "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    assert ended["tokens"] == plain["tokens"][: len(plain["tokens"]) - len(drawn) + at]
    ran(capsys, "import", folder, "imported")
    again = json.loads(
        ran(capsys, "sample", "imported", "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    assert again["tokens"] == ended["tokens"]

    ends = open_path(folder, load_registry()).generation.ends
    form, _ = form_of(read_folder(folder), ends)
    assert drawn[3] in form.ends and 2 in form.ends


def test_ends_and_generation_config_go_out_as_they_came(here, capsys):
    generation = {"bos_token_id": 1, "eos_token_id": [2, 9, 11], "temperature": 0.6, "top_p": 0.9}
    folder = write_model(here, generation=generation, eos_token_id=[2, 9], pad_token_id=3)
    ran(capsys, "import", folder, "imported")
    for source, out in ((folder, "a"), ("imported", "b")):
        ran(capsys, "export", source, "--to", "hf", "--out", out)
        assert json.loads((here / out / "generation_config.json").read_text()) == generation
        config = json.loads((here / out / "config.json").read_text())
        assert {k: v for k, v in config.items() if k.endswith("_token_id")} == {
            "bos_token_id": 1, "eos_token_id": [2, 9], "pad_token_id": 3,
        }  # fmt: skip


CONFIG = """
model = "{model}"
weights = "{weights}"
[dims]
B = 2
T = 8
[data]
train = "{train}"
{more}
[train]
steps = 2
tokens_per_step = 16
[optimizer]
name = "adamw"
lr = 1e-3
[schedule]
name = "constant"
"""


def config_for(here, name="run", model="imported/model.toml", weights="imported", train="a.txt", more=""):
    (here / f"{name}.toml").write_text(CONFIG.format(model=model, weights=weights, train=train, more=more))
    return f"{name}.toml"


@pytest.fixture
def imported(here, capsys):
    folder = write_model(here, generation={"eos_token_id": [2, 9]})
    ran(capsys, "import", folder, "imported")
    (here / "a.txt").write_text("the cat sat on the mat " * 40)
    return here


def test_weights_bring_their_tokenizer_and_ends_or_refuse_another(imported, capsys):
    for weights, out in (("imported", "a"), ("hf", "b")):
        said = ran(capsys, "train", config_for(imported, weights=weights), "--device", "cpu", "--out", out)
        assert f"that of the weights at {weights}" in said.out + said.err
        run = core.load(out)
        assert run.tokenizer.hash == read_folder(imported / "hf").hash
        state = json.loads((imported / out / "checkpoints/step_00000002/state.json").read_text())
        assert state["generation"]["config"] == {"eos_token_id": [2, 9]}
    for asked in ("bytes", "bpe", "gpt2"):
        said = ran(capsys, "train", config_for(imported, more=f'tokenizer = "{asked}"'), "--device", "cpu", code=6).err
        assert asked in said and "came with the tokenizer" in said
    own = config_for(imported, more='tokenizer = "hf/tokenizer.json"')
    ran(capsys, "train", own, "--device", "cpu", "--out", "c")


def gpt2_shard(path):
    """A shard of GPT-2's format without a sidecar."""
    header = np.zeros(256, "<i4")
    header[:3] = FORMATS[0].magic, FORMATS[0].version, 95
    path.write_bytes(header.tobytes() + np.arange(5, 100, dtype="<u2").tobytes())
    return path


def test_ids_of_another_tokenizer_are_neither_scored_nor_trained(imported, capsys):
    shard = gpt2_shard(imported / "gpt2.bin")
    questions = np.zeros(256, "<i4")
    questions[:3] = 20240522, 1, 1
    example = [65535, 32, 0, 2, 4, 1, 5, 1, 6, 1, 7, 1, 8, 2, 9, 10]
    (imported / "hs.bin").write_bytes(questions.tobytes() + np.array(example, "<u2").tobytes())
    assert "gpt2's tokenizer" in ran(capsys, "eval", "hf", "--hellaswag", "hs.bin", "--device", "cpu", code=6).err
    assert "holds the ids of gpt2" in ran(capsys, "eval", "hf", "--data", shard, "--device", "cpu", code=6).err
    config = config_for(imported, train="gpt2.bin")
    assert "holds the ids of gpt2" in ran(capsys, "train", config, "--device", "cpu", code=6).err


# --- a chat's pipe, schedules, optimizers, checkpoints ---------------------------------------------------------------


def piped(monkeypatch, capsys, lines, *words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    return cli.run(["chat", *map(str, words), "--device", "cpu"]), *capsys.readouterr()


def test_a_chat_through_a_pipe_goes_on_behind_a_line_that_it_cannot_answer(here, monkeypatch, capsys):
    folder = write_model(here)
    words = (folder, "--temperature", 0, "--tokens", 3, "--seed", 1)
    lines = ["the cat " * 100, "/n", "the cat"]
    code, out, err = piped(monkeypatch, capsys, lines, *words)
    assert code == 2 and out.strip() and err.count("core: error") == 2
    code, out, _ = piped(monkeypatch, capsys, lines, *words, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and [("error" in one, "text" in one) for one in objects] == [(True, False)] * 2 + [(False, True)]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"name": "cosine", "warmup": 50}, "warmup is 50 steps and the run 2"),
        ({"name": "wsd", "decay": 9}, "decay is 9 steps and the run 2"),
        ({"name": "wsd", "warmup": 1, "decay": 2}, "more than the run's 2"),
        ({"name": "wsd", "warmup": 1, "decay": 1}, ""),
        ({"name": "constant", "warmup": 2}, ""),
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_said(imported, capsys, schedule, said):
    words = [f"--set=schedule.{key}={value}" for key, value in schedule.items()]
    shown = ran(capsys, "train", config_for(imported), "--device", "cpu", "--out", "r", *words)
    warned = [line for line in (shown.out + shown.err).splitlines() if "[schedule]" in line or "schedule.name" in line]
    assert said in "\n".join(warned) and bool(said) == any("warning" in line for line in warned)


@pytest.mark.parametrize(
    ("optimizer", "option", "value"),
    [("adamw", "betas", "[1.0,0.95]"), ("adamw", "betas", "[0.9,1.0]"), ("adamw", "betas", "[0.9,1.5]"),
     ("muon", "betas", "[0.9,1.0]"), ("muon", "momentum", "1.0")],
)  # fmt: skip
def test_betas_and_momentum_of_1_or_more_are_refused_by_their_key(imported, capsys, optimizer, option, value):
    words = (f"--set=optimizer.name={optimizer}", f"--set=optimizer.{option}={value}")
    said = ran(capsys, "train", config_for(imported), "--device", "cpu", *words, code=2).err
    assert f"optimizer.{option}" in said and "below 1" in said


def test_another_optimizer_on_a_resume_begins_with_its_own_states(imported, capsys):
    config = config_for(imported)
    ran(capsys, "train", config, "--device", "cpu", "--out", "r")
    words = ("--resume", "--set=train.steps=3", "--set=optimizer.name=muon")
    shown = ran(capsys, "train", config, "--device", "cpu", "--out", "r", *words)
    assert "optimizer state: adamw's (m, v) is left out" in shown.out + shown.err
    ran(capsys, "train", config, "--device", "cpu", "--out", "fresh", "--set=train.steps=2")
    kept, now = (checkpoint.load(imported / f"r/checkpoints/step_0000000{n}") for n in (2, 3))
    assert now.state["updates"] == 1 and kept.state["updates"] == 2
    names = [n for n in now.optimizer["m"] if n.endswith("norm_1.weight")]
    assert not np.allclose(now.optimizer["m"][names[0]], kept.optimizer["m"][names[0]])


def test_the_last_checkpoint_is_kept_by_default_and_the_best_where_asked(imported, capsys):
    (imported / "v.txt").write_text("the dog sat on the log " * 9)
    config = config_for(imported, more='val = "v.txt"')
    words = ("--set=train.steps=6", "--set=train.val_every=1", "--set=train.keep_best=true", "--set=train.keep_last=1")
    ran(capsys, "train", config, "--device", "cpu", "--out", "r", "--set=optimizer.lr=0.3", *words)
    lines = [json.loads(line) for line in (imported / "r/metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["val_loss"])["step"]
    kept = sorted(int(p.name[5:]) for p in (imported / "r/checkpoints").glob("step_*"))
    assert kept == sorted({best, 6})
    ran(capsys, "train", config, "--device", "cpu", "--out", "n", "--set=train.checkpoint_every=0")
    assert not list((imported / "n/checkpoints").glob("step_*"))


def test_other_forms_of_a_tokenizer_are_named_with_what_makes_a_tokenizer_json(here, capsys):
    folder = write_model(here)
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    for words, code in ((("import", folder, "i"), 0), (("sample", folder), 7)):
        said = ran(capsys, *words, code=code)
        assert "vocab.json, merges.txt" in said.out + said.err and "save_pretrained" in said.out + said.err
        assert "--tokenizer gpt2" not in said.out + said.err


def test_the_blank_before_a_text_is_not_shown(tmp_path):
    found = read_folder(write_tokenizer(tmp_path / "t"))
    for prompt, want in (("", "the cat"), ("x", " the cat")):
        growing = Continuation(found, (), prompt, lambda text: None)
        for token in found.encode("the cat").tolist():
            growing.token(token)
        growing.end()
        assert growing.text == want
