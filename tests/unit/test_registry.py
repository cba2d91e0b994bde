"""Plugins: found, loaded one by one, registered whole or not at all, and named in every error about them."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.device.cpu import record
from core.errors import BuildError, UsageError
from core.loader import load_registry
from core.op import Reference, Tensors

OP = """
from core import Op, Optimizer, Param, Reference, Schedule, Variant

{name} = Op("{name}", inputs={{"x": "... C"}}, outputs={{"y": "... C"}}, params={{"weight": Param("C")}},
            examples=[{{"x": (2, 3)}}])

class {name}_reference(Reference):
    op = "{name}"
    reads = ("x", "weight")

    def forward(self, t):
        t.y[...] = t.x * t.weight

    def backward(self, t):
        t.add("dx", t.dy * t.weight)

def core_ops():
    return [{name}]

OTHERS = []

def core_variants():
    return [{name}_reference, *OTHERS]
"""

VARIANT = """
class Other(Variant):
    op, name, device = "{op}", "other", "cuda"
    {fields}

    def forward(self, t, launch): ...
    def backward(self, t, launch): ...

OTHERS.append(Other)
"""

LONE_VARIANT = (  # for an op of another plugin
    "from core import Variant\nOTHERS = []\n"
    + VARIANT.format(op="alpha", fields="")
    + "def core_variants():\n    return OTHERS\n"
)


@pytest.fixture(autouse=True)
def only_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shipped or installed beside corelm must not decide these tests."""
    monkeypatch.delenv("CORELM_PLUGINS", raising=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def op_plugin(path: Path, name: str = "alpha", more: str = "") -> Path:
    return write(path, OP.format(name=name) + more)


def variant_plugin(path: Path, fields: str = "", op: str = "alpha") -> Path:
    return op_plugin(path, more=VARIANT.format(op=op, fields=fields))


def install(site: Path, entry: str, module: str, text: str, distribution: str = "", version: str = "1.2") -> None:
    """A distribution with one entry point, as an installer would leave it."""
    distribution = distribution or f"corelm-{entry}"
    write(site / f"{module}.py", text)
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    write(info / "entry_points.txt", f"[corelm]\n{entry} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, into which `install` puts distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def refused(path: Path, *words: str) -> BuildError:
    """Loading `path` is fatal, in one line that has all of `words` and the author's own file."""
    with pytest.raises(BuildError) as caught:
        load_registry([str(path)])
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert caught.value.exit_code == 3
    return caught.value


# --- the door ---------------------------------------------------------------------------------------------------


def test_built_in_ops_come_through_the_plugin_door() -> None:
    registry = load_registry()
    first = registry.plugins[0]
    assert (first.name, first.kind, first.status, first.origin) == ("ops", "built-in", "loaded", "corelm")
    assert first.brings["ops"] == [name for name in registry.ops if registry.ops[name].origin == "corelm"]
    assert all(v.origin == "corelm" for v in registry.variants[first.brings["ops"][0]].values())


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
    (hook,) = load_registry([path]).step_hooks
    hook("the run", 7, {"loss": 1.0})
    assert hook.plugin == "mine"
    (written,) = hook.hook.get_hookimpls()
    assert inspect.unwrap(written.function).__globals__["SEEN"] == [(7, {"loss": 1.0})]


# --- broken plugins ---------------------------------------------------------------------------------------------


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


# --- whole or not at all ----------------------------------------------------------------------------------------


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


# --- duplicates -------------------------------------------------------------------------------------------------

DUPLICATES = {
    'op "alpha"': OP.format(name="alpha"),
    'variant "{op}.mine"': "from core import Variant\nclass Mine(Variant):\n    op, name = '{op}', 'mine'\n"
    "    def forward(self, t, launch): ...\n    def backward(self, t, launch): ...\n"
    "def core_variants():\n    return [Mine]\n",
    'model "m"': "def core_models():\n    return ['m.toml']\n",
    'optimizer "o"': "from core import Optimizer\nclass O(Optimizer):\n    name = 'o'\n"
    "def core_optimizers():\n    return [O]\n",
    'schedule "s"': "from core import Schedule\nclass S(Schedule):\n    name = 's'\n"
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


# --- switching off ----------------------------------------------------------------------------------------------


def test_the_environment_limits_shipped_and_installed_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "a", "corelm_a_module", OP.format(name="alpha"))
    install(site, "b", "corelm_b_module", OP.format(name="beta"))
    monkeypatch.setenv("CORELM_PLUGINS", "b")
    registry = load_registry()
    assert "beta" in registry.ops and "alpha" not in registry.ops
    monkeypatch.setenv("CORELM_PLUGINS", "")
    assert {p.name for p in load_registry().plugins if p.status == "loaded"} == {"ops"}
    assert {p.name for p in load_registry(only=["a"]).plugins if p.status == "loaded"} == {"ops", "a"}


def test_a_name_that_switches_nothing_is_an_error(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "llama", "corelm_a_module", OP.format(name="alpha"))
    with pytest.raises(UsageError, match='disable names the plugin "lama".* did you mean "llama"'):
        load_registry(disable=["lama"])
    with pytest.raises(UsageError, match='"ops"'):
        load_registry(disable=["ops"])
    monkeypatch.setenv("CORELM_PLUGINS", "lama")
    with pytest.raises(UsageError, match='CORELM_PLUGINS names the plugin "lama"'):
        load_registry()


# --- hooks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def core_opz():\n    return []\n", ["no hook core_opz", 'did you mean "core_ops"', "mine.py:1"]),
        ("from core import hookimpl\n@hookimpl\ndef ops():\n    return []\ndef core_ops():\n    return []\n", ["ops"]),
        ("def core_ops(registry):\n    return []\n",
         ["written: def core_ops(registry)", "specified: def core_ops()", "mine.py:1"]),
        ("def core_step_end(run, stp, metrics): ...\n",
         ["written: def core_step_end(run, stp, metrics)", "specified: def core_step_end(run, step, metrics)"]),
        ("def core_step_end(**everything): ...\n", ["written: def core_step_end(**everything)"]),
        ("def core_ops():\n    yield 1\n", ["specified: def core_ops()"]),
        ("async def core_ops():\n    return []\n", ["written: async def core_ops()"]),
        ("def core_ops():\n    pass\n", ["core_ops returned NoneType", "expected a list"]),
        ("def core_ops():\n    return ['x']\n", ["core_ops returned a list with str 'x'", "expected an Op"]),
        ("from core import Op\ndef core_variants():\n    return [Op]\n", ["the class Op", "derived from Variant"]),
        ("from core import Optimizer\ndef core_optimizers():\n    return [Optimizer()]\n", ["derived from Optimizer"]),
        ("def core_commands():\n    return [print]\n", ["expected a click.Command"]),
        ("x = 1\n", ["defines no hook", "core_ops"]),
        ("core_api = 2\ndef core_ops():\n    return []\n", ["core_api = 2", "speaks 1"]),
    ],
)  # fmt: skip
def test_a_hook_that_would_be_misread_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    refused(write(tmp_path / "mine.py", text), *words)


