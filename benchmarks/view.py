"""The page of `core view`: its bytes, the time until it is drawn, and the time of a key in each view.

    python benchmarks/view.py                       runs of one step: GPT-2 124M (B=1, T=64), 48 layers, 64 experts,
                                                    and history: 21 steps of 12 layers, with each step's statistics,
                                                    that end in a crash, beside a kernel
    python benchmarks/view.py --cases layers,experts --json result.json
    python benchmarks/view.py --pictures docs/view  the pictures of docs/view.md, of a run of configs/tiny.toml, and
                                                    small.html, the page that the docs link to
    python benchmarks/view.py --small docs/view     small.html alone: in seconds, without a browser

`open` is the time from navigation until the first view is drawn, the least of the rounds: an upper bound, since another
process queries the browser. `key` is from the event until the frame after it is done, over arrows to the right and
down in a headless Chromium with software rendering; a frame of a screen is 16.7 ms.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from core.cli import run  # noqa: E402

SMALL = {"V": 512, "C": 32, "S": 64, "B": 1, "T": 64}
CASES = {
    "gpt2_124m": ("gpt2_124m", {"B": 1, "T": 64}),
    "layers": ("gpt2_124m", {**SMALL, "H": 4, "L": 48}),
    "experts": (
        "moe_125m",
        {"V": 512, "C": 32, "H": 4, "K": 2, "D": 8, "L": 4, "B": 1, "T": 64, "E": 64, "A": 4, "F": 16},
    ),
    "history": ("gpt2_124m", {**SMALL, "H": 4, "L": 12}),
}
STATISTICS = ["--set", "train.health_every=1"]
TRAININGS = {  # case -> (arguments of `core train`, its exit code) of each training
    "history": [
        (["--set", "train.steps=20", "--set", "train.checkpoint_every=20", *STATISTICS], 0),
        (["--resume", "--set", "train.steps=40", "--set", "optimizer.lr=1e30", *STATISTICS], 5),
    ],
}
WORDS = {"history": ["--kernel", "gelu.vector"]}  # case -> arguments of `core view`
# Pictures: name -> the page's place, of the run below, and keys to press there.
TRAIN = ["train.steps=120", "train.health_every=2", "train.checkpoint_every=60", "train.val_every=0", "dims.B=2"]
VIEW = ["tiny", "--step", "100", "--kernel", "gelu.vector"]
PICTURES = {
    "step": ("step&node=h.2.ln_1&point=y,40,11", ()),
    "text": ("text&at=40", ()),
    "memory": ("memory", ("p",)),
    "kernel": ("kernel", ("n", "n")),
    "health": ("health&row=20", ()),
}
# small.html: a run of configs/tiny.toml with these settings, and the arguments of its `core view`.
SMALL_RUN = [
    "dims.C=24", "dims.H=2", "dims.L=2", "dims.T=32", "dims.S=32", "dims.B=1", "dims.V=384", "data.vocab_size=384",
    "train.steps=40", "train.tokens_per_step=256", "train.checkpoint_every=20", "train.health_every=4",
    "train.val_every=20", "train.val_tokens=640", "train.sample_every=0", "optimizer.lr=5e-3", "schedule.warmup=5",
]  # fmt: skip
SMALL_VIEW = [
    "--step", "20", "--kernel", "gelu.vector", "--shape", "x=8,64", "--dtype", "bf16", "--direction", "forward",
]  # fmt: skip
SIZE = {"width": 1280, "height": 800}
PIXELS = """async (png) => { const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes])), { width, height } = image;
    const context = new OffscreenCanvas(width, height).getContext("2d"); context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, width, height); let text = "";
    for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
    return btoa(text); }"""
KEY = """async (key) => { const times = []; for (let i = 0; i < 20; i++) { const start = performance.now();
    (document.activeElement || document.body).dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    times.push(performance.now() - start); } return times; }"""


def config(model, dims):
    """A run of one step on the text of the docs, with its checkpoint."""
    sizes = "\n".join(f"{name} = {size}" for name, size in dims.items())
    return f"""model = "{model}"
