"""Hostile chat templates, tokenizers and headers: each an error by name, in seconds and in bounded memory."""

from __future__ import annotations

import base64
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core.plugins.huggingface import folder as huggingface
from core.plugins.llama2c import model_file as llama2c
from core.plugins.llmc import model_file as llmc

from core import checkpoint
from core.checkpoint.tensor_file import TensorFile
from core.errors import CheckpointError, CoreError, DataError, UsageError
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.folder import read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.recorded import load_tokenizer
from core.tokenizers.scored import read_file as read_scored
from core.tokenizers.templates import REFUSED, Renderer

ROOT = Path(__file__).parents[2]
ROOM = 1 << 30  # bytes of address space that a test may take on top of what its process has


@pytest.fixture(autouse=True)
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What would take more than ROOM is a MemoryError, which no test here expects."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# --- chat templates --------------------------------------------------------------------------------------------------

SAID = {"messages": [{"role": "user", "content": "hi"}]}
MEMORY, SLOW, DEEP = "needs more than 256 MiB of memory", "takes more than 0.2 seconds", "nested too deeply"
TEMPLATES = {
    "{{ 'a' * 10**9 }}": (1, MEMORY),
    "{{ '{:>3000000000}'.format(1) }}": (1, MEMORY),
    "{{ '%*d' % (3000000000, 1) }}": (1, MEMORY),
    "{{ [1] | tojson(indent=10**9) }}": (1, MEMORY),
    "{{ range(99999) | join('a' * 100000) }}": (1, MEMORY),
    "{{ 'x' | center(10**9) }}": (1, MEMORY),
    "\n{{ [[]] * 10**9 }}": (2, MEMORY),
    "{% set n = namespace(s='a') %}\n{% for i in range(60) %}\n{% set n.s = n.s ~ n.s %}\n{% endfor %}": (3, MEMORY),
    "{% for i in range(99999) %}\n{% for j in range(99999) %}\n{% endfor %}{% endfor %}": (2, SLOW),
    "{{ (2**62) ** (2**30) }}": (None, SLOW),  # one instruction of the interpreter: no line is known
    "\n{% macro f() %}{{ f() }}{% endmacro %}\n{{ f() }}": (2, DEEP),
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}": (None, DEEP),
    "{% if a %}" * 3000 + "{% endif %}" * 3000: (None, DEEP),
    "\n{% if": (2, "end of template"),
    "{{ 'http://a' | urlize(rel=1) }}": (1, "AttributeError"),
    "{{ ''.__class__.__mro__ }}": (1, "unsafe"),
    "{% include '/etc/passwd' %}": (1, "no loader"),
    "{% import 'os' as os %}": (1, "no loader"),
    "{{ range(10**10) }}": (1, "Range too big"),
    "\n\n{{ raise_exception('no system') }}": (3, "says: no system"),
    "{{ raise_exception('a' * 10**6) }}": (1, "a" * 500),
    "{{ 'a' * (2**24 + 1) }}": (None, "16,777,217 characters"),
    "{% break %}": (None, "outside loop"),
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    pytest.importorskip("jinja2")
    made = Renderer(soft=0.2, hard=0.4)
    yield made
    made.close()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.strip()[:40])
def test_a_chat_template_that_means_harm_is_an_error_with_its_file_and_line(template: str, renderer: Renderer) -> None:
    line, says = TEMPLATES[template]
    with pytest.raises(DataError) as raised:
        renderer.render(template, SAID, "m/chat_template.jinja")
    place = f"m/chat_template.jinja: the chat template{f', line {line},' if line else ''} "
    assert raised.value.message.startswith(place) and says in raised.value.message
    assert len(raised.value.message) < 800
    assert renderer.render("{{ messages[0].content }}", SAID, "") == "hi", "the next one is rendered"


def test_a_chat_template_that_reached_a_limit_is_not_tried_again(renderer: Renderer) -> None:
    template = "{{ 'b' * 10**9 }}"
    errors = []
    for _ in range(2):
        with pytest.raises(DataError, match="256 MiB") as raised:
            renderer.render(template, SAID, "t.jinja")
        errors.append(raised.value)
        renderer.close()  # a second try would start a process
    assert errors[1].hint == REFUSED and renderer._child is None


def test_templates_render_in_one_process_that_knows_none_of_our_files(renderer: Renderer) -> None:
    renderer.render("a", SAID, "")
    child = renderer._child
    assert renderer.render("{{ messages | tojson }}", SAID, "") == '[{"role": "user", "content": "hi"}]'
    assert renderer._child is child and child is not None
    os.kill(child.pid, 9)
    assert child.wait() == -9
    assert renderer.render("a", SAID, "") == "a", "a new process takes the place of one that was killed"


# --- tokenizers ------------------------------------------------------------------------------------------------------

