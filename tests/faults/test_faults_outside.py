"""What comes from outside is at fault: configs, model files, plugins, shards, text, tokenizers.

Each test does what a user would: it runs `core` with the fault in place, and looks at the exit code, at the words on
stderr, and at what lies in the folder afterwards. docs/reliability.md has a row for each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import small_run

from core.cli import run as core_command
from core.data import TokenSource, gpt2
from core.data.recorded import load_tokenizer
from core.data.shards import HEADER_BYTES, open_shard
from core.errors import DataError

CONFIG = small_run.config(train={"steps": 1}, schedule={"name": "cosine", "warmup": 2})
MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"
[dims]
B = 2
T = 16
S = 32
V = 257
C = 16
H = 2
L = 1
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
h      = { block = "layer", in = "wte", repeat = "L" }
ln_f   = { op = "layernorm", in = "h" }
logits = { op = "matmul", in = "ln_f", features = "V", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }
[block.layer]
in  = "x"
out = "y"
qkv  = { op = "matmul", in = "x", features = "3*C" }
attn = { op = "attention", in = "qkv", heads = "H" }
y    = { op = "add", in = ["x", "attn"] }
"""
PLUGIN = """
from core import Op, Reference, Variant

half = Op("half", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (2, 3)}])


class HalfReference(Reference):
    op = "half"

    def forward(self, t):
        t.y[...] = t.x / 2

    def backward(self, t):
        t.add("dx", t.dy / 2)


def core_ops():
    return [half]


def core_variants():
    return [HalfReference]
"""
TRAIN = ("train", "run.toml", "--device", "cpu", "--quiet")
Core = Callable[..., str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a config, two texts, and a cache of its own; no network."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    small_run.write(folder, CONFIG, "run.toml")
    return folder


@pytest.fixture
def core(here: Path, capfd: pytest.CaptureFixture[str]) -> Core:
    """Runs `core`, wants this exit code and these words, no traceback, and no file that was not there before."""

    def command(*arguments: str, code: int, says: tuple[str, ...] | list[str] = (), makes: bool = False) -> str:
        before = files(here)
        got = core_command(list(arguments))
        said = "".join(capfd.readouterr())
        assert got == code, said
        assert "Traceback" not in said and "bug of ours" not in said
        for words in says:
            assert words in said, said
        assert makes or files(here) == before, "something was made or changed"
        return said

    return command


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def write(name: str, text: str, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def use_model(*changes: tuple[str, str]) -> None:
    """run.toml with a model of its own."""
    write("m.toml", MODEL, *changes)
    write("run.toml", CONFIG, ('"gpt2_124m"', '"m.toml"'))


def shard(
    name: str,
    tokens: object = np.arange(400) % 250,
    *,
    magic: int = 20240520,
    version: int = 1,
    count: int | None = None,
) -> bytes:
    ids = np.asarray(tokens)
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if count is None else count
    data = header.tobytes() + ids.astype("<u2").tobytes()
    Path(name).write_bytes(data)
    return data


# --- configs -----------------------------------------------------------------------------------------------------


def test_a_misspelt_key_and_all_other_mistakes_at_once(core: Core) -> None:
    write("run.toml", CONFIG, ("steps = 1", "stpes = 1"), ("B = 2", "B = true"))
    core(*TRAIN, "--set", "optimizer.lr=fast", code=2, says=[
        "3 problems", 'run.toml [train] stpes: unknown key; did you mean "steps"?', "run.toml [dims] B",
        "--set optimizer.lr=fast",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("lr = 0.01", 'lr = "3e-4"', "[optimizer] lr: expected a number > 0, got the string"),
        ("steps = 1", "steps = 1e3", "[train] steps: expected a whole number >= 1, got 1000.0; write 1000"),
        ("lr = 0.01", "lr = nan", "lr: expected a number > 0, got nan, which is not finite"),
        ("lr = 0.01", "lr = -inf", "lr: expected a number > 0, got -inf"),
        ("lr = 0.01", "lr = -1.0", "lr: expected a number > 0, got -1.0"),
        ("warmup = 2", "warmup = -2", "[schedule] warmup: expected a whole number >= 0, got -2"),
    ],
)
def test_a_value_of_a_wrong_type_or_range(core: Core, good: str, bad: str, says: str) -> None:
    write("run.toml", CONFIG, (good, bad))
    core(*TRAIN, code=2, says=[says])


@pytest.mark.parametrize("name", ["run.toml", "m.toml"])
def test_a_file_that_is_not_toml(core: Core, name: str) -> None:
    use_model()
    good = Path(name).read_bytes()
    for damage, says in (
        (b"\nx = = 1\n", ":5: not TOML"),
        (b"\nx = 1\nx = 2\n", "not TOML"),
        (b"\n# \xff\n", ":3: not UTF-8"),
    ):
        Path(name).write_bytes(damage + good)
        core(*TRAIN, code=2, says=[f"{name}:", says])


@pytest.mark.parametrize(
    ("good", "bad", "code", "says"),
    [
        ("H = 2", "H = 3", 3, ["h.0.attn", "48 features", "heads + 2*kv_heads = 9", "45 and 54"]),
        ("S = 32", "S = 8", 3, ["x0", "T = 16", "only 8 positions"]),
        ("_step = 64", "_step = 65", 2, ["B * T = 2 * 16 = 32, got 65", "64 and 96"]),
    ],
)
def test_sizes_that_cannot_be_together(core: Core, good: str, bad: str, code: int, says: list[str]) -> None:
    write("run.toml", CONFIG, (good, bad))
    core(*TRAIN, code=code, says=says)


def test_an_override_of_nothing_and_one_that_is_overridden(core: Core) -> None:
    core(
        *TRAIN,
        "--set",
        "train.stepz=3",
        "--set",
        "train.steps=x",
        code=2,
        says=['did you mean "steps"', "--set train.steps=x"],
    )
    core(*TRAIN, "--set", "train.steps=3", "--set", "train.steps=1", code=0, makes=True)
    assert "steps = 1\n" in Path("runs/run/config.resolved.toml").read_text()


def test_a_base_that_is_missing_comes_round_again_or_lies_elsewhere(core: Core, tmp_path: Path) -> None:
    write("b.toml", 'extends = "run.toml"\n')
    for base, says in (
        ("b.toml", "a cycle: run.toml -> b.toml -> run.toml"),
        ("gone.toml", "(chain: run.toml -> gone.toml)"),
        ("../secret.toml", "is outside the folders"),
    ):
        write("../secret.toml", "password = 1\n")
        write("run.toml", f'extends = "{base}"\n' + CONFIG)
        assert "password" not in core(*TRAIN, code=2, says=["extends", says])
        write("run.toml", CONFIG, ('"gpt2_124m"', '"m.toml"'))
        write("m.toml", f'extends = "{base.replace("run", "m")}"\n' + MODEL)
        write("b.toml", 'extends = "./m.toml"\n')
        assert "password" not in core(*TRAIN, code=2, says=["extends"])
        write("b.toml", 'extends = "run.toml"\n')


def test_a_run_that_is_there_already(core: Core) -> None:
    core(*TRAIN, code=0, makes=True)
    core(*TRAIN, "--out", "runs/run", code=2, says=["runs/run exists already", "--resume"])


@pytest.mark.parametrize("name", ["../../x", "x" * 300, "a/" + "y" * 300, "~/x", "run.toml/x", "a\tb", "loop"])
def test_a_path_that_cannot_be_a_runs(core: Core, name: str) -> None:
    os.symlink("loop", "loop")
    core(*TRAIN, "--out", name, code=2, says=["loop exists already" if name == "loop" else "--out "])
    core("sample", name, code=2, says=["no run"])
    core(*TRAIN, "--from", name, code=7)
    core(*TRAIN, "--plugin", name, code=3, says=["--plugin"])


@pytest.mark.parametrize("name", ["/dev/zero", "pipe.bin", "pipe.toml", "x" * 300, "~nobody-here/x"])
def test_a_path_that_is_no_file(core: Core, name: str) -> None:
    """A pipe would hang, a device never ends: each key that takes a path says what is there instead."""
    os.symlink("loop", "loop")
    for pipe in ("pipe.bin", "pipe.toml"):
        os.mkfifo(pipe)
    for key, value, codes in (
        ("model", name, (2, 3)),
        ("data.train", name, (2, 6)),
        ("data.tokenizer", f"bpe:{name}", (6,)),
        ("weights", name, (7,)),
    ):
        write("run.toml", CONFIG)
        got = core_command([*TRAIN, "--set", f"{key}={json.dumps(value)}"])
        assert got in codes, (key, got)
    assert not Path("runs").exists()
    core("data", "verify", name, code=1 if name.startswith(("pipe", "/dev")) else 2)


# --- models ------------------------------------------------------------------------------------------------------


def test_an_op_that_nobody_brings(core: Core) -> None:
    use_model(('"layernorm"', '"layernrom"'))
    core(*TRAIN, code=3, says=["m.toml:16 [graph] ln_f", 'did you mean "layernorm"'])
    use_model(('"layernorm"', '"rmsnorm"'))
    core(*TRAIN, "--set", 'plugins.disable=["llama"]', code=3, says=[
        "m.toml:16", 'plugin "llama"', "is disabled, and it mentions rmsnorm", "take llama out of [plugins] disable",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ('["x", "attn"]', '["x", "qkv"]', ["h.0.y", "a (...) <- wte (2, 16, 16)", "b (...) <- h.0.qkv (2, 16, 48)"]),
        ('in = "ln_f", f', 'in = "tokens", f', ["node logits", "takes activations", "tokens (2, 16) i32"]),
    ],
)
def test_an_edge_that_does_not_fit(
    core: Core, monkeypatch: pytest.MonkeyPatch, good: str, bad: str, says: list[str]
) -> None:
    """Both ends with their shapes, for a GPU too, before anything is compiled."""
    from core.kernels import nvrtc

    monkeypatch.setattr(nvrtc, "_run_nvrtc", lambda *_: pytest.fail("compiled"))
    use_model((good, bad))
    core(*TRAIN, code=3, says=says)
    core("plan", "run.toml", "--device", "cuda", code=3, says=says)


@pytest.mark.parametrize(
    ("good", "bad", "code", "says"),
    [
        ('in = "x", features = "3*C"', 'in = "attn", features = "3*C"', 3, "circle: h.0.attn -> h.0.qkv -> h.0.attn"),
        ('in = "x", features = "3*C"', 'in = "nope", features = "3*C"', 3, '"in" names "nope"'),
        ("qkv  = {", 'spare = { op = "gelu", in = "x" }\nqkv  = {', 3, "node h.0.spare: nothing uses it"),
        ("qkv  = {", 'qkv = { op = "gelu", in = "x" }\nqkv  = {', 2, "m.toml:23:"),
    ],
)
def test_a_graph_that_is_none(core: Core, good: str, bad: str, code: int, says: str) -> None:
    use_model((good, bad))
    core(*TRAIN, code=code, says=[says])


def test_an_op_without_a_backward_on_the_way_to_a_parameter(core: Core) -> None:
    write("forward_only.py", PLUGIN, ('\n    def backward(self, t):\n        t.add("dx", t.dy / 2)\n', ""))
    use_model(('in = "h" }', 'in = "hh" }'), ("[graph]", '[graph]\nhh = { op = "half", in = "h" }'))
    core(*TRAIN, "--plugin", "forward_only.py", code=3, says=["hh", "it has no backward, and this plan trains"])


def test_a_model_that_looks_ahead_is_asked_to_generate(core: Core) -> None:
    """Its tokens change with what comes after them: no cache could give what all tokens at once would."""
    use_model(('heads = "H"', 'heads = "H", causal = false'))
    core(*TRAIN, "--set", "train.sample_every=1", code=3, says=["node h.0.attn", "causal = false", "sample_every = 0"])
    core(*TRAIN, "--set", "train.checkpoint_every=1", code=0, makes=True)
    core("sample", "runs/run", "--device", "cpu", code=3, says=["cannot generate", "node h.0.attn"])


# --- plugins -----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Installs distributions: a module and its entry point."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))

    def install(name: str, code: str) -> None:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[corelm]\n{name} = {name}\n")
        (folder / f"{name}.py").write_text(code)

    yield install
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(folder))]:
        del sys.modules[name]


