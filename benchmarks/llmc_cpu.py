"""llm.c's train_gpt2 as a peer of cpu.py: its files, and its process."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from gpt2_start import SHAPES, C, H, L, P, S, V, draw, draw_tokens
from worker import THREADS, peak_memory


class LlmC:
    """llm.c's train_gpt2, with fixed file names in its folder and a fixed B=4, T=64. POSIX only.

    Each round starts the program again and stops it after the last step of the round; the program prints its times.
    """

    def __init__(self, args):
        if (args.batch, args.seq) != (4, 64):
            raise SystemExit("llm.c's train_gpt2.c is written for --batch 4 --seq 64")
        self.binary, self.threads = Path(args.llmc).resolve(), args.threads
        if not self.binary.is_file():
            raise SystemExit(f"--llmc {args.llmc}: no such file; benchmarks/README.md has the commands of its build")
        self._temporary = None
        if args.llmc_dir:
            self.folder = Path(args.llmc_dir)
        else:
            self._temporary = tempfile.TemporaryDirectory()
            self.folder = Path(self._temporary.name)
            write_llmc_files(self.folder, args.batch, args.seq)

    def round(self, steps):
        import pty  # a terminal as stdout: each line arrives when it is printed

        reader, writer = pty.openpty()
        process = subprocess.Popen(
            [str(self.binary)], cwd=self.folder, stdout=writer, stderr=writer,
            env=os.environ | dict.fromkeys(THREADS, str(self.threads)),
        )  # fmt: skip
        os.close(writer)
        ms, losses, memory, text = [], [], 0, ""
        try:
            while len(ms) < steps:
                text += os.read(reader, 65536).decode()  # raises OSError when the program ends
                lines = re.findall(r"step \d+: train loss (\S+) \(took (\S+) ms\)", text)
                losses, ms = [float(loss) for loss, _ in lines], [float(took) for _, took in lines]
                memory = max(memory, peak_memory(process.pid))
        except OSError:
            raise SystemExit(f"{self.binary} ended with code {process.wait()}:\n{text}") from None
        finally:
            process.kill()
            process.wait()
            os.close(reader)
        return {"ms": ms[:steps], "losses": losses[:steps], "memory": memory}

    def close(self):
        if self._temporary:
            self._temporary.cleanup()


def write_llmc_files(folder, batch, seq):
    """Write the files of train_gpt2: a checkpoint of version 3 (f32), and token shards with the one batch."""
    header = np.zeros(256, "<i4")
    header[:8] = 20240326, 3, S, V, L, H, C, P
    with (folder / "gpt2_124M.bin").open("wb") as file:
        file.write(header.tobytes())
        for name in SHAPES:
            file.write(draw(name).astype("<f4").tobytes())
            if name == "wte.weight":
                file.write(bytes(4 * C * (P - V)))
    tokens = draw_tokens(batch, seq).astype("<u2")
    header[:] = 0
    header[:3] = 20240520, 1, tokens.size
    shards = folder / "dev" / "data" / "tinyshakespeare"
    shards.mkdir(parents=True)
    for split in ("train", "val"):
        (shards / f"tiny_shakespeare_{split}.bin").write_bytes(header.tobytes() + tokens.tobytes())