def test_a_plugin_may_state_the_version_of_the_hooks_that_it_speaks(tmp_path: Path) -> None:
    assert "alpha" in load_registry([op_plugin(tmp_path / "mine.py", more="core_api = 1\n")]).ops


# --- what a variant declares ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('reads = ("wieght",)', ['reads: unknown name "wieght"', 'did you mean "weight"']),
        ('reads = "weight"', ["expected a tuple"]),
        ('can_add = ("weight",)', ['can_add: unknown name "weight"', "known: x"]),
        ('alias = {"dz": "dy"}', ['alias: unknown name "dz"']),
        ('alias = {"dx": "y"}', ['alias value: unknown name "y"']),
        ('inplace = {"dx": "dw"}', ['inplace value: unknown name "dw"']),
        ('partial = ("x",)', ['partial: unknown name "x"']),
        ('dtypes = ("fp32",)', ['dtypes: unknown name "fp32"', 'did you mean "f32"']),
        ('saved = {"x": "..."}', ['saved "x" has the name of something else']),
        ('saved = {"rstd": "... : f99"}', ["f99"]),
        ('arch = "sm90"', ['arch "sm90"']),
        ('device = "gpu"', ['device "gpu" is not one of cpu, cuda']),
        ('name = "auto"', ['variant name "auto"']),
        ('can_ad = ("x",)', ['"can_ad" means nothing', 'did you mean "can_add"']),
        ("def whynot(self, t): ...", ['did you mean "why_not"']),
        ("def forward_backward(self, t): ...", ["written: forward_backward(self, t)", "(self, t, launch)"]),
        ('base = "refrence"', ['no variant of "alpha" "refrence"', 'did you mean "reference"']),
        ('base = "other"', ["leads in a circle"]),
    ],
)
def test_a_declaration_that_names_nothing_is_refused(tmp_path: Path, fields: str, words: list[str]) -> None:
    path = variant_plugin(tmp_path / "mine.py", fields)
    refused(path, "Other", f"{path}:{OP.count(chr(10)) + 2}", *words)


