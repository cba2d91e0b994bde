"""llama2.c's files: read as they are, and the greedy text of its own program.

Files are written here from its export.py and tokenizer.py, with drawn weights. What run.c prints of them is committed;
where its repository is at hand (LLAMA2C=FOLDER) and a C compiler, it is built and asked afresh.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import library_tokenizers
import numpy as np
import published
import pytest
from core.plugins.llama2c import export as export_llama2c

import core
from core import cli
from core.errors import CheckpointError, CoreError, DataError
from core.interop.export import prepare
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers import scored
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.recorded import from_json

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    " the",
    " cat",
    " sat",
    " on",
    " mat",
    "th",
    "at",
    " t",
    " c",
    " s",
    "he",
    "in",
]
LETTERS = [*" abcdefghijklmnopqrstuvwxyz.,", "é", "ß", "→"]
PIECES = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % b for b in range(256)),
          *(letter.encode() for letter in LETTERS), *(word.encode() for word in WORDS)]  # fmt: skip
SCORES = [0.0] * 259 + [-1e4 - i for i in range(len(LETTERS))] + [-float(i % 7) for i in range(len(WORDS))]
SIZES = {"C": 24, "F": 40, "L": 2, "H": 4, "K": 2, "V": len(PIECES), "S": 48}
PROMPTS = ["the cat", "", "naïve été → 12", "  sat\non"]


def tensors(shared):
    """Name -> (layers..., rows, columns) as llama2.c has them, drawn by name."""
    C, F, L, H, K, V = (SIZES[name] for name in "CFLHKV")
    D = C // H
    layer = {"wq": (C, C), "wk": (K * D, C), "wv": (K * D, C), "wo": (C, C), "w1": (F, C), "w2": (C, F), "w3": (F, C)}
    shapes = {"tok": (V, C), "norm": (C,), "att_norm": (L, C), "ffn_norm": (L, C)}
    shapes |= {name: (L, *shape) for name, shape in layer.items()}
    found = {name: 3 * published.draw(name + " norm" * ("norm" in name), shape) for name, shape in shapes.items()}
    return found if shared else {**found, "out": 3 * published.draw("out", (V, C))}


ORDER = {
    0: ["tok", "att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "norm"],
    1: ["att_norm", "ffn_norm", "norm", "tok", "wq", "wk", "wv", "wo", "w1", "w2", "w3"],
}


def model_file(path, version=0, shared=True, tokens=True):
    """As export.py writes it, with its tokenizer.bin beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found, numbers = tensors(shared), [SIZES[name] for name in "CFLHKVS"]
    half = SIZES["C"] // SIZES["H"] // 2
    angles = np.outer(np.arange(SIZES["S"]), 10000.0 ** (-np.arange(half) / half))
    body = b"".join(found[name].tobytes() for name in ORDER[version])
    if version == 0:
        numbers[5] *= 1 if shared else -1
        head = struct.pack("<7i", *numbers)
        body += np.cos(angles).astype("<f4").tobytes() + np.sin(angles).astype("<f4").tobytes()
    else:
        head = (struct.pack("<Ii7iB", 0x616B3432, 1, *numbers, int(shared))).ljust(256, b"\0")
    path.write_bytes(head + body + (b"" if shared else found["out"].tobytes()))
    if tokens:
        parts = [struct.pack("<i", max(map(len, PIECES)))]
        parts += [struct.pack("<fi", score, len(p)) + p for p, score in zip(PIECES, SCORES, strict=True)]
        (path.parent / "tokenizer.bin").write_bytes(b"".join(parts))
    return path


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "llama2c.json").read_text("utf-8"))


TOKENS = [bytes([int(p[3:5], 16)]) if p.startswith(b"<0x") else p for p in PIECES]


def shown(tokens):
    """What run.c prints of tokens: no blank behind a begin, and no byte that is not printable by itself."""
    found = b""
    for before, token in zip(tokens, tokens[1:], strict=False):
        piece = TOKENS[token].removeprefix(b" ") if before == 1 else TOKENS[token]
        single = len(piece) == 1 and not (32 <= piece[0] < 127 or piece in b" \t\n\v\f\r") or piece == b"\0"
        found += b"" if single else piece
    return found.decode("utf-8", "replace")


