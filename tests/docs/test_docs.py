"""The claims of the pages are true: commands run, tables list every plugin, field and hook, examples train.

Commands run unchanged, in a folder of their own that has the checkout's configs and models, with one change: to
`core train` SMALLER is added, because the real runs take minutes.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import few_compilations
import pytest
import stored_machine
import tomli
from page_commands import CONTRIBUTING, PLUGINS, READING, README, ROOT, VIEW, commands, fenced, in_order

from core import cli, hooks
from core.cache import cache_folder
from core.config import load_config
from core.graph import load_model
from core.loader import load_registry
from core.op import Op, Param, Variant
from core.testing import graph_faults
from core.testing.reading import counted

TRIED = (README, PLUGINS, VIEW)  # every command of these is run

# Two steps of a model of 32 channels, with a tokenizer that needs no network.
SMALLER = [
    *("train.steps=2", "train.tokens_per_step=64", "train.val_tokens=64", "train.sample_tokens=4"),
    *("dims.B=2", "dims.T=32", "dims.C=32", "dims.H=2", "dims.L=2", "dims.V=512", "data.tokenizer=bpe"),
]
# Commands that are not run, and why.
NOT_RUN = {
    "pip install -e .": "the tests run in what it made",
    "pip install -e .[test]": "the tests run in what it made; .ci/run runs it",
    "pip install -e ./rms": "it would change the environment; a folder as an installer leaves it stands for it",
    "pip install ./rms": "the same",
    "pip install -e .[mpi]": "the extra test has the same",
    "torchrun --nproc_per_node 8 --no-python core train configs/gpt2_124m.toml": "GPUs; tests/ranks/nccl joins",
    "pytest -n auto": "it is what runs this test",
}

# Commands within README's sentences: how they are run behind those of its blocks, or the file of tests that runs them.
IN_SENTENCES = {
    "core learn": "core learn",
    "core doctor": "core doctor",
    "core models": "core models",
    "core runs": "core runs",
    "core runs plot": "core runs plot",
    "core runs diff A B": "core runs diff runs/tiny runs/tiny",  # exit 1 where they differ
    "core bench CONFIG": "tests/runs/test_bench.py",
    "core tune CONFIG": "tests/runs/test_tune.py",
    "core chat": "tests/runs/test_chat.py",
    "core check": "tests/sim/test_check_command.py",
    "core eval": "tests/runs/test_eval.py",
    "core get": "tests/runs/test_get.py",
    "core judge": "tests/sim/test_judge_process.py",
    "core plan": "tests/runs/cli/test_cli.py",
    "core sim": "tests/sim/test_core_sim.py",
    "core trace": "tests/sim/test_trace.py",
    "core view": "tests/view/test_page.py",
    "core train --device cpu": "tests/runs/test_run.py",
    "core train configs/gpt2_124m.toml --device sim": "tests/sim/test_cuda_variants.py",  # the same kernels, smaller
}


def put(folder: Path, page: Path) -> None:
    """The page's files as they are at its end, over those that `core new` writes for it."""
    for step in in_order(page.read_text("utf-8")):
        if isinstance(step, tuple):
            write(folder, *step)
        elif step[:2] == ["core", "new"]:
            assert cli.run(step[1:]) == 0


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    for module in [m for m in sys.modules if m.startswith("core_plugin_")]:
        del sys.modules[module]  # a command is a process of its own, and imports what is there by then


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, so that the builtin text is prepared once, and no verdict of another day counts. Compiled
    kernels are those of the other tests."""
    folder = tmp_path_factory.mktemp("cache")
    stored_machine.put(folder)
    kernels = cache_folder() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (folder / "kernels").symlink_to(kernels, target_is_directory=True)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the checkout's configs and models, without plugins that happen to be installed."""
    for name in ("configs", "models"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(cache))
    monkeypatch.setenv("CORELM_PLUGINS", "course")  # of the shipped ones, that of `core learn`
    monkeypatch.setattr("sys.stdin", io.StringIO("What does it do?\n"))  # for core chat
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # `auto` is to be the cpu, on a machine with a GPU too
    few_compilations.choose(monkeypatch)
    return tmp_path


def smaller(words: list[str]) -> list[str]:
    return [*words, *(f"--set={override}" for override in SMALLER)] if words[:2] == ["core", "train"] else words


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command prints; it fails the test if the command fails."""
    if words[0] == "core":
        code = cli.run(smaller(words)[1:])
        out, err = capfd.readouterr()
    else:
        as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        environment = os.environ | as_root | {"PYTHONPATH": str(ROOT)}
        if words[0] == "mpiexec":
            del environment["CORELM_PLUGINS"]  # the engine is a shipped plugin
        module = [sys.executable, "-m", *words] if words[0] != "mpiexec" else launching(words)
        done = subprocess.run(module, capture_output=True, text=True, timeout=300, env=environment)
        code, out, err = done.returncode, done.stdout, done.stderr
    assert code == 0, f"{shlex.join(words)} exits with {code}\n{out}\n{err}"
    return out + err


def launching(words: list[str]) -> list[str]:
    """mpiexec -n N core ..., smaller, on a machine with fewer cores than ranks too."""
    at = words.index("core")
    ranks = int(words[at - 1])
    command = [*smaller(words[at:]), f"--set=train.tokens_per_step={64 * ranks}"]
    return [words[0], "--oversubscribe", "--bind-to", "none", *words[1:at], sys.executable, "-m", *command]


# --- commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page: Path, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the page's order: what it shows works when it is shown."""
    tried = 0
    for step in in_order(page.read_text("utf-8")):
        if isinstance(step, tuple):
            write(workplace, *step)
        elif " ".join(step) not in NOT_RUN:
            run(step, capfd)
            tried += 1
    assert tried >= 5
    for command in IN_SENTENCES.values() if page == README else ():
        if command.startswith("core "):
            run(shlex.split(command), capfd)


