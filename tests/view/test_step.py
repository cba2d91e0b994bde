"""The Step lens: its numbers are NumPy's of the replayed tensors, its highlighted cells those of the reference."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
import view_pages

import core.view
from core.cli import run
from core.errors import UsageError
from core.op.parts import boxes_of
from core.view.lenses.step import StepLens, rules_by_kind, shapes_of, stand_in
from core.view.looking import look
from core.view.made_of_cells import as_box, matrix_size, unravelled
from core.view.node_rows import layer_of, passing
from core.view.page import page_of
from core.view.pictures import DECADES, LEVELS, picture, strongest
from core.view.run_record import RunRecord
from core.view.step_pictures import traced
from core.view.subject import Subject, ViewOptions


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps of a model of 18 layers."""
    folder = tmp_path_factory.mktemp("layers")
    small_run.write(folder, small_run.unwatched(dims={"L": 18, "C": 8}, train={"steps": 3, "check": False}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "small.toml", "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="session")
def seen(trained: Path) -> tuple[dict[str, Any], core.view.ReplayedStep]:
    """The data of the Step lens, and the step that they show; its page is step.html in the run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        subject = Subject([RunRecord(Path("runs/small"))], None, ViewOptions(step=2, node="h.3.fc"))
        views = look(subject, "step")
        Path("step.html").write_text(page_of(views, "small"), "utf-8")
        assert views[0].data is not None
        return views[0].data, subject.replay


def decoded(one: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The numbers of a picture's cells, as the page reads them."""
    raw = base64.b64decode(one["cells"])
    if one["bits"] == 16:
        shares = np.frombuffer(raw, "<f2").astype(np.float64)
    else:
        levels = np.frombuffer(raw, np.uint8).astype(np.float64) - 128
        shares = np.sign(levels) * 10 ** (DECADES * (np.abs(levels) / LEVELS - 1))
        shares[levels == 0] = 0
    size = [-(-n // b) for n, b in zip(one["size"], one["block"], strict=True)]
    return one["largest"] * shares.reshape(size)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 64), (7,), (), (200, 70), (65, 3, 129), (0, 4)])
def test_a_picture_has_the_strongest_of_each_block_with_its_sign(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    one = picture(array)
    matrix = array.reshape(-1, shape[-1]) if shape else array.reshape(1, 1)
    down, across = one["block"]
    for i, row in enumerate(decoded(one)):
        for j, value in enumerate(row):
            block = matrix[i * down : (i + 1) * down, j * across : (j + 1) * across]
            largest = block.reshape(-1)[np.abs(block).argmax()]
            assert value == pytest.approx(largest, rel=0.07 if one["bits"] == 8 else 1e-3)
    assert sum(one["histogram"]) == array.size
    if array.size:
        assert one["rms"] == pytest.approx(np.sqrt(np.square(array, dtype=np.float64).mean()), rel=1e-5)


def test_numbers_that_are_not_finite_have_a_cell_of_their_own() -> None:
    one = picture(np.array([[1.0, np.nan], [np.inf, -2.0]], np.float32))
    np.testing.assert_allclose(decoded(one), [[1, np.nan], [np.nan, -2]])
    assert (one["nan"], one["inf"]) == (1, 1)
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    large = np.zeros((70, 70), np.float32)
    large[3, 4], large[8, 8] = np.nan, 5.0
    assert np.isnan(strongest(large, 2, 2)[1, 2]) and picture(large)["bits"] == 8


WITHOUT_RULES = {("embedding", "dweight")}  # which rows of dy take part is in the ids, of more rows than a table has


def covered(rule: Any, place: tuple[int, int], size: int, target: tuple[int, int]) -> set[int]:
    """The rows, or columns, that a rule gives for an element, as the page evaluates it."""
    if isinstance(rule, list):
        return of_spans(rule)
    if rule == "*":
        return set(range(size))
    if rule in ("r", "c"):
        return {place["rc".index(rule)]}
    if rule == "f":
        return {place[0] * target[1] + place[1]}
    axis = 0 if "r" in rule else 1
    spans = rule["rc"[axis]]
    piece = min(len(spans) - 1, place[axis] * len(spans) // target[axis])
    return {n for start, stop in spans[piece] for n in range(start, stop)}


def cells_of(spans: Iterable[tuple[set[int], set[int]]]) -> set[tuple[int, int]]:
    return {(i, j) for rows, columns in spans for i in rows for j in columns}


def test_what_lights_up_is_what_the_references_state(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every element of every tensor of a layer and of what is around it."""
    monkeypatch.chdir(trained)
    subject = Subject([RunRecord(Path("runs/small"))], None, ViewOptions(step=1))
    out = traced(subject.replay, subject.plan, lambda node: 8, passing(subject.registry))
    rules, without, tables = rules_by_kind(subject, subject.plan, out), set(), set()
    for node in [n for n in subject.graph.nodes if layer_of(n.name) in ("", "h.0") and n.name in rules]:
        reference, shapes = subject.registry.reference(node.op.name), shapes_of(subject.plan, node, out)
        integers = {r: out.integers[v] for r, v in node.inputs.items() if v in out.integers}
        t, own = stand_in(node, shapes, integers), rules[node.name]
        own = rules[own["as"]] if "as" in own else own
        for tensor in [*node.outputs, *(f"d{role}" for role in (*node.inputs, *node.params) if role not in integers)]:
            if tensor not in own:
                without.add((node.op.name, tensor))
                continue
            target = matrix_size(shapes[tensor])
            places = [(i, j) for i in range(target[0]) for j in range(target[1])]
            for place in places[:: 1 + len(places) // 60]:
                stated = boxes_of(reference.parts(t, tensor, unravelled(place, shapes[tensor])), shapes)
                assert stated.keys() <= own[tensor].keys(), (node.name, tensor)
                for source, boxes in own[tensor].items():
                    if isinstance(boxes, dict):
                        size = len(boxes["grid"]), len(boxes["grid"][0])
                        row, column = (place[k] * size[k] // target[k] for k in (0, 1))
                        boxes = boxes["boxes"][boxes["grid"][row][column]] if size == target else None
                        tables.add((node.op.name, tensor))
                    if boxes is None:
                        continue  # a piece of a table has the parts of its middle alone
                    rows, columns = matrix_size(shapes[source])
                    lit = cells_of(
                        (covered(box["rows"], place, rows, target), covered(box["columns"], place, columns, target))
                        for box in boxes
                    )
                    made = [as_box(ranges, shapes[source]) for ranges in stated.get(source, [])]
                    assert lit == cells_of(tuple(map(of_spans, box)) for box in made), (node.name, tensor, place)
    assert without == WITHOUT_RULES
    assert tables == {("attention", "dqkv"), ("position", "dweight")}


def of_spans(spans: Iterable[tuple[int, int]]) -> set[int]:
    return {n for start, stop in spans for n in range(start, stop)}


def test_the_numbers_are_those_of_the_replayed_tensors(seen: Any) -> None:
    data, step = seen
    rms = {}
    for micro, event in step.events():
        if micro == 0 and event.kind == "forward" and event.tensors.get("y") is not None:
            rms[event.node] = float(np.sqrt(np.square(event.tensors["y"], dtype=np.float64).mean()))
    nodes = {node["name"]: node for node in data["nodes"]}
    assert len(nodes) == len(step.engine.graph.nodes) and len(rms) > 100
    for name, value in rms.items():
        assert nodes[name]["rms"][0] == pytest.approx(value, rel=1e-5)
    fc = nodes["h.3.fc"]
    for kind, arrays in (
        ("weight", step.parameters()),
        ("dweight", step.gradients()),
        ("update weight", step.updates()),
    ):
        np.testing.assert_allclose(
            decoded(data["pictures"][fc["roles"][kind]]), arrays["h.3.fc.weight"], rtol=1e-3, atol=1e-12
        )
    assert data["exact"] and data["label"].startswith("exact")


def test_a_gradient_is_the_sum_of_what_all_readers_of_its_value_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each op's backward reads what is shown as the gradient of its output: also where the plan itself sums."""
    monkeypatch.chdir(tmp_path)
    sizes = {"S": None, "F": 16, "E": 4, "L": 1}
    small_run.write(tmp_path, small_run.unwatched(model="moe_125m", dims=sizes, train={"steps": 1, "check": False}))
    assert run(["train", "small.toml", "--device", "cpu"]) == 0
    subject = Subject([RunRecord(Path("runs/small"))])
    out = traced(subject.replay, subject.plan, lambda node: 8, passing(subject.registry))
    nodes, read = {node.name: node for node in subject.plan.nodes}, 0
    for micro, event in subject.replay.events():
        if micro or event.kind != "backward":
            continue
        written = [a for name in event.written if (a := event.tensors.get(name)) is not None]
        for role, value in nodes[event.node].outputs.items():
            array = event.tensors.get(f"d{role}")
            if array is not None and value in out.gradients and not any(np.shares_memory(array, w) for w in written):
                rms = np.sqrt(np.square(array, dtype=np.float64).mean())
                assert out.pictures[out.gradients[value]]["rms"] == pytest.approx(rms, rel=1e-5), (event.node, role)
                read += 1
    assert read > 8 and any(event.kind == "add" for _, event in subject.replay.events())


def test_without_fusion_every_tensor_is_there_and_the_numbers_are_near(
    seen: Any, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    subject = Subject([RunRecord(Path("runs/small"), unfused=True)], None, ViewOptions(step=2))
    data = look(subject, "step")[0].data
    assert data is not None and data["label"].startswith(("near", "exact"))
    fused = {node["name"]: node for node in seen[0]["nodes"]}
    for node in data["nodes"]:
        assert not node["fused"] and node["rms"][0] is not None
        for ours, theirs in zip(node["rms"], fused[node["name"]]["rms"], strict=True):
            assert theirs is None or ours == pytest.approx(theirs, rel=1e-3), node["name"]
    assert data["nodes"][-2]["rms"][1] is not None  # of the logits, which the run never had in memory


def test_without_text_the_batch_is_left_out(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    subject = Subject([RunRecord(Path("runs/small"))], None, ViewOptions(step=2, no_text=True))
    data = look(subject, "step")[0].data
    assert data is not None
    nodes = {node["name"]: node for node in data["nodes"]}
    assert "ids" not in nodes["wte"]["roles"] and "targets" not in nodes["loss"]["roles"]
    assert "wte" not in data["rules"] and "the batch's tokens and targets (--no-text)" in data["left_out"]


def test_a_node_says_what_ran_for_it(seen: Any) -> None:
    nodes = {node["name"]: node for node in seen[0]["nodes"]}
    assert nodes["h.3.fc"]["variant"] == "matmul.blas" and not nodes["h.3.fc"]["fused"]
    assert (nodes["h.3.r"]["fused"], nodes["h.3.r"]["runs"]) == ("add_layernorm", "h.3.ln_2")
    assert "y" not in nodes["logits"]["roles"] and nodes["logits"]["fused"] == "head_loss"
    assert nodes["h.3.fc"]["toml"].startswith("fc ")
    assert nodes["h.3.fc"]["where"].startswith("models/gpt2_124m.toml:")
    assert nodes["h.3.fc"]["backward"]["writes"] == ["dx", "dweight", "dbias", "update weight", "update bias"]
    assert nodes["h.3.ln_1"]["forward"]["saved"] == ["mean", "rstd"]
    assert nodes["h.3.ln_2"]["backward"]["reads"] == ["dy", "x", "weight", "mean", "rstd"]
    assert nodes["h.3.ln_2"]["shared"] == ["dx"] and nodes["h.3.fc"]["shared"] == []
    stream = [name for name, node in nodes.items() if node["stream"] and node["layer"] in ("", "h.0")]
    assert stream == ["x0", "h.0.r", "h.0.y"] and nodes["h.0.r"]["sum"] and not nodes["x0"]["sum"]
    assert all(node["rms"][1] is not None for name, node in nodes.items() if name not in ("logits", "loss"))
    code = seen[0]["code"]["matmul.blas"]
    assert {block["title"] for block in code} == {"forward", "backward"} and code[0]["file"] == "ops/cpu/matmul.py"
    assert "dx = dy weight" in seen[0]["formulas"]["matmul"]["formula"]


def test_the_terminal_has_the_same_numbers_and_what_is_left_out(seen: Any) -> None:
    data, _ = seen
    text = "\n".join(StepLens().lines(data))
    assert "h.3.fc" in text and "dweight" in text and "add_layernorm.blocked (in h.3.ln_2)" in text
    assert "left out: pictures of 15 layers have 32 cells a side; core view small --step 2 --node h.9.NAME" in text
    assert "micro-step 1 of 2" in text


def test_a_page_lights_parts_folds_layers_and_is_walked_by_keys(trained: Path, seen: Any) -> None:
    assert seen[0]["front"] == "h.3.fc"
    assert str(trained) not in (trained / "step.html").read_text("utf-8")
    with view_pages.opened(trained / "step.html") as page:
        assert page.inner_text(".detail h2") == "h.3.fc"
        assert page.locator(".node.layer").count() == 8 + 2  # those of the chunk that is open, and two chunks
        page.locator(".writes .pointed").first.focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        made = page.inner_text(".made")
        assert made.startswith("y[1, 2] = ") and made.endswith("made of x[1, :], weight[2, :], bias[:, 2]")
        assert page.evaluate("VIEWS.step.lit('x')") == 8 and page.evaluate("VIEWS.step.lit('bias')") == 1
        page.locator(".detail").focus()
        page.keyboard.press("b")
        assert "way=backward" in page.url and page.locator(".writes .tensor").count() == 5
        page.keyboard.press("ArrowDown")
        assert page.inner_text(".detail h2") == "h.3.act"
        page.keyboard.press("f")
        assert page.locator(".node.inner").count() == 0
        page.keyboard.press("ArrowLeft")
        assert page.inner_text(".detail h2") == "h.3.down"


def test_a_step_that_stopped_a_run_is_shown_with_what_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run.write(tmp_path, small_run.unwatched(optimizer={"lr": 1e30}, train={"check": False}))
    assert run(["train", "small.toml", "--device", "cpu"]) != 0
    subject = Subject([RunRecord(Path("runs/small"))], None, ViewOptions(step=2))
    shown = look(subject, "step")[0]
    assert shown.as_json()["loss"] == "nan" and "not finite" in "\n".join(shown.lines())
    nodes = {node["name"]: node for node in shown.as_json()["nodes"]}
    assert nodes["h.0.attn"]["rms"] == ["not finite", "not finite"] and nodes["wte"]["rms"][0] > 1e20
    Path("page.html").write_text(page_of([shown], "small"), "utf-8")
    with view_pages.opened(Path("page.html"), "step&node=h.0.attn") as page:
        assert "NaN" in page.inner_text(".detail")
    with pytest.raises(UsageError, match="step 2 of small is not finite"):
        core.replay("runs/small", 3)


@pytest.mark.parametrize("dark", [False, True])
def test_the_view_is_accessible(dark: bool, trained: Path, seen: Any) -> None:
    assert seen[0]["front"] == "h.3.fc"
    with view_pages.opened(trained / "step.html", dark=dark) as page:
        assert not view_pages.faults(page)
        page.keyboard.press("b")
        assert not view_pages.faults(page)
        page.keyboard.press("?")
        assert not view_pages.faults(page)


def test_an_unknown_node_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run(["view", "small", "--lens", "step", "--node", "h.3.fcc"]) == 2
    assert 'no node "h.3.fcc"; did you mean "h.3.fc"' in capsys.readouterr().err
