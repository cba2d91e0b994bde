"""NCCL without a GPU: ranks in two processes, against stubs of the driver and of the library.

Whether the real library reads a call as we read its manual is left to GPUs: see benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stub

from core.loader import load_registry

TESTS = Path(__file__).parents[1]
needs_stubs = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stubs are a libcuda.so.1 and a libnccl.so.2"),
    pytest.mark.skipif(stub.COMPILER is None, reason="no C compiler to build the stubs with"),
]


def stubbed(test):
    for mark in needs_stubs:
        test = mark(test)
    return test


START = f"""
import ctypes, json, os, sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
from core import CoreError, Ranks
from core.op import Tensors
from core.ranks.joining import join
from core.ranks.launched import launched
from core.testing import Engine, Settings, load_model, load_registry

class Call(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 24), ("algorithm", ctypes.c_char * 16), ("count", ctypes.c_size_t),
                ("type", ctypes.c_int), ("op", ctypes.c_int), ("root", ctypes.c_int), ("captured", ctypes.c_int),
                ("stream", ctypes.c_void_p), ("send", ctypes.c_uint64), ("receive", ctypes.c_uint64)]

stub, nccl = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnccl.so.2")
nccl.stub_nccl_call.restype = ctypes.POINTER(Call)
registry = load_registry()
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

def calls(first=0):
    made = [nccl.stub_nccl_call(i).contents for i in range(first, nccl.stub_nccl_calls())]
    return [[c.name.decode(), c.algorithm.decode(), c.count, c.type, c.root, c.captured] for c in made]

def joined(limit=60.0):
    group = join(registry.ranks, registry.device("cuda"), launched(), limit)
    if limit == 60.0:
        group.watcher.end()  # `out` ends a rank without a word
    return group

def tensor(device, values, dtype="f32"):
    held = device.tensor(device.allocate({{"bf16": 2, "f64": 8}}.get(dtype, 4) * len(values)), 0, (len(values),), dtype)
    device.upload(held, values)
    return held

def collective(op, ranks, cuts=None, name="nccl", config=None, **tensors):
    variant = registry.variant(op, name)
    sizes = {{"n": tensors["flat"].size, "m": tensors.get("part", tensors["flat"]).size}}
    t = Tensors(**tensors, **sizes, cuts=cuts or [], ranks=ranks, node="")
    t.config = config or variant.configs(t)[0]
    return variant.why_not(t) or device.record(variant, "forward", t, None, None)

def failing(f):
    try:
        f()
    except CoreError as error:
        return [type(error).__name__, error.message, error.hint]
    return None

def out(value):
    print("@@" + json.dumps(value))
    sys.stdout.flush()
    os._exit(0)  # no departure: the group would end the others
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    stub.build(folder)
    stub.build_nccl(folder)
    return folder


@pytest.fixture
def on_ranks(stubs, tmp_path):
    """on_ranks(code, ranks=2, **environment): runs `code` on each rank, as torchrun would; what each hands to `out`."""

    def run(code, ranks=2, **environment):
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
        outputs = [process.communicate(timeout=300) for process in started]
        assert all(process.returncode == 0 for process in started), "\n".join(error for _, error in outputs)
        return [json.loads(output.rpartition("@@")[2]) for output, _ in outputs]

    return run