ADDED = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DOUBLED = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}
EACH = {"type": "Replace", "pattern": {"Regex": "."}, "content": "b" * 2000}


def document(**parts: Any) -> dict[str, Any]:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "!": 2}, "merges": []}
    made = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": LEVEL, "post_processor": None,
            "decoder": LEVEL, "model": model}  # fmt: skip
    return {**made, **parts}


def bpe(vocabulary: Any, merges: Any = ()) -> dict[str, Any]:
    return document(model={"type": "BPE", "vocab": vocabulary, "merges": list(merges)})


def charmap(data: bytes) -> dict[str, Any]:
    return document(normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()})


def split(expression: str) -> dict[str, Any]:
    rule = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return document(pre_tokenizer={"type": "Sequence", "pretokenizers": [rule, LEVEL]})


UNIGRAM = {"type": "Unigram", "unk_id": None, "vocab": []}
LIBRARY: dict[str, tuple[Any, str]] = {
    "an id of 2**32 - 1": (bpe({"a": 0, "b": 2**32 - 1}), '"b" has id 4294967295'),
    "an id of 2**31": (bpe({"a": 0, "b": 2**31}), '"b" has id 2147483648'),
    "an id of 2**63": (bpe({"a": 0, "b": 2**63}), '"b" has id 9223372036854775808'),
    "an id of -1": (bpe({"a": 0, "b": -1}), '"b" has id -1'),
    "an id that is a float": (bpe({"a": 0, "b": 1.5}), '"b" has id 1.5'),
    "two tokens with one id": (bpe({"a": 0, "b": 0}), 'tokens "a" and "b" have one id, 0'),
    "a merge of tokens that are not there": (bpe({"a": 0}, ["a c"]), "library fails"),
    "a merge of one token": (bpe({"a": 0}, ["a"]), "library fails"),
    "no model": ({"version": "1.0"}, "damaged"),
    "a model that is a list": (document(model=[]), "damaged"),
    "a normalizer that doubles 40 times": (document(normalizer=DOUBLED), "1,024"),
    "a rule that makes 2,000 of one": (document(normalizer=EACH), "1,024 times"),
    "a decoder that does": (document(decoder={"type": "Sequence", "decoders": [EACH, LEVEL]}), "1,024 times"),
    "a character map that claims 4 GiB": (charmap(b"\xfc\xff\xff\xff" + bytes(8)), "claims 4,294,967,292 of 12 bytes"),
    "a character map of nothing": (charmap(bytes(8)), "claims 0 of 8 bytes"),
    "a character map with a trie of zeros": (charmap(struct.pack("<I", 8) + bytes(12)), "library fails"),
    "a regular expression that is none": (split("(((" * 9), "library fails"),
    "parentheses 100,000 deep": (split("(" * 100_000 + "a" + ")" * 100_000), "library fails"),
    "a post-processor with ids that are none": (document(post_processor={"type": "x"}), "library fails"),
    "a unigram without an unknown token": (document(model=UNIGRAM), "library fails"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARY)
def test_a_hostile_file_of_the_tokenizers_library_is_an_error_with_its_name(name: str) -> None:
    pytest.importorskip("tokenizers")
    value, says = LIBRARY[name]
    Path("tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(DataError) as raised:
        read_folder(Path())
    assert says in raised.value.message and raised.value.message.startswith("tokenizer.json: "), raised.value.message
    with pytest.raises(DataError):
        LibraryTokenizer(json.dumps(value), {}, name="x")


def test_a_token_twice_in_a_tokenizer_file_is_an_error() -> None:
    text = json.dumps(document()).replace('"b": 1', '"b": 1, "b": 2')
    Path("tokenizer.json").write_text(text)
    with pytest.raises(DataError, match='"b" occurs twice'):
        read_folder(Path())


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "a*a*a*a*$", r"(?<x>a\g<x>?)+$"])
def test_a_regular_expression_that_takes_too_long_is_an_error_of_the_text(expression: str) -> None:
    pytest.importorskip("tokenizers")
    made = LibraryTokenizer(json.dumps(split(expression)), {}, name="x")
    with pytest.raises(DataError, match="tokenizer.json: the tokenizers library fails: PanicException"):
        made.encode("a" * 3000 + "!")
    assert made.encode("ab").tolist() == [0, 1]


PANICKING = """
import sys
from core import terminal
from core.tokenizers.library import LibraryTokenizer
from core.errors import DataError
terminal.guard()
made = LibraryTokenizer(open("tokenizer.json").read(), {}, name="x")
try:
    made.encode("a" * 3000 + "!")
except DataError as error:
    print(f"core: error: {error}", file=sys.stderr)
import os
os.write(2, b"behind\\n")
"""


