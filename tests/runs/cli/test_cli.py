"""The command `core`: quick to list its verbs, exit codes as documented, no traceback for what is expected."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import trained_run
from command_lists import ROOT, listed

import core.cli as cli
from core.errors import CheckFailed, CoreError, NumericsError
from core.loader import load_registry


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run a verb that raises; the exit code."""

    def run(error: BaseException) -> int:
        @click.command("boom")
        def boom() -> None:
            raise error

        monkeypatch.setattr(cli, "plugin_commands", lambda: {"boom": boom})
        return cli.run(["boom"])

    return run


# --- listing verbs ----------------------------------------------------------------------------------------------


def test_help_imports_no_verb_no_plugin_without_a_command_and_no_numpy() -> None:
    code = (
        "import sys, core.cli; assert core.cli.run(['--help']) == 0; "
        "rooms = 'core.cli.', 'core.ops', 'core.plugins', 'numpy', 'cuda'; "
        "print(sorted(m for m in sys.modules if m.startswith(rooms)))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CORELM_PLUGINS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=environment)
    with_commands = [
        "core.cli.foreign_commands",
        "core.plugins",
        "core.plugins.dpo",
        "core.plugins.dpo.command",
        "core.plugins.lora",
        "core.plugins.lora.command",
        "core.plugins.mutants",
        "core.plugins.mutants.command",
    ]
    assert done.stdout.splitlines()[-1] == str(with_commands)
    assert all(verb in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_is_a_file_with_a_command_of_its_name(verb: str) -> None:
    assert find_spec(cli.module_of(verb)), f"core/cli/{verb}.py is missing"
    command = cli.core.get_command(click.Context(cli.core), verb)
    assert isinstance(command, click.Command)
    assert command.name == verb


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_with_nothing_behind_it_is_no_bug(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_run.enter(tmp_path, monkeypatch)
    assert cli.run([verb]) in {0, 2}


def test_every_file_of_a_verb_is_listed() -> None:
    files = {p.stem for p in Path(cli.__file__).parent.glob("*.py") if "\ncommand" in p.read_text() or
             "def command(" in p.read_text()}  # fmt: skip
    assert {f"core.cli.{name}" for name in files} <= set(map(cli.module_of, cli.VERBS))


def test_a_wrong_verb_gives_the_nearest_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["trian"]) == 2
    assert 'there is no command "trian"; did you mean "train"?' in capsys.readouterr().err


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("corelm, version 0.")


# --- exit codes -------------------------------------------------------------------------------------------------


def every_error() -> list[type[CoreError]]:
    return [e for e in CoreError.__subclasses__() if e.__module__ == "core.errors"]


@pytest.mark.parametrize("kind", every_error())
def test_an_expected_error_prints_message_and_hint_and_exits_with_its_code(
    kind: type[CoreError], raising: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(kind("what came", hint="what to do")) == kind.exit_code
    assert capsys.readouterr().err == "core: error: what came\n  hint: what to do\n"


def test_a_traceback_of_an_expected_error_is_there_for_who_asks(
    raising: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORELM_TRACEBACK", "1")
    assert raising(NumericsError("loss is nan")) == 5
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_exits_with_70_shows_the_last_frames_and_keeps_the_rest(
    raising: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert raising(ValueError("surprise")) == 70
    text = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert "this is a bug of corelm: ValueError: surprise" in text and "test_cli.py" in text and str(kept) in text
    assert "Traceback" not in text and "Traceback" in kept.read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (MemoryError("1 TiB"), 4),
        (click.UsageError("no such option"), 2),
        (click.exceptions.Exit(1), 1),
    ],
)
def test_codes_of_what_python_and_click_raise(
    error: BaseException, code: int, raising: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_signals_code_set_by_a_verb_passes_through(raising: Callable[[BaseException], int]) -> None:
    with pytest.raises(SystemExit) as stop:
        raising(SystemExit(143))
    assert stop.value.code == 143


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipe there")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "core.cli", "ops", "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
    os.close(write)
    assert done.stderr == "" and done.returncode == 0


def test_ops_lists_every_op_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    registry = load_registry()
    text = listed(capsys, "ops")
    data = json.loads(listed(capsys, "ops", "--json"))
    assert {d["name"] for d in data} == set(registry.ops) and all(name in text for name in registry.ops)
    for entry in data:
        assert {v["name"] for v in entry["variants"]} == set(registry.variants[entry["name"]])
        assert all(v["name"] in text for v in entry["variants"])


# these have the same lines, of kernels that take up to half a minute to compile
SLOW_TO_COMPILE = {"attention", "cross_entropy", "head_loss", "layernorm", "matmul", "matmul_add", "mlp_gelu"}


@pytest.mark.parametrize("name", sorted({*load_registry(only=()).ops} - SLOW_TO_COMPILE))
def test_an_op_in_full_names_every_tensor_param_attr_and_variant(capsys: pytest.CaptureFixture[str], name: str) -> None:
    registry = load_registry()
    op, text = registry.op(name), listed(capsys, "ops", name)
    for part in (*op.inputs, *op.outputs, *op.state, *op.params, *op.attrs):
        assert part in text
    for variant in registry.variants[name]:
        assert f"{name}.{variant}  " in text


def test_why_says_of_each_variant_whether_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    registry = load_registry()
    found = json.loads(listed(capsys, "ops", "--why", "--device", "cpu", "--json"))
    tried = {(f["op"], f["variant"]) for f in found}
    assert tried == {(o, v.name) for o, vs in registry.variants.items() for v in vs.values() if v.device == "cpu"}
    for entry in found:
        assert (entry["runs"] == "yes") == (entry["why_not"] == "")
        assert entry["runs"] == "yes" or not entry["auto"]
    for name in {op for op, _ in tried}:  # a fused op may have none for this device
        autos = [f for f in found if f["op"] == name and f["precision"] == "f32" and f["auto"]]
        assert len(autos) == 1


def test_why_gives_a_variants_own_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = next(name for name, op in load_registry().ops.items() if not op.replaces and op.gradient)
    (tmp_path / "mine.py").write_text(
        "from core import Variant\nclass Mine(Variant):\n"
        f"    op, name, device, dtypes = '{name}', 'mine', 'cpu', ('f32',)\n"
        "    def forward(self, t, launch): ...\n    def backward(self, t, launch): ...\n"
        "    def why_not(self, t): return 'it wants a full moon'\n"
        "def core_variants(): return [Mine]\n"
    )
    text = listed(capsys, "ops", name, "--why", "--plugin", str(tmp_path / "mine.py"))
    mine = [line for line in text.splitlines() if " mine " in line]
    assert "no    it wants a full moon" in mine[0] and "computes f32, not f64" in mine[1]


def test_plugins_lists_the_broken_one_with_its_reason_and_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "bad.py"
    path.write_text("raise RuntimeError('boom')\n")
    assert "broken" in listed(capsys, "plugins", "--plugin", str(path))
    assert "Traceback" in listed(capsys, "plugins", "bad", "--plugin", str(path))
    data = json.loads(listed(capsys, "plugins", "--json", "--plugin", str(path)))
    assert [(d["name"], d["status"]) for d in data if d["status"] != "disabled"] == [
        ("ops", "loaded"),
        ("devices", "loaded"),
        ("core", "loaded"),
        ("bad", "broken"),
    ]
    assert data[3]["reason"] == f"RuntimeError: boom ({path}:1)"
    assert cli.run(["ops", "--plugin", str(path)]) == 3


def test_models_gives_parameters_file_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(listed(capsys, "models", "--json"))
    assert {d["name"] for d in data} == set(load_registry().models)
    text = listed(capsys, "models")
    for entry in data:
        assert entry["parameters"] > 0 and f"{entry['parameters']:,}" in text and Path(entry["file"]).is_file()


def test_failed_checks_have_the_code_of_a_no() -> None:
    assert CheckFailed.exit_code == 1


def test_what_takes_long_is_told_on_a_terminal_alone_and_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.cli.kernel_runs import status_line

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("TERM", raising=False)
    for stream, seen in ((Terminal(), ["compiling", " " * 9, ""]), (io.StringIO(), [""])):
        monkeypatch.setattr(sys, "stderr", stream)
        with status_line("compiling"):
            pass
        assert stream.getvalue().lstrip("\r").split("\r") == seen


def test_plan_prints_a_count_and_bytes_under_labels_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys, "plan", "configs/tiny.toml", "--device", "cpu").splitlines()
    assert [line for line in lines if line.startswith("parameters")] == ["parameters: 1,063,680"]
    assert "weights       4.1 MiB" in lines