def test_every_command_in_the_readmes_sentences_is_run_by_a_test() -> None:
    named = set(re.findall(r"`(core [a-z][^`\n]*)`", README.read_text("utf-8")))
    assert named <= set(IN_SENTENCES), "say how it is run"
    for command, how in IN_SENTENCES.items():
        if not how.startswith("core "):
            verb = command.split()[1]
            assert re.search(rf"\b{verb}\b", (ROOT / how).read_text("utf-8")), f"{how} runs no core {verb}"


def test_the_table_of_plugins_has_each_with_all_that_it_brings() -> None:
    """A row for every folder of plugins/, with the names of its ops, models and optimizers."""
    page = (ROOT / "plugins/README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| \[\w+\]\((\w+)\) \| (.*) \|$", page, re.M))
    shipped = [record for record in load_registry().plugins if record.kind == "shipped"]
    assert rows.keys() == {record.name for record in shipped}
    for record in shipped:
        brought = [n for kind in ("ops", "models", "optimizers") for n in record.brings.get(kind, ())]
        assert not [name for name in brought if name not in rows[record.name]], record.name


def test_from_nothing_to_a_trained_model_with_an_op_and_a_kernel_is_little_to_type() -> None:
    (way,) = re.findall(r"^## From nothing to a trained model\n(.*?)(?=^## )", PLUGINS.read_text("utf-8"), re.M | re.S)
    steps = list(in_order(way))
    typed = [step[1] for step in steps if isinstance(step, tuple)]
    commands = [step for step in steps if isinstance(step, list)]
    assert 5 <= len(commands) <= 12 and ["core", "train"] in [words[:2] for words in commands]
    assert sum(len(text.splitlines()) for text in typed) <= 80
    assert "Op(" in "".join(typed) and "__global__" in "".join(typed)


def test_every_exception_is_a_command_of_some_page() -> None:
    shown = {" ".join(words) for page in (*TRIED, CONTRIBUTING) for words in commands(page)}
    assert set(NOT_RUN) <= shown


def test_the_python_of_the_readme_runs(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["core", "train", "configs/tiny.toml"], capfd)
    (block,) = (b for b in fenced(README, "python") if b.startswith("import core"))
    exec(compile(block, "README.md", "exec"), {})
    assert "backward h.1.act" in capfd.readouterr().out


def numberless(line: str) -> str:
    """A line without its numbers, sizes and spacing: what stays the same from machine to machine."""
    return " ".join(re.sub(r"[\d,.]+\S*", "#", line).split())