def told(capsys, path, prompt):
    """What `core sample` prints at temperature 0, prompt included."""
    words = (
        "sample",
        str(path),
        "--prompt",
        prompt,
        "--temperature",
        "0",
        "--tokens",
        "20",
        "--device",
        "cpu",
        "--json",
    )
    assert cli.run(words) == 0, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
def test_the_greedy_text_is_that_of_llama2cs_own_program(shared, version, prompt, tmp_path, capsys):
    path = model_file(tmp_path / "m" / "model.bin", version, shared)
    found = told(capsys, path, prompt)
    assert shown(found["tokens"]) == GOLDEN["shared" if shared else "apart"][prompt]
    data = b"".join(TOKENS[i] for i in found["tokens"][1:])
    assert found["text"] == data.decode("utf-8", "replace").removeprefix(" ")  # and with the bytes that it leaves out


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
def test_what_is_exported_is_the_file_that_came(shared, version, tmp_path):
    registry = load_registry()
    path = model_file(tmp_path / "m" / "model.bin", version, shared)
    for source in (path, tmp_path / "hf"):
        if source != path:
            assert cli.run(["export", str(path), "--to", "hf", "--out", str(source)]) == 0
        out = tmp_path / f"{source.stem}-out.bin"
        export_llama2c.write(prepare(open_path(source, registry), registry, "f32"), registry, out, version)
        got, want = (np.frombuffer(p.read_bytes(), "<f4") for p in (out, path))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)


