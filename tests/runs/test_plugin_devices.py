"""A device that a plugin brings: `--device` and `[on.NAME]` take its name, and every verb that computes runs on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stored_machine

from core.cli import run as core_command
from core.errors import BuildError, UsageError
from core.loader import load_registry

PLUGIN = '''
from pathlib import Path

from core import DeviceKind
from core.device.cpu import CpuDevice
from core.device.simulated import SimDevice


class Mirror(CpuDevice):
    """The cpu under a name of its own, which notes that it ran."""

    name = "mirror"

    def describe(self):
        return "mirror, a cpu"

    def run(self, commands):
        Path("ran").touch()
        super().run(commands)


class Twin(SimDevice):
    name = "twin"


def core_devices():
    return [
        DeviceKind("mirror", runs="cpu", precisions=("f32",), opener=Mirror),
        DeviceKind(
            "twin", runs="cuda", precisions=("f32",), opener=Twin, compiles=True, simulated=True, real_time=False
        ),
    ]
'''
CONFIG = """
extends = "tiny"
[train]
steps = 2
tokens_per_step = 32
sample_every = 0
val_every = 0
[on.mirror.dims]
B = 2
T = 16
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(stored_machine.link(tmp_path / "cache")))
    Path("mirrors.py").write_text(PLUGIN)
    Path("small.toml").write_text(CONFIG)
    return tmp_path


def test_a_run_trains_on_a_plugins_device_by_what_the_config_says_for_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "small.toml", "--device", "mirror", "--plugin", "mirrors.py", "--out", "run"]
    assert core_command(words) == 0
    said = capsys.readouterr().out
    assert "mirror, a cpu" in said and "[on.mirror] is folded in: dims.B = 2" in said and "done: 2 steps" in said
    assert Path("ran").exists()
    assert json.loads(Path("run/variants.json").read_text())["device"] == "mirror, a cpu"
    assert core_command(["sample", "run", "--device", "mirror", "--plugin", "mirrors.py", "--tokens", "3"]) == 0


def test_the_plugin_may_be_named_by_the_config_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("named.toml").write_text(f'{CONFIG}[plugins]\nload = ["mirrors.py"]\n')
    assert core_command(["plan", "named.toml", "--device", "mirror", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"]


def test_the_listings_and_the_op_check_run_on_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--plugin", "mirrors.py", "--device"]
    assert core_command(["plugins", "--plugin", "mirrors.py"]) == 0
    assert "mirrors.py 2 devices" in " ".join(capsys.readouterr().out.split())
    assert core_command(["ops", "add", *where, "mirror"]) == 0
    assert "reference" in capsys.readouterr().out
    assert core_command(["check", "add.reference", "--quick", *where, "mirror"]) == 0
    assert "(mirror; f32" in capsys.readouterr().out and Path("ran").exists()
    assert core_command(["check", "add.naive", "--quick", *where, "twin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["device"] == "twin"
    assert core_command(["bench", "add", *where, "twin"]) == 2
    assert "does not predict" in capsys.readouterr().err


def test_an_unknown_device_is_named_with_those_that_plugins_bring(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert core_command(["train", "small.toml", "--device", "miror", "--plugin", "mirrors.py"]) == 2
    said = capsys.readouterr().err
    assert 'there is no device "miror"; did you mean "mirror"?' in said and "cpu, cuda, sim, mirror, twin" in said
    assert core_command(["train", "small.toml", "--device", "cpu"]) == 2
    assert "small.toml [on] mirror: unknown key (known: cpu, cuda, sim)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row, says",
    [
        ('"cpu", runs="cpu", precisions=("f32",), opener=object', 'device "cpu" is defined twice'),
        ('"auto", runs="cpu", precisions=("f32",), opener=object', 'identifier other than "auto"'),
        ('"My Chip", runs="cpu", precisions=("f32",), opener=object', "lower-case identifier"),
        ('"chip", runs="", precisions=("f32",), opener=object', "expected the `device` of the variants"),
        ('"chip", runs="cpu", precisions=("f16",), opener=object', "precisions are f16; expected some of f32"),
        ('"chip", runs="cpu", precisions=("f32",), opener=object, simulated=True', "compiles nothing"),
    ],
)
def test_a_row_that_cannot_be_in_the_table_is_refused_and_harms_nobody(here: Path, row: str, says: str) -> None:
    Path("wrong.py").write_text(f"from core import DeviceKind\ndef core_devices():\n    return [DeviceKind({row})]\n")
    with pytest.raises(BuildError, match=says.replace("(", r"\(")):
        load_registry(["wrong.py"])
    listed = load_registry(["wrong.py"], strict=False)
    assert list(listed.devices) == ["cpu", "cuda", "sim"]
    assert says in next(p.reason for p in listed.plugins if p.name == "wrong")


def test_every_variant_has_a_home_that_every_machine_has(here: Path) -> None:
    registry = load_registry()
    homes = {registry.home(v).name for variants in registry.variants.values() for v in variants.values()}
    assert homes == {"cpu", "sim"}
    with pytest.raises(UsageError, match="there is no device"):
        registry.device("mirror")
