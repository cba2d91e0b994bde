"""Hostile chat templates, headers and configs: each an error by name, in seconds and in bounded memory."""

from __future__ import annotations

import json
import os
import struct
import threading
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
from core.tokenizers import templates
from core.tokenizers.templates import REFUSED, Renderer

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
    "{% set a = 'a' * 4096 %}{% for i in range(4097) %}{{ a }}{% endfor %}": (None, "16,781,312 characters"),
    "{% break %}": (None, "outside loop"),
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    pytest.importorskip("jinja2")
    made = Renderer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[Renderer]:
    """With limits of time that the pages of 256 MiB would reach first, on a busy machine."""
    pytest.importorskip("jinja2")
    made = Renderer(soft=0.2, hard=0.4)
    yield made
    made.close()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.strip()[:40])
def test_a_chat_template_that_means_harm_is_an_error_with_its_file_and_line(
    template: str, renderer: Renderer, hasty: Renderer
) -> None:
    line, says = TEMPLATES[template]
    renderer = hasty if says == SLOW else renderer
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


@pytest.mark.parametrize(("number", "says"), [(9, "was ended by SIGKILL"), (0, "takes more than 30 seconds")])
def test_a_template_is_not_blamed_for_the_end_of_its_process_by_another_program(
    number: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0: the process is ended by ourselves, as too slow."""
    pytest.importorskip("jinja2")
    monkeypatch.setattr(templates, "WAIT", 30.0 if number else 0.5)
    made = Renderer(soft=30.0, hard=30.0)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    made.render("a", SAID, "")
    if number:
        threading.Timer(0.2, os.kill, (made._child.pid, number)).start()  # type: ignore[union-attr]
    with pytest.raises(DataError, match=says):
        made.render(endless, SAID, "t.jinja")
    assert (endless in made._refused) == (not number)
    made.close()


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
