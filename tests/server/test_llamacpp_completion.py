"""From events to llama-server's answers, without an engine."""

import math
from typing import Any

import pytest
from fake.backend import FakeVocabulary

from llamaspec.decode.sequence import Request
from llamaspec.errors import ClosedError
from llamaspec.events import FinishEvent, FinishReason, TextEvent, TokenDetail
from llamaspec.server.llamacpp_bodies import CompletionBody
from llamaspec.server.llamacpp_completion import Answer
from llamaspec.settings import SamplingSettings
from llamaspec.stats import Stats

STOP = FinishEvent(0, FinishReason.STOP)
LENGTH = FinishEvent(0, FinishReason.LENGTH)
CANCELLED = FinishEvent(0, FinishReason.CANCELLED)


class Vocabulary(FakeVocabulary):
    def special_piece(self, token: int) -> bytes:
        return b"<end>" if self.is_eog(token) else self.piece(token)

    def special_text(self, token: int | None) -> str:
        return "" if token is None else self.special_piece(token).decode()


class Ticket:
    """A request that counts its cancels; every event is one token."""

    def __init__(self, **sampling: Any) -> None:
        self.request = Request((3, 1, 4), SamplingSettings(**sampling), logit_bias={5: -math.inf, 6: 1.5})
        self.stats = Stats(prompt_tokens=3)
        self.cancels = 0

    def cancel(self) -> None:
        self.cancels += 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(ticket: Ticket, clock: Clock | None = None, **fields: Any) -> Answer:
    body = CompletionBody.model_validate({"prompt": "dbe", **fields})
    return Answer(0, ticket, body, Vocabulary(), "name", clock=clock or Clock())  # type: ignore[arg-type]


def text(content: str, *tokens: int, details: tuple[TokenDetail, ...] = ()) -> TextEvent:
    return TextEvent(0, content, tokens, False, details)


def test_a_stream_has_the_text_in_its_chunks() -> None:
    ticket = Ticket(n_predict=2)
    streamed = answer(ticket, stream=True)
    ticket.stats.predicted_tokens = 1
    assert streamed.take(text("f", 5)) == {
        "index": 0,
        "content": "f",
        "tokens": [5],
        "stop": False,
        "id_slot": -1,
        "tokens_predicted": 1,
        "tokens_evaluated": 3,
    }
    ticket.stats.predicted_tokens = 2
    streamed.take(text("\n", 6))
    last = streamed.final(LENGTH)
    assert (last["stop"], last["content"], last["tokens"]) == (True, "", [])
    assert last["has_new_line"] is True
    assert last["timings"]["predicted_n"] == 2


def test_a_whole_answer() -> None:
    ticket = Ticket(n_predict=2)
    whole = answer(ticket, return_tokens=True)
    ticket.stats.predicted_tokens = 2
    whole.take(text("f", 5))
    whole.take(text("g", 6))
    told = whole.final(LENGTH)
    assert (told["content"], told["tokens"], told["prompt"], told["model"]) == ("fg", [5, 6], "dbe", "name")
    assert (told["tokens_predicted"], told["tokens_evaluated"], told["tokens_cached"]) == (2, 3, 4)
    assert told["generation_settings"]["logit_bias"] == [
        {"bias": None, "token": 5},
        {"bias": 1.5, "token": 6},
    ]
    assert "completion_probabilities" not in told


def test_tokens_are_told_on_demand() -> None:
    whole = answer(Ticket())
    whole.take(text("f", 5))
    assert whole.final(STOP)["tokens"] == []


@pytest.mark.parametrize(
    ("finish", "limit", "kind", "word", "truncated"),
    [
        (STOP, -1, "eos", "", False),
        (FinishEvent(0, FinishReason.STOP, stopped_by="the"), -1, "word", "the", False),
        (LENGTH, 4, "limit", "", False),
        (LENGTH, 9, "limit", "", True),
        (LENGTH, -1, "limit", "", True),
    ],
)
def test_why_it_ended(finish: FinishEvent, limit: int, kind: str, word: str, truncated: bool) -> None:
    ticket = Ticket(n_predict=limit)
    ticket.stats.predicted_tokens = 4
    told = answer(ticket).final(finish)
    assert (told["stop_type"], told["stopping_word"], told["truncated"]) == (kind, word, truncated)


def test_who_is_cancelled_by_others_gets_no_answer() -> None:
    with pytest.raises(ClosedError):
        answer(Ticket()).final(CANCELLED)


def test_a_time_limit_ends_an_answer_of_several_lines() -> None:
    ticket, clock = Ticket(), Clock()
    timed = answer(ticket, clock, t_max_predict_ms=1000)
    timed.take(text("f", 5))
    clock.now = 2.0
    timed.take(text("g", 6))
    assert ticket.cancels == 0, "the first line is not cut"
    timed.take(text("\n", 7))
    assert ticket.cancels == 1
    told = timed.final(CANCELLED)
    assert (told["content"], told["stop_type"]) == ("fg\n", "limit")


def test_within_the_time_nothing_is_cut() -> None:
    ticket, clock = Ticket(), Clock()
    timed = answer(ticket, clock, t_max_predict_ms=1000)
    timed.take(text("\n", 5))
    clock.now = 0.9
    timed.take(text("g", 6))
    assert ticket.cancels == 0


def test_probabilities_of_each_token() -> None:
    detail = TokenDetail(5, "", 1, math.log(0.5), ((5, math.log(0.5)), (6, -math.inf)))
    chosen = {"id": 5, "token": "f", "bytes": [102], "logprob": math.log(0.5)}
    impossible = {"id": 6, "token": "g", "bytes": [103], "logprob": -3.4028234663852886e38}
    streamed = answer(Ticket(), n_probs=2, stream=True)
    told = streamed.take(text("f", 5, details=(detail,)))
    assert told["completion_probabilities"] == [{**chosen, "top_logprobs": [chosen, impossible]}]
    assert "completion_probabilities" not in streamed.final(STOP)
    whole = answer(Ticket(), n_probs=2)
    whole.take(text("f", 5, details=(detail,)))
    assert whole.final(STOP)["completion_probabilities"] == told["completion_probabilities"]


def test_who_drafted_each_token() -> None:
    whole = answer(Ticket(), token_details=True)
    whole.take(text("f", 5, details=(TokenDetail(5, "ngram", 2),)))
    [detail] = whole.final(STOP)["token_details"]
    assert (detail["id"], detail["drafter"], detail["round"]) == (5, "ngram", 2)


def test_timings_in_every_chunk() -> None:
    assert answer(Ticket(), timings_per_token=True).take(text("f", 5))["timings"]["prompt_n"] == 3


def test_fields_that_are_asked_for() -> None:
    ticket = Ticket(n_predict=4)
    fields = ["content", "generation_settings/n_predict", "nothing", "content/inner"]
    picked = answer(ticket, response_fields=fields)
    picked.take(text("f", 5))
    assert picked.final(LENGTH) == {"content": "f", "generation_settings/n_predict": 4}


def test_ends_that_are_ignored_are_told_as_banned() -> None:
    biases = answer(Ticket(ignore_eos=True)).final(LENGTH)["generation_settings"]["logit_bias"]
    assert {"bias": None, "token": 0} in biases
