"""The stubs, built once, and programs on several ranks with them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import stub
from stubbed_nccl import TESTS

SERVER = Path(__file__).with_name("rank_server.py")
PATIENCE = 300  # seconds for all ranks of one program


@pytest.fixture(scope="session")
def rank_server(tmp_path_factory):
    """The process that forks ranks, with the stubs as its libraries."""
    folder = tmp_path_factory.mktemp("stubs")
    stub.build(folder)
    stub.build_nccl(folder)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "LD_PRELOAD": str(folder / "libnccl.so.2")}
    env |= {"STUB_GPUS": "8", "CORELM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS), env.get("PYTHONPATH", "")])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(SERVER)], env=env, start_new_session=True, **pipes) as server:
        yield server, env
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture
def on_ranks(rank_server, tmp_path):
    """on_ranks(code, ranks=2, **environment): runs `code` on each rank, as torchrun would; what each hands to `out`.
    ends: only the first rank ends by itself, with this code; its errors."""
    server, inherited = rank_server

    def run(code, ranks=2, ends=None, **environment):
        for path in tmp_path.iterdir():
            path.unlink()
        env = {**inherited, "STUB_NCCL_FOLDER": str(tmp_path), "STUB_NCCL_WAIT": "60", "STUB_MEMORY": str(1 << 28)}
        env |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": "29500", **environment}
        environments = [{**env, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        request = {"code": code, "environments": environments, "first": ends is not None}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        assert select.select([server.stdout], [], [], PATIENCE)[0], f"the ranks have not ended within {PATIENCE} s"
        codes, outputs, errors = zip(*json.loads(server.stdout.readline()), strict=True)
        if ends is not None:
            assert codes[0] == ends, errors[0]
            return errors[0]
        assert not any(codes), "\n".join(errors)
        return [json.loads(output.rpartition("@@")[2]) for output in outputs]

    return run
