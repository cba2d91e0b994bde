"""Plugins at fault: one that raises, one of two with one op, hooks of other arguments, files of somewhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outside_files import PLUGIN, TRAIN, Core, use_model, write


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Installs distributions: a module and its entry point."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))

    def install(name: str, code: str) -> None:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[corelm]\n{name} = {name}\n")
        (folder / f"{name}.py").write_text(code)

    yield install
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(folder))]:
        del sys.modules[name]


def test_a_plugin_that_raises_while_it_is_imported(core: Core, site: Callable[[str, str], None]) -> None:
    site("acme_broken", PLUGIN + "\nraise RuntimeError('no such library')\n")
    core("plugins", code=0, says=["acme_broken", "broken"])
    core(*TRAIN, code=0, makes=True)
    use_model(('"layernorm"', '"half"'))
    core(*TRAIN, code=3, says=['no op "half"', "is broken", "no such library", "acme_broken.py:"])


def test_two_plugins_bring_one_op(core: Core, site: Callable[[str, str], None]) -> None:
    site("acme_one", PLUGIN)
    site("acme_two", PLUGIN)
    core(*TRAIN, code=3, says=['op "half" is defined twice', "acme_one 1.0", "acme_two 1.0", "[plugins] disable"])
    core(*TRAIN, "--set", 'plugins.disable=["acme_two"]', code=0, makes=True)


def test_a_hook_with_other_arguments_or_another_version(core: Core) -> None:
    write("hook.py", PLUGIN + "\ndef core_step_end(run, step, metrix): ...\n")
    core(*TRAIN, "--plugin", "hook.py", code=3, says=[
        "written: def core_step_end(run, step, metrix)", "specified: def core_step_end(run, step, metrics, training)",
        "hook.py:24",
    ])  # fmt: skip
    write("newer.py", "core_api = 2\n" + PLUGIN)
    core(*TRAIN, "--plugin", "newer.py", code=3, says=["core_api = 2; this version of corelm has core_api = 1"])


OUTSIDE = "leads out of the plugin's folder"
ESCAPES = {
    "../out.cu": OUTSIDE,
    "/etc/passwd": OUTSIDE,
    "link.cu": OUTSIDE,
    "gone.cu": "no file",
    "x" * 300: "no file",
    "a\\0b": "not a valid name of a file",
    "loop.cu": "no file",
}


@pytest.mark.parametrize("what", ["source", "core_models"])
@pytest.mark.parametrize("given", ESCAPES)
def test_a_plugin_with_a_file_of_somewhere_else(core: Core, what: str, given: str) -> None:
    name = f"plug_{what}_{list(ESCAPES).index(given)}"  # a module is imported once in a process
    extra = {
        "source": f"""
class Other(Variant):
    op, name, device, source = "half", "other", "cuda", "{given}"

    def forward(self, t, launch): ...
    def backward(self, t, launch): ...


def core_variants():
    return [HalfReference, Other]
""",
        "core_models": f'\ndef core_models():\n    return ["{given}"]\n',
    }[what]
    write(f"{name}/__init__.py", PLUGIN + extra)
    write("out.cu", "// not the plugin's\n")
    os.symlink("../out.cu", f"{name}/link.cu")
    os.symlink("loop.cu", f"{name}/loop.cu")
    core("ops", "half", "--plugin", name, code=3, says=[what, ESCAPES[given]])
