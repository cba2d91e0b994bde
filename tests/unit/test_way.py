"""`core plan CONFIG NODE`: from a line of the model's TOML to the kernels that run it, on every device."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpt2_plans import registry as shipped

from core.cli import core as program
from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.graph import load_model
from core.plan.way import way

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"(?P<file>.+\.(?:py|cuh?)):(?P<line>\d+)$")


def launchers():
    return sorted(p for folder in ("ops", "plugins") for p in (ROOT / folder).rglob("*.py") if "tests" not in p.parts)


def calls(path):
    """(line, first argument) of each `launch(...)` and `launch.resident(...)`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            launches = isinstance(function, ast.Name) and function.id == "launch"
            if launches or isinstance(function, ast.Attribute) and function.attr == "resident":
                yield node.lineno, node.args[0] if node.args else None


def test_a_search_for_a_kernel_finds_its_launcher():
    found = [(path, line, name) for path in launchers() for line, name in calls(path)]
    assert len(found) > 60
    hidden = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, line, name in found
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str))
    ]
    assert not hidden, "a kernel's name is a literal where it is launched"


def rows_of(node, device):
    done = CliRunner().invoke(program, ["plan", "configs/tiny.toml", node, "--device", device, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("device", ["cpu", "sim", "cuda"])
def test_the_way_shows_each_launch_with_its_place_and_what_it_reads_and_writes(device):
    rows = rows_of("h.1.fc", device)
    whats = [row["what"] for row in rows]
    assert whats.index("forward") < whats.index("backward")
    launches, part = {"forward": [], "backward": []}, ""
    for row in rows:
        part = row["what"] if row["what"] in launches or "name" not in row else part
        if "name" in row:
            launches[part].append(row)
    kind = "function" if device == "cpu" else "kernel"
    for direction in launches.values():
        assert direction and all(row["what"] == kind for row in direction)
        for row in direction:
            assert row["reads"] and row["writes"]
            if device != "cpu":
                assert len(row["grid"]) == 3 and len(row["block"]) == 3
                line = source_line(row["where"])
                assert re.search(rf"\b{row['name']}\b", line), line
    first, *_ = launches["forward"]
    assert "x h.1.ln_2" in first["reads"] and first["writes"] == ["y h.1.fc"]
    assert {w.split()[0] for row in launches["backward"] for w in row["writes"]} >= {"dx", "dweight", "dbias"}


def test_the_way_in_words_has_a_line_for_each_kernel():
    done = CliRunner().invoke(program, ["plan", "configs/tiny.toml", "h.1.fc", "--device", "sim"])
    line = next(text for text in done.stdout.splitlines() if "register_forward" in text)
    assert re.search(r"kernel +register_forward +\S*matmul_register\.cu:\d+  grid 8 x 4  block 256", line)
    assert line.endswith("reads x h.1.ln_2, weight h.1.fc.weight, bias h.1.fc.bias; writes y h.1.fc")


def source_line(where):
    place = PLACE.match(where)
    assert place, where
    return Path(place["file"]).read_text("utf-8").splitlines()[int(place["line"]) - 1]


@pytest.mark.parametrize("model", ["gpt2_124m", "llama_125m"])
def test_every_kernel_of_a_model_in_bf16_stands_where_the_way_says(model):
    registry = shipped()
    device = PlannedDevice("sm_90a")
    settings = Settings(dims={"B": 2, "T": 64, "L": 1}, precision="bf16", device="cuda", optimizer="adamw")
    engine = Engine(load_model(model, registry), registry, settings, device)
    plan = engine.plan("train")
    seen = 0
    for node in plan.nodes:
        for row in way(plan, node.name, device, engine.chooser):
            if row["what"] == "kernel":
                seen += 1
                assert re.search(rf"\b{row['name']}\b", source_line(row["where"]))
                assert row["reads"] or row["writes"]
    assert seen > len(plan.nodes)


def test_a_gradient_that_shares_memory_launches_nothing():
    where = next(row["where"] for row in rows_of("h.0.y", "sim") if row["what"] == "backward")
    assert where == "launches nothing: da is dy, db is dy"


@pytest.mark.parametrize("device", ["cpu", "sim", "cuda"])
def test_the_way_of_an_optimizer_has_each_op_of_its_step_with_its_launches(device):
    rows = rows_of("adamw", device)
    assert [row["what"] for row in rows[:2]] == ["optimizer", "step"]
    assert "def step" in source_line(rows[1]["where"])
    assert [row["where"].split()[0] for row in rows if row["what"] == "op"] == ["global_norm", "adamw_update"]
    launches = [row for row in rows if "name" in row]
    assert "grad" in launches[0]["reads"]
    norms, update = (launches[:-1], launches[-1]) if device == "cpu" else (launches[:-2], launches[-1])
    assert norms[-1]["writes"] == ["step"]
    numbers = "step" if device == "cpu" else "scratch"  # what a kernel of its own has computed once, of the step
    assert device == "cpu" or (launches[-2]["reads"], launches[-2]["writes"]) == (["step"], [numbers])
    assert (update["reads"], update["writes"]) == (["grad", "group", numbers], ["param", "m", "v"])
    for row in launches if device != "cpu" else ():
        assert row["grid"] and re.search(rf"\b{row['name']}\b", source_line(row["where"]))


def test_an_optimizers_ops_with_equal_launches_are_shown_once():
    words = ["plan", "configs/tiny.toml", "muon", "--device", "sim", "--set", "optimizer.name=muon", "--json"]
    done = CliRunner().invoke(program, words)
    ops = [row["where"].split()[0] for row in json.loads(done.stdout) if row["what"] == "op"]
    assert ops == ["global_norm", *["muon_update"] * 3, "adamw_update"]


def test_the_name_of_another_optimizer_is_no_node():
    done = CliRunner().invoke(program, ["plan", "configs/tiny.toml", "muon"])
    assert done.exit_code and 'has no node "muon"' in str(done.output) + str(done.exception)
