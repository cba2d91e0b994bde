"""What a variant declares: its op, its base, its files; and look-ups by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plugin_files import OP, VARIANT, op_plugin, refused, variant_plugin, write

from core.device.cpu import record
from core.errors import BuildError
from core.loader import load_registry
from core.op import Reference, Tensors


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
        ('base = "refrence"', ['no variant of "alpha" called "refrence"', 'did you mean "reference"']),
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


@pytest.mark.parametrize("kind", ["op", "model", "optimizer", "schedule"])
def test_a_name_that_nobody_brought_gives_the_nearest(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "mine" / "alpha.toml", "")
    more = (
        "class O(Optimizer):\n    name = 'alpha'\n    def step(self, p, launch): ...\nclass S(Schedule):\n"
        "    name = 'alpha'\n    def lr(self, *step): ...\n"
        "def core_optimizers():\n    return [O]\ndef core_schedules():\n    return [S]\n"
        "def core_models():\n    return ['alpha.toml']\n"
    )
    op_plugin(tmp_path / "mine" / "__init__.py", more=more)
    registry = load_registry([tmp_path / "mine"])
    assert getattr(registry, kind)("alpha").name == "alpha"
    with pytest.raises(BuildError, match=f'there is no {kind} "alpja"; did you mean "alpha"'):
        getattr(registry, kind)("alpja")