def test_a_librarys_panic_is_one_sentence_and_its_own_text_goes_nowhere() -> None:
    """The library prints a panic on descriptor 2 by itself: past the outlet, and waits for its reader."""
    pytest.importorskip("tokenizers")
    Path("tokenizer.json").write_text(json.dumps(split("(a+)+$")))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "1"}
    command = [sys.executable, "-c", PANICKING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    lines = done.stderr.splitlines()
    assert len(lines) <= 3 and lines[0].startswith("core: error: tokenizer.json: the tokenizers library fails: Panic")
    assert lines[-1] == "behind" and "panicked at" not in done.stderr, done.stderr


def test_a_file_of_a_tokenizer_cut_at_any_byte_is_an_error() -> None:
    pytest.importorskip("tokenizers")
    whole = json.dumps(document()).encode()
    for size in range(0, len(whole), 7):
        Path("tokenizer.json").write_bytes(whole[:size])
        with pytest.raises(DataError, match="tokenizer.json"):
            read_folder(Path())


def test_our_own_tokenizer_files_that_lie_are_errors() -> None:
    letters = [bytes([b]) for b in range(256)]
    good = json.loads(Tokenizer("bpe", [*letters, b"ab"]).to_json())
    tokens = good["tokens"]
    for wrong in (
        {"tokens": ""}, {"tokens": tokens + " !"}, {"tokens": tokens + " YWI="}, {"tokens": 3}, {"hash": "0" * 64},
        {"kind": "x" * 100_000}, {"format": 2**63}, {"tokens": tokens + " YWI"}, {"name": None, "tokens": tokens + " "},
    ):  # fmt: skip
        Path("t.json").write_text(json.dumps(good | wrong))
        with pytest.raises(DataError) as raised:
            load_tokenizer(Path("t.json"))
        assert len(raised.value.message) < 200_000
    for text in ("[" * 10**6, '{"format":' * 10**5, "", "\x00", '{"a": 1e999}', '{"format": NaN}', "\udcff"):
        Path("t.json").write_text(text, "utf-8", "surrogateescape")
        with pytest.raises(DataError):
            load_tokenizer(Path("t.json"))
    ranks = [base64.b64encode(t).decode() + f" {i}" for i, t in enumerate(letters)]
    for wrong_line in (
        "YWI= 2147483648",
        "YWI= 9223372036854775808",
        "YWI= -1",
        "YWI= 255",
        "YWI= " + "9" * 5000,
        "YWI=",
    ):
        Path("t.tiktoken").write_text("\n".join([*ranks, wrong_line]))
        with pytest.raises(DataError, match="t.tiktoken"):
            load_tokenizer(Path("t.tiktoken"))


def test_a_llama2c_tokenizer_cut_or_changed_anywhere_is_an_error() -> None:
    pieces = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % b for b in range(256)), b" "]
    whole = struct.pack("<i", 6) + b"".join(struct.pack("<fi", 0.0, len(p)) + p for p in pieces)
    path = Path("tokenizer.bin")
    path.write_bytes(whole)
    assert read_scored(path, 260).vocab_size == 260
    for size in (*range(60), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="tokenizer.bin: expected llama2.c's"):
            read_scored(path, 260)
    for length in (0, -1, 2**31 - 1, -(2**31)):
        path.write_bytes(whole[:8] + struct.pack("<i", length) + whole[12:])
        with pytest.raises(DataError, match="tokenizer.bin: expected llama2.c's"):
            read_scored(path, 260)
    path.write_bytes(whole)
    for count in (0, 259, 261, 2**31 - 1):
        with pytest.raises(DataError):
            read_scored(path, count)


# --- headers ---------------------------------------------------------------------------------------------------------


