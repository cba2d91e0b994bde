"""NCCL without a GPU: ranks in two processes, against stubs of the driver and of the library.

Whether the real library reads a call as we read its manual is left to GPUs: see benchmarks/README.md.
"""

from __future__ import annotations

import json
import socket
import sys

import numpy as np
import pytest
from stubbed_nccl import stubbed

from core.loader import load_registry


@stubbed
def test_under_torchrun_nccl_meets_by_itself_and_carries_bytes_and_numbers(on_ranks):
    said = on_ranks("""
import time
ranks = joined()
ranks.send(1 - RANK, b"beside")
while b"beside" not in ranks.received():
    time.sleep(0.05)
gathered = [part.decode() for part in ranks.gather(b"ab" * (RANK + 1))]
empty, shared = ranks.gather(b""), ranks.share(b"from 0" if RANK == 0 else b"").decode()
out([ranks.engine, ranks.rank, ranks.size, ranks.local, ranks.describe(), gathered, len(empty), shared,
     ranks.agree([RANK + 1, -RANK]).tolist(), ranks.agree([RANK], "max").tolist(), os.environ["NCCL_COMM_ID"],
     {call[0] + " " + call[1] for call in calls()} == {"AllGather ring"},
     "mpi4py" in sys.modules or "torch" in sys.modules])
""")
    host = socket.gethostname()
    for rank, own in enumerate(said):
        assert own[:4] == ["nccl", rank, 2, rank] and own[4] == f"NCCL 2.32.3, 2 ranks on {host}"
        assert own[5:] == [["ab", "abab"], 2, "from 0", [3, -1], [1], "localhost:29501", True, False]


@stubbed
def test_a_rank_that_nccl_joined_and_that_is_stopped_is_named(on_ranks):
    errors = on_ranks(
        """
import signal, time
ranks = joined(limit=4.0)
ranks.states("forward and backward", 3)
time.sleep(1)  # both have heard of each other
if RANK:
    os.kill(os.getpid(), signal.SIGSTOP)
ranks.polls("the collectives on the GPU", 0.5)
time.sleep(60)
""",
        ends=4,
    )
    host = socket.gethostname()
    assert f"rank 1 on {host} keeps 1 of 2 ranks waiting in the collectives on the GPU of step 3: silent for" in errors


EVERY = """
ranks = joined()
device = ranks.device
first, results, wrong = nccl.stub_nccl_calls(), {}, []
drawn = [np.random.default_rng(rank).standard_normal(24) for rank in range(SIZE)]

def result(name, op, kept, cuts=None, inside=True, dtype="f32", **how):
    flat = tensor(device, drawn[RANK], dtype)
    bounds = cuts or ranks.cuts(24)
    own = flat[bounds[RANK]:bounds[RANK + 1]]
    part = own if inside else tensor(device, device.download(own), dtype)
    tensors = {"flat": flat} if op == "all_reduce" else {"flat": flat, "part": part}
    commands = device.captured(collective(op, ranks, cuts, **how, **tensors))
    device.run(commands)
    results[name] = device.download(tensors[kept]).tolist()

for dtype in ("f32", "f64"):
    result(f"all_reduce {dtype}", "all_reduce", "flat", dtype=dtype)
result("all_reduce tree", "all_reduce", "flat", config={"algorithm": "tree"})
for inside in (True, False):
    for cuts in (None, [0, 20, 24], [0, 24, 24]):
        result(f"reduce_scatter {inside} {cuts}", "reduce_scatter", "part", cuts, inside)
        result(f"all_gather {inside} {cuts}", "all_gather", "flat", cuts, inside, "bf16")
out([results, calls(first)])
"""


@stubbed
def test_collectives_in_graphs_equal_and_unequal_slices_in_place_and_not(on_ranks):
    drawn = [np.random.default_rng(rank).standard_normal(24) for rank in range(2)]
    total = sum(d.astype(np.float32) for d in drawn)
    said = on_ranks(EVERY)
    for rank, (results, calls) in enumerate(said):
        for name, got in results.items():
            op, _, rest = name.partition(" ")
            cuts = json.loads(rest.partition(" ")[2]) if "[" in rest else [0, 12, 24]
            slices = [slice(cuts[r], cuts[r + 1]) for r in range(2)]
            if op == "all_reduce":
                assert got == pytest.approx(drawn[0] + drawn[1] if "f64" in name else total), name
            elif op == "reduce_scatter":
                assert got == pytest.approx(total[slices[rank]]), name
            else:
                expected = np.concatenate([d[s] for d, s in zip(drawn, slices, strict=True)])
                assert got == pytest.approx(expected, rel=1e-2), name
        assert {tuple(call[:2]) for call in calls} == {
            ("AllReduce", "ring"), ("AllReduce", "tree"), ("ReduceScatter", "ring"), ("AllGather", "ring"),
            ("Reduce", "ring"), ("Broadcast", "ring"),
        }  # fmt: skip
        assert all(call[5] for call in calls), "each was called while a graph was captured"
        assert {call[3] for call in calls} == {7, 8, 9}, "ncclFloat32, ncclFloat64, ncclBfloat16"
    assert said[0][1] == said[1][1], "the ranks made the same calls, in the same order"


