"""`core new` writes what passes its check at once, for any op and from any variant, and overwrites nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import few_compilations
import pytest
import tomli
from core.plugins.mutants.suite import run_mutants

import core.cli as cli
from core.dtypes import C_TYPES
from core.graph import load_model
from core.kernels.nvrtc import SIMULATED, compile_all
from core.kernels.sources import whole_text
from core.loader import load_registry
from core.op import Reference
from core.testing import check_variant
from core.testing.compiles import launches_of
from core.testing.puzzle import prove
from core.testing.trials import all_trials, trials_of

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry(only=())
COPIED = [
    (o, n)
    for o, held in REGISTRY.variants.items()
    for n, v in held.items()
    if not (isinstance(v, Reference) or v.substitute)
]

# One step of a model of 16 channels.
SMALLEST = [
    *("train.steps=1", "train.tokens_per_step=8", "train.val_tokens=8", "train.sample_tokens=1", "data.vocab_size=260"),
    *("dims.B=1", "dims.T=8", "dims.C=16", "dims.H=2", "dims.L=1", "dims.V=260", "data.tokenizer=bpe"),
]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_PLUGINS", "")
    few_compilations.choose(monkeypatch)
    return tmp_path


def printed(capsys, *words):
    """What `core` prints; it has to succeed."""
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, *words):
    code = cli.run(list(words))
    err = capsys.readouterr().err
    assert code in (2, 3), err
    return err


def next_commands(out):
    lines = out.partition("next:\n")[2].splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip()]


# --- what is written works -------------------------------------------------------------------------------------------


def test_a_new_course_is_listed_starts_and_keeps_its_promises(capsys):
    listed, start, proof = next_commands(printed(capsys, "new", "course", "mine"))
    assert "01_squares  15 min  0 of 1  Squares" in printed(capsys, *listed)
    assert "core learn check p01 --course mine --plugin ./mine" in printed(capsys, *start)
    assert "YOUR TURN" in Path("course/p01_square.cu").read_text("utf-8") and proof[:2] == ["learn", "prove"]
    proofs = list(prove(Path("mine/puzzles/p01_square.py"), here=True))
    assert len(proofs) == 6 and all(one.holds for one in proofs)
    assert "prove(path, here=True)" in Path("mine/test_mine.py").read_text("utf-8")


def test_a_new_op_passes_its_check_trains_and_has_a_test(capsys):
    check, train, simulated = next_commands(printed(capsys, "new", "op", "soft_step"))
    out = printed(capsys, *check, "--no-time")
    assert "soft_step.reference" in out and "soft_step.naive  (sim; f32, bf16, fp16)" in out and "compile " in out
    out = printed(capsys, *train, *(f"--set={key}" for key in SMALLEST))
    assert re.search(r"^ +soft_step +reference +1 ", out, re.M) and "step 1/1 | loss" in out
    assert simulated[-4:] == ["--device", "sim", "--set", "train.steps=2"]
    assert "check_op" in Path("soft_step/test_soft_step.py").read_text("utf-8")


def test_a_new_variant_is_a_copy_that_passes_and_trains_in_the_simulator(capsys):
    check, train = next_commands(printed(capsys, "new", "variant", "add", "mine"))  # the kernel that compiles fastest
    assert "1 of 1 variants passed" in printed(capsys, *check, "--no-time")
    out = printed(capsys, *train, *(f"--set={key}" for key in SMALLEST))
    assert re.search(r"^ +add +mine +", out, re.M) and "step 1/1 | loss" in out
    assert 'op, name = "add", "mine"' in Path("mine/add.py").read_text("utf-8")


def test_a_forward_alone_takes_the_rest_from_its_base(capsys):
    printed(capsys, "new", "variant", "gelu", "mine", "--base", "naive")
    mine = Path("mine/gelu.py").read_text("utf-8").partition("class GeluMine(Variant):")[2]
    assert "def forward" in mine and "def backward" not in mine and 'base = "naive"' in mine
    sources, base = load_registry(["mine"]).variant("gelu", "mine").sources, REGISTRY.variant("gelu", "naive")
    assert [p.parent.name for p in sources["forward"]] == ["mine"] and sources["backward"] == base.sources["backward"]
    registry = load_registry(["mine"])
    assert check_variant(registry.op("gelu"), registry.variant("gelu", "mine"), registry, archs=()).passed


@pytest.mark.parametrize("op", sorted({op for op, _ in COPIED}))
def test_every_variant_can_be_copied_with_all_that_its_kernels_compile_from(op, capsys):
    """The same text as the original's, headers included: tests/sim/test_cuda_compiles.py compiles that."""
    for name in [n for o, n in COPIED if o == op]:
        folder = f"{op}_{name}"
        printed(capsys, "new", "variant", op, "mine", "--from", name, "--out", folder)
        registry = load_registry([folder])
        made = registry.variant(op, "mine")
        assert made.priority < 0, "a copy in work is taken only by name"
        if made.device == "cpu":
            continue
        trials = [trial for trial in all_trials(registry.op(op), made, registry) if trial.dtype == made.dtypes[0]]
        kernels = list(dict.fromkeys(launch.kernel for launch in launches_of(trials)))
        assert all(("ELEM", C_TYPES[made.dtypes[0]]) in kernel.defines for kernel in kernels)
        copied = {k.source.resolve().is_relative_to(Path(folder).resolve()) for k in kernels}
        assert True in copied and (made.base or copied == {True}), (
            "kernels of the copy are in its folder, those of `base` in its own"
        )
        sources = REGISTRY.variant(op, name).sources.values()
        originals = {path.name: path for paths in sources for path in paths}
        for source in {k.source for k in kernels}:
            assert whole_text(source) == whole_text(originals[source.name])