def tensors(header: bytes, length: int | None = None, data: bytes = b"") -> Path:
    path = Path("model.safetensors")
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def one(**entry: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()


def many(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(count)) + b"}"


HEADERS: dict[str, tuple[Callable[[], Path], str]] = {
    "a length of 2**63": (lambda: tensors(b"{}", 2**63), "header claims 9,223,372,036,854,775,808"),
    "a length of 2**64 - 1": (lambda: tensors(b"{}", 2**64 - 1), "header claims"),
    "400,000 tensors": (lambda: tensors(many(400_000)), "400,001 tensors or more; at most 100,000"),
    "40 MB": (lambda: tensors(b" " * 40_000_000), "has 40,000,000 bytes"),
    "ten million brackets": (lambda: tensors(b"[" * 10**7), "tensors or more"),
    "ten million empty lists": (lambda: tensors(b'{"a":[' + b"[]," * 10**7 + b"[]]}"), "tensors or more"),
    "a name twice behind 30,000": (lambda: tensors(many(30_000)[:-1] + b',"29999":{}}'), "is in the header twice"),
    "a name of 100 KB": (lambda: tensors(one(dtype="F7").replace(b'"a"', b'"' + b"n" * 100_000 + b'"')), "n" * 100),
    "a number of 100,000 digits": (lambda: tensors(one(shape=[3]).replace(b"3", b"9" * 100_000)), "not JSON"),
    "a shape of 100,000 sizes": (lambda: tensors(one(shape=[1] * 100_000)), "has shape [1, 1"),
    "sizes that multiply to 2**64": (lambda: tensors(one(shape=[2**32, 2**32])), "more than any file holds"),
    "sizes beside a zero": (lambda: tensors(one(shape=[0, 2**61], data_offsets=[0, 0])), "more than any file holds"),
    "a negative size": (lambda: tensors(one(shape=[-1])), "has shape [-1]"),
    "a size that is true": (lambda: tensors(one(shape=[True])), "has shape [True]"),
    "a dtype of 100 KB": (lambda: tensors(one(dtype="F" * 100_000)), "has dtype"),
    "offsets of 100,000 numbers": (lambda: tensors(one(data_offsets=[0] * 100_000)), "has data_offsets"),
    "offsets backwards": (lambda: tensors(one(data_offsets=[4, 0]), data=bytes(4)), "does not take -4 bytes"),
    "no file but a pipe": (lambda: os.mkfifo("model.safetensors") or Path("model.safetensors"), "a pipe or a device"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_of_a_safetensors_file_is_an_error_with_its_name(name: str) -> None:
    make, says = HEADERS[name]
    with pytest.raises(CheckpointError) as raised:
        TensorFile(make())
    assert says in raised.value.message and raised.value.message.startswith("model.safetensors: ")
    assert len(raised.value.message) < 1000


def index(table: Any) -> Path:
    Path("config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    Path("model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return Path()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"a": "../a.safetensors"}, "not a file here"),
        ({"a": "/dev/zero"}, "not a file here"),
        ({"a": "..\\a.safetensors"}, "not a file here"),
        ({"n" * 100_000: 3}, "not a file here"),
        ({str(i): f"{i}.safetensors" for i in range(10_001)}, "in 10,001 files; at most 10,000"),
        ({"a": "absent.safetensors"}, "absent.safetensors: cannot be read"),
        ([], "weight_map"),
    ],
    ids=["folder above", "device", "other slash", "number", "10,001 files", "absent", "list"],
)
def test_an_index_that_names_other_files_or_too_many_is_an_error(table: Any, says: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        huggingface.open_folder(index(table))
    assert says in raised.value.message and len(raised.value.message) < 1000


CONFIGS = {
    "a key twice": '{"architectures": ["a"], "architectures": ["b"]}',
    "brackets without end": "[" * 10**6,
    "a number of 10,000 digits": '{"a": ' + "9" * 10_000 + "}",
    "NaN": '{"architectures": NaN}',
    "a list": "[]",
    "architectures of 10,000 names that are numbers": json.dumps({"architectures": [1] * 10_000}),
    "empty": "",
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config_json_is_an_error_with_its_name(name: str) -> None:
    Path("config.json").write_text(CONFIGS[name], "utf-8", "surrogateescape")
    with pytest.raises(CheckpointError) as raised:
        huggingface.open_folder(Path())
    assert raised.value.message.startswith("config.json: ") and len(raised.value.message) < 1000


def test_a_config_json_of_more_keys_than_any_model_has_is_not_read() -> None:
    Path("config.json").write_text(json.dumps(dict.fromkeys(map(str, range(500_000)), 0)))
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read: larger than 4,194,304 bytes"):
        huggingface.open_folder(Path())


@pytest.mark.parametrize("sizes", [[2**31 - 1] * 7, [-1] * 7, [0] * 7, [-(2**31)] * 7, [64, 2**31 - 1, 1, 1, 1, 1, 1]])
def test_headers_of_llmc_and_llama2c_with_impossible_sizes_are_errors(sizes: list[int]) -> None:
    from core.interop.opened import open_path
    from core.loader import load_registry

    registry = load_registry()
    path = Path("model.bin")
    for header in (
        struct.pack("<9i", 20240326, 3, *sizes).ljust(1024, b"\0"),
        struct.pack("<Ii7i", llama2c.MAGIC, 1, *sizes).ljust(256, b"\0"),
    ):
        path.write_bytes(header)
        with pytest.raises((CheckpointError, UsageError)) as raised:
            open_path(path, registry)
        assert len(str(raised.value)) < 2000, str(raised.value)[:300]
    os.unlink(path)
    os.mkfifo(path)
    for read in (llmc.open_file, llama2c.open_file):
        with pytest.raises(CheckpointError, match="model.bin: cannot be read: a pipe or a device"):
            read(path)
    assert checkpoint.steps(Path()) == [] and issubclass(CheckpointError, CoreError)