@stubbed
def test_an_older_library_follows_nccl_algo_and_what_it_would_not_use_is_refused_in_words(on_ranks):
    code = """
ranks = joined()
device = ranks.device
flat = tensor(device, np.zeros(8))
made = collective("all_reduce", ranks, flat=flat)
if not isinstance(made, str):
    device.run(made)
nvls = collective("all_reduce", ranks, name="nccl_nvls", flat=flat)
said = [words if isinstance(words, str) else "" for words in (made, nvls)]
out([*said, os.environ.get("NCCL_ALGO"), calls()[-1][1]])
"""
    for environment, expected in (
        (
            {"STUB_NCCL_VERSION": "22703"},
            ["", "takes no algorithm with a call, and NCCL_ALGO=Ring names another", "Ring", ""],
        ),
        (
            {"STUB_NCCL_VERSION": "23100", "NCCL_ALGO": "^ring"},
            ["NCCL_ALGO=^ring in the environment keeps NCCL from ring", "", "^ring", "ring"],
        ),
    ):
        for own in on_ranks(code, **environment):
            assert own[0] == expected[0] and expected[1] in own[1] and bool(expected[1]) == bool(own[1])
            assert own[2:] == expected[2:]


FAILURES = {
    "STUB_NCCL_FAIL=ncclAllReduce:2": "ncclAllReduceConfig: unhandled system error: as the test asked",
    "STUB_NCCL_ASYNC=6": "remote process exited or there was a network error",
    "STUB_NCCL_HANGS=1": "waited 1 s for its GPU, which waits for other ranks",
}


@stubbed
def test_failures_have_the_words_of_nccl_and_a_hang_has_a_limit(on_ranks):
    code = f"""
ranks = joined()
device, ranks.limit = ranks.device, 0.5
flat = tensor(device, np.zeros(8))
def step():
    device.run(collective("all_reduce", ranks, flat=flat))
    device.download(flat)
said = [failing(step)]
for setting in {list(FAILURES)!r}:
    name, _, value = setting.partition("=")
    os.environ[name] = value
    said.append(failing(step))
    del os.environ[name]
out(said)
"""
    for healthy, *failures in on_ranks(code):
        assert healthy is None
        for (kind, message, hint), words in zip(failures, FAILURES.values(), strict=True):
            assert kind == "DeviceError" and words in message, message
            assert "NCCL_DEBUG" in hint or "rank_timeout" in hint


@stubbed
def test_ranks_that_mpi_joined_share_an_id_and_two_on_one_gpu_are_refused(on_ranks):
    code = """
import time
from pathlib import Path
folder, turn = Path(os.environ["STUB_NCCL_FOLDER"]), 0

class ByFiles(Ranks):
    '''Ranks that another engine joined.'''
    engine, rank, size, local = "mpi", RANK, SIZE, RANK
    def gather(self, data):
        global turn
        turn += 1
        (folder / f"{turn}.{RANK}.part").write_bytes(data)
        (folder / f"{turn}.{RANK}.part").rename(folder / f"{turn}.{RANK}")
        paths = [folder / f"{turn}.{rank}" for rank in range(SIZE)]
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        return [path.read_bytes() for path in paths]

ranks = ByFiles()
device = registry.device("cuda").open(RANK)
flat = tensor(device, np.arange(4.0))
def step():
    device.run(collective("all_reduce", ranks, flat=flat))
refused = failing(step)
out([refused, None if refused else device.download(flat).tolist(), nccl.stub_nccl_alive()])
"""
    assert on_ranks(code) == [[None, [0, 2, 4, 6], 1]] * 2
    for refused, _, alive in on_ranks(code, STUB_UUID="5"):
        assert refused[0] == "DeviceError" and alive == 0
        assert ": ranks 0 and 1 share one GPU on " in refused[1] and '"host"' in refused[2]


def test_the_place_to_meet_follows_from_the_launcher():
    meeting = sys.modules[type(load_registry().ranks["nccl"]).__module__].meeting
    assert meeting({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}) == "10.0.0.1:29501"
    assert meeting({"MASTER_ADDR": "fe80::1", "MASTER_PORT": "65535"}) == "[fe80::1]:65534"
    assert meeting({"NCCL_COMM_ID": "here:1", "MASTER_ADDR": "there", "MASTER_PORT": "2"}) == "here:1"
    assert meeting({"SLURM_JOB_NODELIST": "node[03-07,9],login1", "SLURM_JOB_ID": "17"}) == "node03:20017"
    assert meeting({"SLURM_JOB_NODELIST": "rack[1-2]n[3-4]", "MASTER_PORT": "29500"}) == "rack1n3:29501"
    assert (
        meeting({"SLURM_JOB_NODELIST": "login1,node[1-2]", "SLURM_JOB_ID": "20001", "SLURM_STEP_ID": "2"})
        == "login1:20003"
    )
    assert meeting({}) is None and meeting({"MASTER_ADDR": "a"}) is None
