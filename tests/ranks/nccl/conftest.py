"""The stubs, built once, and programs on several ranks with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import stub
from stubbed_nccl import START, TESTS


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    stub.build(folder)
    stub.build_nccl(folder)
    return folder


@pytest.fixture
def on_ranks(stubs, tmp_path):
    """on_ranks(code, ranks=2, **environment): runs `code` on each rank, as torchrun would; what each hands to `out`.
    ends: only the first rank ends by itself, with this code; its errors."""

    def run(code, ranks=2, ends=None, **environment):
        for path in tmp_path.iterdir():
            path.unlink()
        env = {**os.environ, "LD_LIBRARY_PATH": str(stubs), "LD_PRELOAD": str(stubs / "libnccl.so.2"), "STUB_GPUS": "8"}
        env |= {"STUB_NCCL_FOLDER": str(tmp_path), "STUB_NCCL_WAIT": "60", "STUB_MEMORY": str(1 << 28)}
        env |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "CORELM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), env.get("PYTHONPATH", "")])
        env |= environment
        started = [
            subprocess.Popen([sys.executable, "-c", START + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]  # fmt: skip
        if ends is not None:
            errors = started[0].communicate(timeout=100)[1]
            for process in started[1:]:
                process.kill()
                process.communicate()
            assert started[0].returncode == ends, errors
            return errors
        outputs = [process.communicate(timeout=300) for process in started]
        assert all(process.returncode == 0 for process in started), "\n".join(error for _, error in outputs)
        return [json.loads(output.rpartition("@@")[2]) for output, _ in outputs]

    return run
