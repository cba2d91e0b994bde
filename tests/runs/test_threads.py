"""Bits on the cpu depend on shapes, never on threads, cores or load: products, variants, runs and resumed runs."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from core import blas
from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry
from core.pool import Pool, aligned_empty, pool, using
from core.products import LEAST, Cut, Product, cut, product
from core.threads import workers

THREADS = (1, 2, 3, 8)

# (rows, inner, columns): odd ones, one of each way to cut, and the sizes of a step of GPT-2
SIZES = [
    (1, 1, 1), (7, 5, 3), (62, 601, 1030), (1030, 62, 601), (1, 768, 2304), (257, 384, 653), (600, 150, 700),
    (16, 20000, 130),
]  # fmt: skip


def drawn(*shape: int, dtype: str = "f4", seed: int = 0) -> np.ndarray:
    array = aligned_empty(int(np.prod(shape)) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    array[...] = np.random.default_rng(seed).standard_normal(shape)
    return array


@contextmanager
def library_threads(count: int) -> Iterator[None]:
    """BLAS with so many threads of its own, as a user may have left it."""
    before = [lib.get_num_threads() for lib in blas.libraries()]
    for lib in blas.libraries():
        lib.set_num_threads(count)
    try:
        yield
    finally:
        for lib, threads in zip(blas.libraries(), before, strict=True):
            lib.set_num_threads(threads)


# --- products ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("add", [False, True], ids=["written", "added"])
def test_a_product_is_right_and_has_the_same_bits_on_any_number_of_threads(dtype: str, add: bool) -> None:
    for rows, inner, columns in SIZES:
        for turned in (False, True):
            a = drawn(inner, rows, dtype=dtype).T if turned else drawn(rows, inner, dtype=dtype)
            b = drawn(inner, columns, dtype=dtype, seed=1) if turned else drawn(columns, inner, dtype=dtype, seed=1).T
            begin = drawn(rows, columns, dtype=dtype, seed=2)
            truth = a.astype("f8") @ b.astype("f8") + (begin if add else 0)
            found = set()
            for threads in THREADS:
                with using(Pool(threads)), blas.one_thread():
                    out = begin.copy()
                    one = Product(a, b, out, add)
                    pool().reserve(one.scratch)
                    one()
                found.add(out.tobytes())
            where = f"{rows} x {inner} x {columns}, turned: {turned}"
            assert len(found) == 1, f"other bits with other threads: {where}"
            far = np.abs(out - truth).max() / np.abs(truth).max()
            assert far < (1e-5 if dtype == "f4" else 1e-13), f"{far} from f64: {where}"


def test_sizes_here_cut_rows_columns_both_and_sums() -> None:
    cuts = [cut(rows, columns, inner) for rows, inner, columns in SIZES]
    for held in (
        lambda c: c == Cut(),
        lambda c: c.rows > 1 and c.columns == 1,
        lambda c: c.columns > 1 and c.rows == 1,
        lambda c: c.rows > 1 and c.columns > 1,
        lambda c: c.sums > 1,
    ):
        assert any(map(held, cuts)), cuts


def test_a_large_product_has_a_piece_for_each_of_eight_threads() -> None:
    for rows, inner, columns in ((256, 768, 2304), (2304, 256, 768), (1024, 768, 768), (1, 768, 50304)):
        made = Product(*(np.empty(shape, "f4") for shape in ((rows, inner), (inner, columns), (rows, columns))))
        assert len(made.pieces) >= 8 and rows * inner * columns >= LEAST


@pytest.mark.parametrize("lead", [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((), (2,))])
def test_a_product_of_stacks_is_that_of_numpy(lead: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = drawn(*lead[0], 70, 90), drawn(*lead[1], 90, 130, seed=1)
    assert np.allclose(product(a, b), a @ b, atol=1e-4)
    out = np.empty_like(a @ b)
    assert product(a, b, out) is out and np.allclose(out, a @ b, atol=1e-4)
    assert np.allclose(product(a, b[(0,) * len(lead[1])][:, 0]), a @ b[(0,) * len(lead[1])][:, 0], atol=1e-4)


@pytest.mark.parametrize("shape", [(700, 90), (333, 801), (40, 9)])
def test_a_product_with_ones_own_transpose_is_symmetric_and_right(shape: tuple[int, int]) -> None:
    a = drawn(*shape)
    for x in (a, a.T):
        found = product(x, x.T)
        assert (found == found.T).all() and np.allclose(found, x.astype("f8") @ x.T.astype("f8"), atol=1e-3)


def test_products_of_nothing_are_those_of_numpy() -> None:
    for rows, inner, columns in ((0, 3, 4), (3, 0, 4), (1, 0, 4), (3, 4, 0)):
        a, b = np.ones((rows, inner), "f4"), np.ones((inner, columns), "f4")
        assert np.array_equal(product(a, b), a @ b)


# --- the library's threads -----------------------------------------------------------------------------------------


def test_the_library_has_one_thread_in_a_step_and_its_own_number_outside() -> None:
    if not blas.libraries():
        pytest.skip("threadpoolctl knows no BLAS here")
    lib = blas.libraries()[0]
    with library_threads(2):
        own = lib.get_num_threads()
        with pytest.raises(KeyError), blas.one_thread():
            assert lib.get_num_threads() == 1
            with blas.one_thread():
                assert lib.get_num_threads() == 1
            assert lib.get_num_threads() == 1
            raise KeyError
        assert lib.get_num_threads() == own


# --- the pool --------------------------------------------------------------------------------------------------------


def test_every_piece_is_done_once_and_an_error_reaches_the_caller() -> None:
    for threads in THREADS:
        mine, done = Pool(threads), []
        for count in (0, 1, 2, 7, 100):
            done.clear()
            mine.share(count, done.append)
            assert sorted(done) == list(range(count))
        with pytest.raises(ZeroDivisionError):
            mine.share(9, lambda i: 1 // (i - 4))
        mine.share(3, done.append)
        assert len(done) == 103


def test_a_piece_that_asks_for_threads_gets_its_own_alone() -> None:
    mine, done = Pool(3), []
    mine.reserve(64)

    def piece(i: int, scratch: np.ndarray) -> None:
        mine.share(4, lambda j, inner: done.append((i, j, np.shares_memory(inner, scratch))), 32)

    mine.share(5, piece, 64)
    assert sorted(done) == [(i, j, False) for i in range(5) for j in range(4)]


def test_a_helper_that_never_wakes_is_not_waited_for() -> None:
    mine, done = Pool(2), []
    mine.share(2, lambda i: time.sleep(0.01))
    wakes = mine._asleep[0]
    mine._asleep[0] = threading.Lock()  # nothing reaches the helper any more, as under a load that starves it
    for _ in range(5):
        mine.share(8, done.append)
    assert len(done) == 40 and wakes.locked()


def test_a_caller_that_is_interrupted_waits_for_the_pieces_under_way() -> None:
    mine, entered, running = Pool(2), threading.Event(), []

    def piece(i: int) -> None:
        if threading.current_thread() is threading.main_thread():
            entered.wait(10)
            raise KeyboardInterrupt
        running.append(i)
        entered.set()
        time.sleep(0.05)
        running.remove(i)

    with pytest.raises(KeyboardInterrupt):
        mine.share(50, piece)
    assert not running


def test_what_was_recorded_for_one_pool_runs_on_another() -> None:
    a, b, out = drawn(62, 601), drawn(601, 1030, seed=1), drawn(62, 1030)
    begin = out.copy()
    with using(Pool(1)):
        recorded = Product(a, b, out, add=True)
        recorded()
    out[...] = begin
    with using(Pool(3)):
        recorded()
    assert np.allclose(out, begin + a @ b, atol=1e-3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_forked_child_has_threads_of_its_own() -> None:
    mine = Pool(2)
    mine.share(4, lambda i: time.sleep(0.001))
    if (child := os.fork()) == 0:
        names = set()
        mine.share(8, lambda i: (names.add(threading.get_ident()), time.sleep(0.02)))
        os._exit(len(names))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_threads_follow_our_variable_then_the_librarys_then_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CORELM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert workers() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert workers() == 4
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert workers() == 1
    monkeypatch.setenv("CORELM_THREADS", "9")
    assert workers() == 9


# --- runs ------------------------------------------------------------------------------------------------------------


def bits(model: str, dims: dict[str, int], precision: str, device: str = "cpu", optimizer: str = "adamw") -> str:
    """sha256 of the losses and parameters of two steps of two micro-steps; in the simulator, of one of one."""
    registry = load_registry()
    settings = Settings(dims=dims, optimizer=optimizer, precision=precision, device=device)
    engine = Engine(load_model(model, registry), registry, settings)
    engine.initialize(1)
    drawn_ids = np.random.default_rng(1).integers(0, dims["V"], (4, dims["B"], dims["T"] + 1)).astype(np.int32)
    batches = [{"tokens": ids[:, :-1], "targets": ids[:, 1:]} for ids in drawn_ids]
    steps = [batches[:1]] if device == "sim" else [batches[:2], batches[2:]]
    losses = [engine.step(step, 1e-3).loss for step in steps]
    told = hashlib.sha256(repr(losses).encode())
    for array in engine.parameters().values():
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()


# sums of 656, which OpenBLAS's threads cut in other places than one thread does
GPT2 = {"V": 1027, "C": 164, "H": 4, "L": 1, "S": 96, "B": 3, "T": 96}


LLAMA = {"V": 515, "C": 164, "F": 246, "H": 2, "K": 1, "L": 1, "B": 3, "T": 48}


@pytest.mark.parametrize(
    ("model", "precision", "dims", "optimizer"),
    [("gpt2_124m", "f32", GPT2, "adamw"), ("gpt2_124m", "f64", GPT2, "adamw"), ("gpt2_124m", "f32", GPT2, "muon"),
     ("llama_125m", "f32", LLAMA, "adamw")],
)  # fmt: skip
def test_training_has_the_same_bits_on_any_number_of_threads(
    model: str, precision: str, dims: dict[str, int], optimizer: str
) -> None:
    found = {}
    for threads, own in ((1, 1), (1, 2), (2, 2), (3, 1), (8, 2)):
        with using(Pool(threads)), library_threads(own):
            found[threads, own] = bits(model, dims, precision, optimizer=optimizer)
    assert len(set(found.values())) == 1, found


def test_bf16_in_the_simulator_has_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for threads, own in (("1", 1), ("3", 2)):
        monkeypatch.setenv("CORELM_THREADS", threads)
        with library_threads(own):
            found.add(bits("gpt2_124m", {"V": 64, "C": 32, "H": 1, "L": 1, "S": 32, "B": 1, "T": 32}, "bf16", "sim"))
    assert len(found) == 1
