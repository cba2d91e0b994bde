"""`core trace`: its tables, and the figures of docs/kernels.md.

`python tests/sim/test_trace.py` writes those figures again.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from core import cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/kernels.md"


# --- the command ----------------------------------------------------------------------------------------------------


def printed(capfd, *words):
    code = cli.run(["trace", *words])
    out, err = capfd.readouterr()
    assert code == 0, err
    return out


def test_sums_are_those_of_the_lines_and_the_formula(capfd):
    rows, C = 5, 96
    words = ("layernorm.naive", "layernorm.warp", f"--shape=x={rows},{C}", "--json")
    traces = json.loads(printed(capfd, *words))
    assert [t["variant"] for t in traces] == ["naive", "warp"]
    for found in traces:
        methods = [k["method"] for k in found["kernels"]]
        assert methods[0] == "forward" and set(methods[1:]) == {"backward"}
        for kernel in found["kernels"]:
            for name in ("instructions", "threads", "flops", "asked", "sectors", "conflicts"):
                assert kernel[name] == sum(line[name] for line in kernel["lines"]), name
            files = {line["file"] for line in kernel["lines"]}
            text = {file: (ROOT / file).read_text("utf-8").splitlines() for file in files}
            assert all(line["source"] == text[line["file"]][line["line"] - 1].rstrip() for line in kernel["lines"])
    forward = traces[1]["kernels"][0]
    # x three times, weight and bias once a row; y; mean and rstd
    assert forward["asked"] == 4 * (6 * rows * C + 2 * rows)
    assert forward["coalescing"] == 1.0


def test_the_table_fits_the_terminal_and_keeps_the_sources_indentation(capfd, monkeypatch):
    words = ("layernorm.warp", "--shape=x=3,96", "--direction=forward")
    text = (ROOT / "ops/cuda/layernorm.cu").read_text("utf-8").splitlines()
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        head, *rows = re.findall(r"^  +LINE.*?^ +sum[^\n]*", printed(capfd, *words), re.M | re.S)[0].splitlines()
        place = head.index("SOURCE")
        assert max(map(len, [head, *rows])) <= columns and columns - place >= 24
        for row in rows[:-1]:
            shown, line = row[place:], text[int(row.split()[0]) - 1].rstrip()
            assert shown == line or (shown.endswith("...") and len(row) == columns and line.startswith(shown[:-3]))
        assert any(row[place:].startswith("    ") for row in rows), "the file's own blanks"
        assert max(map(len, printed(capfd, *words, "--no-lines").splitlines())) <= columns
        assert ("FLOPS" in head) == (columns >= 100) and "CONTENDED" not in head and "CONFLICTS" not in head


def test_headings_fit_the_terminal_and_a_variant_of_few_rows_has_an_example(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("rmsnorm.onepass", "--direction=backward"), ("matmul.rows", "--direction=forward")):
        out = printed(capfd, *words)
        assert max(map(len, out.splitlines())) <= 80
        assert re.search(r"\(\S+\.py:\d+\)$", out, re.M)


def test_each_kernel_is_headed_by_its_place_and_each_line_has_its_share(capfd):
    out = printed(capfd, "embedding.naive", "--shape=ids=40", "--shape=rows=50", "--shape=cols=32")
    for place, name in re.findall(r"^  (ops/\S+)  (\w+)  (?:for|back)ward, grid", out, re.M):
        file, line = place.split(":")
        assert re.search(rf"\b{name}\(", (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1])
    for part in re.findall(r"^  +LINE.*?(?=^ +sum)", out, re.M | re.S):
        rows = [line.split() for line in part.splitlines()[1:]]
        assert 95 <= sum(int(row[2].rstrip("%")) for row in rows) <= 105
    assert "turns of contended atomics" not in out.partition("embedding backward")[0]


def test_the_fused_launcher_is_shown_and_not_added_to_backward(capfd):
    words = ("cross_entropy.fused", "--shape", "logits=2,64 targets=2", "--no-lines")
    out = printed(capfd, *words)
    kernels = dict(re.findall(r"^ +(block_\w+) +\S+ +\S+ +([\d,]+)", out, re.M))
    (backward,) = re.findall(r"cross_entropy backward.*?warp instructions +([\d,]+)", out, re.S)
    assert set(kernels) == {"block_forward", "block_dlogits", "block_both"} and backward == kernels["block_dlogits"]


def test_bf16_moves_half_the_bytes(capfd):
    words = ("gelu.vector", "--shape", "x=64,64", "--direction=forward", "--json")
    f32, bf16 = (json.loads(printed(capfd, *words, "--dtype", dtype))[0]["kernels"] for dtype in ("f32", "bf16"))
    assert (len(f32), f32[0]["moved"], bf16[0]["moved"]) == (1, 2 * 64 * 64 * 4, 2 * 64 * 64 * 2)


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["gelu"], 2, "gelu.naive gelu.vector"),
        (["gelu.vectr"], 3, "vector"),
        (["gelu.reference"], 2, "no kernels"),
        (["gelu.naive", "--shape", "x"], 2, "NAME=SIZES"),
        (["gelu.naive", "--shape", "x=0,4"], 2, "at least 1"),
        (["gelu.naive", "--shape", "xx=4"], 2, '"xx"'),
        (["matmul.naive", "--shape", "x=4,4"], 3, "features"),
        (["gelu.naive", "add.naive", "--shape", "x=4"], 2, "one op"),
        (["global_norm.naive", "--direction", "backward"], 2, "no kernel backward"),
        (["attention.online", "--shape", "qkv=1,2,1200", "--shape", "heads=2"], 3, "room for 128"),
    ],
)
def test_what_cannot_be_traced_says_why(capfd, words, code, message):
    assert cli.run(["trace", *words]) == code
    err = capfd.readouterr().err
    assert message in err and "Traceback" not in err


# --- the page -------------------------------------------------------------------------------------------------------

SHOWN = re.compile(r"^```sh\n(core trace [^\n]*(?:\\\n[^\n]*)*)\n```\n+```text\n(.*?)^```$", re.M | re.S)
VERSION = re.compile(r"(?<=made with NVRTC )\d+(?:\.\d+)*")
OTHER_COMPILER = 0.25  # how far an instruction count may be off under another NVRTC


def same(shown: str, got: str, tolerance: float) -> bool:
    words, others = shown.split(), got.split()
    return len(words) == len(others) and all(
        a == b or (_number(a) and _number(b) and abs(_value(a) - _value(b)) <= tolerance * max(_value(a), 1))
        for a, b in zip(words, others, strict=True)
    )


def _number(word: str) -> bool:
    return re.fullmatch(r"[\d,.]+%?", word) is not None


def _value(word: str) -> float:
    return float(word.replace(",", "").rstrip("%"))


def test_the_figures_of_the_page_are_what_the_commands_print(capfd, monkeypatch):
    from core.kernels.nvrtc_library import nvrtc_version

    monkeypatch.chdir(ROOT)
    text = PAGE.read_text("utf-8")
    (version,) = VERSION.findall(text)
    tolerance = 0.0 if nvrtc_version() == version else OTHER_COMPILER
    blocks = SHOWN.findall(text)
    assert len(blocks) == text.count("```sh\ncore trace") >= 5, "a command without its figures"
    for command, shown in blocks:
        out = printed(capfd, *shlex.split(command.replace("\\\n", " "))[2:]).rstrip() + "\n"
        for line, got in zip(shown.splitlines(), out.splitlines(), strict=True):
            assert same(line, got, tolerance), f"{command}\n{line}\n{got}\nsee the top of this file"


def test_the_page_quotes_the_sources(monkeypatch):
    """Every line of its C++ and Python is a line of a kernel's source or launcher, as it stands there."""
    files = [*(ROOT / "ops/cuda").glob("*.cu*"), *(ROOT / "ops/cuda").glob("*.py")]
    files += (ROOT / "core/kernels").rglob("*.cuh")
    lines = {line.strip() for path in files for line in path.read_text("utf-8").splitlines()}
    text = PAGE.read_text("utf-8")
    quoted = re.findall(r"^```(?:cuda|python)\n(?!import )(.*?)^```$", text, re.M | re.S)
    missing = [line for block in quoted for line in block.splitlines() if line.strip() not in {*lines, "...", ""}]
    assert quoted and not missing