@pytest.mark.parametrize(("op", "base"), [("attention", "flash"), ("muon_update", "naive"), ("gelu", "vector")])
def test_a_copied_forward_launches_kernels_that_it_has(op, base, capsys, monkeypatch):
    """Also where a launcher makes their names, and where it takes constants from a package above its own."""
    monkeypatch.setenv("CORELM_PLUGINS", "muon")
    printed(capsys, "new", "variant", op, "mine", "--base", base, "--out", "fore")
    registry = load_registry(["fore"])
    trials, _ = trials_of(registry.op(op), registry.variant(op, "mine"), registry)
    launched = {k.name: k for k in (launch.kernel for launch in launches_of(trials)) if "fore" in k.source.parts}
    assert launched
    for kernel, compiled in zip(launched.values(), compile_all((k, SIMULATED) for k in launched.values()), strict=True):
        assert kernel.name in compiled.names


def test_a_copy_of_kernels_from_many_files_has_all_since_each_is_compiled_with_macros_of_its_own(capsys):
    printed(capsys, "new", "variant", "attention", "mine", "--from", "flash", "--out", "two")
    names = ["attention_flash.cu", "attention_flash_backward.cu", "attention.cu"]
    assert {path.name for path in Path("two").glob("*.cu*")} == {*names, "attention_flash.cuh"}
    sources = load_registry(["two"]).variant("attention", "mine").sources["forward"]
    assert [path.name for path in sources] == names


