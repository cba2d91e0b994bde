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

import core.cli as cli
from core.cli import doctor
from core.errors import CheckFailed, CoreError, NumericsError
from core.loader import load_registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_PLUGINS", "")
    monkeypatch.delenv("CORELM_TRACEBACK", raising=False)


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
    assert "this is a bug of ours: ValueError: surprise" in text and "test_cli.py" in text and str(kept) in text
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


# --- commands of plugins ----------------------------------------------------------------------------------------


def install_command(site: Path, name: str, body: str) -> None:
    site.mkdir(exist_ok=True)
    (site / "corelm_hello.py").write_text(
        f"import click\n@click.command('{name}')\ndef hello():\n    '''Says hello.'''\n    {body}\n"
        "def core_commands():\n    return [hello]\n"
    )
    info = site / "corelm_hello-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corelm-hello\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[corelm]\nhello = corelm_hello\n")


def core_with(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CORELM_PLUGINS"} | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "core.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)


def test_a_plugins_command_is_listed_after_the_verbs_and_runs(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "hello", "click.echo('hello')")
    listed = core_with(tmp_path / "site", "--help").stdout
    assert listed.index("doctor") < listed.index("Commands of plugins") < listed.index("Says hello.")
    assert core_with(tmp_path / "site", "hello").stdout == "hello\n"
    wrong = core_with(tmp_path / "site", "helo")
    assert wrong.returncode == 2 and 'did you mean "hello"' in wrong.stderr


def test_a_plugins_command_never_takes_a_verbs_place(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "models", "click.echo('mine')")
    done = core_with(tmp_path / "site", "--help")
    assert "is hidden by the verb" in done.stderr and "Says hello." not in done.stdout


def test_the_command_of_a_broken_plugin_is_missed_by_name(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "hello", "pass")
    (tmp_path / "site" / "corelm_hello.py").open("a").write("raise RuntimeError('boom')\n")
    done = core_with(tmp_path / "site", "hello")
    assert done.returncode == 2
    assert "is broken: RuntimeError: boom" in done.stderr and "mentions hello" in done.stderr


# --- listings ---------------------------------------------------------------------------------------------------


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.run(args) == 0
    return capsys.readouterr().out


def test_ops_lists_every_op_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    registry = load_registry()
    text = listed(capsys, "ops")
    data = json.loads(listed(capsys, "ops", "--json"))
    assert {d["name"] for d in data} == set(registry.ops) and all(name in text for name in registry.ops)
    for entry in data:
        assert {v["name"] for v in entry["variants"]} == set(registry.variants[entry["name"]])
        assert all(v["name"] in text for v in entry["variants"])


# these have the same lines, of kernels that take up to half a minute to compile
SLOW_TO_COMPILE = {"attention", "matmul", "matmul_add", "mlp_gelu", "head_loss"}


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


# --- doctor -----------------------------------------------------------------------------------------------------


def test_doctor_exits_with_0_and_both_forms_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(capsys, "doctor")
    for entry in json.loads(listed(capsys, "doctor", "--json")):
        assert entry["what"] in text and entry["found"] in text and entry["verdict"] in ("ok", "note", "problem")
        assert entry["verdict"] != "problem" or entry["advice"]


def test_doctor_names_the_packages_that_pyproject_depends_on() -> None:
    import tomli

    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomli.load(file)["project"]["dependencies"]
    names = {text.split(">=")[0].split("[")[0].strip() for text in wanted}
    assert names == {*doctor.EVERYWHERE, *doctor.NOT_ON_MACOS}
    assert {t.split(">=")[0] for t in wanted if "darwin" in t} == set(doctor.NOT_ON_MACOS)


class FakeDriver:
    """libcuda's answers, for machines without one."""

    def __init__(self, number: int, start: int = 0) -> None:
        self.number, self.start = number, start

    def cuInit(self, flags: int) -> int:
        return self.start

    def cuDriverGetVersion(self, out: object) -> int:
        out._obj.value = self.number
        return 0

    def cuDeviceGetCount(self, out: object) -> int:
        out._obj.value = 1
        return 0

    def cuDeviceGetName(self, out: object, size: int, index: int) -> int:
        out.value = b"A GPU"
        return 0

    def cuDeviceTotalMem_v2(self, out: object, index: int) -> int:
        out._obj.value = 80 * 2**30
        return 0

    def cuDeviceGetAttribute(self, out: object, key: int, index: int) -> int:
        out._obj.value = {75: 9, 76: 0}[key]
        return 0


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (None, [("gpu", "note", "no NVIDIA driver")]),
        (FakeDriver(13_000, start=100), [("gpu", "problem", "does not start")]),
        (FakeDriver(12_080), [("driver", "problem", "CUDA 12.8"), ("gpu 0", "ok", "A GPU, sm_90, 80.0 GiB")]),
        (FakeDriver(13_010), [("driver", "ok", "CUDA 13.1"), ("gpu 0", "ok", "A GPU, sm_90, 80.0 GiB")]),
    ],
)
def test_doctor_tells_no_driver_from_a_dead_or_an_old_one(
    monkeypatch: pytest.MonkeyPatch, library: object, expected: list[tuple[str, str, str]]
) -> None:
    monkeypatch.setattr(doctor, "driver_library", lambda: library)
    found = list(doctor.driver())
    assert [(f.what, f.verdict) for f in found] == [(what, verdict) for what, verdict, _ in expected]
    for finding, (_, _, words) in zip(found, expected, strict=True):
        assert words in finding.found
        assert finding.verdict != "problem" or finding.advice


def test_doctor_says_when_the_cache_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (finding,) = doctor.cache()
    assert finding.verdict == "problem" and "Permission denied" in finding.found


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