def test_the_lines_that_the_readme_shows_are_printed(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plans = [words for words in commands(README) if words[:2] == ["core", "plan"] and "--plugin" not in words]
    printed = "".join(run(words, capfd) for words in plans)
    shown = [line for block in fenced(README, "text") if "variant" in block for line in block.splitlines()]
    missing = [s for s in shown if s != "..." and " ".join(s.split()) not in map(str.strip, squeezed(printed))]
    assert shown and not missing
    trained = {numberless(line) for line in run(["core", "train", "configs/gpt2_124m.toml"], capfd).splitlines()}
    shown = [line for block in fenced(README, "text") if "step 1/40" in block for line in block.splitlines()]
    assert len(shown) > 5
    missing = [s for s in shown if not any(line.startswith(numberless(s.removesuffix("..."))) for line in trained)]
    assert not missing


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


# --- the plugin -------------------------------------------------------------------------------------------------------


def test_the_plugin_works_from_where_an_installer_puts_it(
    workplace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workplace, PLUGINS)
    project = tomli.loads((workplace / "rms/pyproject.toml").read_text("utf-8"))["project"]
    site = workplace / "site"
    shutil.move(workplace / "rms/rms", site / "docs_rms")  # a name of its own among this process's modules
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((entry, module),) = project["entry-points"]["corelm"].items()
    assert module == "rms"
    (info / "entry_points.txt").write_text(f"[corelm]\n{entry} = docs_rms\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("CORELM_PLUGINS", entry)
    try:
        assert f"{project['name']} {project['version']}" in run(["core", "plugins", "rms"], capfd)
        printed = run(["core", "train", "rms/tiny_rms.toml"], capfd)
    finally:
        for name in [m for m in sys.modules if m.split(".")[0] == "docs_rms"]:
            del sys.modules[name]
    assert "step 2/2 | loss" in printed
    assert re.search(r"^ +rms +blocked +5 ", printed, re.M)  # two in each of two layers, and the last one


def test_a_wrong_gradient_in_the_plugin_is_refused(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(workplace, PLUGINS)
    path = workplace / "rms/rms/rms.py"
    right = "(dn - n * np.mean(dn * n, axis=-1, keepdims=True))"
    assert right in path.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace(right, "dn"))
    assert cli.run(["check", "rms.reference", "--no-time", "--plugin", "rms/rms"]) == 1
    out, err = capfd.readouterr()
    assert "rms.reference" in err and "gradient     FAILED" in out


def rows(page: Path, heading: str) -> list[str]:
    """The first cells of the tables under a heading, backticks taken off, several names of a cell apart."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.M | re.S)
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.M)
    return [name for cell in cells for name in re.findall(r"`([^`]*)`", cell)]


def signature(function: object) -> str:
    given = [name for name in inspect.signature(function).parameters if name != "self"]  # type: ignore[arg-type]
    return f"{function.__name__}({', '.join(given)})"  # type: ignore[attr-defined]


def test_the_fields_of_an_op_and_a_parameter_are_all_there() -> None:
    assert rows(PLUGINS, "Op") == list(inspect.signature(Op).parameters)
    assert rows(PLUGINS, "Param") == list(inspect.signature(Param).parameters)


def test_the_fields_and_methods_of_a_variant_are_all_there() -> None:
    stamped = {"schema", "origin", "folder", "sources"}  # by the loader, not by an author
    fields = {name for name in Variant.__annotations__ if name not in stamped}
    methods = {signature(f) for n, f in vars(Variant).items() if inspect.isfunction(f) and not n.startswith("_")}
    assert set(rows(PLUGINS, "Variant")) == fields | methods | {"forward_backward(t, launch)"}


def test_the_defaults_of_a_variant_are_right() -> None:
    text = PLUGINS.read_text("utf-8")
    assert f'| `device` | `"{Variant.device}"` |' in text
    assert f"| `dtypes` | {', '.join(Variant.dtypes)} |" in text
    assert f"| `priority` | {Variant.priority} |" in text
    assert f"| `repeatable` | {Variant.repeatable} |" in text


def test_the_hooks_are_documented_with_their_arguments() -> None:
    assert rows(PLUGINS, "Hooks") == [signature(spec) for spec in hooks.SPECS.values()]


def test_the_errors_on_the_page_are_said_somewhere() -> None:
    source = "".join(p.read_text("utf-8") for p in (ROOT / "core").rglob("*.py"))
    said = re.sub(r"\\?\{[^{}]*\}", "#", source)
    for message in rows(PLUGINS, "Common errors"):
        pattern = re.sub(r"'x'|\"dx\"|core_op\b|\bx\b|\b12\b", lambda m: '"#"' if m[0][0] == '"' else "#", message)
        assert pattern in said, message


# --- the way through the code -----------------------------------------------------------------------------------------


def test_the_reading_lists_counts_are_those_of_the_files() -> None:
    text = READING.read_text("utf-8")
    assert len(re.findall(r"^\| \d+ \| `", text, re.M)) >= 15
    assert text == counted(text), "python -m core.testing.reading writes the counts"
    first, second = (int(n.replace(",", "")) for n in re.findall(r"^These ([\d,]+) lines", text, re.M))
    assert 200 <= first <= 360, "the first walk is some 300 lines"
    assert 2000 <= second <= 2600, "the second walk is at most 2,600 lines: a file moves to a second reading"


def lines_of(name: str, text: bool = False) -> int:
    """The lines of a file; `text`: of those, the ones that are neither empty nor a comment."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return sum(not text or line.strip()[:1] not in ("", "#") for line in lines)


def test_counts_on_the_pages_are_those_of_the_files() -> None:
    registry = load_registry()
    tiny = load_config(ROOT / "configs/tiny.toml", device="sim")
    parameters = load_model(tiny.model, registry).build(registry, tiny.dims).parameter_count
    for page, pattern, count in (
        (README, r"a GPT-2 of (\d+)M parameters with", round(parameters / 1e6)),
        (ROOT / "docs/kernels.md", r"`core/kernels/prelude\.cuh`, (\d+) lines", lines_of("core/kernels/prelude.cuh")),
        (ROOT / "docs/models.md", r"own, in (\d+) lines", lines_of("plugins/llama/models/gpt2_rope.toml", text=True)),
        (ROOT / "docs/checks.md", r"`(\d+) of \1 faults caught", len(graph_faults.FAULTS)),
    ):
        assert re.findall(pattern, page.read_text("utf-8")) == [str(count)], f"{page.name}: {pattern}"


# --- CI -------------------------------------------------------------------------------------------------------------


def test_ci_runs_the_readmes_test_command_and_nothing_else() -> None:
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    command = 'pip install -e ".[test]" && pytest -n auto'
    assert lines[-1] == command
    assert command in "".join(fenced(README, "sh")).splitlines()
    assert not [line for line in lines[:-1] if re.search(r"\b(pip|pytest|apt\S*|export)\b", line)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_ci_can_be_started() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
