"""Make any operating-system call of a command fail, or kill the command there, and judge how it ends.

    python tests/os_calls.py                       # every call of a run from its first line to its end: an hour
    python tests/os_calls.py --all-errors          # with every error that the call may give: hours
    python tests/os_calls.py --sample 40 --seed 1  # a spread sample
    python tests/os_calls.py --list                # the calls, numbered

The command runs under ptrace from the first line of its entry point, so that the calls are those which the system
sees, those of libraries and of Python's imports included. An error must end in a documented exit code and one sentence
that names the file, or change nothing; after an error or a kill, a second start must end with the bits of an
undisturbed run. Calls of the main thread; Linux on x86-64.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import small_run
from traced_calls import CHANGING, ROOT, Call, Ended, Where, run

CONFIG = small_run.config(
    data={"val": "shards/*.bin"},
    train={"steps": 3, "val_every": 3, "val_tokens": 64, "sample_every": 0, "checkpoint_every": 2},
)


# --- what is run, and what is right --------------------------------------------------------------------------------

TRAIN = ["train", "small.toml", "--device", "cpu", "--out", "a"]
STARTS = {  # name -> the command, and the one whose end is compared
    "train": TRAIN,
    "resume": [*TRAIN, "--resume"],
}
DOCUMENTED = (0, 1, 2, 3, 4, 5, 6, 7)
PROGRAM = (str(ROOT), sys.prefix, sys.base_prefix, "/usr", "/lib", "/etc", "/proc", "/sys", "/dev")


def prepare(folder: Path, begun: bool = True) -> None:
    """A template: text, shards and a config, an undisturbed run in `whole`, and one that ended after two steps in
    `begun`. Nothing is cached but the program itself."""
    (folder / "small.toml").write_text(CONFIG)
    (folder / "text.txt").write_text(small_run.TEXT * 150)
    (folder / "val.txt").write_text("nine zebras hum while the dog sleeps. " * 10)
    commands = [
        ["data", "prepare", "val.txt", "--tokenizer", "bytes", "--split", "val", "--out", "shards"],
        [*TRAIN[:-1], "whole"],
        *([[*TRAIN[:-1], "begun", "--set", "train.steps=2", "--set", "train.val_every=0"]] if begun else []),
    ]
    for words in commands:
        done = run(words, folder)
        assert done.code == 0, done.said
    shutil.rmtree(folder / "cache")


def copied(template: Path, folder: Path, start: str) -> None:
    shutil.copytree(template, folder)
    if start == "resume":
        (folder / "begun").rename(folder / "a")


def results(run: Path) -> dict[str, object]:
    """What must be the same: the tensors of the newest checkpoint, and each step's numbers but times."""
    steps = sorted((run / "checkpoints").glob("step_*"))
    values: dict[str, object] = {"step": steps[-1].name if steps else ""}
    for path in steps[-1].glob("*.safetensors") if steps else ():
        values[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    keys = ("step", "loss", "norm", "lr", "tokens", "val_loss")
    return values | {"metrics": [[json.loads(line).get(key) for key in keys] for line in lines]}


def judge(template: Path, folder: Path, start: str, at: int | Where, error: int) -> tuple[Ended, str]:
    """Do it at one call; "" when all is right, else what went wrong."""
    copied(template, folder, start)
    done = run(STARTS[start], folder, at, error)
    wrong, again = _wrong_end(done, error), done
    if not wrong and done.code != 0 and done.at is not None and (not error or done.at.name in CHANGING):
        again = run([*TRAIN, "--resume"], folder)
        wrong = "" if again.code == 0 else f"the second start: exit code {again.code}\n{again.said[-800:]}"
    if not wrong and again.code == 0 and results(folder / "a") != results(folder / "whole"):
        wrong = f"other bits than the undisturbed run's\n{results(folder / 'a')}\n{results(folder / 'whole')}"
    shutil.rmtree(folder)
    return done, wrong


def _wrong_end(done: Ended, error: int) -> str:
    if done.at is None:
        return "" if done.code == 0 else f"exit code {done.code}, with nothing done to it\n{done.said[-800:]}"
    if not error:
        return "" if done.code == -signal.SIGKILL else f"exit code {done.code} in place of a kill"
    problems = []
    if done.code not in DOCUMENTED:
        problems.append(f"exit code {done.code}")
    problems += [f'"{words}"' for words in ("Traceback", "bug of ours", "Exception ignored") if words in done.said]
    if done.code:
        names = _names_of(done.at.path)
        problems += [] if "core: error: " in done.said and "  hint: " in done.said else ["no error and hint"]
        problems += [] if not names or any(name in done.said for name in names) else [f"{names[0]} is not named"]
    return f"{', '.join(problems)}\n{done.said[-800:]}" if problems else ""


def _names_of(path: str) -> list[str]:
    """What an error may call a file: its name, or the folder that is written or removed as a whole."""
    if not path or ":[" in path:  # a pipe, a socket
        return []
    steps = [part[part.index("step_") :][:13] for part in Path(path).parts if "step_" in part]
    last = Path(path).name
    return [
        f" {last}:" if last == "a" else last,
        *steps,
        *(["cannot be saved"] if "LATEST" in path or "BEST" in path else []),
    ]


def chosen(calls: Sequence[Call], every: int, all_errors: bool) -> list[tuple[Call, int]]:
    """(call, error) of the first of like calls of each of the command's own files, of the program's files one call in
    `every`: with each error or, in turn, with one of them. A kill, error 0, at calls that change something."""
    alike: dict[tuple[str, str], Call] = {}
    for index, call in enumerate(calls):
        if not call.path.startswith(PROGRAM):
            alike.setdefault((call.name, call.path), call)
        elif index % every == 0:
            alike[call.name, str(index)] = call
    pairs = []
    for turn, call in enumerate(alike.values()):
        errors = call.errors if all_errors else call.errors[turn % len(call.errors) :][:1]
        kills = call.name in CHANGING and not call.path.startswith(PROGRAM)
        pairs += [(call, error) for error in (*errors, *([0] if kills else []))]
    return pairs


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--start", choices=STARTS, default="train")
    options.add_argument("--every", type=int, default=100, metavar="N", help="one in N calls of the program's files")
    options.add_argument("--sample", type=int, default=0, metavar="N", help="N calls only, spread over all")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--all-errors", action="store_true")
    options.add_argument("--part", type=int, default=0, help="of --parts that run beside each other, from 0")
    options.add_argument("--parts", type=int, default=1)
    options.add_argument("--list", action="store_true")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        template, folder = Path(name, "template"), Path(name, "try")
        template.mkdir()
        prepare(template)
        copied(template, folder, arguments.start)
        calls = run(STARTS[arguments.start], folder, keep=True).calls
        shutil.rmtree(folder)
        pairs = chosen(calls, arguments.every, arguments.all_errors)[arguments.part :: arguments.parts]
        print(f"{len(calls):,} calls, {len(pairs):,} errors and kills")
        if arguments.sample:
            pairs = random.Random(arguments.seed).sample(pairs, arguments.sample)
        if arguments.list:
            print("\n".join(str(call) for call in calls))
            return 0
        failed = 0
        for number, (call, error) in enumerate(pairs):
            done, wrong = judge(template, folder, arguments.start, call.number, error)
            failed += bool(wrong)
            if wrong:
                print(f"{done.at or call}: {errno.errorcode.get(error, 'killed')}: {wrong}\n", flush=True)
            elif number % 50 == 0:
                print(f"({number} of {len(pairs)})", flush=True)
    print(f"{len(pairs) - failed} of {len(pairs)} errors and kills ended as they should")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
