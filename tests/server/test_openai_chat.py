"""/v1/chat/completions and /v1/models over a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_app import CHAT, HELLO, ask, chat, refusal, streamed, tiny_service

from llamaspec.server.service import Service

SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"ok": {"enum": ["yes", "no"]}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models")) as served:
        yield served


def test_an_answer_has_what_clients_read(service: Service) -> None:
    answer = chat(service, model="gpt-4o", max_tokens=5)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == service.model_id == "main"
    assert isinstance(answer["created"], int)
    assert answer["system_fingerprint"]
    [choice] = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    drafted = usage["completion_tokens_details"]
    timings = answer["timings"]
    assert timings["draft_n_accepted"] == drafted["accepted_prediction_tokens"]
    assert timings["draft_n"] == sum(drafted.values()) > 0
    assert timings["cache_n"] + timings["prompt_n"] == usage["prompt_tokens"]
    assert timings["predicted_n"] == 5
    assert all(isinstance(value, int | float) for value in timings.values())
    told = answer["speculation"]
    assert told["mode"] == "fixed"
    assert told["drafters"]["model"]["draft_n"] == timings["draft_n"]
    assert told["mean_accepted_length"] == timings["mean_accepted_length"] > 0.0
    assert len(told["acceptance_per_position"]) <= 4


def test_a_stream_says_the_same_as_a_whole_answer(service: Service) -> None:
    asked = {"max_tokens": 8, "seed": 5, "logprobs": True, "top_logprobs": 2, "token_details": True}
    [whole] = chat(service, **asked)["choices"]
    chunks = streamed(service, CHAT, **asked)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": None}
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    assert "".join(c["delta"].get("content") or "" for c in choices) == whole["message"]["content"]
    told = [entry for c in choices if c["logprobs"] for entry in c["logprobs"]["content"]]
    assert told == whole["logprobs"]["content"]
    # In which round a token comes depends on the drafts, which are prices' affair: tokens are not.
    assert [d["id"] for c in choices for d in c["token_details"]] == [d["id"] for d in whole["token_details"]]
    assert [bool("timings" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert "usage" not in chunks[-1]


def test_log_probabilities_spell_the_text(service: Service) -> None:
    [choice] = chat(service, max_tokens=6, logprobs=True, top_logprobs=3, temperature=0)["choices"]
    entries = choice["logprobs"]["content"]
    assert len(entries) == 6
    written = b"".join(bytes(entry["bytes"]) for entry in entries)
    assert written.decode("utf-8", "replace") == choice["message"]["content"]
    for entry in entries:
        best = entry["top_logprobs"]
        assert len(best) == 3
        assert entry["logprob"] == best[0]["logprob"] == max(top["logprob"] for top in best) <= 0.0


def test_token_details_tell_who_drafted(service: Service) -> None:
    answer = chat(service, max_tokens=12, temperature=0, token_details=True)
    details = answer["choices"][0]["token_details"]
    drafted = [detail for detail in details if detail["drafter"] == "model"]
    assert len(drafted) == answer["timings"]["draft_n_accepted"] > 0
    assert {detail["drafter"] for detail in details} <= {"model", None}
    assert all(0.0 < detail["probability"] <= 1.0 for detail in details)
    rounds = [detail["round"] for detail in details]
    assert rounds == sorted(rounds)
    plain = chat(service, max_tokens=12, temperature=0, token_details=True, speculative={"mode": "off"})
    assert all(detail["drafter"] is None for detail in plain["choices"][0]["token_details"])
    assert plain["timings"]["draft_n"] == 0


def test_speculation_can_be_set_in_llama_cpp_s_words(service: Service) -> None:
    told = chat(service, max_tokens=12, **{"speculative.n_max": 1})["speculation"]
    assert len(told["acceptance_per_position"]) == 1


def test_usage_is_told_at_the_end_of_a_stream_that_asks_for_it(service: Service) -> None:
    chunks = streamed(service, CHAT, max_tokens=4, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None and "timings" not in chunk for chunk in chunks[:-1])
    last = chunks[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == last["timings"]["predicted_n"] == 4


def test_usage_and_timings_in_every_chunk(service: Service) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = streamed(service, CHAT, max_tokens=4, stream_options=options, timings_per_token=True)
    assert "timings" not in chunks[0]
    assert all("timings" in chunk for chunk in chunks[1:])
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert len({chunk["usage"]["prompt_tokens"] for chunk in chunks}) == 1


def test_several_answers_differ_and_share_the_prompt(service: Service) -> None:
    answer = chat(service, n=3, seed=7, max_tokens=12, temperature=1.5)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == 36
    assert answer["usage"]["prompt_tokens"] < answer["timings"]["prompt_n"] + answer["timings"]["cache_n"]
    alone = chat(service, seed=9, max_tokens=12, temperature=1.5)
    assert alone["choices"][0]["message"]["content"] == texts[2]
    chunks = streamed(service, CHAT, n=3, seed=7, max_tokens=12, temperature=1.5)
    spoken = dict.fromkeys(range(3), "")
    for chunk in chunks:
        for choice in chunk["choices"]:
            spoken[choice["index"]] += choice["delta"].get("content") or ""
    assert list(spoken.values()) == texts
    assert sum(chunk["choices"][0]["finish_reason"] == "length" for chunk in chunks) == 3
    assert ["timings" in chunk for chunk in chunks].count(True) == 1


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer(service: Service, as_list: bool) -> None:
    asked: dict[str, Any] = {"grammar": 'root ::= "one, two, three"', "max_tokens": 40}
    stop = ", th"
    [choice] = chat(service, stop=[stop, "never"] if as_list else stop, **asked)["choices"]
    assert choice["message"]["content"] == "one, two"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            }
        },
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
    ],
)
def test_a_schema_is_kept(service: Service, asked: dict[str, Any]) -> None:
    [choice] = chat(service, max_tokens=60, **asked)["choices"]
    assert json.loads(choice["message"]["content"])["ok"] in ("yes", "no")
    assert choice["finish_reason"] == "stop"


def test_nulls_are_absent_and_what_is_only_noted_is_taken(service: Service) -> None:
    answer = chat(
        service,
        model=None,
        max_completion_tokens=3,
        max_tokens=9,
        **dict.fromkeys(("temperature", "stop", "tools", "tool_choice", "logit_bias", "functions")),
        user="someone",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
        parallel_tool_calls=True,
        response_format={"type": "text"},
    )
    assert answer["usage"]["completion_tokens"] == 3


def test_an_answer_that_was_sent_back_can_be_gone_on_from(service: Service) -> None:
    said = chat(service, max_tokens=4)["choices"][0]["message"]
    messages = [*HELLO, {**said, "annotations": [], "tool_calls": None}, {"role": "user", "content": "And?"}]
    assert chat(service, messages=messages, max_tokens=2)["usage"]["completion_tokens"] == 2


def tokens_of(service: Service, messages: list[dict[str, Any]], **more: Any) -> int:
    response = ask(service, f"{CHAT}/input_tokens", {"messages": messages, **more})
    assert response.status_code == 200, response.text
    return int(response.json()["input_tokens"])


def test_parts_and_developers_are_what_templates_know(service: Service) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert tokens_of(service, [{"role": "user", "content": parts}]) == tokens_of(
        service, [{"role": "user", "content": "a\nb"}]
    )
    assert tokens_of(service, [{"role": "developer", "content": "x"}, *HELLO]) == tokens_of(
        service, [{"role": "system", "content": "x"}, *HELLO]
    )


def test_the_assistant_s_last_message_goes_on(service: Service) -> None:
    begun = [*HELLO, {"role": "assistant", "content": "abc"}]
    assert tokens_of(service, begun) == tokens_of(service, HELLO) + 3
    same = {"continue_final_message": True, "add_generation_prompt": False}
    assert tokens_of(service, begun, **same) == tokens_of(service, begun)
    assert tokens_of(service, begun, continue_final_message=False) > tokens_of(service, begun)
    answer = chat(service, messages=begun, grammar='root ::= "d"')
    assert answer["choices"][0]["message"]["content"] == "d"


def test_a_prompt_beyond_the_context_is_refused(service: Service) -> None:
    error = refusal(service, CHAT, {"messages": [{"role": "user", "content": "word " * 600}], "stream": True})
    assert error["code"] == "context_length_exceeded"


def test_models(service: Service) -> None:
    listed = ask(service, "/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert model["id"] == "main"
    assert model["object"] == "model"
    assert model["meta"]["n_vocab"] == service.session.loaded.main.vocab_size
    assert ask(service, "/v1/models/main").json() == model
    missing = ask(service, "/v1/models/other/one")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_no_path_of_the_host_is_told(service: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(Path(service.session.files[0].path).parent)
    assert folder not in ask(service, "/v1/models").text
