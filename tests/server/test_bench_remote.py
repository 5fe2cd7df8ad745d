"""Measuring a server from outside: what is asked of it, what is counted, and how it may fail."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from real_server import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from thread_server import running

from llamaspec.bench.remote import api_url, measure_server
from llamaspec.bench.remote_report import ServerReport
from llamaspec.bench.report import write_report
from llamaspec.bench.workload import Prompt, Workload
from llamaspec.console.bench_server import ServerProgress, print_server_report
from llamaspec.errors import ServerError, UsageError

WORK = Workload(
    prompts=(
        Prompt(name="a", kind="code", prompt="Write a."),
        Prompt(name="b", kind="code", prompt="Write b.", n_predict=5),
        Prompt(name="c", kind="chat", prompt="Say c."),
    )
)
TIMINGS = {"prompt_n": 6, "cache_n": 1, "predicted_n": 4, "draft_n": 5, "draft_n_accepted": 3}
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status)


def models(*names: str) -> Response:
    return JSONResponse({"data": [{"id": name} for name in names]}, headers={"Server": "fake 1.0"})


def chunk(**delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def last(**more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **more})


def events(*data: str) -> Response:
    return StreamingResponse((f"data: {each}\n\n" for each in data), media_type="text/event-stream")


def whole(**more: Any) -> Response:
    """Three pieces of text: one of thought, two of the answer."""
    pieces = (chunk(role="assistant", content=None), chunk(reasoning_content="Hm"), chunk(content="Oh"))
    return events(*pieces, chunk(content=" yes"), last(**(more or {"usage": USAGE})), "[DONE]")


@dataclass
class Fake:
    """A server that answers with what `reply` makes of a request's body."""

    reply: Callable[[dict[str, Any]], Response] = lambda body: whole()
    listed: Response = field(default_factory=lambda: models("m"))
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""

    async def models(self, request: Request) -> Response:
        return self.listed

    async def chat(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        return self.reply(self.asked[-1])

    @property
    def texts(self) -> list[str]:
        """What was measured, warm-up left out, without the line that is each request's own."""
        every = [body["messages"][0]["content"].partition("\n\n")[2] for body in self.asked]
        return [text for text in every if text]

    @contextmanager
    def running(self) -> Iterator["Fake"]:
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        with running(Starlette(routes=routes)) as server:
            self.url = f"http://127.0.0.1:{server.port}"
            yield self

    def measured(self, **options: Any) -> ServerReport:
        with self.running():
            return measure_server(self.url, WORK, **options)


# what is asked


def test_each_level_asks_every_prompt_and_greedily() -> None:
    fake = Fake()
    report = fake.measured(concurrency=(1, 5), n_predict=9)
    assert [(level.clients, level.requests, level.failed) for level in report.levels] == [
        (1, 3, 0),
        (5, 5, 0),
    ]
    assert sorted(fake.texts) == sorted(["Write a.", "Write b.", "Say c."] * 2 + ["Write a.", "Write b."])
    limits = {body["messages"][0]["content"][-8:]: body["max_tokens"] for body in fake.asked}
    assert limits["Write a."] == 9
    assert limits["Write b."] == 5
    for body in fake.asked:
        assert body["model"] == "m"
        assert (body["temperature"], body["seed"], body["stream"]) == (0.0, 0, True)
        assert body["stream_options"] == {"include_usage": True}
    assert report.complete


def test_no_two_requests_begin_alike_unless_that_is_wanted() -> None:
    fake = Fake()
    assert "line of its own" in fake.measured(concurrency=(4,)).notes[-1]
    asked = [body["messages"][0]["content"] for body in fake.asked]
    texts = [text for text in asked if "Write" in text or "Say" in text]
    assert len({text.partition("\n")[0] for text in texts}) == 4

    same = Fake()
    assert "as they are" in same.measured(concurrency=(1,), unique=False).notes[-1]
    assert [body["messages"][0]["content"] for body in same.asked][-3:] == ["Write a.", "Write b.", "Say c."]


def test_levels_take_turns_at_being_first() -> None:
    seen: list[tuple[int, int, str]] = []
    report = Fake().measured(concurrency=(1, 2), repeat=3, on_progress=lambda *told: seen.append(told))
    order = list(dict.fromkeys((done - 1) // 3 for done, _, _ in seen))
    assert [seen[3 * place][2] for place in order] == [
        *("1 client", "2 clients"),
        *("2 clients", "1 client"),
        *("1 client", "2 clients"),
    ]
    assert [(done, total) for done, total, _ in seen] == [(number, 18) for number in range(1, 19)]
    assert {(record.clients, record.round) for record in report.requests} == {
        (clients, number) for clients in (1, 2) for number in range(3)
    }
    second = report.levels[1].relative
    assert second is not None
    assert second.count == 3
    assert report.levels[0].relative is None


def test_so_many_clients_are_served_at_a_time() -> None:
    under_way, most, all_there = 0, 0, threading.Event()

    def reply(body: Mapping[str, Any]) -> Response:
        async def parts() -> AsyncIterator[str]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            if under_way == 3:
                all_there.set()
            # Whoever comes before the others are here holds the line open until they are.
            while not all_there.is_set():
                await asyncio.sleep(0)
            yield f"data: {chunk(content='x')}\n\n"
            under_way -= 1
            yield f"data: {last(usage=USAGE)}\n\ndata: [DONE]\n\n"

        measured = "\n\n" in body["messages"][0]["content"]
        return StreamingResponse(parts(), media_type="text/event-stream") if measured else whole()

    Fake(reply).measured(concurrency=(3,))
    assert most == 3


def test_the_key_is_sent_and_written_nowhere() -> None:
    fake = Fake()
    report = fake.measured(api_key="sk-secret", concurrency=(1,))
    assert set(fake.keys) == {"Bearer sk-secret"}
    assert "sk-secret" not in report.model_dump_json()


# what is counted


def test_what_the_server_tells_is_counted() -> None:
    report = Fake(lambda body: whole(usage=USAGE, timings=TIMINGS)).measured(concurrency=(1,))
    (level,) = report.levels
    assert (level.tokens, level.prompt_tokens, level.cached_tokens) == (12, 21, 6)
    assert (level.drafted, level.accepted, level.acceptance_rate) == (15, 9, 0.6)
    assert level.tokens_per_piece == 12 / 9
    assert level.first_token is not None
    assert level.gap is not None
    assert level.throughput is not None
    assert level.throughput.value == pytest.approx(12 / sum(r.seconds for r in report.requests), rel=0.5)
    assert (report.model, report.server, report.counted_by) == ("m", "fake 1.0", ("usage",))
    assert all(len(record.times) == 3 and record.finish == "stop" for record in report.requests)


@pytest.mark.parametrize(
    ("told", "tokens", "counted_by"),
    [({"timings": TIMINGS}, 12, "timings"), ({"usage": None}, 9, "pieces")],
)
def test_who_counted_is_told(told: dict[str, Any], tokens: int, counted_by: str) -> None:
    report = Fake(lambda body: whole(**told)).measured(concurrency=(1,))
    assert report.counted_by == (counted_by,)
    assert report.levels[0].tokens == tokens


def test_a_server_that_tells_nothing_of_drafts_has_no_acceptance() -> None:
    (level,) = Fake().measured(concurrency=(1,)).levels
    assert (level.drafted, level.accepted, level.acceptance_rate) == (None, None, None)


# what a server does not take


def test_fields_that_are_refused_are_left_out_and_named() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        if "max_tokens" in body:
            return refusal(400, "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return refusal(400, "Unsupported value: 'temperature' does not support 0.0.")
        if "stream_options" in body:
            return JSONResponse({"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]}, 422)
        return whole()

    fake = Fake(reply)
    report = fake.measured(concurrency=(1,), n_predict=9)
    assert report.levels[0].failed == 0
    measured = fake.asked[-1]
    assert measured["max_completion_tokens"] == 9
    assert measured["seed"] == 0
    assert not {"temperature", "stream_options", "max_tokens"} & set(measured)
    assert [note.partition(":")[0] for note in report.notes[:2]] == [
        "The server does not take temperature",
        "The server does not take stream_options",
    ]


def test_a_refusal_that_names_nothing_leaves_out_all_that_need_not_be() -> None:
    fake = Fake(lambda body: refusal(400, "bad request") if "seed" in body else whole())
    report = fake.measured(concurrency=(1,))
    assert len(report.notes) == 4
    assert set(fake.asked[-1]) == {"model", "messages", "max_tokens", "stream"}


def test_a_refusal_that_stays_is_told_as_it_came_first() -> None:
    replies = iter(["no such model: m", *["something else"] * 9])
    with pytest.raises(ServerError, match="answered 400: no such model: m"):
        Fake(lambda body: refusal(400, next(replies))).measured()


# how it may fail


def failing(bad: Callable[[], Response]) -> ServerReport:
    """Of three answers the second fails."""

    def reply(body: Mapping[str, Any]) -> Response:
        return bad() if "Write b." in body["messages"][0]["content"] else whole()

    return Fake(reply).measured(concurrency=(1,), timeout=5.0)


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (
            lambda: refusal(503, "queue\nfull\x1b[31m"),
            "HTTP 503",
            "The server answered 503: queue full\ufffd[31m",
        ),
        (lambda: PlainTextResponse("<html>", 500), "HTTP 500", "The server answered 500: <html>"),
        (lambda: events(chunk(content="a")), "broken off", "The answer broke off after 1 pieces."),
        (
            lambda: events(chunk(content="a"), '{"error": {"message": "out of memory"}}'),
            "error in the stream",
            "The answer ended with an error: out of memory",
        ),
        (lambda: JSONResponse({"choices": []}), "no stream", "The answer is no stream of events."),
        (lambda: events("{", "[DONE]"), "not understood", "An event is no chat completion"),
        (lambda: events('{"usage": {"completion_tokens": -1}}'), "not understood", "An event is no"),
        (lambda: events("[" * 100_000), "not understood", "An event is no chat completion"),
    ],
)
def test_failures_are_counted_by_kind_with_what_was_told(
    bad: Callable[[], Response], kind: str, message: str
) -> None:
    report = failing(bad)
    (level,) = report.levels
    (failure,) = level.failures
    assert (failure.kind, failure.count) == (kind, 1)
    assert failure.messages[0].startswith(message)
    assert (level.requests, level.failed, level.tokens) == (3, 1, 8)
    assert any(kind in finding.problem for finding in report.findings)
    assert report.complete


def test_an_answer_without_an_end_is_a_timeout() -> None:
    async def silent() -> AsyncIterator[str]:
        yield f"data: {chunk(content='a')}\n\n"
        await asyncio.Event().wait()

    def reply(body: Mapping[str, Any]) -> Response:
        endless = "Write b." in body["messages"][0]["content"]
        return StreamingResponse(silent(), media_type="text/event-stream") if endless else whole()

    report = Fake(reply).measured(concurrency=(3,), timeout=1.5)
    assert [(each.kind, each.count) for each in report.levels[0].failures] == [("timeout", 1)]


def test_it_ends_where_nothing_is_answered_any_more() -> None:
    measured = 0

    def reply(body: Mapping[str, Any]) -> Response:
        nonlocal measured
        measured += "\n\n" in body["messages"][0]["content"]
        return refusal(500, "gone") if measured > 3 else whole()

    report = Fake(reply).measured(concurrency=(1, 2), repeat=5)
    assert len(report.requests) == 6
    assert not report.complete
    assert not report.conclusive
    assert "every request of a level failed" in report.findings[0].problem
    assert report.levels[1].throughput is None


def interrupt_after(requests: int) -> Callable[[int, int, str], None]:
    """What Ctrl-C does: a signal, which asyncio turns into a cancellation."""

    def interrupt(done: int, total: int, what: str) -> None:
        if done == requests:
            signal.raise_signal(signal.SIGINT)

    return interrupt


def test_an_interrupt_keeps_the_levels_that_are_through() -> None:
    report = Fake().measured(concurrency=(1, 2), on_progress=interrupt_after(5))
    assert [level.clients for level in report.levels] == [1]
    assert not report.complete
    assert "interrupted" in report.findings[0].problem


def test_an_interrupt_before_the_first_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        Fake().measured(on_progress=interrupt_after(1))


# what is refused before anything is measured


@pytest.mark.parametrize(
    ("listed", "error", "message"),
    [
        (models(), ServerError, "has no model"),
        (models("one", "two\x1b"), UsageError, "several models: one, two\ufffd"),
        (refusal(401, "bad key"), ServerError, "answered 401: bad key"),
        (refusal(503, "Loading model"), ServerError, "answered 503: Loading model"),
        (refusal(404, "not found"), UsageError, "does not list its models"),
        (PlainTextResponse("<html>"), ServerError, "no OpenAI-compatible API"),
    ],
)
def test_a_server_that_can_not_be_measured_is_one_clear_error(
    listed: Response, error: type[Exception], message: str
) -> None:
    fake = Fake(listed=listed)
    with pytest.raises(error, match=message):
        fake.measured()
    assert not fake.asked


def test_a_model_that_is_named_need_not_be_listed() -> None:
    fake = Fake(listed=refusal(404, "not found"))
    assert fake.measured(model="mine", concurrency=(1,)).model == "mine"
    assert fake.asked[0]["model"] == "mine"


def test_a_missing_key_is_told_with_its_remedy() -> None:
    with pytest.raises(ServerError) as caught:
        Fake(lambda body: refusal(401, "no key")).measured()
    assert "--api-key" in caught.value.hint


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with Fake().running() as fake:
        gone = fake.url
    with pytest.raises(ServerError, match=r"can't be reached"):
        measure_server(gone, WORK)


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8080", "ftp://host/v1", "http://", "http://host:99999/v1", "http://a b/"),
        *("http://me:word@host/v1", "http://host/v1?key=1", "http://host/v1/chat/completions"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        api_url(url)


def test_an_address_is_completed() -> None:
    assert api_url("http://host:1") == api_url("http://host:1/") == "http://host:1/v1"
    assert api_url(" https://host/api/v1/ ") == "https://host/api/v1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": ()},
        {"concurrency": (0,)},
        {"concurrency": (2000,)},
        {"concurrency": (2, 2)},
        {"n_predict": 0},
        {"repeat": 0},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"api_key": "a\nb"},
        {"api_key": "ключ"},
        {"api_key": " "},
    ],
)
def test_impossible_wishes_are_refused(wrong: dict[str, Any]) -> None:
    fake = Fake()
    with pytest.raises(UsageError):
        fake.measured(**wrong)
    assert not fake.asked


# what is shown


def test_the_report_is_shown_and_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProgress() as progress:
        report = Fake(lambda body: whole(usage=USAGE, timings=TIMINGS)).measured(
            concurrency=(1, 2), repeat=3, name="mine", on_progress=progress
        )
    print_server_report(report)
    shown = capsys.readouterr()
    assert "m at http://127.0.0.1" in shown.out
    assert "mine: 3 prompts, 3 times, at most 128 tokens each" in shown.out
    assert "60 %" in shown.out
    assert "0 of 9" in shown.out
    assert "Of the prompts' 126 tokens 36 came from a cache." in shown.out
    assert shown.err.startswith("1 client: request 1 of 18\n")
    path = tmp_path / "server.json"
    write_report(report, path)
    assert ServerReport.model_validate_json(path.read_bytes()) == report


def test_failures_are_shown_with_their_messages(capsys: pytest.CaptureFixture[str]) -> None:
    print_server_report(failing(lambda: refusal(503, "queue [full]")))
    shown = capsys.readouterr().out
    assert "failed: HTTP 503 (1): The server answered 503: queue [full]" in shown
    assert "1 of 3 requests failed" in shown


def test_our_own_server_is_measured(tmp_path: Path) -> None:
    with serving(tmp_path, "--parallel", "2") as server:
        report = measure_server(server.url, WORK, concurrency=(1, 2), n_predict=12)
    assert [(level.clients, level.requests, level.failed) for level in report.levels] == [
        (1, 3, 0),
        (2, 3, 0),
    ]
    assert report.counted_by == ("usage",)
    assert all(level.drafted is not None and level.tokens > 0 for level in report.levels)
    assert len(report.notes) == 1, "our own server takes every field"