@stubbed
def test_under_torchrun_nccl_meets_by_itself_and_carries_bytes_and_numbers(on_ranks):
    said = on_ranks("""
import time
ranks = joined(limit=1.0)
time.sleep(1.5)  # no beats go over NCCL: a rank that says nothing is not a dead one
ranks.watcher.end()
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
        assert ": ranks 0 and 1 have one GPU of " in refused[1] and '"host"' in refused[2]


MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
loss = "loss"
[dims]
B = 2
T = 4
V = 24
C = 16
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
fc     = { op = "matmul", in = "wte", features = "2*C" }
logits = { op = "matmul", in = "fc", features = "V", bias = false }
loss   = { op = "cross_entropy", in = ["logits", "targets"] }
"""
STEPS = """
def steps(ranks, after=None, **settings):
    settings = Settings(optimizer="adamw", options={"clip": 1.0}, fusion={"head_loss": False}, **settings)
    engine = Engine(load_model(os.environ["MODEL"], registry), registry, settings, None, ranks)
    engine.initialize(1)
    if after is not None:
        after(engine)
    rows = np.random.default_rng(0).integers(0, 24, (4, 2, 5)).astype(np.int32)
    own = rows[ranks.rank::ranks.size]
    made = [engine.step([{"tokens": r[:, :-1], "targets": r[:, 1:]} for r in own], 1e-2) for _ in range(2)]
    gradients = {name: array.tolist() for name, array in engine.parameter_gradients()}
    choices = engine.report(engine.plan("train"))
    kept = choices.choices()["all_reduce"].variant.name, choices.tiles()["all_reduce"]
    return [[record.loss, record.norm] for record in made], gradients, kept
"""


@stubbed
@pytest.mark.parametrize("shard", [False, True])
def test_a_training_step_in_graphs_sums_gradients_and_loss_and_records_the_algorithm(on_ranks, tmp_path_factory, shard):
    model = tmp_path_factory.mktemp("model") / "two.toml"
    model.write_text(MODEL)
    code = f"""{STEPS}
import simulated_driver
simulated_driver.simulate(stub)
ranks = joined()
first = nccl.stub_nccl_calls()
ours = steps(ranks, device="cuda", shard={shard}, overlap=False)
simulated_driver.check_pool()
made = calls(first)
from core.ranks.group import ALONE
from types import SimpleNamespace
def one():
    settings = Settings(optimizer="adamw", options={{"clip": 1.0}}, fusion={{"head_loss": False}}, device="cpu")
    engine = Engine(load_model(os.environ["MODEL"], registry), registry, settings)
    engine.initialize(1)
    rows = np.random.default_rng(0).integers(0, 24, (4, 2, 5)).astype(np.int32)
    batches = [{{"tokens": r[:, :-1], "targets": r[:, 1:]}} for r in rows]
    made = [engine.step(batches, 1e-2) for _ in range(2)]
    return [[r.loss, r.norm] for r in made], {{name: array.tolist() for name, array in engine.parameter_gradients()}}
out([ours, one(), made])
"""
    said = on_ranks(code, MODEL=str(model), STUB_MEMORY=str(1 << 26))
    for (numbers, gradients, choice), (expected, theirs), calls in said:
        assert np.allclose(numbers, expected, rtol=1e-5)
        assert choice == ["nccl", {"algorithm": "ring"}]
        for name, gradient in gradients.items() if not shard else ():  # of slices, each rank has its own sums
            assert np.linalg.norm(np.subtract(gradient, theirs[name])) <= 1e-5 * np.linalg.norm(theirs[name]), name
        inside = [call for call in calls if call[5]]
        kinds = [(call[0], call[3]) for call in inside]  # 7 is f32, 8 f64: once for all replays
        whole = [("AllReduce", 7), ("AllReduce", 8)]  # gradients and loss
        slices = [*2 * [("Reduce", 7)], ("AllReduce", 8), ("AllGather", 8), *2 * [("Broadcast", 7)]]  # norm, weights
        assert kinds == (slices if shard else whole)
    assert said[0][0][0] == said[1][0][0] and (shard or said[0][0] == said[1][0]), "the ranks agree in every bit"


OVERLAP = f"""{STEPS}
import simulated_driver
from core.engine import gradient_sums
simulated_driver.simulate(stub)
gradient_sums.LEAST, gradient_sums.MOST, gradient_sums.PIECE = 400, 600, 64
ranks = joined()
made, runs = [], []
for overlap, order in ((True, "early"), (True, "late"), (False, "early")):
    os.environ["STUB_ORDER"] = order
    for shard in (True, False):
        first, held = nccl.stub_nccl_calls(), []
        numbers, _, _ = steps(ranks, held.append, device="cuda", shard=shard, overlap=overlap)
        engine = held[0]
        parts = len(gradient_sums.parts_of(engine.layout))
        weights = {{name: array.tolist() for name, array in engine.parameters().items()}}
        streams = [nccl.stub_nccl_call(i).contents.stream for i in range(first, nccl.stub_nccl_calls())]
        captured = [s for s, call in zip(streams, calls(first), strict=True) if call[5]]
        aside = sum(stream != int(engine.device._stream) for stream in captured)
        runs.append([overlap, shard, parts, len(captured), aside, numbers, weights])
simulated_driver.check_pool()
out(runs)
"""


@stubbed
def test_gradients_are_summed_beside_the_last_backward_with_the_same_bits(on_ranks, tmp_path_factory):
    model = tmp_path_factory.mktemp("model") / "two.toml"
    model.write_text(MODEL)
    for runs in on_ranks(OVERLAP, MODEL=str(model), STUB_MEMORY=str(1 << 26)):
        bits = {shard: [run[5:] for run in runs if run[1] == shard] for shard in (True, False)}
        for shard in (True, False):
            assert bits[shard][0] == bits[shard][1] == bits[shard][2], "overlap changes no bit, early or late"
        for overlap, shard, parts, captured, aside, *_ in runs:
            assert parts == 4
            assert captured > parts and (aside >= parts) == overlap and (aside == 0) == (not overlap)
            if not shard and overlap:
                assert (captured, aside) == (parts + 1, parts), "each part beside the step, the loss in the update"


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