[dims]
{sizes}
[data]
train = "train.txt"
val = "val.txt"
tokenizer = "bytes"
[train]
steps = 1
tokens_per_step = 64
checkpoint_every = 1
val_every = 0
sample_every = 0
[optimizer]
name = "adamw"
lr = 1e-3
[schedule]
name = "constant"
"""


def made(case):
    """(the case's page, seconds that it took) in the current folder."""
    model, dims = CASES[case]
    Path("train.txt").write_text((ROOT / "docs/plugins.md").read_text("utf-8"), "utf-8")
    Path("val.txt").write_text((ROOT / "docs/idea.md").read_text("utf-8"), "utf-8")
    Path(f"{case}.toml").write_text(config(model, dims), "utf-8")
    for words, expected in TRAININGS.get(case, [([], 0)]):
        code = run(["train", f"{case}.toml", "--device", "cpu", *words])
        if code != expected:
            sys.exit(f"{case}: the training ended with {code}, expected {expected}")
    start, page = time.perf_counter(), Path(f"{case}.html")
    if run(["view", case, "--no-open", "--yes", "--out", str(page), *WORDS.get(case, [])]):
        sys.exit(f"{case}: no page was made")
    return page, time.perf_counter() - start


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium: CORELM_BROWSER, the installed one, or playwright's own."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CORELM_BROWSER") or shutil.which("chromium")
    with sync_playwright() as started:
        program = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield program
        program.close()


def drawn(page, rounds):
    """(least milliseconds until the page is drawn, view -> milliseconds of its keys)."""
    opens, keys = [], {}
    with browser() as program:
        for _ in range(rounds):
            tab = program.new_page(viewport=SIZE)
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("html[data-ready]")
            opens.append(tab.evaluate("performance.now()"))
            for number, view in enumerate(tab.evaluate("page.about.views.map((one) => [one.name, one.absent])")):
                if not view[1]:
                    tab.keyboard.press(str((number + 1) % 10))
                    tab.wait_for_selector(f".view-{view[0]}", state="attached")
                    keys.setdefault(view[0], []).extend(
                        tab.evaluate(KEY, "ArrowRight") + tab.evaluate(KEY, "ArrowDown")
                    )
            tab.close()
    return min(opens), keys


def packed(png, program):
    """The picture of a PNG in fewer bytes: rows without a filter pack letters and flat areas a quarter smaller."""
    tab = program.new_page()
    pixels = base64.b64decode(tab.evaluate(PIXELS, base64.b64encode(png).decode()))
    tab.close()
    wide, high = SIZE["width"], SIZE["height"]
    colours = np.frombuffer(pixels, np.uint8).reshape(high, wide, 4)[..., :3].reshape(high, -1)
    rows = np.pad(colours, ((0, 0), (1, 0))).tobytes()  # each row starts with the number of its filter, 0
    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    blocks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in blocks
    )


def page_of_tiny(settings, words, page):
    """Write `page`: `core view` with `words`, of a run of configs/tiny.toml with `settings` in the current folder."""
    Path("configs").mkdir(exist_ok=True)
    shutil.copy(ROOT / "configs/tiny.toml", "configs/tiny.toml")
    sets = [word for one in settings for word in ("--set", one)]
    if run(["train", "configs/tiny.toml", "--device", "cpu", "--out", f"runs/{words[0]}", *sets]):
        sys.exit("the run failed")
    if run(["view", *words, "--no-open", "--yes", "--out", str(page)]):
        sys.exit("no page was made")


def write_small(folder):
    """Write small.html, the page that the docs link to, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "small.html"
    page_of_tiny(SMALL_RUN, ["small", *SMALL_VIEW], page)
    print(f"{page}: {page.stat().st_size / 1e3:.0f} kB")


def take_pictures(folder):
    """Write NAME.png of each of PICTURES into `folder`, from a page of a run made in the current folder."""
    folder.mkdir(parents=True, exist_ok=True)
    page_of_tiny(TRAIN, VIEW, "page.html")
    with browser() as program:
        for name, (place, keys) in PICTURES.items():
            tab = program.new_page(viewport=SIZE, color_scheme="light")
            tab.goto(f"{Path('page.html').resolve().as_uri()}#{place}")
            tab.wait_for_selector("html[data-ready]")
            for key in keys:
                tab.keyboard.press(key)
            tab.wait_for_timeout(200)
            (folder / f"{name}.png").write_bytes(packed(tab.screenshot(), program))
            print(f"{folder / name}.png: {(folder / f'{name}.png').stat().st_size / 1e3:.0f} kB")
            tab.close()


def middle_and_high(times):
    return {"median": statistics.median(times), "p95": sorted(times)[int(0.95 * (len(times) - 1))]}


def figures(case, rounds):
    page, seconds = made(case)
    opens, keys = drawn(page, rounds)
    return {
        "bytes": page.stat().st_size,
        "made": seconds,
        "open": opens,
        "keys": {n: middle_and_high(t) for n, t in keys.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="only write the pictures and small.html of docs/view.md"
    )
    parser.add_argument("--small", type=Path, metavar="FOLDER", help="only write small.html of docs/view.md")
    options = parser.parse_args()
    results, here = {}, Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if options.pictures or options.small:
            write_small(here / (options.small or options.pictures))
            if options.pictures:
                take_pictures(here / options.pictures)
            os.chdir(here)
            return
        for case in options.cases.split(","):
            results[case] = figures(case, options.rounds)
        os.chdir(here)
    for case, one in results.items():
        print(f"{case}: {one['bytes'] / 1e6:.2f} MB, made in {one['made']:.1f} s, open {one['open']:.0f} ms")
        for name, times in one["keys"].items():
            print(f"  {name:<8} key {times['median']:6.1f} ms, p95 {times['p95']:6.1f} ms")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
