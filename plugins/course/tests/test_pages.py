"""Pages are true: their Python runs and prints the text that they show, the product's lines are the product's, their
commands, puzzles and symbols exist, and each has a picture."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.cli import run
from core.testing import load_registry

HERE = Path(__file__).parents[1]
PAGES = sorted((HERE / "pages").glob("*.md"))
ROOTS = (HERE.parents[1], HERE.parents[1] / "core")  # of a checkout, where ops/ is; of core/, where include/ is
PICTURE = re.compile(r"\]\((pictures/\w+\.svg)\)")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, languages: str) -> list[tuple[str, str]]:
    """(language, text) of every block in one of the languages."""
    return re.findall(rf"^```({languages})\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@each_page
def test_the_python_of_a_page_runs_and_prints_the_text_that_it_shows(page: Path) -> None:
    space, printed = dict[str, object](), io.StringIO()
    for language, block in blocks(page, "python|text"):
        if language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(block, str(page), "exec"), space)
        else:
            assert printed.getvalue() == block
            printed = io.StringIO()
    assert not printed.getvalue(), "output that the page does not show"


@each_page
def test_the_products_own_lines_are_those_of_the_product(page: Path) -> None:
    shown = re.findall(r"^```(?:cuda|python|toml) (\S+)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert shown, "a page ends with a line of the product"
    for file, text in shown:
        path = next((root / file for root in ROOTS if (root / file).is_file()), None)
        assert path is not None and text in path.read_text("utf-8"), f"{file} has other lines"


# README's test runs the first; a trace takes seconds, and tests/sim has its own
NOT_RUN = ("core train tiny\n", "core trace")
SMALL = {"dims": {"C": 16, "H": 2, "L": 1, "T": 4, "S": 4, "B": 1, "V": 257}, "data": {"vocab_size": 257}}
SMALL |= {"train": {"val_every": 2, "val_tokens": 4, "sample_every": 0, "checkpoint_every": 0, "check": "false"}}
TRAINS = [f"{table}.{key}={value}" for table, keys in SMALL.items() for key, value in keys.items()]
TRAINS += ["data.tokenizer=bytes", "executor=interpreter", "train.steps=2"]
CHECKS = ["--no-time", "--shape", "qkv=1,3,24", "--shape", "heads=1"]
NODES = re.compile(r"\(\d+ nodes?\)")  # of a model with fewer layers


def added(words: list[str]) -> list[str]:
    """The words that a test adds to a command, so that it takes a second: smaller sizes, the same way."""
    if "train" not in words:
        return CHECKS if words[:2] == ["core", "check"] else []
    tokens = "8" if any("tokens_per_step" in word for word in words) else "4"  # of two ranks, or two micro-steps
    return [word for key in [*TRAINS, f"train.tokens_per_step={tokens}"] for word in ("--set", key)]


def printed_by(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The output of a page's command, of a smaller one where it would take long."""
    words = shlex.split(line)
    if words[0] == "mpiexec":
        return on_ranks(words)
    # of a hole, or of two runs that differ
    code = int(line.startswith(("core learn check", "core runs diff")))
    assert run([*words[1:], *added(words)]) == code, f"{line}\n{capsys.readouterr()}"
    return capsys.readouterr().out


def on_ranks(words: list[str]) -> str:
    """The output of a command under mpiexec. Skips the test where there is none."""
    if shutil.which("mpiexec") is None or find_spec("mpi4py") is None:
        pytest.skip("needs mpi4py and mpiexec: the extra mpi")
    at = words.index("core")
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "CORELM_THREADS": "1"}
    done = subprocess.run(
        [words[0], "--oversubscribe", *words[1:at], sys.executable, "-m", *words[at:], *added(words)],
        env={**os.environ, **root, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@each_page
def test_the_commands_of_a_page_run_and_print_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(ImportError):  # an installed course has no tests/, and compiles in full
        importlib.import_module("few_compilations").choose(monkeypatch)
    printed = ""
    for language, block in blocks(page, "sh|output"):
        if language == "sh":
            lines = [line for line in block.splitlines() if not f"{line}\n".startswith(NOT_RUN)]
            printed = NODES.sub("(nodes)", "".join(printed_by(line, capsys) for line in lines))
        for line in block.splitlines() if language == "output" else ():
            shown = NODES.sub("(nodes)", line.removesuffix(" ..."))
            assert shown in printed, f"{shown!r} is not in\n{printed}"


@each_page
def test_the_puzzles_of_a_page_exist(page: Path) -> None:
    text, puzzles = page.read_text("utf-8"), [path.stem for path in (HERE / "puzzles").glob("*.py")]
    puzzles = [name for name in puzzles if not name.endswith("_answer")]
    named = re.findall(r"`([pxelc]\d\d)`", text) + re.findall(r"core learn \w+ ([pxelc]\d\d)", text)
    assert named and all(sum(one.startswith(name) for one in puzzles) == 1 for name in named)


@each_page
def test_a_page_shows_a_picture(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<!-- picture" not in text, "a picture that is not drawn: pictures/ has the others"
    assert [file for file in PICTURE.findall(text) if (page.parent / file).is_file()]


@each_page
def test_the_symbols_that_a_page_names_are_in_the_lines_files(page: Path) -> None:
    """Names in "In the product": `lse`, `t.add`. Ops, variants, puzzles and commands have tests of their own."""
    (section,) = re.findall(r"^## In the product\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.M | re.S)
    files = [root / name for name in re.findall(r"^```\w+ (\S+)$", section, re.M) for root in ROOTS]
    source = "".join(file.read_text("utf-8") for file in files if file.is_file())
    registry = load_registry()
    others = {*registry.ops, *(variant for op in registry.ops for variant in registry.variants_of(op))}
    for name in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", section, flags=re.M | re.S)):
        if not (name in others or re.match(r"core |[pxelc]\d\d$", name)):
            words = re.findall(r"[A-Za-z_]\w*", name.partition("(")[0])
            assert all(re.search(rf"\b{word}\b", source) for word in words), name