def test_a_plugin_that_raises_while_it_is_imported(core: Core, site: Callable[[str, str], None]) -> None:
    site("acme_broken", PLUGIN + "\nraise RuntimeError('no such library')\n")
    core("plugins", code=0, says=["acme_broken", "broken"])
    core(*TRAIN, code=0, makes=True)
    use_model(('"layernorm"', '"half"'))
    core(*TRAIN, code=3, says=['no op "half"', "is broken", "no such library", "acme_broken.py:"])


def test_two_plugins_bring_one_op(core: Core, site: Callable[[str, str], None]) -> None:
    site("acme_one", PLUGIN)
    site("acme_two", PLUGIN)
    core(*TRAIN, code=3, says=['op "half" is defined twice', "acme_one 1.0", "acme_two 1.0", "[plugins] disable"])
    core(*TRAIN, "--set", 'plugins.disable=["acme_two"]', code=0, makes=True)


def test_a_hook_with_other_arguments_or_another_version(core: Core) -> None:
    write("hook.py", PLUGIN + "\ndef core_step_end(run, step, metrix): ...\n")
    core(*TRAIN, "--plugin", "hook.py", code=3, says=[
        "written: def core_step_end(run, step, metrix)", "specified: def core_step_end(run, step, metrics)",
        "hook.py:24",
    ])  # fmt: skip
    write("newer.py", "core_api = 2\n" + PLUGIN)
    core(*TRAIN, "--plugin", "newer.py", code=3, says=["it states core_api = 2; this corelm speaks 1"])