def test_a_reference_has_the_name_of_one_and_a_second_is_a_duplicate(tmp_path: Path) -> None:
    more = "class Second(alpha_reference):\n    {}\nOTHERS.append(Second)\n"
    refused(op_plugin(tmp_path / "a.py", more=more.format("name = 'mine'")), "Second", "derives from Reference")
    refused(op_plugin(tmp_path / "b.py", more=more.format("pass")), 'variant "alpha.reference" is defined twice')


def test_a_variant_of_no_op_is_refused_with_the_nearest(tmp_path: Path) -> None:
    refused(variant_plugin(tmp_path / "mine.py", op="alpa"), 'no op "alpa"', 'did you mean "alpha"')


@pytest.mark.parametrize(
    ("replaces", "words"),
    [
        ("y = alpa(x, weight)", ['no op "alpa"', 'did you mean "alpha"']),
        ("y = alpha(z, weight)", ['unknown input, parameter or earlier result "z"']),
        ("y = alpha(x, weight, eps=1)", ['unknown attribute "eps"']),
        ("y = alpha(x, weight, x)", ["more names than alpha", "alpha(x, weight)"]),
        ("z = alpha(x, weight)", ['unknown result "y"']),
    ],
)
def test_a_fused_op_that_replaces_what_is_not_there_is_refused(tmp_path: Path, replaces: str, words: list[str]) -> None:
    fused = (
        'fused = Op("fused", inputs={"x": "... C"}, outputs={"y": "... C"}, params={"weight": Param("C")},\n'
        f'           replaces="{replaces}")\ndef core_ops():\n    return [alpha, fused]\n'
    )
    refused(op_plugin(tmp_path / "mine.py", more=fused), 'op "fused" replaces', *words)


# --- base -------------------------------------------------------------------------------------------------------


def test_base_gives_what_a_class_does_not_define(tmp_path: Path) -> None:
    more = VARIANT.format(op="alpha", fields='reads = ("x",); priority = 50; dtypes = ("f32",)') + (
        "class Mine(Variant):\n    op, name, base, can_add = 'alpha', 'mine', 'other', ('x',)\n"
        "    def forward(self, t, launch):\n        return super().forward(t, launch)\n"
        "OTHERS.insert(0, Mine)\n"
    )
    path = op_plugin(tmp_path / "mine.py", more=more)
    mine = load_registry([path]).variant("alpha", "mine")
    assert (mine.reads, mine.can_add, mine.dtypes, mine.device) == (("x",), ("x",), ("f32",), "cuda")
    assert mine.priority == 10, "a priority is the author's own word on his own variant"
    assert mine.has_backward


def test_each_launcher_has_the_kernels_of_the_class_that_wrote_it(tmp_path: Path) -> None:
    ours = tmp_path / "ours" / "__init__.py"
    op_plugin(ours, more=VARIANT.format(op="alpha", fields='source = "a.cu"'))
    write(tmp_path / "ours" / "a.cu", "")
    theirs = write(
        tmp_path / "theirs.py",
        "from core import Variant\nclass Mine(Variant):\n    op, name, base = 'alpha', 'mine', 'other'\n"
        "    def forward(self, t, launch): ...\ndef core_variants():\n    return [Mine]\n",
    )
    mine = load_registry([ours.parent, theirs]).variant("alpha", "mine")
    assert mine.sources == {"forward": (tmp_path / "alpha.cu",), "backward": (tmp_path / "ours" / "a.cu",)}
    assert mine.folder == tmp_path


