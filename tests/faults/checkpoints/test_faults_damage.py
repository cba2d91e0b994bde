"""Checkpoints that are not as they were written: damaged, of another format, of other types, a pickle."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_runs import ROOT, assert_same, damage, log, seal, train, trainer

from core import checkpoint
from core.checkpoint.safetensors_file import write_tensors
from core.cli import run as core_command
from core.errors import CheckpointError


@pytest.mark.parametrize("how", ["flipped bit", "cut short", "missing"])
@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE])
def test_a_damaged_checkpoint_is_passed_over_loudly_and_fatal_when_it_was_named(
    here: Path, whole: Path, name: str, how: str
) -> None:
    shutil.copytree(whole, here / "run")
    newest = here / "run/checkpoints/step_00000012"
    damage(newest / name, how)
    with pytest.raises(CheckpointError, match=rf"step_00000012/{name}: (sha256|missing|\d)"):
        trainer(ExitStack(), origin=newest, out=Path("other"))
    assert not (here / "other").exists()
    with pytest.warns(checkpoint.CheckpointWarning, match=f"{name}.*step_00000008 is taken instead"):
        assert checkpoint.find(here / "run").step == 8
    assert train(out=Path("run"), resume=True) == 0
    text = log(here / "run")
    assert f"warning: a checkpoint is passed over: run/checkpoints/step_00000012/{name}" in text
    assert "resumed from run/checkpoints/step_00000008 (step 8)" in text
    assert_same(here / "run", whole)


class Evil:
    """Unpickling one leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def pickled(kind: str, path: Path) -> None:
    """What `pickle.dump`, `numpy.savez` of objects and `torch.save` leave."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Evil()}))
    elif kind == "npz":
        np.savez(path.with_suffix(""), a=np.array([Evil()], dtype=object))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": Evil()}))
            archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(("kind", "suffix"), [("pickle", ".pkl"), ("npz", ".npz"), ("torch", ".pt")])
def test_a_pickle_given_as_a_checkpoint_is_refused_and_never_run(
    here: Path, whole: Path, kind: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = here / f"evil{suffix}"
    pickled(kind, evil)
    shutil.copytree(checkpoint.find(whole).path, here / "step_00000012")
    shutil.copy(evil, here / "step_00000012/model.safetensors")
    seal(here / "step_00000012")
    train_it = ["train", "small.toml", "--device", "cpu", "--out", "run"]
    for arguments in (
        [*train_it, "--from", evil.name],
        [*train_it, "--from", "step_00000012"],
        [*train_it, "--set", f"weights={evil.name}"],
        ["sample", evil.name],
    ):
        assert core_command(arguments) == 7
        assert "never read" in capsys.readouterr().err
    assert not (here / "executed").exists() and not (here / "run").exists()


# What runs code that a file holds. Names of modules, functions and keywords, as they stand in the source.
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "copyreg"}
LOADS = {"torch.load", "yaml.load", "yaml.unsafe_load", "np.load", "numpy.load"}
EXECUTES = {"eval", "exec", "compile", "__import__"}


def runs_files(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in a module that could run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in UNPICKLING)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield node.lineno, "allow_pickle"
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in EXECUTES:
                yield node.lineno, called.id
            elif isinstance(called, ast.Attribute) and ast.unparse(called) in LOADS:
                yield node.lineno, ast.unparse(called)


# The only places that run code that they read, and why that is not a file's from outside.
OWN_SOURCE = "compiles the source of a variant that is loaded, with one change, for the op check's own test"
HOST = "a problem of core judge and a puzzle are their author's own programs; what is judged is CUDA alone"
ANSWER = "a student's own answer, on her own machine, in a process of its own"
PICTURE = "the course's own pages and solutions, run when its pictures are drawn again"
NO_PICKLE = "a user's .npy, read with allow_pickle=False"
RUNS_CODE = {
    ("core/testing/author_file.py", "compile"): HOST,
    ("core/testing/author_file.py", "exec"): HOST,
    ("core/testing/python_tasks.py", "compile"): ANSWER,
    ("core/testing/python_tasks.py", "exec"): ANSWER,
    ("core/data/array_files.py", "np.load"): NO_PICKLE,
    ("core/data/array_files.py", "allow_pickle"): NO_PICKLE,
    ("core/cli/sim.py", "np.load"): NO_PICKLE,
    ("core/cli/sim.py", "allow_pickle"): NO_PICKLE,
    ("plugins/mutants/launchers.py", "compile"): OWN_SOURCE,
    ("plugins/mutants/launchers.py", "exec"): OWN_SOURCE,
    ("core/testing/graph_faults.py", "compile"): OWN_SOURCE,
    ("core/testing/graph_faults.py", "exec"): OWN_SOURCE,
    ("plugins/course/pictures/source.py", "compile"): PICTURE,
    ("plugins/course/pictures/source.py", "exec"): PICTURE,
    ("plugins/course/pictures/today.py", "exec"): PICTURE,
}


def test_nothing_in_the_project_unpickles_or_runs_what_a_file_holds() -> None:
    evil = "import pickle\nnp.load(f, allow_pickle=True)\ntorch.load(f)\neval(text)\nfrom marshal import loads\n"
    assert {what for _, what in runs_files(ast.parse(evil))} == {
        "import pickle", "allow_pickle", "np.load", "torch.load", "eval", "import marshal",
    }  # fmt: skip
    paths = [p for name in ("core", "ops", "plugins") for p in (ROOT / name).rglob("*.py") if "tests" not in p.parts]
    assert len(paths) > 100
    found = {
        (path.relative_to(ROOT).as_posix(), what)
        for path in paths
        for _, what in runs_files(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(RUNS_CODE)


@pytest.mark.parametrize("name", [checkpoint.MANIFEST, checkpoint.STATE])
def test_a_newer_format_is_refused_with_its_number(folder: Path, name: str) -> None:
    path = folder / "step_00000001"
    (path / name).write_text(json.dumps({**json.loads((path / name).read_text()), "format": 99}))
    if name != checkpoint.MANIFEST:
        seal(path)
    with pytest.raises(
        CheckpointError, match=rf"{name}: format 99; this version reads up to {checkpoint.manifest.FORMAT}"
    ):
        checkpoint.load(path)


STATES: dict[str, Any] = {
    "no step": {"step": None},
    "a negative step": {"step": -1},
    "a step that is true": {"step": True},
    "tokens that are text": {"tokens": "64"},
    "a list of variants": {"variants": ["reference"]},
    "a window of text": {"windows": {"loss": ["3.0"]}},
    "data without files": {"data": {"train": {"name": "train"}}},
    "a best loss that is a list": {"best_val": []},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES.keys())
def test_a_state_of_other_types_is_refused_with_its_place(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "step_00000001"
    (path / checkpoint.STATE).write_text(json.dumps({"format": 1, "step": 1} | change))
    seal(path)
    with pytest.raises(CheckpointError, match=rf"state.json: damaged: .*\$\.{next(iter(change))}"):
        checkpoint.load(path)


WRONG_TENSORS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a missing parameter": (checkpoint.MODEL, lambda t: t.pop("ln_f.bias")),
    "a parameter too many": (checkpoint.MODEL, lambda t: t.update(evil=t["ln_f.bias"])),
    "a parameter of another shape": (checkpoint.MODEL, lambda t: t.update({"ln_f.bias": np.zeros(17, np.float32)})),
    "a missing state": (checkpoint.OPTIMIZER, lambda t: t.pop("m.ln_f.bias")),
    "a state of another optimizer": (checkpoint.OPTIMIZER, lambda t: t.update({"x.ln_f.bias": t["m.ln_f.bias"]})),
}


@pytest.mark.parametrize(("name", "change"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_tensors_that_are_not_the_models_are_refused_by_name(
    here: Path, whole: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    path = here / "step_00000012"
    shutil.copytree(checkpoint.find(whole).path, path)
    found = checkpoint.load(path)
    tensors = {n: np.array(a) for n, a in found.parameters.items()} if name == checkpoint.MODEL else {
        f"{state}.{n}": np.array(a) for state, each in found.optimizer.items() for n, a in each.items()
    }  # fmt: skip
    change(tensors)
    write_tensors(path / name, tensors, checkpoint.saving.METADATA)
    seal(path)
    with pytest.raises(CheckpointError, match=r"step_00000012: does not fit the model: .*(ln_f\.bias|evil|'x')"):
        trainer(ExitStack(), origin=path, out=Path("run"))