ESCAPES = ["../out.cu", "/etc/passwd", "link.cu", "gone.cu", "x" * 300, "a\\0b", "loop.cu"]


@pytest.mark.parametrize("what", ["source", "core_models"])
@pytest.mark.parametrize("given", ESCAPES)
def test_a_plugin_with_a_file_of_somewhere_else(core: Core, what: str, given: str) -> None:
    name = f"plug_{what}_{ESCAPES.index(given)}"  # a module is imported once in a process
    extra = {
        "source": f"""
class Other(Variant):
    op, name, device, source = "half", "other", "cuda", "{given}"

    def forward(self, t, launch): ...
    def backward(self, t, launch): ...


def core_variants():
    return [HalfReference, Other]
""",
        "core_models": f'\ndef core_models():\n    return ["{given}"]\n',
    }[what]
    write(f"{name}/__init__.py", PLUGIN + extra)
    write("out.cu", "// not the plugin's\n")
    os.symlink("../out.cu", f"{name}/link.cu")
    os.symlink("loop.cu", f"{name}/loop.cu")
    words = "leads out of the plugin's folder" if given in ESCAPES[:3] else "no file"
    core("ops", "half", "--plugin", name, code=3, says=[what, words])


# --- data --------------------------------------------------------------------------------------------------------


