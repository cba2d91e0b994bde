"""Foreign names, messages, folders and variables: none moves the cursor, and none is called a bug of ours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core import files, load
from core.checkpoint.safetensors_file import write_tensors
from core.cli import main
from core.device import available, large_blocks, system_memory
from core.errors import CoreError
from core.terminal import visible

ESC = "\x1b]0;pwn\x07"


@pytest.fixture(autouse=True)
def here(workdir: Path) -> Path:
    small_run.write(workdir, small_run.unwatched(train={"steps": 2, "checkpoint_every": 2}))
    return workdir


def core(*words: str) -> tuple[int, str]:
    """Run the command as the entry point does, with its streams; its exit code, and all that it wrote."""
    raw = io.BytesIO()
    before = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    sys.stdout = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    try:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said = raw.getvalue().decode("utf-8")
    finally:
        kept = sys.stdout, sys.stderr  # closing them would close `raw`
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = before
        del kept
    return int(ended.value.code or 0), said


def trained(out: str = "runs/a", *more: str) -> Path:
    code, said = core("train", "small.toml", "--device", "cpu", "--out", out, "--quiet", *more)
    assert code == 0, said
    return Path(out)


# --- outlets: each makes a command print something of a stranger's -------------------------------------------------


def a_folder(architecture: str, tensor: str) -> list[str]:
    Path("t").mkdir()
    write_tensors(Path("t/model.safetensors"), {tensor: np.ones(2, np.float32)}, {})
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 32, "vocab_size": 257}
    sizes |= {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-05}
    Path("t/config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "gpt2", **sizes}))
    return ["import", "t", "out"]


def a_tensors_name() -> list[str]:
    words = a_folder("GPT2LMHeadModel", "a")
    header = json.dumps({ESC: {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}).encode()
    Path("t/model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return words


def an_architecture() -> list[str]:
    return a_folder(ESC, "a")


def a_models_op() -> list[str]:
    Path("m.toml").write_text(f'extends = "gpt2_124m"\n[graph]\nx = {{ op = {json.dumps(ESC)}, in = "tokens" }}\n')
    return ["plan", "small.toml", "--set", "model=m.toml"]


def a_models_file() -> list[str]:
    Path(f"m{ESC}.toml").write_text('extends = "gpt2_124m"\n')
    return ["plan", "small.toml", "--set", f"model={json.dumps(f'm{ESC}.toml')}"]


def a_node() -> list[str]:
    node = json.dumps(f"n{ESC}")
    Path("m.toml").write_text(f'extends = "gpt2_124m"\n[graph]\n{node} = {{ op = "gelu", in = "x0" }}\n')
    return ["plan", "small.toml", "--set", "model=m.toml"]


def a_resumed_state() -> list[str]:
    step = trained() / "checkpoints/step_00000002"
    state = json.loads((step / "state.json").read_text())
    state["made_with"] = {ESC: "1", **state["made_with"]}
    (step / "state.json").write_bytes(files.to_json(state))
    manifest = json.loads((step / "manifest.json").read_text())
    size = (step / "state.json").stat().st_size
    manifest["files"]["state.json"] = {
        "sha256": hashlib.sha256((step / "state.json").read_bytes()).hexdigest(),
        "bytes": size,
    }
    (step / "manifest.json").write_bytes(files.to_json(manifest))
    return ["train", "small.toml", "--device", "cpu", "--out", "runs/a", "--resume", "--set", "train.steps=3"]


def a_plugins_message() -> list[str]:
    Path("p.py").write_text(f"raise ValueError({ESC!r})")
    return ["plugins", "--plugin", "p.py"]


def a_plugins_path() -> list[str]:
    Path(f"p{ESC}.py").write_text("raise ValueError")
    return ["plugins", "--plugin", f"p{ESC}.py"]


def a_plugins_print() -> list[str]:
    Path("p.py").write_text(f"print({ESC!r})\ndef core_ops():\n    return []\n")
    return ["plugins", "--plugin", "p.py"]


def a_hooks_print() -> list[str]:
    Path("p.py").write_text(f"def core_step_end(run):\n    print({ESC!r})\n")
    return ["train", "small.toml", "--device", "cpu", "--out", "runs/b", "--plugin", "p.py"]


def a_run() -> list[str]:
    trained().rename(f"runs/{ESC}")
    return ["runs"]


def a_runs_plot() -> list[str]:
    trained().rename(f"runs/{ESC}")
    return ["runs", "plot", f"runs/{ESC}"]


def a_runs_model() -> list[str]:
    resolved = trained() / "config.resolved.toml"
    resolved.write_text(resolved.read_text().replace('"gpt2_124m"', json.dumps(f"m{ESC}")))
    return ["runs"]


def two_runs() -> list[str]:
    trained()
    resolved = trained("runs/b") / "config.resolved.toml"
    resolved.write_text(resolved.read_text().replace('"gpt2_124m"', json.dumps(f"m{ESC}")))
    return ["runs", "diff", "runs/a", "runs/b"]


def a_misspelt_key() -> list[str]:
    return ["plan", "small.toml", "--set", f"train.{ESC}=1"]


def an_option() -> list[str]:
    return ["plan", "small.toml", f"--{ESC}"]


def a_verb() -> list[str]:
    return [ESC]


def a_config() -> list[str]:
    return ["plan", f"{ESC}.toml"]


def a_prompt() -> list[str]:
    trained()
    return ["sample", "runs/a", "--prompt", ESC, "--tokens", "2"]


OUTLETS: list[Callable[[], list[str]]] = [
    a_tensors_name, an_architecture, a_models_op, a_models_file, a_node, a_resumed_state, a_plugins_message,
    a_plugins_path, a_plugins_print, a_hooks_print, a_run, a_runs_plot, a_runs_model, two_runs, a_misspelt_key,
    an_option, a_verb, a_config, a_prompt,
]  # fmt: skip


@pytest.mark.parametrize("outlet", OUTLETS, ids=lambda outlet: outlet.__name__)
def test_escape_codes_of_strangers_reach_the_terminal_as_text(outlet: Callable[[], list[str]]) -> None:
    code, said = core(*outlet())
    assert "\x1b" not in said and "\x07" not in said and "\r" not in said
    assert "pwn" in said, (code, said)
    assert code != 70, said


def test_hidden_characters_are_shown_and_text_stays() -> None:
    assert visible("naïve \t\n 字 🙂") == "naïve \t\n 字 🙂"
    assert visible("a\rb\x9b1m\u202ec") == "a\\rb\\x9b1m\\u202ec"


# --- no bug of ours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", ["C=2147483648", "V=4611686018427387904", "S=4611686018427387904"])
def test_dims_beyond_memory_are_said_in_bytes(dim: str) -> None:
    code, said = core("plan", "small.toml", "--device", "cpu", "--set", f"dims.{dim}", "--set", "dims.H=1")
    assert code in (0, 4) and "bug" not in said, said


MODEL = 'extends = "gpt2_124m"\n[dims]\nV = 257\nC = 30000\nH = 1\nL = 1\nS = 32\nB = 2\nT = 16\n'


@pytest.mark.parametrize(
    "words",
    [
        "plan small.toml --device cpu --set dims.C=30000 --set dims.H=1",
        "train small.toml --device cpu --set dims.C=30000 --set dims.H=1",
        "bench small.toml --device cpu --set dims.C=30000 --set dims.H=1",
        "check --config small.toml --device cpu --set dims.C=30000 --set dims.H=1",
        "check gelu --device cpu --shape x=1000000,100000",
        "bench gelu --device cpu --shape x=2000000000,2000000000",
        "bench gelu --device cpu --shape x=99999999999999999999999,3",
    ],
)
def test_no_verb_takes_more_memory_than_the_machine_has(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 GiB would be given, and the system would end the process once they are touched."""
    monkeypatch.setattr(system_memory, "_machine", lambda: 2 << 30)
    Path("m.toml").write_text(MODEL)
    code, said = core(*words.split())
    assert code == 4 and " bytes" in said and "GiB free" in said, said
    with pytest.raises(CoreError, match="GiB free"):
        load("m.toml", device="cpu")