def test_the_python_of_the_page_runs(capfd):
    (block,) = re.findall(r"^```python\n(import .*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    exec(compile(block, "docs/kernels.md", "exec"), {})
    out = capfd.readouterr().out
    assert out and all(word in PAGE.read_text("utf-8") for word in out.splitlines())


def test_every_kernel_and_variant_that_the_page_names_exists():
    text = PAGE.read_text("utf-8")
    sources = "".join(p.read_text("utf-8") for p in (ROOT / "ops/cuda").glob("*.cu"))
    kernels = set(re.findall(r"`((?:naive|warp|tiled|mma|online|flash|twopass|block|vector)_\w+)`", text))
    assert kernels and not [name for name in kernels if not re.search(rf"\b{name}\b", sources)]
    assert not [name for name in re.findall(r"`(ops/[\w/.]+)`", text) if not (ROOT / name).exists()]


def rewrite() -> None:
    """Put what the commands print today on the page."""
    import subprocess
    import sys

    from core.kernels.nvrtc_library import nvrtc_version

    def again(match: re.Match[str]) -> str:
        words = shlex.split(match[1].replace("\\\n", " "))[1:]
        done = subprocess.run([sys.executable, "-m", "core.cli", *words], cwd=ROOT, capture_output=True, check=True)
        return f"```sh\n{match[1]}\n```\n\n```text\n{done.stdout.decode().rstrip()}\n```"

    text = VERSION.sub(nvrtc_version(), SHOWN.sub(again, PAGE.read_text("utf-8")))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