def test_a_base_that_is_the_reference_lends_launchers_that_record(tmp_path: Path) -> None:
    more = (
        "class Fast(Variant):\n    op, name, base = 'alpha', 'fast', 'reference'\n"
        "    def forward(self, t, launch):\n        launch.call(lambda: t.y.fill(5))\n"
        "OTHERS.append(Fast)\n"
    )
    fast = load_registry([op_plugin(tmp_path / "mine.py", more=more)]).variant("alpha", "fast")
    assert not isinstance(fast, Reference)
    assert (fast.device, fast.dtypes, fast.reads, fast.sources) == ("cpu", ("f32", "f64"), ("x", "weight"), {})
    t = Tensors(dy=np.ones(3), weight=np.arange(3.0), dx=np.zeros(3), y=np.zeros(3))
    commands = record(fast, "backward", t)
    assert not t.dx.any(), "nothing is computed while recording"
    for command in commands:
        command()
    assert t.dx.tolist() == [0, 1, 2]


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["../secret.cu", "{absolute}", "link.cu"])
def test_a_source_that_leaves_the_plugins_folder_is_refused(tmp_path: Path, source: str) -> None:
    secret = write(tmp_path / "secret.cu", "")
    path = variant_plugin(tmp_path / "mine" / "__init__.py", f'source = "{source.format(absolute=secret.as_posix())}"')
    if source == "link.cu":
        (path.parent / "link.cu").symlink_to(secret)
    refused(path.parent, "leads out of the plugin's folder", "source")


@pytest.mark.parametrize("model", ["../secret.toml", "{absolute}", "link.toml"])
def test_a_model_that_leaves_the_plugins_folder_is_refused(tmp_path: Path, model: str) -> None:
    secret = write(tmp_path / "secret.toml", "")
    given = model.format(absolute=secret.as_posix())
    path = write(tmp_path / "mine" / "__init__.py", f"def core_models():\n    return ['{given}']\n")
    if model == "link.toml":
        (path.parent / "link.toml").symlink_to(secret)
    refused(path.parent, "core_models", "leads out of the plugin's folder")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(variant_plugin(tmp_path / "mine.py", 'source = "gone.cu"'), "no file", "gone.cu")
    refused(write(tmp_path / "m.py", "def core_models():\n    return ['gone.toml']\n"), "no file", "gone.toml")


def test_models_are_named_by_their_stem_and_found_beside_the_plugin(tmp_path: Path) -> None:
    path = write(tmp_path / "mine" / "__init__.py", "def core_models():\n    return ['models/tiny_one.toml']\n")
    model = write(path.parent / "models" / "tiny_one.toml", "")
    found = load_registry([path.parent]).model("tiny_one")
    assert (found.name, found.path, found.origin) == ("tiny_one", model, str(path.parent))


# --- look-ups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["op", "model", "optimizer", "schedule"])
def test_a_name_that_nobody_brought_gives_the_nearest(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "mine" / "alpha.toml", "")
    more = (
        "class O(Optimizer):\n    name = 'alpha'\nclass S(Schedule):\n    name = 'alpha'\n"
        "def core_optimizers():\n    return [O]\ndef core_schedules():\n    return [S]\n"
        "def core_models():\n    return ['alpha.toml']\n"
    )
    op_plugin(tmp_path / "mine" / "__init__.py", more=more)
    registry = load_registry([tmp_path / "mine"])
    assert getattr(registry, kind)("alpha").name == "alpha"
    with pytest.raises(BuildError, match=f'there is no {kind} "alpja"; did you mean "alpha"'):
        getattr(registry, kind)("alpja")


def test_a_plugin_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Modules given by path have names that depend on the path alone, so that a pickle or a traceback agrees."""
    path = op_plugin(tmp_path / "mine.py")
    code = (
        "import sys; from core.loader import load_registry; "
        "print(type(load_registry([sys.argv[1]]).variant('alpha', 'reference')).__module__)"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert there.stdout.strip() == type(load_registry([path]).variant("alpha", "reference")).__module__
