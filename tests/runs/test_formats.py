"""Formats of weights from plugins: one that a stranger's plugin brings is read and written by every verb; a broken one
is listed and harms no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_run
import trained_run
from trained_run import run

import core
from core.errors import BuildError, CheckpointError
from core.loader import load_registry

ROWS = '''
import json

from core import CheckpointError, WeightFormat
from core.interop import Fitted, ModelMatch, Weights, about, build, check_meaning, check_string, check_table, find_model
from core.outputs import staged
import numpy as np


def weights(held, graph):
    return Weights({name: lambda name=name: np.array(held["weights"][name], np.float32) for name in graph.parameters})


class Rows(WeightFormat):
    """A JSON object: a model's word, its dims, and each parameter as rows of numbers."""

    name, kind, table, targets = "rows", "a file of rows", "rows", {"rows": ".rows"}

    def recognise(self, path, head):
        return "its first word" if head.startswith(b'{"rows"') else ""

    def check(self, source, table, path, problems):
        word = check_table(source, table, path, problems, ("word",)).get("word")
        check_string(source, word, (*path, "word"), problems)

    def open(self, path, registry, dims):
        held = json.loads(path.read_text())

        def attempt(source):
            sizes = {**held["dims"], **dims}
            if source.document["rows"]["word"] != held["rows"]:
                return None
            return ModelMatch(source, sizes, weights(held, build(source, registry, sizes)))

        with about(str(path)):
            found = find_model(registry, "rows", attempt)
        if found is None:
            raise CheckpointError(f"{path}: no model has the word {held['rows']}")
        return found

    def fit(self, path, graph, registry):
        held = json.loads(path.read_text())
        if graph.source.document.get("rows", {}).get("word") != held["rows"]:
            raise CheckpointError(f"{path}: of the model with the word {held['rows']}")
        return Fitted(weights(held, graph))

    def write(self, export, registry, out, target):
        document = export.graph.source.document
        held = {
            "rows": document["rows"]["word"],
            "dims": {**document["dims"], **export.opened.dims},
            "weights": {name: export.weights[name].tolist() for name in export.weights},
        }
        with staged(out) as path:
            path.write_text(json.dumps(held))
            check_meaning(export, registry, lambda: self.open(path, registry, {}), "rows")
        return "a word goes along"


def core_formats():
    return [Rows]


def core_models():
    return ["spoken.toml"]