def test_blocks_that_were_given_and_not_touched_count_as_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_memory, "_machine", lambda: 1 << 30)
    monkeypatch.setattr(large_blocks, "resident", lambda: 1 << 20)
    blocks = [available.zeros(300 << 20, "") for _ in range(3)]
    with pytest.raises(CoreError, match=r"314,572,800 bytes \(300.0 MiB\) requested, 124.0 MiB free"):
        available.zeros(300 << 20, "")
    blocks.clear()
    assert available.zeros(300 << 20, "").size == 300 << 20, "what is no longer in use is there again"


def test_one_damaged_folder_hides_no_other_run() -> None:
    trained()
    for name, damage in (("table", "train = 5"), ("list", "train = [1]\nmodel = 3"), ("bytes", "\x00")):
        Path("runs", name).mkdir()
        Path("runs", name, "config.resolved.toml").write_text(damage)
    Path("runs/fifo").mkdir()
    Path("runs/fifo/config.resolved.toml").write_text('model = "m"')
    os.mkfifo("runs/fifo/metrics.jsonl")
    code, said = core("runs")
    assert code == 0 and "a " in said and all(name in said for name in ("table", "list", "bytes", "fifo")), said


def test_losses_that_no_difference_can_hold_are_drawn() -> None:
    metrics = trained() / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 1e308}\n{"step": 2, "loss": -1e308}\n{"step": 3, "loss": 1e999}\n')
    code, said = core("runs", "plot", "runs/a")
    assert code == 0 and "1e+308" in said and "-1e+308" in said, said


@pytest.mark.parametrize("name", ["config.resolved.toml", "variants.json"])
def test_a_disk_that_refuses_before_the_first_step_is_exit_7(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = files.replace_durably

    def refusing(path: Path, data: bytes) -> Any:
        if path.name == name:
            raise OSError(30, "Read-only file system", str(path))
        return replace(path, data)

    monkeypatch.setattr(files, "replace_durably", refusing)
    code, said = core("train", "small.toml", "--device", "cpu", "--out", "runs/a")
    assert code == 7 and f"{name}: cannot be written: Read-only file system; no step was done" in said, said


def test_a_stderr_that_refuses_changes_no_exit_code() -> None:
    words = f'"{sys.executable}" -m core.cli plan absent.toml'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for redirect in (">/dev/full 2>/dev/full", ">&- 2>&-"):
        done = subprocess.run(["bash", "-c", f"{words} {redirect}"], env=environment)
        assert done.returncode == 2, redirect


@pytest.mark.parametrize(
    ("name", "value"),
    [("CORELM_THREADS", "99999999999"), ("CORELM_THREADS", "0"), ("CORELM_OFFLINE", "banana"), ("CORELM_SYNC", "yes"),
     ("CORELM_CACHE_LIMIT", "0"), ("CORELM_CACHE_LIMIT", "1e3"), ("CORELM_CACHE_LIMIT", "9" * 30),
     ("CORELM_SIM_LIMIT", "-1"), ("CORELM_TREADS", "2")],
)  # fmt: skip
def test_a_variable_of_ours_with_an_impossible_value_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    code, said = core("plan", "small.toml")
    assert code == 2 and name in said and ("expected" in said or 'did you mean "CORELM_THREADS"' in said), said
