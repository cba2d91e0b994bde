"""Plugins are found by path and by entry point, loaded one by one, and switched off by name."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_files import LONE_VARIANT, OP, install, op_plugin, refused, write

import core.devices.residents
import core.resident_rows
import core.view.lenses
from core.errors import UsageError
from core.hooks import SPECS
from core.loader import import_plugin, load_registry
from core.op import Reference


def test_built_in_ops_come_through_the_plugin_door() -> None:
    registry = load_registry()
    first = registry.plugins[0]
    assert (first.name, first.kind, first.status, first.origin) == ("ops", "built-in", "loaded", "corelm")
    assert first.brings["ops"] == [name for name in registry.ops if registry.ops[name].origin == "corelm"]
    assert all(v.origin == "corelm" for v in registry.variants[first.brings["ops"][0]].values())


def test_every_hook_has_a_resident() -> None:
    """A shipped plugin, or a module of the core that defines the hook: none is there for outsiders alone."""
    rows = [core.devices.residents, core.resident_rows, core.view.lenses]
    modules = [*rows, *(import_plugin(record.candidate) for record in load_registry().plugins)]
    assert not [name for name in SPECS if not any(hasattr(module, name) for module in modules)]


def test_every_op_that_is_not_fused_has_exactly_one_reference() -> None:
    registry = load_registry()
    for name, op in registry.ops.items():
        references = [v for v in registry.variants[name].values() if isinstance(v, Reference)]
        assert len(references) == 1 or (op.replaces and not references), name


def test_a_file_and_a_folder_are_plugins_and_relative_imports_work(tmp_path: Path) -> None:
    op_plugin(tmp_path / "one.py", "alpha")
    op_plugin(tmp_path / "two" / "beta.py", "beta")
    write(tmp_path / "two" / "__init__.py", "from .beta import core_ops, core_variants\n")
    registry = load_registry([str(tmp_path / "one.py"), str(tmp_path / "two")])
    assert registry.op("alpha").origin == str(tmp_path / "one.py")
    assert registry.variant("beta", "reference").folder == tmp_path / "two"
    assert registry.plugin("two").brings == {"ops": ["beta"], "variants": ["beta.reference"]}


def test_a_hook_needs_no_mark_and_may_have_one(tmp_path: Path) -> None:
    path = op_plugin(tmp_path / "mine.py", "alpha")
    path.write_text(path.read_text().replace("def core_ops", "from core import hookimpl\n@hookimpl\ndef core_ops"))
    assert load_registry([path]).ops["alpha"].name == "alpha"


def test_a_path_given_twice_counts_once(tmp_path: Path) -> None:
    path = op_plugin(tmp_path / "mine.py")
    assert len([p for p in load_registry([path, f"{path.parent}/./mine.py"]).plugins if p.name == "mine"]) == 1


@pytest.mark.parametrize("given", ["nothing", "empty", "text.txt"])
def test_a_path_that_is_no_plugin_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "text.txt", "")
    refused(tmp_path / given, given, "a folder with an __init__.py, or a .py file")


def test_nothing_is_loaded_from_the_current_directory_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    op_plugin(tmp_path / "plugins" / "mine" / "__init__.py")
    monkeypatch.chdir(tmp_path)
    assert "alpha" not in load_registry().ops


def test_variants_may_come_before_the_plugin_of_their_op(tmp_path: Path) -> None:
    first = write(tmp_path / "first.py", LONE_VARIANT)
    registry = load_registry([first, op_plugin(tmp_path / "second.py")])
    assert registry.variant("alpha", "other").origin == str(first)


def test_a_step_hook_gets_the_arguments_that_it_asks_for(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.py",
        "SEEN = []\ndef core_step_end(step, own=3, metrics=None):\n    SEEN.append((step, metrics))\n",
    )
    (hook,) = [one for one in load_registry([path]).step_hooks if one.plugin == "mine"]
    hook("the run", 7, {"loss": 1.0})
    assert hook.plugin == "mine"
    (written,) = hook.hook.get_hookimpls()
    assert inspect.unwrap(written.function).__globals__["SEEN"] == [(7, {"loss": 1.0})]


def test_the_environment_limits_shipped_and_installed_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "a", "corelm_a_module", OP.format(name="alpha"))
    install(site, "b", "corelm_b_module", OP.format(name="beta"))
    monkeypatch.setenv("CORELM_PLUGINS", "b")
    registry = load_registry()
    assert "beta" in registry.ops and "alpha" not in registry.ops
    monkeypatch.setenv("CORELM_PLUGINS", "")
    own = {"ops", "devices", "core"}
    assert {p.name for p in load_registry().plugins if p.status == "loaded"} == own
    assert {p.name for p in load_registry(only=["a"]).plugins if p.status == "loaded"} == {*own, "a"}


def test_a_name_that_switches_nothing_is_an_error(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "llama", "corelm_a_module", OP.format(name="alpha"))
    with pytest.raises(UsageError, match='disable names the plugin "lama".* did you mean "llama"'):
        load_registry(disable=["lama"])
    with pytest.raises(UsageError, match='"ops"'):
        load_registry(disable=["ops"])
    monkeypatch.setenv("CORELM_PLUGINS", "lama")
    with pytest.raises(UsageError, match='CORELM_PLUGINS names the plugin "lama"'):
        load_registry()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def core_opz():\n    return []\n", ["no hook core_opz", 'did you mean "core_ops"', "mine.py:1"]),
        ("from core import hookimpl\n@hookimpl\ndef ops():\n    return []\ndef core_ops():\n    return []\n", ["ops"]),
        ("def core_ops(registry):\n    return []\n",
         ["written: def core_ops(registry)", "specified: def core_ops()", "mine.py:1"]),
        ("def core_step_end(run, stp, metrics): ...\n",
         ["written: def core_step_end(run, stp, metrics)", "specified: def core_step_end(run, step, metrics, tr"]),
        ("def core_step_end(**everything): ...\n", ["written: def core_step_end(**everything)"]),
        ("def core_ops():\n    yield 1\n", ["specified: def core_ops()"]),
        ("async def core_ops():\n    return []\n", ["written: async def core_ops()"]),
        ("def core_ops():\n    pass\n", ["core_ops returned NoneType", "expected a list"]),
        ("def core_ops():\n    return ['x']\n", ["core_ops returned a list with str 'x'", "expected an Op"]),
        ("from core import Op\ndef core_variants():\n    return [Op]\n", ["the class Op", "derived from Variant"]),
        ("def core_optimizers():\n    return [object()]\n", ["derived from Optimizer"]),
        ("def core_commands():\n    return [print]\n", ["expected a click.Command"]),
        ("x = 1\n", ["defines no hook", "core_ops"]),
        ("core_api = 2\ndef core_ops():\n    return []\n", ["core_api = 2", "has core_api = 1"]),
    ],
)  # fmt: skip
def test_a_hook_that_would_be_misread_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    refused(write(tmp_path / "mine.py", text), *words)


def test_a_plugin_may_state_the_version_of_the_hooks_that_it_speaks(tmp_path: Path) -> None:
    assert "alpha" in load_registry([op_plugin(tmp_path / "mine.py", more="core_api = 1\n")]).ops


def test_a_plugin_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Modules given by path have names that depend on the path alone, so that a pickle or a traceback agrees."""
    path = op_plugin(tmp_path / "mine.py")
    code = (
        "import sys; from core.loader import load_registry; "
        "print(type(load_registry([sys.argv[1]]).variant('alpha', 'reference')).__module__)"
    )
    root = Path(__file__).parents[3]
    there = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert there.stdout.strip() == type(load_registry([path]).variant("alpha", "reference")).__module__