def test_a_new_plugin_passes_trains_from_its_config_and_is_a_distribution_with_all_its_files(capsys):
    check, train, _, install = next_commands(printed(capsys, "new", "plugin", "soft_step"))
    assert "2 of 2 variants passed" in printed(capsys, *check, "--no-time")
    out = printed(capsys, *train, *(f"--set={key}" for key in SMALLEST))
    assert re.search(r"^ +soft_step +reference +1 ", out, re.M) and "step 1/1 | loss" in out
    assert install == ["install", "-e", "./soft_step"]
    project = tomli.loads(Path("soft_step/pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["corelm"] == {"soft_step": "soft_step"}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["soft_step"]
    assert "check_op" in Path("soft_step/tests/test_soft_step.py").read_text("utf-8")
    told = re.findall(r"`([\w/]+\.(?:py|cu|toml))`", Path("soft_step/README.md").read_text("utf-8"))
    assert len(told) == 6 and all(Path("soft_step", name).is_file() for name in told)


@pytest.mark.parametrize(("variant", "device", "sample"), [("reference", "cpu", 8), ("naive", "sim", 2)])
def test_the_check_says_no_to_a_new_op_that_is_broken(variant, device, sample, capsys):
    printed(capsys, "new", "op", "soft_step")
    registry = load_registry(["soft_step"])
    (result,) = run_mutants(registry, (f"soft_step.{variant}",), sample=sample, device=device)
    assert result.held >= sample and not result.survivors, "\n".join(m.key for m in result.survivors)


@pytest.mark.skipif(
    not (importlib.util.find_spec("pip") and importlib.util.find_spec("hatchling")), reason="they build the wheel"
)
def test_a_new_plugin_is_installed_by_pip_and_found_by_its_entry_point(capsys, workplace):
    printed(capsys, "new", "plugin", "soft_step")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", "site", "./soft_step"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shutil.rmtree("soft_step")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{workplace / 'site'}", "CORELM_PLUGINS": "soft_step"}
    words = [sys.executable, "-m", "core.cli", "plan", "tiny", "--set", "model=gpt2_soft_step", "--device", "sim"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert re.search(r"act +soft_step +naive +auto", done.stdout), done.stderr


def test_a_new_model_trains_and_is_one_graph_whether_it_extends_or_stands_alone(capsys):
    plan, train = next_commands(printed(capsys, "new", "model", "wide"))
    assert plan == ["plan", "wide/tiny_wide.toml"] == ["plan", *train[1:]]
    assert "step 1/1 | loss" in printed(capsys, *train, *(f"--set={key}" for key in SMALLEST))
    printed(capsys, "new", "model", "narrow", "--alone")
    graphs = [load_model(f"{name}/{name}.toml", REGISTRY).build(REGISTRY) for name in ("wide", "narrow")]
    nodes = [[(n.name, n.op.name, n.inputs, n.params) for n in graph.nodes] for graph in graphs]
    assert nodes[0] == nodes[1] and len(nodes[0]) > 100
    assert "extends" not in Path("narrow/narrow.toml").read_text("utf-8")
    mlp = next(n for n in graphs[0].nodes if n.name == "h.1.ln_2")
    assert mlp.inputs == next(n for n in graphs[0].nodes if n.name == "h.1.ln_1").inputs, "side by side"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(capsys):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    for words in (["op", "mine"], ["variant", "gelu", "mine"], ["op", "other", "--out", "mine"]):
        assert "no file was overwritten" in refused(capsys, "new", *words)
    assert [p.name for p in Path("mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "name", ["Mine", "1st", "my-op", "a b", "class", "print", "np", "reference", "auto", "", "../x"]
)
def test_a_name_that_cannot_be_is_refused_in_words(name, capsys):
    assert "cannot be the name of an op" in refused(capsys, "new", "op", name)
    assert "cannot be the name of a variant" in refused(capsys, "new", "variant", "gelu", name)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["op", "gelu"], "core new variant gelu mine"),
        (["variant", "gelu", "naive"], 'there is a variant "gelu.naive" already'),
        (["variant", "gelo", "mine"], 'did you mean "gelu"?'),
        (["variant", "gelu", "mine", "--from", "naiv"], 'did you mean "naive"?'),
        (["variant", "gelu", "mine", "--from", "naive", "--base", "naive"], "exclude each other"),
        (["variant", "gelu", "mine", "--from", "reference"], "no kernel to copy"),
        (["variant", "add_layernorm", "mine"], "--from blocked"),
        (["variant", "gelu", "ops"], "another folder: --out DIR"),
        (["plugin", "gelu"], "core new variant gelu mine"),
        (["plugin", "json"], "would hide an existing one"),
        (["plugin", "tests"], "would hide an existing one"),
        (["model", "gpt2_124m"], 'there is a model "gpt2_124m" already'),
        (["model", "Wide"], "cannot be the name of a model"),
    ],
)
def test_what_cannot_be_made_says_what_to_do(words, says, capsys):
    assert says in refused(capsys, "new", *words)
    assert not list(Path().iterdir())


# --- a copy is a copy ------------------------------------------------------------------------------------------------


def test_a_copy_has_the_files_whole_and_two_lines_differ(capsys):
    printed(capsys, "new", "variant", "gelu", "mine", "--from", "vector")
    before = Path(REGISTRY.variant("gelu", "vector").folder, "gelu.py").read_text("utf-8").splitlines()
    after = Path("mine/gelu.py").read_text("utf-8").splitlines()
    gone, new = [line for line in before if line not in after], [line for line in after if line not in before]
    assert gone == ["class GeluVector(GeluNaive):", '    name, priority = "vector", 10']
    assert new[:2] == ["class GeluMine(GeluNaive):", '    name = "mine"'] and new[2].startswith("    priority = -1")
    for name in ("gelu.cu", "gelu.cuh"):
        source = Path(REGISTRY.variant("gelu", "vector").folder, name)
        assert Path("mine", name).read_bytes() == source.read_bytes()
    assert [v for v in load_registry(["mine"]).variants["gelu"] if v not in REGISTRY.variants["gelu"]] == ["mine"]


def test_modules_above_the_copied_one_keep_their_places(capsys):
    printed(capsys, "new", "variant", "gelu", "mine", "--from", "blocked")
    assert {"cpu/gelu.py", "gelu.py", "erf.py"} <= {
        p.relative_to("mine").as_posix() for p in Path("mine").rglob("*.py")
    }
    assert "from .cpu import gelu" in Path("mine/__init__.py").read_text("utf-8")


def test_a_value_of_the_package_itself_has_no_place_in_a_copy(capsys, workplace):
    plugin = workplace / "toy"
    plugin.mkdir()
    (plugin / "__init__.py").write_text("LANES = 4\nfrom . import slow\ndef core_variants(): return [slow.Slow]\n")
    (plugin / "slow.py").write_text(
        "from core import Variant\nfrom . import LANES\nclass Slow(Variant):\n"
        '    op, name, device = "gelu", "slow", "cpu"\n'
        "    def forward(self, t, launch): launch(lambda: None)\n"
        "    def backward(self, t, launch): launch(lambda: None)\n"
    )
    said = refused(capsys, "new", "variant", "gelu", "mine", "--from", "slow", "--plugin", "toy")
    assert "import LANES" in said and not Path("mine").exists()
