"""docs/architectures.md: its files and commands, in its order, in one folder; some of the runs are made smaller."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import stored_machine
import trained_run
from page_commands import ROOT, fenced, in_order

import core
from core import cli
from core.cache import cache_folder

PAGE = ROOT / "docs/architectures.md"
DIFFERS = "core runs diff baseline speedrun"  # exit 1
SIMULATED = "core train speedrun.toml --device sim --set train.steps=2 --set train.val_tokens=256"
ADDED = {  # command -> words that the test adds
    "core train baseline.toml": "--device cpu",
    "core train speedrun.toml": "--device cpu --set train.check=false",  # its ops are checked above
    SIMULATED: "--set dims.L=1 --set dims.T=8 --set dims.C=16 --set train.steps=1 --set train.tokens_per_step=32 "
    "--set train.val_every=0 --set train.checkpoint_every=0 --set train.check=false --out runs/sim",
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Command -> its output, in a folder with the page's files, which is the current one."""
    folder, texts = tmp_path_factory.mktemp("architectures"), {}
    stored_machine.put(folder / "cache")
    for name in ("kernels", "builtin", "tokens"):  # of the other tests
        (cache_folder() / name).mkdir(parents=True, exist_ok=True)
        (folder / "cache" / name).symlink_to(cache_folder() / name, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        trained_run.enter(folder, patch)
        patch.delenv("CORELM_PLUGINS", raising=False)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("CORELM_THREADS", "1")
        for step in in_order(PAGE.read_text("utf-8")):
            if isinstance(step, tuple):
                path = folder / step[0]
                path.parent.mkdir(exist_ok=True)
                path.write_text(step[1], encoding="utf-8")
            elif step[0] == "core":
                texts[shlex.join(step)] = run(step, folder / "output")
        yield texts


def run(words: list[str], file: Path) -> str:
    """The output of a command, which has to exit with 0, or 1 for the difference of two runs."""
    command = shlex.join(words)
    added = shlex.split(ADDED.get(command, "--no-time" if words[:2] == ["core", "check"] else ""))
    with file.open("w+", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        code = cli.run([*words[1:], *added])
    text = file.read_text("utf-8")
    assert code == (command == DIFFERS), f"{command} exits with {code}\n{text}"
    return text


def test_both_models_train_and_the_diff_names_model_optimizer_and_the_first_step(printed: dict[str, str]) -> None:
    for name in ("baseline", "speedrun"):
        losses = [float(loss) for loss in re.findall(r"\| loss ([\d.]+) ", printed[f"core train {name}.toml"])]
        assert len(losses) == 20 and losses[-1] < 0.65 * losses[0]
    said = printed[DIFFERS]
    assert "optimizer.name: adamw -> muon" in said and "they differ from step 1 on: loss" in said
    assert re.search(r"group: lr 0.02, weight_decay 0: .*h.0.ve.weight", printed["core train speedrun.toml"])


def test_ops_pass_the_check_and_the_plan_is_as_described(printed: dict[str, str]) -> None:
    for op in ("relu_squared", "value_mix", "pack"):
        assert "1 of 1 variants passed" in printed[f"core check {op} --plugin speedrun_ops.py --device cpu"]
    plan = printed["core plan speedrun.toml"]
    assert re.search(r"^h\.\{0,3\}\.ve ", plan, re.M) and re.search(r"^h\.\{0,2\}\.attn .*window=16", plan, re.M)
    lines = (*fenced(PAGE, "toml")[1].splitlines(),)
    for node, command in (
        ("v1", "core plan speedrun.toml h.3.v1"),
        ("act", "core plan speedrun.toml h.2.act --device sim"),
    ):
        (number,) = (n for n, line in enumerate(lines, 1) if line.startswith(f"{node} "))
        assert f"speedrun_gpt2.toml:{number}  {lines[number - 1]}" in printed[command]
    assert re.search(r"kernel +forward +\S*generated/relu_squared-\w+\.cu:", printed[command])


def test_the_simulator_trains_with_generated_kernels_and_an_op_on_the_host(printed: dict[str, str]) -> None:
    said = printed[SIMULATED]
    assert re.search(
        r"^on the host: pack.host, \d+ calls a micro-step, .* copied; the device waits for each$", said, re.M
    )
    assert re.search(r"^ +relu_squared +generated +1 ", said, re.M) and "step 1/1 | loss" in said
    assert len(list(Path("runs/sim/kernels").glob("relu_squared-*.cu"))) == 1


def test_decoding_through_the_cache_is_the_forward_over_all_tokens(printed: dict[str, str]) -> None:
    model = core.load("runs/speedrun", plugins=["speedrun_ops.py"])
    tokens = model.generate([[84, 104, 101]], max_new_tokens=30, temperature=0)  # beyond a window of 16
    assert np.array_equal(model.logits(tokens)[0, 2:-1].argmax(-1), tokens[0, 3:])


def test_the_family_passes_its_test(printed: dict[str, str]) -> None:
    space: dict[str, object] = {}
    exec(compile(Path("relu_family/test_gpt2_relu.py").read_text("utf-8"), "test_gpt2_relu.py", "exec"), space)
    space["test_gpt2_relu_is_transformers"]()  # type: ignore[operator]
