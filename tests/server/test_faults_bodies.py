"""Bodies that are malformed, hostile or huge: each is refused with a reason, and the next one is answered."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai_app import CHAT, HELLO, TEXT, app_of, ask, complete, tiny_service

from llamaspec.server.service import Service

NATIVE = "/completion"
TOKENIZE = "/tokenize"
FAR = 10**400
DEEP = 100_000
SURROGATE = "\ud800"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("bodies")) as service:
        yield service
        assert complete(service, "Once")["choices"][0]["finish_reason"]


def nested(before: bytes, opening: bytes, closing: bytes, after: bytes, depth: int = DEEP) -> bytes:
    return before + opening * depth + closing * depth + after


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, "max_tokens": 2, **fields}


def text(**fields: Any) -> dict[str, Any]:
    return {"prompt": "a", "max_tokens": 2, **fields}


def schema(**fields: Any) -> dict[str, Any]:
    return text(json_schema=fields)


def said(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 2}


NOT_JSON = {
    "nothing": b"",
    "open arrays": b"[" * DEEP,
    "open objects": b'{"a":' * DEEP,
    "deep array": nested(b'{"messages":', b"[", b"]", b"}"),
    "deep schema": nested(b'{"prompt":"a","json_schema":', b'{"items":', b"}", b"}"),
    "half a body": b'{"messages": [',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "control character": b'{"prompt": "a\x01"}',
    "number of 5000 digits": b'{"prompt": "a", "seed": ' + b"1" * 5000 + b"}",
    "array": b"[]",
    "text": b'"prompt"',
    "number": b"NaN",
    "null": b"null",
}


@pytest.mark.parametrize("path", [CHAT, TEXT, NATIVE, "/infill", TOKENIZE, "/detokenize", "/apply-template"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_object_is_refused(service: Service, path: str, body: bytes) -> None:
    response = ask(service, path, body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "no messages": (CHAT, {"messages": []}),
    "empty message": (CHAT, {"messages": [{}]}),
    "unknown role": (CHAT, {"messages": [{"role": SURROGATE, "content": "a"}]}),
    "many messages": (CHAT, {"messages": HELLO * 5000}),
    "messages that are none": (CHAT, {"messages": [1] * 100_000}),
    "picture": (CHAT, said([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}])),
    "huge message": (CHAT, said("a" * 5_000_000)),
    "half a surrogate pair in a message": (CHAT, said(SURROGATE)),
    "template of one's own": (CHAT, chat(chat_template_kwargs={"chat_template": "{{ 1 }}"})),
    "tokenizer of one's own": (CHAT, chat(chat_template_kwargs={"tokenizer": "/etc/passwd"})),
    "surrogate as an option": (CHAT, chat(chat_template_kwargs={SURROGATE: 1})),
    "surrogate as a key": (CHAT, chat(**{SURROGATE: 1})),
    "too many choices": (CHAT, chat(n=17)),
    "no choices": (CHAT, chat(n=0)),
    "choices without end": (CHAT, chat(n=FAR)),
    "too many tools": (CHAT, chat(tools=[{"type": "function", "function": {"name": "f"}}] * 129)),
    "no number": (CHAT, chat(temperature=float("nan"))),
    "infinity": (NATIVE, text(dry_base=float("inf"))),
    "temperature beyond floats": (CHAT, chat(temperature=FAR)),
    "penalty that is next to nothing": (NATIVE, text(repeat_penalty=5e-324)),
    "seed beyond integers": (CHAT, chat(seed=FAR)),
    "negative limit": (CHAT, chat(max_tokens=-2)),
    "limit beyond integers": (TEXT, text(max_tokens=FAR)),
    "time beyond integers": (NATIVE, text(t_max_predict_ms=FAR)),
    "many stop strings": (CHAT, chat(stop=["a"] * 100_000)),
    "empty stop string": (CHAT, chat(stop="")),
    "long stop string": (CHAT, chat(stop="a" * 100_000)),
    "surrogate as a stop string": (NATIVE, text(stop=[SURROGATE])),
    "many biases": (CHAT, chat(logit_bias={str(token): 1 for token in range(50_000)})),
    "many biases, as a list": (NATIVE, text(logit_bias=[[token, False] for token in range(50_000)])),
    "bias of no token": (CHAT, chat(logit_bias={"-1": 1})),
    "bias of a token far off": (NATIVE, text(logit_bias={"9" * 5000: 1})),
    "bias beyond floats": (NATIVE, text(logit_bias={"1": FAR})),
    "surrogate that breaks sequences": (NATIVE, text(dry_sequence_breakers=[SURROGATE])),
    "empty prompt": (TEXT, text(prompt="")),
    "prompt without tokens": (TEXT, text(prompt=[[]])),
    "negative token": (TEXT, text(prompt=[-1])),
    "token far off": (NATIVE, text(prompt=["a", 1 << 20])),
    "token beyond integers": (TEXT, text(prompt=[FAR])),
    "tokens beyond the context": (TEXT, text(prompt=[1] * 100_000)),
    "many prompts": (TEXT, text(prompt=["a"] * 100_000)),
    "many prompts of tokens": (NATIVE, text(prompt=[[1]] * 100_000)),
    "many unknown keys": (NATIVE, text(**{f"key {number}": 1 for number in range(100_000)})),
    "words beyond the context": (TEXT, text(prompt="word " * 5000)),
    "letters without end": (TEXT, text(prompt="a" * 10_000_000)),
    "spaces without end": (NATIVE, text(prompt=" " * 10_000_000)),
    "digits without end": (TOKENIZE, {"content": "7" * 10_000_000}),
    "faces without end": (TEXT, text(prompt="\U0001f600" * 1_000_000)),
    "surrogate to tokenise": (TOKENIZE, {"content": ["a", SURROGATE]}),
    "token far off to write": ("/detokenize", {"tokens": [1 << 20]}),
    "draft beyond integers": (CHAT, chat(speculative={"mode": "fixed", "draft_max": FAR})),
    "groups in groups": (NATIVE, text(grammar="root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000)),
    "more groups in groups": (NATIVE, text(grammar="root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000)),
    "left recursion": (NATIVE, text(grammar='root ::= root "a" | "a"')),
    "hidden left recursion": (NATIVE, text(grammar='root ::= ""? other\nother ::= root "a"')),
    "huge repetition": (NATIVE, text(grammar='root ::= "a"{1000000000}')),
    "nested repetition": (NATIVE, text(grammar='root ::= (("a"{1,900}){1,900}){1,900}')),
    "half a grammar": (CHAT, chat(grammar='root ::= "a')),
    "grammar without a root": (CHAT, chat(grammar='other ::= "a"')),
    "undefined rule": (CHAT, chat(grammar="root ::= other")),
    "huge grammar": (TEXT, text(grammar='root ::= "a"' + ' | "a"' * 100_000)),
    "surrogate in a grammar": (NATIVE, text(grammar=f'root ::= "{SURROGATE}"')),
    "NUL in a grammar": (NATIVE, text(grammar='root ::= "a\0"')),
    "schema in a circle": (TEXT, schema(**{"$ref": "#"})),
    "schema from elsewhere": (TEXT, schema(**{"$ref": "http://127.0.0.1:9/"})),
    "schema from a file": (TEXT, schema(**{"$ref": "file:///etc/passwd"})),
    "schema of no type": (TEXT, schema(type="nonsense")),
    "schema of a number": (NATIVE, schema(type=5)),
    "schema of lists": (NATIVE, schema(type="object", properties=["a"], required="a")),
    "half a pattern": (NATIVE, schema(type="string", pattern="^((($")),
    "groups in a pattern": (NATIVE, schema(type="string", pattern=f"^{'(' * 20_000}a{')' * 20_000}$")),
    "huge repetition in a pattern": (NATIVE, schema(type="string", pattern="^a{1,1000000000}$")),
    "huge length": (NATIVE, schema(type="string", minLength=FAR)),
    "negative length": (NATIVE, schema(type="string", minLength=-5)),
    "huge count": (NATIVE, schema(type="array", items={}, minItems=10**7)),
    "huge choice": (NATIVE, schema(enum=list(range(100_000)))),
    "no number in a schema": (NATIVE, schema(const=float("nan"))),
    "surrogate in a schema": (CHAT, chat(json_schema={"enum": [SURROGATE]})),
}


@pytest.mark.parametrize(("path", "body"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_with_a_reason(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    response = ask(service, path, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] in ("invalid_request_error", "exceed_context_size_error")
    assert error["message"]
    assert len(response.content) < 2000
    assert str(service.session.files[0].path.parent) not in response.text


ANSWERED: dict[str, tuple[str, dict[str, Any]]] = {
    "many choices": (CHAT, chat(n=16)),
    "limit beyond the context": (TEXT, text(max_tokens=1 << 20)),
    "temperature that is next to nothing": (TEXT, text(temperature=5e-324)),
    "nothing at all": (TEXT, text(max_tokens=0)),
    "NUL in a prompt": (TEXT, text(prompt="a\0b")),
    "every token but few banned": (NATIVE, text(logit_bias=[[token, False] for token in range(250)])),
    "empty message": (CHAT, said("")),
    "letters to tokenise": (TOKENIZE, {"content": "a" * 30_000}),
    "spaces to tokenise": (TOKENIZE, {"content": " " * 30_000}),
    "faces to tokenise": (TOKENIZE, {"content": "\U0001f600" * 30_000}),
    "digits to tokenise": (TOKENIZE, {"content": "7" * 30_000}),
    "special tokens to tokenise": (TOKENIZE, {"content": "<|im_end|>" * 3000}),
    "pattern that backtracks": (NATIVE, schema(type="string", pattern="^((((a+)+)+)+)+$")),
}


@pytest.mark.parametrize(("path", "body"), ANSWERED.values(), ids=ANSWERED)
def test_what_is_odd_but_sound_is_answered(service: Service, path: str, body: dict[str, Any]) -> None:
    response = ask(service, path, body)
    assert response.status_code == 200, response.text


def test_of_keys_that_come_twice_the_last_counts(service: Service) -> None:
    body = json.dumps(text())[:-1].encode() + b', "max_tokens": 3, "ignore_eos": true}'
    assert ask(service, TEXT, body).json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_read(service: Service, kind: str) -> None:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(TEXT, content=json.dumps(text()), headers={"Content-Type": kind})

    response = asyncio.run(asked())
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


def test_a_template_that_fails_is_told_without_its_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    template = "{{ messages[0]['content'] }}{{ raise_exception('Only the weather.') }}"
    with tiny_service(tmp_path_factory.mktemp("template"), template=template) as service:
        response = ask(service, CHAT, chat())
        assert response.status_code == 400
        assert "Only the weather." in response.json()["error"]["message"]
        assert complete(service, "Once")["choices"][0]["finish_reason"]
