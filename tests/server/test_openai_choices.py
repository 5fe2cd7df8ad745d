"""From events to choices, without a server: parts of a stream, and whole ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake.backend import FakeVocabulary

from llamaspec.decode.sequence import Request
from llamaspec.errors import ClosedError
from llamaspec.events import (
    Event,
    FinishEvent,
    FinishReason,
    ProgressEvent,
    PromptEvent,
    TextEvent,
    TokenDetail,
)
from llamaspec.server.answers import cost, progress, timings, token_details, usage
from llamaspec.server.fields import GenerationBody
from llamaspec.server.openai.choices import ChatChoice, Choice, TextChoice
from llamaspec.server.tools import FORMATS, ToolCallStream, ToolSupport, read_tools
from llamaspec.stats import Stats

EURO = "€".encode()
END, BOS, A, B, E1, E2 = range(6)
STOP = FinishEvent(0, FinishReason.STOP)
LENGTH = FinishEvent(0, FinishReason.LENGTH)
CANCELLED = FinishEvent(0, FinishReason.CANCELLED)


class Vocabulary(FakeVocabulary):
    """An end, a BOS, two letters and the two parts of a third."""

    bos = BOS

    def __init__(self) -> None:
        super().__init__(6, eog=(END,), pieces=[b"", b"", b"a", b"b", EURO[:1], EURO[1:]])

    def special_text(self, token: int | None) -> str:
        return {END: "<end>", BOS: "<s>"}.get(token, "") if token is not None else ""


def detail(
    token: int, logprob: float | None = -1.0, *top: tuple[int, float], source: str = ""
) -> TokenDetail:
    return TokenDetail(token, source, 1, logprob, top)


def says(text: str, *details: TokenDetail) -> TextEvent:
    return TextEvent(0, text, tuple(each.token for each in details), drafted=False, details=details)


def told(choice: Choice, *events: Event) -> list[dict[str, Any]]:
    return [*choice.begin(), *(part for event in events for part in choice.take(event))]


def chat(**more: Any) -> ChatChoice:
    return ChatChoice(0, Request((A,)), Vocabulary(), **more)


def text(prompt: Sequence[int] = (A,), prompt_logprobs: int | None = None, **more: Any) -> TextChoice:
    request = Request(tuple(prompt), prompt_logprobs=prompt_logprobs)
    return TextChoice(0, request, Vocabulary(), **more)


@pytest.mark.parametrize(("end", "reason"), [(STOP, "stop"), (LENGTH, "length")])
def test_a_chat_in_parts_and_whole(end: FinishEvent, reason: str) -> None:
    choice = chat()
    parts = told(choice, says("a"), says(""), says("b"), end)
    assert [part["delta"] for part in parts] == [
        {"role": "assistant", "content": None},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [part["finish_reason"] for part in parts] == [None, None, None, reason]
    assert choice.whole(parts) == {
        "index": 0,
        "message": {"role": "assistant", "content": "ab", "refusal": None},
        "logprobs": None,
        "finish_reason": reason,
    }


def test_an_empty_answer_has_a_finish_reason() -> None:
    choice = chat(logprobs=True, tell_details=True)
    whole = choice.whole(told(choice, STOP))
    assert whole["message"]["content"] == ""
    assert whole["logprobs"] == {"content": [], "refusal": None}
    assert whole["token_details"] == []


def test_a_request_that_others_cancelled_is_no_answer() -> None:
    with pytest.raises(ClosedError):
        told(chat(), says("a"), CANCELLED)


def test_chat_log_probabilities() -> None:
    choice = chat(logprobs=True)
    parts = told(choice, says("a", detail(A, -0.5, (A, -0.5), (B, -math.inf))), says("", detail(END)), STOP)
    [entry] = choice.whole(parts)["logprobs"]["content"]
    assert entry == {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.5, "bytes": [97]},
            {"token": "b", "logprob": -9999.0, "bytes": [98]},
        ],
    }
    assert parts[-1]["logprobs"] == {"content": [], "refusal": None}


def test_completion_log_probabilities() -> None:
    """Of parts of a character too, and of the token that ended the text."""
    choice = text(logprobs=True)
    events = [
        says("a", detail(A, -0.5, (B, -0.4))),
        says("€", detail(E1, -0.1, (E1, -0.1)), detail(E2, -0.2)),
        says("", detail(END, -0.3)),
    ]
    parts = told(choice, *events, STOP)
    whole = choice.whole(parts)
    assert whole["text"] == "a€"
    assert whole["logprobs"] == {
        "tokens": ["a", r"bytes:\xe2", r"bytes:\x82\xac", "<end>"],
        "token_logprobs": [-0.5, -0.1, -0.2, -0.3],
        "top_logprobs": [
            {"b": -0.4, "a": -0.5},
            {r"bytes:\xe2": -0.1},
            {r"bytes:\x82\xac": -0.2},
            {"<end>": -0.3},
        ],
        "text_offset": [0, 1, 1, 2],
    }
    assert choice.mean_logprob == pytest.approx(-0.275)


@pytest.mark.parametrize(("echo", "at"), [("ab", [0, 0, 1, 2]), ("<s>ab", [0, 3, 4, 5])])
def test_an_echoed_prompt_may_have_a_bos_that_its_text_has_not(echo: str, at: list[int]) -> None:
    choice = text((BOS, A, B), prompt_logprobs=0, logprobs=True, echo=echo)
    events = [PromptEvent(0, (detail(A), detail(B))), says("a", detail(A)), LENGTH]
    whole = choice.whole(told(choice, *events))
    assert whole["text"] == echo + "a"
    assert whole["logprobs"]["tokens"] == ["<s>", "a", "b", "a"]
    assert whole["logprobs"]["token_logprobs"] == [None, -1.0, -1.0, -1.0]
    assert whole["logprobs"]["text_offset"] == at


def test_an_echo_comes_first() -> None:
    parts = told(text(echo="ab"), says("a"), LENGTH)
    assert [part["text"] for part in parts] == ["ab", "a", ""]


def test_details_of_text_that_is_held_back_are_told_with_it() -> None:
    choice = chat(tell_details=True, calls=reader())
    parts = told(choice, says("<tool", detail(A)), says(" box", detail(B, None, source="ngram")), STOP)
    assert [part["delta"].get("content") for part in parts] == [None, "<tool box", None]
    assert [entry["id"] for entry in parts[1]["token_details"]] == [A, B]
    assert parts[1]["token_details"] == token_details(
        [detail(A), detail(B, None, source="ngram")], Vocabulary()
    )


def test_token_details() -> None:
    [entry] = token_details([detail(E1, math.log(0.25), source="model")], Vocabulary())
    assert entry == {
        "id": E1,
        "text": "\N{REPLACEMENT CHARACTER}",
        "drafter": "model",
        "round": 1,
        "probability": pytest.approx(0.25),
    }


def reader(*, parallel: bool = True) -> ToolCallStream:
    hermes = next(each for each in FORMATS if each.name == "hermes")
    tools = read_tools({"tools": [{"type": "function", "function": {"name": "f"}}]})
    return ToolCallStream(ToolSupport(hermes), tools.functions, parallel=parallel)


CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'


def test_tool_calls_in_parts_and_whole() -> None:
    choice = chat(calls=reader())
    parts = told(choice, says("Well. "), *(says(character) for character in CALL), STOP)
    deltas = [call for part in parts for call in part["delta"].get("tool_calls", ())]
    assert deltas[0]["type"] == "function"
    assert deltas[0]["function"]["name"] == "f"
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert arguments == '{"x": 1}'
    whole = choice.whole(parts)
    assert whole["finish_reason"] == parts[-1]["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] == "Well."
    [call] = whole["message"]["tool_calls"]
    assert call == {
        "id": deltas[0]["id"],
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
    }


def test_where_one_call_is_enough_the_rest_is_not_waited_for() -> None:
    choice = chat(calls=reader(parallel=False))
    parts = told(choice, says(CALL))
    assert choice.done
    parts += told(choice, says(CALL), CANCELLED)[1:]
    whole = choice.whole(parts)
    assert len(whole["message"]["tool_calls"]) == 1
    assert whole["message"]["content"] is None
    assert whole["finish_reason"] == "tool_calls"


def test_calls_before_one_that_breaks_off_are_told_and_not_called_all() -> None:
    choice = chat(calls=reader())
    whole = choice.whole(told(choice, says(CALL + "\n" + CALL[:45]), LENGTH))
    assert len(whole["message"]["tool_calls"]) == 1
    assert whole["finish_reason"] == "length"


@pytest.mark.parametrize("forced", [False, True])
def test_a_call_that_breaks_off(forced: bool) -> None:
    choice = chat(calls=reader(), keep_broken=forced)
    whole = choice.whole(told(choice, says(CALL[:45]), LENGTH))
    assert whole["finish_reason"] == "length"
    assert ("tool_calls" in whole["message"]) == forced
    assert bool(whole["message"]["content"]) == (not forced)


@dataclass
class Ran:
    request: Request
    stats: Stats = field(default_factory=Stats)


def ran(prompt: int, cached: int, predicted: int, drafted: Sequence[str], accepted: int) -> Ran:
    stats = Stats(prompt_tokens=prompt, cached_tokens=cached, prompt_seconds=0.5, predicted_seconds=2.0)
    stats.queue_seconds, stats.time_to_first_token = prompt / 10, prompt / 10 + 0.5
    stats.record_round(0.1, 0.2)
    stats.record_draft("model", drafted, accepted)
    stats.record_tokens(predicted, 0.1)
    return Ran(Request((A,) * prompt), stats)


def test_usage_counts_a_prompt_once_and_its_choices_all() -> None:
    first, second, other = ran(10, 0, 4, ["model"] * 3, 2), ran(10, 9, 6, ["model"], 1), ran(5, 0, 1, [], 0)
    assert usage([[first, second], [other]]) == {
        "prompt_tokens": 15,
        "completion_tokens": 11,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 1},
    }


def test_timings_are_of_the_tokens_behind_the_first() -> None:
    alone = timings(ran(10, 0, 5, ["model"] * 3, 2).stats)
    assert (alone["prompt_n"], alone["prompt_ms"], alone["prompt_per_second"]) == (10, 500.0, 20.0)
    assert (alone["predicted_n"], alone["predicted_ms"]) == (5, 2000.0)
    assert (alone["predicted_per_token_ms"], alone["predicted_per_second"]) == (500.0, 2.0)
    assert alone["queue_ms"] == pytest.approx(1000.0)
    one = timings(ran(10, 0, 1, [], 0).stats)
    assert one["predicted_per_token_ms"] == one["predicted_per_second"] == 0.0


def test_timings_are_numbers_whatever_is_known() -> None:
    nothing = timings(Stats())
    assert set(nothing.values()) == {0}
    assert not {"time_to_first_token_ms", "estimated_speedup"} & nothing.keys()
    estimated = ran(10, 0, 5, ["model"] * 3, 2)
    estimated.stats.record_plain(4, 1.0)
    assert timings(estimated.stats)["estimated_speedup"] == 2.0


def test_the_cost_of_several_requests() -> None:
    first, second = ran(10, 0, 4, ["model"] * 3, 2), ran(10, 9, 6, ["model"], 1)
    assert cost([first])["speculation"]["acceptance_per_position"] == [1.0, 1.0, 0.0]
    both = cost([first, second])
    told = both["timings"]
    assert (told["cache_n"], told["prompt_n"], told["predicted_n"], told["rounds"]) == (9, 11, 10, 2)
    assert (told["draft_n"], told["draft_n_accepted"], told["mean_accepted_length"]) == (4, 3, 1.5)
    assert told["predicted_per_second"] == (3 + 5) / 4.0
    assert both["speculation"] == {
        "mode": "auto",
        "drafters": {
            "model": {"draft_n": 4, "draft_n_accepted": 3, "rounds": 2, "seconds": pytest.approx(0.2)}
        },
        "acceptance_per_position": [1.0, 1.0, 0.0],
        "mean_accepted_length": 1.5,
        "estimated_speedup": None,
    }
    assert cost([ran(10, 0, 1, [], 0)])["speculation"]["mean_accepted_length"] is None


def test_progress_is_told_in_the_shape_of_llama_server() -> None:
    event = ProgressEvent(3, total=30, cached=10, processed=15, seconds=0.5)
    told = {"total": 30, "cache": 10, "processed": 15, "time_ms": 500.0}
    assert progress(event, GenerationBody()) == {"prompt_progress": told}
    so_far = progress(event, GenerationBody(timings_per_token=True))["timings"]
    assert (so_far["cache_n"], so_far["prompt_n"], so_far["prompt_per_second"]) == (10, 5, 10.0)
    assert so_far["predicted_n"] == 0
