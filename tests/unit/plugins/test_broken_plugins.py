"""A plugin that is broken, half right or a duplicate is refused whole, and named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from plugin_files import LONE_VARIANT, OP, VARIANT, install, op_plugin, refused, write

from core.errors import BuildError
from core.hooks import SPECS
from core.loader import load_registry


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("x = 1\nraise SystemExit(3)\n", "SystemExit: 3"),
        ("def f(:\n", "SyntaxError"),
        ("def core_ops():\n    return 1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_given_plugin_is_fatal_and_names_the_authors_line(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path / "mine.py", text)
    line = 2 if "\n" in text.strip() else 1
    refused(path, f'plugin "mine" ({path}) cannot be loaded', reason, f"{path}:{line}")
    refused(path, reason)  # the second time as well: no half-imported module stays behind


@pytest.mark.parametrize("text", ["raise RuntimeError('boom')\n", "raise SystemExit\n", "def f(:\n", "core_api = 2\n"])
def test_a_broken_installed_plugin_is_listed_and_stops_nothing_else(site: Path, text: str) -> None:
    install(site, "bad", "corelm_bad_module", text)
    install(site, "good", "corelm_good_module", OP.format(name="alpha"))
    registry = load_registry()
    assert registry.op("alpha").origin == "corelm-good 1.2 (entry point good)"
    bad = next(p for p in registry.plugins if p.name == "bad")
    assert (bad.status, bad.version, bad.brings) == ("broken", "1.2", {})
    assert bad.reason and "Traceback" in bad.traceback or "Error" in bad.traceback


RUNS = ("core_train_start", "core_step_end", "core_train_end")
HOOKS = [name for name in SPECS if name not in RUNS]  # the others return lists
BROKEN_HOOKS = {
    "raises": ("1 / 0", "ZeroDivisionError"),
    "no list": ("3", "expected a list"),
    "another item": ("[object()]", "expected"),
}


@pytest.mark.parametrize("fault", BROKEN_HOOKS)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_broken_hook_of_any_kind_is_its_plugins_and_the_next_plugin_loads(site: Path, hook: str, fault: str) -> None:
    value, words = BROKEN_HOOKS[fault]
    install(site, "bad", "corelm_bad_module", f"def {hook}():\n    return {value}\n")
    install(site, "good", "corelm_good_module", OP.format(name="alpha"))
    registry = load_registry()
    bad = next(p for p in registry.plugins if p.name == "bad")
    assert (bad.status, bad.brings) == ("broken", {}) and words in bad.reason, bad.reason
    assert "corelm_bad_module.py:" in bad.reason + bad.traceback
    assert registry.op("alpha").origin == "corelm-good 1.2 (entry point good)"


def test_ctrl_c_during_an_import_is_not_a_broken_plugin(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_registry([path])


def test_a_missing_op_names_the_broken_plugin_that_may_have_brought_it(site: Path) -> None:
    install(site, "bad", "corelm_bad_module", OP.format(name="wavenorm") + "raise RuntimeError('boom')\n")
    with pytest.raises(BuildError, match='no op "wavenorm"') as caught:
        load_registry().op("wavenorm", "models/x.toml [graph] n")
    text = str(caught.value)
    assert text.startswith("models/x.toml [graph] n: ")
    assert 'plugin "bad" (corelm-bad 1.2 (entry point bad)) is broken: RuntimeError: boom' in text
    assert "core plugins bad" in text


def test_a_missing_op_names_the_disabled_plugin_that_may_have_brought_it(site: Path) -> None:
    install(site, "good", "corelm_good_module", OP.format(name="alpha"))
    with pytest.raises(BuildError, match='plugin "good" .* is disabled, and it mentions alpha'):
        load_registry(disable=["good"]).op("alpha")


def test_a_required_plugin_that_is_broken_missing_or_disabled_is_fatal(site: Path) -> None:
    install(site, "bad", "corelm_bad_module", "raise RuntimeError('boom')\n")
    with pytest.raises(BuildError, match="is broken: RuntimeError: boom"):
        load_registry(require=["bad"])
    with pytest.raises(BuildError, match="is disabled"):
        load_registry(require=["bad"], disable=["bad"])
    with pytest.raises(BuildError, match='there is no plugin "bat"; did you mean "bad"'):
        load_registry(require=["bat"])


def test_an_entry_point_that_is_no_module_is_broken(site: Path) -> None:
    install(site, "bad", "corelm_bad_module", "thing = 3\n")
    info = next(site.glob("*.dist-info"))
    write(info / "entry_points.txt", "[corelm]\nbad = corelm_bad_module:thing\n")
    record = next(p for p in load_registry().plugins if p.name == "bad")
    assert record.status == "broken" and "expected a module" in record.reason


def test_nothing_of_a_plugin_with_one_bad_variant_is_registered(site: Path) -> None:
    text = OP.format(name="alpha") + VARIANT.format(op="alpha", fields='reads = ("xx",)')
    install(site, "bad", "corelm_bad_module", text)
    registry = load_registry()
    assert "alpha" not in registry.ops and "alpha" not in registry.variants
    assert registry.plugins[-1].status == "broken"


def test_a_plugin_that_needs_an_op_of_a_refused_one_is_refused_too_and_says_why(site: Path) -> None:
    text = OP.format(name="alpha") + VARIANT.format(op="alpha", fields='reads = ("xx",)')
    install(site, "a", "corelm_a_module", text)
    install(site, "b", "corelm_b_module", LONE_VARIANT)
    install(site, "c", "corelm_c_module", OP.format(name="gamma"))
    registry = load_registry()
    status = {p.name: p.status for p in registry.plugins if p.kind == "installed"}
    assert status == {"a": "broken", "b": "broken", "c": "loaded"}
    reason = next(p.reason for p in registry.plugins if p.name == "b")
    assert 'there is no op "alpha"' in reason


def test_an_op_without_a_reference_is_refused(tmp_path: Path) -> None:
    path = op_plugin(tmp_path / "mine.py")
    path.write_text(path.read_text().replace("[alpha_reference, *OTHERS]", "OTHERS"))
    refused(path, 'op "alpha" has no reference', f"{path}:4")


DUPLICATES = {
    'op "alpha"': OP.format(name="alpha"),
    'variant "{op}.mine"': "from core import Variant\nclass Mine(Variant):\n    op, name = '{op}', 'mine'\n"
    "    def forward(self, t, launch): ...\n    def backward(self, t, launch): ...\n"
    "def core_variants():\n    return [Mine]\n",
    'model "m"': "def core_models():\n    return ['m.toml']\n",
    'optimizer "o"': "from core import Optimizer\nclass O(Optimizer):\n    name = 'o'\n"
    "    def step(self, p, launch): ...\n"
    "def core_optimizers():\n    return [O]\n",
    'schedule "s"': "from core import Schedule\nclass S(Schedule):\n    name = 's'\n    def lr(self, *step): ...\n"
    "def core_schedules():\n    return [S]\n",
    'command "hello"': "import click\n@click.command()\ndef hello(): ...\ndef core_commands():\n    return [hello]\n",
}


@pytest.mark.parametrize("what", DUPLICATES)
def test_a_duplicate_names_both_places(tmp_path: Path, what: str) -> None:
    some_op = next(iter(load_registry().ops))
    paths = []
    for name in ("one", "two"):
        paths.append(tmp_path / name)
        write(tmp_path / name / "__init__.py", DUPLICATES[what].replace("{op}", some_op))
        write(tmp_path / name / "m.toml", "")
    with pytest.raises(BuildError) as caught:
        load_registry(paths)
    text = str(caught.value)
    assert f"{what.replace('{op}', some_op)} is defined twice" in text
    first, second = text.index(str(paths[0]) + os.sep), text.index(str(paths[1]) + os.sep)
    assert first < second


def test_two_distributions_with_one_op_stop_the_run_unless_one_is_disabled(site: Path) -> None:
    install(site, "a", "corelm_a_module", OP.format(name="alpha"))
    install(site, "b", "corelm_b_module", OP.format(name="alpha"))
    with pytest.raises(BuildError) as caught:
        load_registry()
    text = str(caught.value)
    assert "corelm-a 1.2 (entry point a)" in text and "corelm-b 1.2 (entry point b)" in text
    assert "corelm_a_module.py:4" in text and "corelm_b_module.py:4" in text
    assert load_registry(disable=["b"]).op("alpha").origin == "corelm-a 1.2 (entry point a)"
    assert load_registry(disable=["corelm-a"]).op("alpha").origin == "corelm-b 1.2 (entry point b)"


def test_a_duplicate_inside_one_installed_plugin_breaks_only_that_one(site: Path) -> None:
    install(site, "a", "corelm_a_module", OP.format(name="alpha").replace("return [alpha]", "return [alpha, alpha]"))
    assert load_registry().plugins[-1].status == "broken"


def test_a_second_entry_point_of_one_name_is_an_error_and_not_skipped(site: Path) -> None:
    install(site, "same", "corelm_a_module", OP.format(name="alpha"), "corelm-a")
    install(site, "same", "corelm_b_module", OP.format(name="beta"), "corelm-b")
    with pytest.raises(BuildError, match='two plugins are called "same": corelm-a .* and corelm-b'):
        load_registry()
    assert "beta" in load_registry(disable=["corelm-a"]).ops
    listed = load_registry(strict=False)
    assert listed.problems and "alpha" in listed.ops


def test_a_plugin_that_is_installed_and_given_by_path_is_there_once_and_it_is_said_which(
    site: Path, tmp_path: Path
) -> None:
    install(site, "same", "corelm_a_module", OP.format(name="alpha"))
    op_plugin(tmp_path / "same.py", "alpha")
    with pytest.warns(UserWarning, match=r"same.py is used, not the one of corelm-same 1.2 \(entry point same\)"):
        registry = load_registry([tmp_path / "same.py"])
    assert registry.op("alpha").origin == str(tmp_path / "same.py") == registry.plugin("same").origin
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry = load_registry([site / "corelm_a_module.py"])  # the very files of the distribution: nothing to say
    assert registry.op("alpha").origin == str(site / "corelm_a_module.py")
    shipped = next(record.name for record in registry.plugins if record.kind == "shipped")
    op_plugin(tmp_path / f"{shipped}.py", "beta")
    with pytest.raises(BuildError, match=f'two plugins are called "{shipped}"'):
        load_registry([tmp_path / f"{shipped}.py"])