'''
SPOKEN = 'extends = "gpt2_124m"\n[rows]\nword = "spoken"\n'
RUN = small_run.config(model="spoken", train={"steps": 2}, plugins={"load": ["rows"]})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the plugin, and runs/small of its model."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "rows").mkdir()
    (folder / "rows/__init__.py").write_text(ROWS)
    (folder / "rows/spoken.toml").write_text(SPOKEN)
    return trained_run.train(folder, RUN)


@pytest.fixture
def here(runs, monkeypatch):
    return trained_run.enter(runs, monkeypatch)


def test_a_format_of_a_plugin_is_written_read_imported_and_trained_from(here, capsys, tmp_path):
    out, rows = tmp_path / "small.rows", ("--plugin", "rows")
    said = run(capsys, "export", "runs/small", "--to", "rows", "--out", out, *rows).out
    assert "a word goes along" in said and list(json.loads(out.read_text()))[0] == "rows"
    ours, theirs = core.load("runs/small", plugins=["rows"]), core.load(out, plugins=["rows"])
    for name, value in ours.params.items():
        np.testing.assert_array_equal(theirs.params[name], value)
    assert "from a file of rows" in run(capsys, "import", out, tmp_path / "back", *rows).out
    back = core.load(tmp_path / "back", plugins=["rows"])
    np.testing.assert_array_equal(back.logits([1, 2, 3]), ours.logits([1, 2, 3]))
    tuned = small_run.config(model="spoken", weights=str(out), train={"steps": 1}, plugins={"load": ["rows"]})
    Path("tuned.toml").write_text(tuned)
    run(capsys, "train", "tuned.toml", "--device", "cpu", "--out", tmp_path / "tuned")
    assert "hf" in run(capsys, "export", "--help").out and "rows" in run(capsys, "export", "--help", *rows).out
    assert "'rows' is not one of" in run(capsys, "export", "runs/small", "--to", "rows", code=2).err


def test_a_path_of_a_plugins_format_without_the_plugin_is_nothing_known(here, tmp_path, capsys):
    (tmp_path / "x.rows").write_text('{"rows": "spoken"}')
    said = run(capsys, "import", tmp_path / "x.rows", tmp_path / "back", code=7).err
    assert "not a file of a known format" in said and "an llm.c model file" in said and "Hugging Face folder" in said


def test_the_formats_table_is_checked_by_the_format(here, tmp_path, capsys):
    (tmp_path / "odd.toml").write_text('extends = "spoken"\n[rows]\nword = 3\nmore = 1\n')
    with pytest.raises(BuildError) as error:
        core.load(tmp_path / "odd.toml", plugins=["rows"])
    assert "[rows] word is 3; expected a string" in str(error.value) and 'no key "more" here' in str(error.value)
    (tmp_path / "odd.toml").write_text('extends = "gpt2_124m"\n[row]\nword = "spoken"\n')
    with pytest.raises(BuildError, match='a model has no key "row"; did you mean "rows"'):
        core.load(tmp_path / "odd.toml", plugins=["rows"])


def test_a_table_of_a_plugin_that_is_switched_off_is_passed_over(here, monkeypatch):
    """gpt2_124m has [hf] and [llmc], which no plugin reads then; a word that no plugin knows is refused still."""
    monkeypatch.setenv("CORELM_PLUGINS", "")
    assert not load_registry().formats
    assert core.load("gpt2_124m", dims={"V": 33, "C": 8, "H": 2, "L": 1, "S": 8, "T": 8}).graph.dims["L"] == 1
    with pytest.raises(CheckpointError, match="no file in it is of a known format"):
        core.load(here / "rows")


BROKEN = {
    "an exception in the hook": ("def core_formats():\n    1 / 0\n", "ZeroDivisionError: division by zero"),
    "no class": ("def core_formats():\n    return [3]\n", "expected a class derived from WeightFormat"),
    "a table of two": (
        "from core import WeightFormat\nclass Mine(WeightFormat):\n    name, table = 'mine', 'hf'\n"
        "def core_formats():\n    return [Mine]\n",
        "table [hf] is defined twice",
    ),
    "a target of two": (
        "from core import WeightFormat\nclass Mine(WeightFormat):\n    name, targets = 'mine', {'llmc': ''}\n"
        "    def write(self, export, registry, out, target): ...\n"
        "def core_formats():\n    return [Mine]\n",
        "target --to llmc is defined twice",
    ),
}


@pytest.mark.parametrize("text, said", BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_of_formats_is_listed_and_harms_no_other(here, capsys, tmp_path, text, said):
    plugin = tmp_path / f"broken_{list(BROKEN.values()).index((text, said))}.py"
    plugin.write_text(text)
    listed = json.loads(run(capsys, "plugins", "--plugin", plugin, "--json").out)
    broken = next(record for record in listed if record["name"] == plugin.stem)
    assert broken["status"] == "broken" and said in broken["reason"] and broken["traceback"]
    known = load_registry([plugin], strict=False).formats
    assert set(known) == {"huggingface", "llama2c", "llmc"}


RAISING = """
from core import WeightFormat

class Odd(WeightFormat):
    name, kind = "odd", "an odd file"

    def recognise(self, path, head):
        RECOGNISE

    def open(self, path, registry, dims):
        raise SystemExit(3)

    def fit(self, path, graph, registry): ...

def core_formats():
    return [Odd]
"""


def test_a_format_that_fails_while_it_looks_is_passed_over_and_one_that_fails_while_it_reads_is_named(here, tmp_path):
    (tmp_path / "looks.py").write_text(RAISING.replace("RECOGNISE", "1 / 0"))
    with pytest.warns(UserWarning, match="its format odd is passed over: ZeroDivisionError"):
        core.load("runs/small", plugins=["rows", tmp_path / "looks.py"])
    (tmp_path / "reads.py").write_text(RAISING.replace("RECOGNISE", 'return "" if path.is_dir() else "odd"'))
    (tmp_path / "x.odd").write_text("odd")
    with pytest.raises(BuildError, match="reads.py: its format odd raised SystemExit"):
        core.load(tmp_path / "x.odd", plugins=[tmp_path / "reads.py"])
    (tmp_path / "x.rows").write_text('{"rows": "spoken"}')
    with pytest.raises(CheckpointError, match=r"both a file of rows \(its first word\) and an odd file \(odd\)"):
        core.load(tmp_path / "x.rows", plugins=["rows", tmp_path / "reads.py"])