def test_an_import_keeps_tokenizer_and_ends_and_the_command_writes_both_files(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = model_file(tmp_path / "m" / "model.bin")
    assert cli.run(["import", str(path), "imported"]) == 0
    capsys.readouterr()
    assert told(capsys, "imported", "the cat")["tokens"] == told(capsys, path, "the cat")["tokens"]
    (tmp_path / "o").mkdir()
    assert cli.run(["export", "imported", "--to", "llama2c", "--out", "o/model.bin"]) == 0
    capsys.readouterr()
    assert (tmp_path / "o/tokenizer.bin").read_bytes() == (tmp_path / "m/tokenizer.bin").read_bytes()
    assert told(capsys, "o/model.bin", "the cat")["text"] == told(capsys, path, "the cat")["text"]


def test_its_tokenizer_goes_into_json_and_back_and_its_bytes_are_the_text(tmp_path):
    model_file(tmp_path / "model.bin")
    found = scored.read_file(tmp_path / "tokenizer.bin", SIZES["V"])
    again = from_json(found.to_json())
    for text in (*PROMPTS[:1], *PROMPTS[2:], "the mat, été"):
        ids = found.encode(text)
        assert again.encode(text).tolist() == ids.tolist() and found.decode_bytes(ids).decode() == " " + text
        assert int(found.lengths[ids].sum()) - found.dummy == len(text.encode())
    with pytest.raises(DataError, match="the model's 300 tokens"):
        scored.read_file(tmp_path / "tokenizer.bin", 300)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:-4], "not a file of a known format"),
        (lambda raw: struct.pack("<Ii", 0x616B3432, 2) + raw[8:], "version 2"),
        (
            lambda raw: (struct.pack("<Ii7iB", 0x616B3432, 1, *[SIZES[n] for n in "CFLHKVS"], 1)).ljust(256, b"\0"),
            "cut short",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(change, said, tmp_path):
    path = model_file(tmp_path / "model.bin")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        core.load(path)


def test_a_model_that_llama2c_computes_otherwise_is_not_exported(tmp_path, monkeypatch):
    registry = load_registry()
    opened = open_path(
        "llama_125m", registry, {"C": 16, "H": 4, "F": 24, "L": 1, "V": 40, "S": 16, "T": 8, "base": 5e5}
    )
    engine = core.load("llama_125m", dims=dict(opened.dims)).params
    import dataclasses

    with pytest.raises(CoreError, match="base = 500000"):
        export_llama2c.write(
            prepare(dataclasses.replace(opened, weights=engine), registry, "f32"), registry, tmp_path / "x.bin"
        )


def printed(program, folder, shared, prompt):
    """What run.c prints for 20 new tokens behind the prompt."""
    path = model_file(folder / ("s" if shared else "a") / "model.bin", 0, shared)
    tokenizer = scored.read_file(path.parent / "tokenizer.bin", SIZES["V"])
    fed = 1 + len(tokenizer.encode(prompt))
    words = [program, path, "-t", "0", "-n", str(fed + 19), "-i", prompt, "-z", path.parent / "tokenizer.bin"]
    done = subprocess.run(list(map(str, words)), capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").removesuffix("\n")


def build(folder):
    repository, compiler = os.environ.get("LLAMA2C"), shutil.which("cc") or shutil.which("gcc")
    if not repository or not compiler:
        pytest.skip("LLAMA2C names no folder with llama2.c, or there is no C compiler")
    program = folder / "run"
    subprocess.run([compiler, "-O1", "-o", program, Path(repository) / "run.c", "-lm"], check=True)
    return program


def test_the_committed_texts_are_what_its_program_prints_here(tmp_path):
    program = build(tmp_path)
    for shared in (True, False):
        for prompt in PROMPTS:
            assert printed(program, tmp_path, shared, prompt) == GOLDEN["shared" if shared else "apart"][prompt]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        made, both = build(Path(place)), {"shared": True, "apart": False}
        table = {kind: {p: printed(made, Path(place), one, p) for p in PROMPTS} for kind, one in both.items()}
        out = Path(__file__).parents[1] / "golden" / "llama2c.json"
        out.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")


# --- a tokenizer.bin made of another tokenizer ------------------------------------------------------------------------


def llama2_kind(change=lambda document: None):
    """A tokenizer of LLaMA 2's kind: <unk>, <s>, </s>, the bytes, then letters and merges, in the order of training."""
    pytest.importorskip("tokenizers")
    document = library_tokenizers.sentencepiece()
    old = sorted(document["model"]["vocab"], key=document["model"]["vocab"].get)
    order = [*old[:3], *(f"<0x{b:02X}>" for b in range(256)), *(t for t in old[3:] if not t.startswith("<0x"))]
    document["model"]["vocab"] = {token: i for i, token in enumerate(order)}
    change(document)
    return LibraryTokenizer(json.dumps(document), library_tokenizers.CONFIG, name="made")


def test_a_tokenizer_of_llama_2s_kind_becomes_a_tokenizer_bin_with_the_same_ids(tmp_path):
    theirs = llama2_kind()
    (tmp_path / "tokenizer.bin").write_bytes(scored.scored_of(theirs).to_bytes())
    found = scored.read_file(tmp_path / "tokenizer.bin", theirs.vocab_size)
    for text in ("the cat sat on the mat", " the  dog's log", "naïve été \u2603", "<s> 12 o'clock", *scored.TRIED):
        assert found.encode(text).tolist() == theirs.encode(text).tolist(), text
    assert len(found.encode("the cat sat")) < 9  # merged


def no_bytes(document):
    document["model"]["byte_fallback"] = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_bytes, "tokens for bytes"),
        (lambda d: d.update(post_processor=None), "other ids than 1 for <s>"),
        (lambda d: d["model"].update(merges=[], ignore_merges=True), "give other ids than made"),
    ],
)
def test_one_that_llama2c_merges_otherwise_is_refused_with_the_reason(change, said):
    tokenizer = llama2_kind(change)
    with pytest.raises(DataError, match=said):
        scored.scored_of(tokenizer)


def test_export_writes_tokenizer_bin_or_says_why_not_and_what_does(tmp_path, capsys, monkeypatch):
    document = json.loads(llama2_kind().document)
    monkeypatch.setitem(library_tokenizers.KINDS, "llama2", lambda: document)
    monkeypatch.chdir(tmp_path)
    for kind, name in (("llama2", "a"), ("byte_level", "b")):
        folder = library_tokenizers.write_model(tmp_path / name, kind)
        (tmp_path / f"{name}-out").mkdir()
        assert cli.run(["export", str(folder), "--to", "llama2c", "--out", f"{name}-out/model.bin"]) == 0
    said = capsys.readouterr().out
    assert "tokenizer.py writes one from the model's tokenizer.model" in said and "with a-out" in said
    assert not (tmp_path / "b-out/tokenizer.bin").exists()
    for prompt in ("the cat sat", "dog's"):
        assert told(capsys, "a-out/model.bin", prompt)["text"] == told(capsys, tmp_path / "a/hf", prompt)["text"]