def train_on(what: str, **more: str) -> None:
    write("run.toml", CONFIG, ('"text.txt"', what), ('val = "val.txt"\n', ""), *more.items())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: shard("a.bin", magic=7), "expected a token shard with magic number 20240520"),
        (lambda: shard("a.bin", magic=20240326), "got a model checkpoint of llm.c"),
        (lambda: shard("a.bin", version=9), "expected version 1"),
        (lambda: Path("a.bin").write_bytes(shard("a.bin")[:-3]), "truncated: the header says 400 tokens, so expected"),
        (lambda: Path("a.bin").write_bytes(shard("a.bin") + b"xx"), "too long"),
        (lambda: shard("a.bin", []), "zero tokens"),
        (lambda: shard("a.bin", count=-1), "truncated"),
        (lambda: Path("a.bin").write_bytes(b"abc"), "expected a header of 1024 bytes, the file has 3"),
        (lambda: Path("a.bin").mkdir(), "got a folder"),
        (lambda: os.mkfifo("a.bin"), "got a pipe or a device"),
    ],
)  # fmt: skip
def test_a_shard_that_is_damaged(core: Core, make: Callable[[], object], says: str) -> None:
    make()
    train_on('"a.bin"')
    core(*TRAIN, code=6, says=["a.bin", says])


