"""instructor, over OpenAI's library."""

from typing import Any

import pytest
from client_help import ABOUT_ANNA, PATIENCE, Person, Served, check_anna, client_library

instructor = client_library("instructor")
openai = client_library("openai")
pytestmark = pytest.mark.model

MESSAGES = [{"role": "user", "content": ABOUT_ANNA}]


@pytest.fixture(params=["TOOLS", "JSON_SCHEMA", "JSON", "MD_JSON"])
def client(request: pytest.FixtureRequest, served: Served):
    mode = instructor.Mode[request.param]
    with openai.OpenAI(base_url=served.openai_url, api_key="none", timeout=PATIENCE, max_retries=0) as plain:
        yield instructor.from_openai(plain, mode=mode)


def asking(served: Served) -> dict[str, Any]:
    return {"model": served.model, "messages": MESSAGES, "max_tokens": 60}


def test_model(client, served: Served) -> None:
    person, answer = client.create_with_completion(response_model=Person, max_retries=0, **asking(served))
    check_anna(person)
    assert answer.usage.completion_tokens > 10


def test_partial_models_streamed(client, served: Served) -> None:
    partial = list(client.create_partial(response_model=Person, max_retries=0, **asking(served)))
    assert len(partial) > 1
    check_anna(partial[-1])


def test_several_models_streamed(served: Served) -> None:
    text = "Anna is 31 and lives in Oslo. Bob is 40 and lives in Rome."
    messages = [{"role": "user", "content": text}]
    with openai.OpenAI(base_url=served.openai_url, api_key="none", timeout=PATIENCE, max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)
        people = list(
            client.create_iterable(
                model=served.model, messages=messages, response_model=Person, max_tokens=90, max_retries=0
            )
        )
    assert [(person.name, person.city) for person in people] == [("Anna", "Oslo"), ("Bob", "Rome")]
