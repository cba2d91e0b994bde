"""What sampling promises: the right distribution, the same text for a seed, and a cache that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.engine import Engine, Settings
from core.engine.decode import DecodeSession
from core.errors import NumericsError, UsageError
from core.generate import Continuation, Sampling, generate, prompt_ids, sample_logits
from core.graph import load_model
from core.loader import load_registry

Array = np.ndarray[Any, Any]
DIMS = {"V": 37, "C": 16, "H": 2, "L": 2, "S": 40, "B": 2, "T": 8}


@pytest.fixture(scope="module")
def engine() -> Engine:
    registry = load_registry()
    made = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=DIMS))
    made.initialize(5)
    for array in made.parameters().values():
        array *= 4  # logits far enough apart that a difference would change a token
    return made


class Fixed:
    """A session with the same logits whatever it is fed; it keeps what it was fed."""

    def __init__(self, logits: Array, room: int = 100) -> None:
        self.logits, self.room, self.fed = logits, room, []  # type: ignore[var-annotated]

    def feed(self, tokens: Array, counts: Array | None = None) -> Array:
        self.fed.append(np.array(tokens))
        return self.logits


def draw(logits: Array, n: int, temperature: float = 1.0, top_k: int = 0, **more: Any) -> Array:
    rng = np.random.default_rng(1)
    return sample_logits(np.tile(logits, (n, 1)), Sampling(temperature, top_k, **more), rng)


def test_temperature_zero_takes_the_likeliest_and_the_first_of_equals() -> None:
    logits = np.array([[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(sample_logits(logits, Sampling(0), np.random.default_rng(0)), [1, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 3])
def test_tokens_come_as_often_as_softmax_says(temperature: float, top_k: int) -> None:
    logits = np.array([0.1, 1.5, -2.0, 0.7, 1.0], np.float32)
    weights = np.exp(logits.astype(np.float64) / temperature)
    if top_k:
        weights[np.argsort(-logits)[top_k:]] = 0
    n = 200_000
    found = np.bincount(draw(logits, n, temperature, top_k), minlength=5) / n
    want = weights / weights.sum()
    assert (found[want == 0] == 0).all()
    assert np.abs(found - want).max() < 5 * np.sqrt(0.25 / n)  # five standard deviations


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.5), (0, 0.9), (4, 0.7), (2, 0.99), (0, 1e-9)])
def test_top_p_keeps_the_tokens_that_transformers_keeps(top_k: int, top_p: float) -> None:
    processes = pytest.importorskip("transformers.generation.logits_process")
    torch = pytest.importorskip("torch")
    logits = np.array([0.1, 1.5, -2.0, 0.7, 1.0, 0.2], np.float32)
    kept = torch.tensor(logits)[None] / 0.8
    for warp in ([processes.TopKLogitsWarper(top_k)] if top_k else []) + [processes.TopPLogitsWarper(top_p)]:
        kept = warp(None, kept)
    want = torch.softmax(kept[0].double(), 0).numpy()
    n = 50_000
    found = np.bincount(draw(logits, n, 0.8, top_k, top_p=top_p), minlength=6) / n
    assert (found[want == 0] == 0).all() and (found[want > 0.01] > 0).all()
    assert np.abs(found - want).max() < 5 * np.sqrt(0.25 / n)


def test_top_p_keeps_the_fewest_tokens_that_have_it() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    assert set(draw(logits, 500, top_p=0.35)) == {1}
    assert set(draw(logits, 500, top_p=0.45)) == set(draw(logits, 500, top_p=0.69)) == {1, 3}
    assert set(draw(logits, 500, top_p=0.75)) == {1, 2, 3}


def test_the_repetition_penalty_lowers_what_the_sequence_holds_alone() -> None:
    logits = np.array([[2.0, 1.5, -1.0, -1.2], [2.0, 1.5, -1.0, -1.2]], np.float32)
    seen = np.array([[True, False, False, False], [True, True, True, False]])
    found = sample_logits(logits, Sampling(0, repetition_penalty=1.5), np.random.default_rng(0), seen)
    np.testing.assert_array_equal(found, [1, 0])
    strong = np.array([[-1.0, -3.0]], np.float32)
    held = np.array([[True, False]])
    assert sample_logits(strong, Sampling(0, repetition_penalty=4.0), np.random.default_rng(0), held)[0] == 1


def test_a_penalised_text_takes_every_token_once_before_one_comes_again() -> None:
    found = generate(Fixed(np.array([[3.0, 2.0, 1.0]], np.float32)), [[2]], 2, Sampling(0, repetition_penalty=100.0))
    assert found == [[0, 1]]


LOGITS = {
    "with equals": np.round(3 * np.random.default_rng(6).standard_normal((40, 400)), 1),
    # at top_p = 0.5 a quarter of the weight is below the floor
    "flat": np.tile(0.7 * np.log(np.where(np.arange(400) % 100 == 7, 1, 0.003)), (40, 1)),
}


@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.9), (0, 0.999), (0, 0.5), (7, 1.0), (30, 0.8)])
def test_what_is_never_sorted_could_not_have_been_drawn(logits: Array, top_k: int, top_p: float) -> None:
    found = sample_logits(logits, Sampling(0.7, top_k, top_p=top_p), np.random.default_rng(8))
    uniform = np.random.default_rng(8).random((40, 1))[:, 0]
    for row, number, token in zip(logits, uniform, found, strict=True):
        ranked = sorted(range(400), key=lambda i: (-row[i], i))[: top_k or 400]  # noqa: B023
        weights = np.exp((row[ranked] - row.max()) / 0.7)
        before = np.cumsum(weights) - weights
        weights = np.where(before < top_p * weights.sum(), weights, 0)
        assert token == ranked[int(np.searchsorted(np.cumsum(weights), number * weights.sum(), "right"))]


def test_top_k_takes_exactly_k_of_equals() -> None:
    assert set(draw(np.zeros(6, np.float32), 1000, top_k=2)) == {0, 1}


def test_a_draw_does_not_depend_on_how_many_tokens_can_not_be_drawn() -> None:
    logits = np.array([0.3, 0.1, -1.0], np.float32)
    longer = np.concatenate([logits, np.full(50, -np.inf, np.float32)])
    np.testing.assert_array_equal(draw(logits, 500), draw(longer, 500))


def test_huge_logits_do_not_overflow() -> None:
    np.testing.assert_array_equal(draw(np.array([1e30, -1e30], np.float32), 3, temperature=1e-3), [0, 0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(NumericsError, match="not finite"):
        draw(np.array([0.0, bad], np.float32), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Sampling(**wrong)


def test_ids_beyond_the_vocabulary_are_never_drawn() -> None:
    logits = np.array([[0.0, 0.0, 9.0, 9.0]], np.float32)
    for temperature in (0.0, 1.0):
        found = generate(Fixed(logits), [[1]], 50, Sampling(temperature), vocabulary=2)
        assert set(found[0]) <= {0, 1}


def test_a_row_ends_at_the_stop_token_and_the_others_go_on() -> None:
    logits = np.array([[0.0, 9.0], [9.0, 0.0]], np.float32)
    assert generate(Fixed(logits), [[1], [1]], 4, Sampling(0), stop={1}) == [[], [0, 0, 0, 0]]


def test_the_last_token_is_not_fed_and_cancelling_ends() -> None:
    session = Fixed(np.zeros((1, 3), np.float32))
    assert len(generate(session, [[0, 1]], 3, Sampling(0))[0]) == 3
    assert len(session.fed) == 3  # the prompt and two tokens
    assert len(generate(session, [[0]], 9, Sampling(0), cancelled=lambda: True)[0]) == 1


def test_what_does_not_fit_is_refused_with_both_lengths() -> None:
    session = Fixed(np.zeros((1, 3), np.float32), room=10)
    assert len(generate(session, [[0] * 4], 7)[0]) == 7
    with pytest.raises(UsageError, match="4 tokens and 8 new ones"):
        generate(session, [[0] * 4], 8)
    with pytest.raises(UsageError, match="no tokens"):
        generate(session, [[0], []], 1)


def test_cached_greedy_text_is_that_of_whole_forward_passes(engine: Engine) -> None:
    prompt = [3, 30, 7, 7, 12]
    want = list(prompt)
    for _ in range(12):
        logits = engine.logits(np.array([want, want], np.int32))
        want.append(int(logits[0, -1].argmax()))
    assert generate(engine.session(1), [prompt], 12, Sampling(0))[0] == want[len(prompt) :]


def test_prompts_of_unequal_lengths_continue_as_each_alone(engine: Engine) -> None:
    prompts = [[1, 2, 3, 4, 5, 6, 7], [9], [11, 30, 2]]
    alone = [generate(engine.session(1), [p], 10, Sampling(0))[0] for p in prompts]
    assert generate(engine.session(3), prompts, 10, Sampling(0)) == alone


@pytest.mark.parametrize("piece", [5, 512])
def test_prompts_go_in_pieces_behind_whatever_each_row_holds(
    engine: Engine, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecodeSession, "PIECE", piece)
    texts = np.random.default_rng(4).integers(0, 37, (2, 40)).astype(np.int32)
    session, held = engine.session(2), np.zeros(2, int)
    for counts in ([2, 23], [30, 9], [1, 5], [7, 3]):  # to the very end of both: the second holds more, then the first
        fed = np.zeros((2, max(counts)), np.int32)
        for row, count in enumerate(counts):
            fed[row, :count] = texts[row, held[row] : held[row] + count]
        found = session.feed(fed, np.array(counts))
        held += counts
        for row in range(2):
            whole = engine.logits(np.stack([texts[row, : held[row]]] * 2))[0, -1]
            np.testing.assert_allclose(found[row], whole, atol=1e-4)
    assert session.room == 0 and held.tolist() == [40, 40]


def test_what_is_fed_behind_a_rewind_replaces_what_was_forgotten(engine: Engine) -> None:
    session = engine.session(2)
    session.feed(np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), np.array([5, 3]))
    session.rewind(4)
    assert session.start.tolist() == [4, 3], "of the second row there is nothing to forget"
    session.rewind(2)
    found = session.feed(np.array([[9, 10], [11, 12]]))
    np.testing.assert_allclose(found, engine.logits(np.array([[1, 2, 9, 10], [6, 7, 11, 12]]))[:, -1], atol=1e-4)


def test_one_seed_one_text(engine: Engine) -> None:
    def text(seed: int) -> list[list[int]]:
        return generate(engine.session(1), [[4, 5]], 20, Sampling(1.0, 0, seed))

    assert text(1) == text(1) != text(2)


def test_an_empty_prompt_is_the_begin_of_a_document() -> None:
    class Tokenizer:
        eot, begin = 9, ()

        def encode(self, text: str) -> Array:
            return np.array([ord(c) for c in text], np.int32)

    assert prompt_ids(Tokenizer(), "") == [9] and prompt_ids(Tokenizer(), "ab") == [97, 98]


class Letters:
    """Token i is the i-th byte; 0 ends a document."""

    eot = 0

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(ids)


def shown(text: bytes, stops: tuple[str, ...] = ()) -> tuple[list[str], str, str]:
    pieces: list[str] = []
    row = Continuation(Letters(), stops, "", pieces.append)  # type: ignore[arg-type]
    for byte in text:
        row.token(byte)
    before = row.ended
    row.end()
    assert "".join(pieces) == row.text
    return pieces, row.text, before


def test_text_is_shown_when_it_is_certain_and_a_stop_is_left_out() -> None:
    assert shown(b"ab END cd", ("END",)) == (["a", "b", " "], "ab ", "stop")
    assert shown(b"a EN E", ("END",)) == (["a", " ", "EN ", "E"], "a EN E", ""), "held back, then certain"
    assert shown(b"aab", ("ab",)) == (["a"], "a", "stop")
    assert shown(b"x\n\ny", ("\n\n", "y"))[1] == "x"
    assert shown("ß".encode()) == (["ß"], "ß", ""), "a character of two tokens is one piece"
    assert shown(b"a\0b") == (["a"], "a", "end"), "the end of the document ends it"