def test_a_token_beyond_the_vocabulary(core: Core) -> None:
    shard("a.bin", [1] * 300 + [65535] * 100)
    train_on('"a.bin"')
    core(*TRAIN, code=6, says=["a.bin", "vocabulary of 257", "got 65,535 at token 300 (byte 1,624)"])


def test_bytes_of_a_shard_that_flipped(core: Core) -> None:
    core("data", "prepare", "text.txt", "--tokenizer", "bytes", "--out", "d", code=0, makes=True)
    core("data", "verify", "d/*.bin", code=0)
    (path,) = Path("d").glob("*.bin")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    core("data", "verify", "d/*.bin", code=1, says=["changed since it was written", "expected sha256"])
    train_on('"d/*.bin"')
    core(*TRAIN, code=6, says=[path.name, "changed since it was written"])


def test_data_that_is_not_there_too_little_or_shared(core: Core) -> None:
    train_on('"d/*.bin"')
    core(*TRAIN, code=2, says=['run.toml [data] train: "d/*.bin" matches no file; the nearest folder'])
    train_on('"short.txt"')
    write("short.txt", "abc")
    core(*TRAIN, code=6, says=["expected at least 33 tokens (B * T + 1 = 2 * 16 + 1), got 4"])
    write("run.toml", CONFIG, ('"val.txt"', '"text.txt"'))
    said = core("train", "run.toml", "--device", "cpu", code=0, makes=True)
    assert "warning: train and val share" in said


@pytest.mark.parametrize("count", [2**31 + 1000, 2**32 + 1000])
def test_a_shard_beyond_2_gib_and_2_to_the_31_tokens(tmp_path: Path, count: int) -> None:
    """Read at its end, also where the count wraps in the header, and refused one token short. The file is sparse."""
    path = tmp_path / "large.bin"
    header = np.zeros(256, "<u4")
    header[:3] = 20240520, 1, count % 2**32
    tail = np.arange(1000, dtype="<u2")
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.seek(HEADER_BYTES + 2 * (count - len(tail)))
        file.write(tail.tobytes())
    drawn = TokenSource([path], B=1, T=999, vocab=50257)
    assert drawn.tokens == count and drawn.sequences == (count - 1) // 999
    last = drawn.sequences - 1
    tokens = drawn._window(*drawn._locate(last), 999)
    start = last * 999
    want = np.concatenate([np.zeros(count - 1000 - start, "<u2"), tail])[:1000]
    assert start > count - 3000 and np.array_equal(tokens, want)
    os.truncate(path, HEADER_BYTES + 2 * count - 2)
    with pytest.raises(DataError, match="the header says"):
        open_shard(path)


# --- tokenizers --------------------------------------------------------------------------------------------------


def test_data_of_another_tokenizer_than_the_models(core: Core) -> None:
    """Of the config, and of the checkpoint that a run goes on from."""
    core("data", "prepare", "text.txt", "--tokenizer", "bpe", "--vocab-size", "257", "--out", "d", code=0, makes=True)
    train_on('"d/*.bin"')
    core(*TRAIN, code=6, says=["were made with", "the config asks for bytes"])
    write("run.toml", CONFIG)
    core(*TRAIN, "--set", "train.checkpoint_every=1", code=0, makes=True)
    write("run.toml", CONFIG, ('"text.txt"', '"d/*.bin"'), ('"val.txt"', '"d/*.bin"'), ('"bytes"', '"bpe"'))
    core(*TRAIN, "--set", "train.steps=2", "--from", "runs/run", code=6, says=["were made with", "the run with bytes"])


