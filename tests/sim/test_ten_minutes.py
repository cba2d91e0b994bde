"""benchmarks/ten_minutes.py: its parts keep to their time, and a part that fails or hangs costs no other's result."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import Kernel
from core.measure import sass_model

SCRIPT = Path(__file__).parents[2] / "benchmarks/ten_minutes.py"
spec = importlib.util.spec_from_file_location("ten_minutes", SCRIPT)
ten = sys.modules["ten_minutes"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ten)


def test_a_part_that_fails_or_hangs_does_not_stop_the_next_one(tmp_path, capsys):
    parts = (
        ten.Part("fails", 1, ("-c", "import sys; sys.exit('no {batch}')")),
        ten.Part("hangs", 0, ("-c", "import time; time.sleep(60)")),
        ten.Part("works", 20, ("-c", "print('{{\"B\": {batch}}}')"), printed=True),
    )
    done = ten.run_all(tmp_path, {"batch": 16}, 21.5, parts)
    assert (
        done["fails"]["ended"] == "FAILED with code 1: fails.log" and (tmp_path / "fails.log").read_text() == "no 16\n"
    )
    assert done["hangs"]["ended"].startswith("cut off after") and done["hangs"]["seconds"] < 10
    assert done["works"]["ended"] == "done" and json.loads((tmp_path / "works.json").read_text()) == {"B": 16}
    assert json.loads((tmp_path / ten.SUMMARY).read_text()) == done


def test_the_parts_fit_ten_minutes_and_their_options_exist():
    assert sum(part.seconds for part in ten.PARTS) <= 9.7 * 60
    words = {"out": "OUT", "config": "configs/gpt2_124m.toml", "batch": 16, "tokens": 16384}
    for part in ten.PARTS:
        command = [word.format(**words) for word in part.command]
        if command[:2] == ["-m", "core"]:
            verb = importlib.import_module(f"core.cli.{command[2]}").command
            with verb.make_context(command[2], command[3:]) as context:
                assert context.params["device"] == "cuda"
        else:
            text = (SCRIPT.parents[1] / command[0]).read_text("utf-8")
            assert all(f'"{word}"' in text for word in command if word.startswith("--")), command


MEASURED = {
    "model": "gpt2_124m", "precision": "bf16", "B": 16, "gpu": "NVIDIA H100 80GB HBM3", "arch": "sm_90a", "sms": 132,
    "kernels": [
        {"kernel": "mma_dx A=1", "launches": 48, "measured_ms": 4.0, "modelled_ms": 3.2, "limit": "tensor"},
        {"kernel": "mma_forward A=1", "launches": 36, "measured_ms": 9.0, "modelled_ms": 6.0, "limit": "tensor"},
    ],
}  # fmt: skip


def test_the_table_is_that_of_the_json_that_came_back(tmp_path, monkeypatch, capsys):
    """Of made-up times: `--table` runs nothing, on any machine."""
    monkeypatch.setattr(sys, "argv", ["ten_minutes.py", "--out", str(tmp_path), "--table"])
    assert ten.main() == 1 and "no table" in capsys.readouterr().out
    (tmp_path / "kernels.json").write_text(json.dumps(MEASURED))
    assert ten.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "gpt2_124m in bf16, B=16, on NVIDIA H100 80GB HBM3 (sm_90a): milliseconds of a micro-step" in lines
    assert [line.split(" | ")[0] for line in lines[-3:]] == ["| mma_forward", "| mma_dx", "| those with a model"]
    assert lines[-3] == "| mma_forward | 36 | 6.000 | 9.000 | 1.50 | tensor |"
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.json"]


def test_a_model_that_fails_costs_no_measurement(monkeypatch):
    row = {"launches": 1, "measured_ms": 2.0, "modelled_ms": 0.5, "limit": "tensor"}
    launch = LaunchRecord(Kernel(Path("sums.cu"), "sums"), (), (1, 1, 1), (32, 1, 1))
    monkeypatch.setattr(sass_model, "bound_of", lambda record, chip: {}["HGMMA"])
    ten.add_bound(row, launch, "NVIDIA H100 80GB HBM3")
    assert row == {"launches": 1, "measured_ms": 2.0, "modelled_ms": None, "limit": "no model: 'HGMMA'"}


def test_a_kernel_without_a_model_has_no_ratio():
    rows = [
        {"kernel": "mma_forward A=1", "launches": 2, "measured_ms": 3.0, "modelled_ms": 2.0, "limit": "tensor"},
        {"kernel": "HostRecord", "launches": 1, "measured_ms": 1.0, "modelled_ms": None, "limit": ""},
    ]
    lines = list(ten.table({"model": "m", "precision": "bf16", "B": 16, "gpu": "X", "arch": "sm_90a", "kernels": rows}))
    assert "| mma_forward | 2 | 2.000 | 3.000 | 1.50 | tensor |" in lines
    assert "| HostRecord | 1 | | 1.000 | |  |" in lines
    assert lines[-1] == "| those with a model | 2 | 2.000 | 3.000 | 1.50 | |"


def test_the_step_beside_pytorchs_is_written_after_each_round(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu, out, before = importlib.import_module("gpu"), tmp_path / "gpu.json", []

    def round_of(peer, batch, args):
        before.append(len(json.loads(out.read_text())["rows"]) if out.exists() else None)
        return {"why": "out of memory"} if peer == "eager" else {"ms": [2.0, 4.0], "loss": 1.0, "memory": 0}

    monkeypatch.setattr(gpu, "round_of", round_of)
    args = SimpleNamespace(batches=[4, 16], peers=["ours", "eager"], rounds=1, minutes=8, seq=8, json=str(out))
    gpu.measure(args)
    assert before == [None, 2, 2, 4], "rows of the batches begun"
    rows = json.loads(out.read_text())["rows"]
    assert [(row["B"], row["peer"], row["why"], row.get("ms")) for row in rows[:2]] == [
        (4, "ours", "", 3.0), (4, "eager", "out of memory", None)
    ]  # fmt: skip
