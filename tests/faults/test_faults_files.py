"""A pipe where a file belongs would hang, a device never ends: every argument, option and key of a config that names a
file or folder says what is there instead."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import small_run

from core.cli import core as command
from core.cli import run

CONFIG = small_run.unwatched(train={"steps": 1, "checkpoint_every": 1})
PROBLEM = """
from core.judge import KernelLaunch, Problem
problem = Problem(lambda x: x, {"y": "n"}, KernelLaunch("k", "y x n"), [{"n": 1}], {"x": "n"})
"""
TRAIN = "train small.toml --device cpu --out runs/z --quiet --set"
# (verb, option or argument) -> commands with `@` for the path and the suffix of its name behind it.
READ: dict[tuple[str, str], tuple[str, ...]] = {
    ("train", "config"): ("train @.toml --device cpu",),
    ("train", "--out"): ("train small.toml --device cpu --out @",),
    ("train", "--from"): ("train small.toml --device cpu --from @",),
    ("train", "--plugin"): ("train small.toml --device cpu --plugin @.py",),
    ("train", "--set"): (
        f"{TRAIN} model='@.toml'", f"{TRAIN} weights='@'", f"{TRAIN} weights='@.bin'",
        f"{TRAIN} data.train='@.bin'", f"{TRAIN} data.train='@.txt'", f"{TRAIN} data.val='@.jsonl'",
        f"{TRAIN} data.tokenizer='bpe:@'", f"{TRAIN} data.tokenizer='gpt2:@'", f"{TRAIN} data.tokenizer='@.json'",
        f"{TRAIN} plugins.load='@.py'",
    ),
    ("plan", "config"): ("plan @.toml",),
    ("bench", "target"): ("bench @.toml --device cpu",),
    ("tune", "config"): ("tune @.toml",),
    ("check", "--config"): ("check --config @.toml --device cpu",),
    ("judge", "problem"): ("judge @.py mine.cu",),
    ("judge", "submission"): ("judge problem.py @.cu",),
    ("sim", "file"): ("sim @.cu", "sim @.ptx k"),
    ("sim", "arguments"): ("sim put.cu k @.npy",),
    ("sim", "--set"): ("sim put.cu k y=zeros:4 --set v=@.npy",),
    ("sim", "--out"): ("sim put.cu k zeros:4 --out @",),
    ("sample", "run"): ("sample @ --device cpu", "sample @.toml --device cpu"),
    ("chat", "run"): ("chat @ --device cpu",),
    ("eval", "run"): ("eval @ --device cpu",),
    ("eval", "--data"): ("eval runs/a --device cpu --data @.bin", "eval runs/a --device cpu --data @.txt"),
    ("eval", "--hellaswag"): ("eval runs/a --device cpu --hellaswag @.bin",),
    ("lora save", "path"): ("lora save @ --out o",),
    ("lora merge", "path"): ("lora merge @ --out o",),
    ("lora apply", "path"): ("lora apply @ a --out o",),
    ("lora apply", "adapter"): ("lora apply runs/a @ --out o",),
    ("dpo save", "path"): ("dpo save @ --out o",),
    ("learn check", "file"): ("learn check p01_guard @.cu",),
    ("learn start", "--into"): ("learn start p01_guard --into @",),
    ("learn check", "--into"): ("learn check p01_guard --into @",),
    ("learn notebook", "--into"): ("learn notebook 1 --into @",),
    ("runs diff", "a"): ("runs diff @ runs/a",),
    ("runs diff", "b"): ("runs diff runs/a @",),
    ("runs plot", "runs"): ("runs plot @",),
    ("runs plot", "--out"): ("runs plot runs/a --out @.png",),
    ("bench", "--profile"): ("bench small.toml --device cpu --profile @.json",),
    ("data inspect", "sources"): ("data inspect @.txt", "data inspect @.bin"),
    ("data prepare", "sources"): ("data prepare @.jsonl --out p",),
    ("data prepare", "--out"): ("data prepare text.txt --tokenizer bytes --out @",),
    ("data prepare", "--tokenizer"): ("data prepare text.txt --tokenizer bpe:@ --out p",),
    ("data verify", "sources"): ("data verify @.bin",),
    ("tokenizer encode", "--tokenizer"): ("tokenizer encode a --tokenizer @.json",),
    ("tokenizer decode", "--tokenizer"): ("tokenizer decode 1 --tokenizer gpt2:@",),
    ("tokenizer train", "sources"): ("tokenizer train @.txt --out t.json",),
    ("tokenizer train", "--out"): ("tokenizer train text.txt --out @.json",),
    ("import", "source"): ("import @ out", "import @.bin out"),
    ("import", "out"): ("import runs/a @",),
    ("import", "--tokenizer"): ("import runs/a out --tokenizer @.json",),
    ("export", "run"): ("export @ --to huggingface --out o",),
    ("export", "--out"): ("export runs/a --to huggingface --out @", "export runs/a --to llmc --out @.bin"),
    ("get fineweb", "--out"): ("get fineweb --out @",),
    ("get gpt2", "--out"): ("get gpt2 --out @",),
    ("get hellaswag", "--out"): ("get hellaswag --out @",),
    ("new op", "--out"): ("new op foo --out @",),
    ("new course", "--out"): ("new course foo --out @",),
    ("new model", "--out"): ("new model foo --out @",),
    ("new plugin", "--out"): ("new plugin foo --out @",),
    ("new variant", "--out"): ("new variant gelu foo --out @",),
    ("mutants", "--equivalent"): ("mutants gelu --equivalent @.toml",),
    ("view", "runs"): ("view @ --no-open",),
    ("view", "--text"): ("view runs/a --no-open --text @.txt",),
    ("view", "--out"): ("view runs/a --no-open --out @.html",),
    ("sim", "--view"): ("sim put.cu k zeros:4 --view @.html",),
    ("plugins", "--plugin"): ("plugins --plugin @.py", "plugins --plugin @"),
}  # fmt: skip
FOLDERS = {("sim", "--out"), ("data prepare", "--out"), ("train", "--out")}  # may be there already
ELSEWHERE = {  # of other verbs: read by the same code as those of a verb in the table
    "--plugin", "--set",
    *((f"learn {verb}", "--into") for verb in ("hint", "list", "prove", "report", "show", "solution")),
    *((f"learn {verb}", "--into") for verb in ("pictures", "table")),
}  # fmt: skip
NO_FILE = {
    "--prompt", "--stop", "--system", "--field", "--separator", "--shape", "--against", "--arch", "--value", "--name",
    "--node", "--lens", "--kernel",
    "--base", "node", "name", "names", "op", "ids", "text", ("check", "target"), "--device", ("trace", "what"),
    "puzzle", "puzzles", "lesson", "lessons", "--course", ("bench", "--gpu"),
    ("lora save", "--out"), ("lora merge", "--out"), ("dpo save", "--out"),  # of a run without adapters: refused before
    ("lora apply", "--out"),
    ("sim", "kernel"), ("sim", "--grid"), ("sim", "--block"), ("sim", "--get"), ("sim", "-I"), ("sim", "-D"),
    ("new variant", "--from"), ("tune", "--write-defaults"),  # the last is for a GPU: refused before it is looked at
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    small_run.write(workdir, CONFIG)
    Path("problem.py").write_text(PROBLEM)
    Path("mine.cu").write_text("")
    Path("put.cu").write_text("__device__ float v; __global__ void k(float* y) { y[0] = v; }")
    before = signal.signal(signal.SIGALRM, hanging)
    yield workdir
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def hanging(number: int, frame: Any) -> None:
    raise AssertionError("it waits")


def options(verb: click.Command, path: str, context: click.Context) -> Iterator[tuple[str, str]]:
    """(verb, option or argument) of all that takes text or a path."""
    if isinstance(verb, click.Group):
        for name in verb.list_commands(context):
            inner = verb.get_command(context, name)
            assert inner is not None
            yield from options(inner, f"{path} {name}".strip(), click.Context(inner, info_name=name, parent=context))
        return
    for parameter in verb.get_params(context):  # `core eval` has those of plugins too
        if isinstance(parameter.type, click.types.StringParamType | click.Path):
            yield path, parameter.opts[-1]


def test_every_option_that_may_name_a_file_is_in_the_table() -> None:
    found = set(options(command, "", click.Context(command)))
    covered = {place for place in found if {place, place[1]} & ELSEWHERE or {place, place[1]} & NO_FILE}
    assert found - covered - set(READ) == set(), "say what a pipe does there, or that it names no file"
    assert set(READ) <= found


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_a_pipe_or_a_folder_in_the_place_of_any_file_is_refused_at_once(
    what: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["train", "small.toml", "--device", "cpu", "--out", "runs/a", "--quiet"]) == 0
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    for place, commands in READ.items():
        if what == "folder" and place[1] not in ("--out", "--profile"):
            continue
        for text in commands:
            word = next(part for part in text.split() if "@" in part)
            name = Path(word[word.index("@") :].strip("'").replace("@", f"a-{what}"))
            if not name.exists():
                if what == "pipe":
                    os.mkfifo(name)
                else:
                    name.mkdir()
                    (name / "held").write_text("")
            words = [part.replace("@", f"a-{what}") for part in text.split()]
            capfd.readouterr()
            signal.alarm(60)
            code = run(words)
            signal.alarm(0)
            said = capfd.readouterr().err
            fine = what == "folder" and place in FOLDERS
            assert code in (1, 2, 3, 6, 7) or fine, (text, code, said)
            assert "bug" not in said and "Traceback" not in said, said
    assert not Path("runs/z").exists()