HARD = {
    "a literal end of text": b"a <|endoftext|> b",
    "a megabyte of blanks": b" " * 1_000_000 + b"x",
    "NULs": b"a\0\0b\0",
    "ends of lines": b"one\r\ntwo\r\n\r\nthree\r",
    "nothing": b"",
    "half a surrogate pair": b"a\xed\xa0\x80b" + b"c" * 90,
    "astral letters": "smile \U0001f600 and \ufdfd".encode(),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_documents_that_are_hard_to_tokenise(core: Core, name: str, kind: str) -> None:
    """One end-of-text token, at the start, and then the text; what is not UTF-8 is U+FFFD, and that is said."""
    Path("hard.txt").write_bytes(HARD[name])
    write("rest.txt", "the cat sat on the mat and the dog sat on the log " * 9)
    sources = ["hard.txt"] if kind == "bytes" else ["hard.txt", "rest.txt"]
    said = core(
        "data", "prepare", *sources, "--tokenizer", kind, "--vocab-size", "280", "--out", "d", code=0, makes=True
    )
    tokenizer = load_tokenizer(Path("d/tokenizer.json"))
    ids = open_shard(Path("d/d_train_000000.bin")).open().tolist()
    starts = [i for i, token in enumerate(ids) if token == tokenizer.eot]
    assert starts[0] == 0 and len(starts) == len(sources)
    text = HARD[name].decode("utf-8", "replace")
    assert tokenizer.decode(ids[1 : starts[1] if kind == "bpe" else None]) == text
    assert ("not UTF-8" in said) == ("\ufffd" in text)


def test_a_tokenizer_in_the_cache_that_is_poisoned_or_cut_short(core: Core) -> None:
    """It is named with its hash, left as it is, and never used."""
    cached = gpt2.cached_file()
    cached.parent.mkdir(parents=True)
    letters = [chr(b) if chr(b).isprintable() and b != 32 else None for b in range(256)]
    assert letters[65] == "A"
    for contents, says in (
        (b"#version: 0.2\nt h\nth e\n", "expected GPT-2's tokens, sha256 2a22afed"),
        (b"#version: 0.2\nt", "expected a merge"),
    ):
        cached.write_bytes(contents)
        write("run.toml", CONFIG, ('"bytes"', '"gpt2"'), ("V = 257", "V = 50257"))
        core(*TRAIN, code=6, says=["vocab.bpe is left alone and not used", says])
        assert cached.read_bytes() == contents


# --- the order of the data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_another_number_of_ranks_draws_and_validates_the_same(ranks: int) -> None:
    """A step has the same sequences in the same global order, in parts that do not overlap; validation the same
    number of the same tokens, in as many batches on each rank, whatever B, T and the number of ranks are."""
    tokens = [np.arange(0, 4100), np.arange(5000, 5950)]
    whole = TokenSource(tokens, B=24, T=10, seed=3)
    parts = TokenSource(tokens, B=24 // ranks, T=10, seed=3)
    for step in (0, 3, 20, 21, 400):  # 20 and 21: the end of an epoch of 503 sequences
        drawn = [parts.batch(step, rank=rank, ranks=ranks) for rank in range(ranks)]
        for got, want in zip(zip(*drawn, strict=True), whole.batch(step), strict=True):
            assert np.array_equal(np.concatenate(got), want)
    want = [*range(1, 4100), *range(5001, 5950)]
    for B, T, count in ((1, 7, 1000), (3, 10, 4200), (5, 64, 10**9)):
        source = TokenSource(tokens, B=B, T=T, least=2)
        lists = [list(source.val_batches(count, rank=rank, ranks=ranks)) for rank in range(ranks)]
        assert len({len(batches) for batches in lists}) == 1
        rows = [y[row] for batches in zip(*lists, strict=True) for _, y in batches for row in range(B)]
        assert np.concatenate([row[row >= 0] for row in rows]).tolist() == want[:count]
