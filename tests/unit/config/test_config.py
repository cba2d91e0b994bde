"""What a run config gives: values, layers, overrides, files that are found, options, the page of its keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
from config_files import GOOD, loaded, refused

from core.config import (
    check_options,
    find_config,
)
from core.config.out_folder import check_out
from core.config.reference import reference
from core.config.shipped import shipped_configs
from core.errors import UsageError

ROOT = Path(__file__).parents[3]


def test_values_are_typed_and_the_rest_has_defaults(write):
    config = loaded(write(GOOD))
    assert (config.model, config.precision, config.weights, config.seed) == ("gpt2_124m", "f32", "", 1337)
    assert config.dims == {"B": 4, "T": 64}
    assert config.data.train == ["a.txt"] and config.data.val == ["b.txt", "c/*.txt"]
    assert config.data.tokenizer == ["gpt2", "bpe"]
    assert config.train.steps == 10 and config.train.keep_last == 2 and config.train.freeze == []
    assert config.optimizer.lr == 3e-4 and config.optimizer.options == {"betas": [0.9, 0.95]}
    assert config.schedule.options == {"warmup": 2}
    assert config.source == GOOD and config.path == Path("run.toml") and config.device == "cpu"


def test_whole_numbers_stand_for_numbers(write):
    config = loaded(write(GOOD), "optimizer.lr=1", "optimizer.clip=2")
    assert isinstance(config.optimizer.lr, float) and isinstance(config.optimizer.clip, float)


def test_ops_nodes_fuse_and_plugins_are_read(write):
    config = loaded(
        write(
            GOOD + '[ops]\nmatmul = "tiled"\n[ops.generate]\nmatmul = "row"\n[nodes]\n"h.*.fc" = "naive"\n'
            '[fuse]\nhead_loss = { chunk = 2048 }\nembed = false\n[plugins]\nload = "mine"\ndisable = ["llama"]\n'
        )
    )
    assert config.ops.variants == {"matmul": "tiled"} and config.ops.generate == {"matmul": "row"}
    assert config.nodes == {"h.*.fc": "naive"}
    assert config.fuse == {"head_loss": {"chunk": 2048}, "embed": False}
    assert config.plugins.load == ["mine"] and config.plugins.disable == ["llama"]


def test_the_resolved_form_loads_to_the_same_config(write):
    text = GOOD + (
        '[ops]\nmatmul = "tiled"\n[ops.generate]\nmatmul = "row"\n[nodes]\n"h.*.fc" = "naive"\n[fuse]\n'
        'a = false\nb = { chunk = 1 }\n[on.cpu]\nseed = 7\ntrain = { steps = 3, freeze = ["wte.*"] }\n'
    )
    config = loaded(write(text), "optimizer.eps=1e-08", 'train.sample_prompt=a "quoted" line')
    again = loaded(write(config.to_toml(), "config.resolved.toml"))
    assert again.document == config.document and again.to_toml() == config.to_toml()
    assert again.train.steps == 3 and again.seed == 7 and again.notes == ()
    assert again.optimizer.options["eps"] == 1e-8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["gpt2_124m", "gpt2_124m_fineweb", "gpt2_rope", "tiny"])
def test_shipped_configs_load_on_every_device(name, device):
    config = loaded(ROOT / "configs" / f"{name}.toml", device=device)
    assert config.optimizer.name and config.document == config.document


def test_the_shipped_demonstration_is_the_one_described():
    gpu, cpu = (loaded(ROOT / "configs/gpt2_124m.toml", device=d) for d in ("cuda", "cpu"))
    assert (gpu.precision, gpu.dims, gpu.train.steps, gpu.train.tokens_per_step) == ("auto", {"B": 16}, 150, 65_536)
    assert (cpu.precision, cpu.dims, cpu.train.steps, cpu.train.tokens_per_step) == ("f32", {"B": 4, "T": 64}, 40, 256)
    assert gpu.schedule.options["warmup"] == 15 and cpu.schedule.options["warmup"] == 4
    long = loaded(ROOT / "configs/gpt2_124m_fineweb.toml", device="cuda")
    assert (long.train.steps, long.train.tokens_per_step, long.schedule.options["warmup"]) == (18_865, 524_288, 700)
    assert long.optimizer == gpu.optimizer


def test_a_file_wins_over_what_it_extends_and_its_device_part_over_itself(write):
    write(GOOD + "[on.cpu]\ntrain = { steps = 2, tokens_per_step = 256 }\nseed = 2\n", "base.toml")
    text = 'extends = "base.toml"\n[train]\nsteps = 3\n[on.cpu]\noptimizer = { lr = 0.5 }\n[on.cuda]\nseed = 9\n'
    config = loaded(write(text))
    assert config.train.steps == 3  # over the base's [on.cpu], which is folded in before
    assert config.train.tokens_per_step == 256 and config.seed == 2 and config.optimizer.lr == 0.5
    assert config.files == (Path("base.toml"), Path("run.toml"))
    assert loaded("run.toml", device="cuda").seed == 9


def test_what_was_folded_in_is_announced(write):
    config = loaded(write(GOOD + "[on.cpu]\nseed = 2\ndims = { B = 8 }\n[on.sim]\nseed = 3\n"))
    assert config.notes == ("run.toml [on.cpu] is folded in: seed = 2, dims.B = 8",)


def test_a_base_is_found_relative_to_its_file_or_by_a_shipped_name(write):
    write(GOOD, "deep/base.toml")
    write('extends = "base"\nseed = 5', "deep/mid.toml")
    assert loaded(write('extends = "deep/mid.toml"')).seed == 5
    assert loaded(write('extends = "tiny"')).dims["V"] == 2048


def test_a_base_that_is_missing_or_comes_round_again_shows_the_chain(write):
    write('extends = "c"', "b.toml")
    message = refused(write('extends = "b"', "a.toml"))
    assert "b.toml extends: expected a file" in message and "(chain: a.toml -> b.toml -> c)" in message
    write('extends = "a"', "c.toml")
    assert "c.toml extends: a cycle: a.toml -> b.toml -> c.toml -> a.toml" in refused("a.toml")
    assert "itself.toml extends: a cycle" in refused(write('extends = "itself"', "itself.toml"))


def test_another_optimizer_drops_the_options_of_the_old_one_and_says_so(write):
    write(GOOD, "base.toml")
    config = loaded(write('extends = "base"\n[optimizer]\nname = "sgd"\nmomentum = 0.9\n'))
    assert config.optimizer.options == {"momentum": 0.9} and config.optimizer.lr == 3e-4
    assert config.notes == (
        'run.toml [optimizer] name: "sgd" takes the place of "adamw", whose options are dropped: betas',
    )
    assert loaded("base.toml", "optimizer.name=adamw").optimizer.options == {"betas": [0.9, 0.95]}
    config = loaded("base.toml", "optimizer.momentum=0.5", "optimizer.name=sgd")
    assert config.optimizer.options == {"momentum": 0.5}


def test_a_fusion_can_be_switched_on_and_off_by_later_layers(write):
    write(GOOD + "[fuse]\na = false\nb = { chunk = 1 }\n", "base.toml")
    config = loaded(write('extends = "base"\n[fuse]\na = { chunk = 2 }\nb = false\n'))
    assert config.fuse == {"a": {"chunk": 2}, "b": False}
    assert config.where("fuse.b.chunk").endswith("(default)")  # gone, not the base's
    assert config.where("fuse.a") == "run.toml [fuse] a" and config.where("fuse.a.chunk") == "run.toml [fuse.a] chunk"


def test_overrides_are_toml_and_the_last_one_wins(write):
    path = write(GOOD + "[on.cpu]\nseed = 3\n")
    config = loaded(
        path, "train.steps=5", "train.steps = 6", "seed=4", "precision=f64", "data.val=x=y.txt", 'model="m"',
        "optimizer.betas=[0.8, 0.9]", "train.freeze=['wte.*']", "on.cpu.train.val_every=2", "dims.T=2*32",
        "train.sample_prompt=", "dims={ B = 8 }",
    )  # fmt: skip
    assert config.train.steps == 6 and config.seed == 4 and config.precision == "f64"
    assert config.data.val == ["x=y.txt"] and config.model == "m" and config.train.freeze == ["wte.*"]
    assert config.optimizer.options["betas"] == [0.8, 0.9] and config.train.val_every == 2
    assert config.dims == {"B": 8, "T": "2*32"} and config.train.sample_prompt == ""
    assert 'name = "adamw"' in config.to_toml() and "steps = 6" in config.to_toml()


@pytest.mark.parametrize("text", ['nodes."h.*.fc"=naive', "nodes.h.*.fc=naive", "nodes.'h.*.fc'='naive'"])
def test_a_glob_needs_no_quotes_on_the_command_line(write, text):
    assert loaded(write(GOOD), text).nodes == {"h.*.fc": "naive"}
    assert loaded(write(GOOD), f"on.cpu.{text}").nodes == {"h.*.fc": "naive"}


@pytest.mark.parametrize("name", ["tiny", "tiny.toml", "configs/tiny.toml", "./configs/tiny.toml"])
def test_a_shipped_config_is_found_by_path_or_stem_and_that_is_said(write, name):
    path, note = find_config(name)
    assert path.samefile(ROOT / "configs/tiny.toml") and name in note
    assert loaded(name).notes[0] == note


def test_a_file_here_wins_over_a_shipped_one(write):
    assert find_config(write(GOOD, "configs/tiny.toml")) == (Path("configs/tiny.toml"), "")


def test_every_shipped_config_is_found_in_a_wheel_too(tmp_path):
    """There the configs lie inside the package."""
    package = tmp_path / "core"
    for folder in ("configs", "ops"):
        (package / folder).mkdir(parents=True)
    for file in [*(ROOT / "core").rglob("*.py"), *(ROOT / "configs").glob("*.toml")]:
        target = package / (
            file.relative_to(ROOT) if file.parent.name == "configs" else file.relative_to(ROOT / "core")
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    code = "from core.config import load_config as l; import core; print(core.__path__, l('tiny', device='cpu').path)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert str(package / "configs" / "tiny.toml") in ran.stdout and str(ROOT) not in ran.stdout


ADAMW = {
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "nesterov": False,
    "kind": ("a", "b"),
    "rank": int,
    "low": -1.0,
}


def test_options_take_their_defaults_and_types():
    got = check_options({"betas": [0, 0.99], "weight_decay": 1, "rank": 3, "low": -2}, ADAMW, "x.toml [optimizer]")
    assert got == {
        "betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 1.0, "nesterov": False, "kind": "a", "rank": 3, "low": -2.0,
    }  # fmt: skip
    assert isinstance(got["weight_decay"], float) and isinstance(got["betas"][0], float)


def test_keys_beside_the_options_are_known_too():
    for key, near in {"lrr": "lr", "nam": "name"}.items():
        with pytest.raises(UsageError, match=f'{key}: unknown key; did you mean "{near}"'):
            check_options({"rank": 1, key: 1}, ADAMW, "x.toml [optimizer]", ["name", "lr"])


def test_any_other_output_path_is_fine(write, tmp_path):
    for path in ("runs/a", "x" * 255, str(tmp_path / "new" / "deep"), ".", "ü/日本"):
        assert check_out(path) == Path(path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_all_keys_is_up_to_date():
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m core.config.reference > docs/config.md"


def test_the_config_that_the_page_shows_is_a_whole_one(write):
    example, *_ = re.findall(r"^```toml\n(.*?)^```$", reference(), re.M | re.S)
    sizes = tomli.loads((ROOT / "models/gpt2_124m.toml").read_text(encoding="utf-8"))["dims"]
    assert loaded(write(example)).train.tokens_per_step % (sizes["B"] * sizes["T"]) == 0


def test_the_shipped_configs_are_toml_1_0():
    tomllib = pytest.importorskip("tomllib")
    for path in shipped_configs().values():
        tomllib.loads(path.read_text(encoding="utf-8"))
