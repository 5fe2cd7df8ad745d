"""What the OpenAPI document promises, against requests that schemathesis makes up from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from openai_app import ask, tiny_service

from llamaspec.server.app import create_app
from llamaspec.server.guard import GuardOptions
from llamaspec.server.service import Service

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 40  # for each operation
MADE_UP = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("openapi")) as service:
        yield service


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    told: dict[str, Any] = ask(service, "/openapi.json").json()
    return told


@pytest.mark.slow
@pytest.mark.parametrize("sound", [True, False])
def test_no_request_gets_an_answer_that_is_not_declared(service: Service, sound: bool) -> None:
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

    app = create_app(service, GuardOptions(allowed_hosts=("testserver",)))
    api = schemathesis.openapi.from_asgi("/openapi.json", app)
    mode = GenerationMode.POSITIVE if sound else GenerationMode.NEGATIVE
    folder = str(Path(service.session.files[0].path).parent)

    for found in api.get_all_operations():
        operation = found.ok()
        if not sound and not (operation.body or operation.query):
            continue  # nothing that could be wrong

        @MADE_UP
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_its_promise(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500 or response.status_code in (501, 503), response.text
            assert folder not in response.text
            assert service.worker.failure is None
            case.validate_response(response, checks=[status_code_conformance, content_type_conformance])

        keeps_its_promise()


def test_the_document_tells_of_every_route_what_it_may_answer(document: dict[str, Any]) -> None:
    routes = {"/v1/chat/completions", "/v1/completions", "/completion", "/tokenize", "/health", "/metrics"}
    assert routes <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = set(operation["responses"])
            assert {"400", "401", "403", "404", "413", "503"} <= declared, path
            assert "422" not in declared, path
