"""What the benchmark of servers starts and asks, what it reads out of streams, and how it compares."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import httpx
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_server
import server_load
import server_results
import server_tables
from server_load import Stall
from server_results import Disturbance, Load

from llamaspec.bench.local_server import LocalServer
from llamaspec.bench.streaming import Answer, Stream, Task, ask
from llamaspec.bench.workload import Prompt
from llamaspec.errors import ServerError

PROMPTS = [
    Prompt(name="a", kind="code", prompt="Write a."),
    Prompt(name="b", kind="code", prompt="Write b.", n_predict=5),
    Prompt(name="c", kind="chat", prompt="Say c."),
]


def options(*more: str) -> bench_server.argparse.Namespace:
    return bench_server.parse_arguments(["-m", "main.gguf", "-md", "draft.gguf", *more])


def line_of(subject: str, *more: str) -> list[str]:
    parsed = options("-t", "2", *more)
    draft = Path("draft.gguf")
    return bench_server.command(bench_server.subject(subject), ["server"], Path("main.gguf"), draft, parsed)


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> str:
    delta = {} if content is None else {"content": content}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def last_chunk(prompt_tokens: int = 3, tokens: int = 2, **timings: int) -> str:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    return json.dumps({"choices": [], "usage": usage, "timings": timings})


def answer(
    *arrivals: float, sent: float = 0.0, tokens: int = 10, prompt: int = 3, ended: float = 10.0
) -> Answer:
    return Answer("a", sent, arrivals, ended, prompt, tokens, 8, 6, "stop")


def a_load(subject: str, round: int, tokens: int, *, others: float = 0.0, prompt: int = 3) -> Load:
    """`tokens` in ten seconds."""
    return Load(subject, round, 1, (answer(1.0, tokens=tokens, prompt=prompt),), others)


# what is started


def test_the_same_slots_context_and_draft_flags_go_to_both_servers() -> None:
    ours, theirs = line_of("llamaspec:fixed:8:0.5"), line_of("llama-server:8:0.5")
    for line in (ours, theirs):
        assert line[:3] == ["server", "-m", "main.gguf"]
        text = " ".join(line)
        assert "--parallel 4 -c 16384 -t 2 -tb 2" in text
        assert "-md draft.gguf" in text
    assert "--spec fixed --draft-max 8 --draft-min 0 --draft-p-min 0.5" in " ".join(ours)
    assert "--spec-draft-n-max 8 --spec-draft-n-min 0 --spec-draft-p-min 0.5" in " ".join(theirs)
    assert "--spec-type draft-simple" in " ".join(theirs)


@pytest.mark.parametrize("name", ["llamaspec:off", "llama-server:plain"])
def test_plain_decoding_has_no_draft_model(name: str) -> None:
    line = line_of(name, "-ngl", "all", "-ngld", "all")
    assert "-md" not in line
    assert "-ngld" not in line
    assert line[line.index("-ngl") + 1] == "all"


def test_auto_has_the_draft_model_and_its_layers() -> None:
    text = " ".join(line_of("llamaspec:auto", "-ngld", "3"))
    assert "--spec auto" in text
    assert text.endswith("-md draft.gguf -ngld 3")


@pytest.mark.parametrize(
    "name",
    ["llamaspec", "llamaspec:fixed:8", "llamaspec:fixed:x:0.5", "llama-server:8", "llama-server:auto", ""],
)
def test_a_subject_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        bench_server.subject(name)
    with pytest.raises(SystemExit):
        options("--subjects", name)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--set", "A"],
        ["--rounds", "0"],
        ["--clients", "8", "0"],
        ["--clients", "8", "8"],
        ["--subjects", "llamaspec:off", "llamaspec:off"],
        ["--stall", "-n", "20"],
        ["--peer", "x", "--peers-dir", "y"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        options(*wrong)


def test_a_stream_that_is_disturbed_is_longer_unless_its_length_is_given() -> None:
    assert (options().n_predict, options("--stall").n_predict, options("--stall", "-n", "50").n_predict) == (
        128,
        200,
        50,
    )


def test_every_subject_comes_first_in_its_turn() -> None:
    orders = [bench_server.rotated(["a", "b", "c"], number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


SERVER = """
import http.server, sys
print("listening", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer((sys.argv[sys.argv.index("--host") + 1], port), Handler).serve_forever()
"""


def test_a_server_is_well_within_its_block_and_gone_after_it() -> None:
    with LocalServer("mine", [sys.executable, "-c", SERVER], os.environ) as server:
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
        assert psutil.pid_exists(server.pid)
        assert "listening" in str(server.failure("is watched"))
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_does_not_load_says_why() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(ServerError, match=r"mine ended with 1: .*\nno such model"),
        LocalServer("mine", command, os.environ),
    ):
        pass


def test_a_failed_request_is_told_with_the_log_of_the_server() -> None:
    with LocalServer("mine", [sys.executable, "-c", SERVER], os.environ) as server:

        async def count(http: httpx.AsyncClient) -> int:
            return await server_load.count_tokens(http, "abc")

        with pytest.raises(ServerError, match=r"(?s)mine failed: .*501.*listening"):
            bench_server.within(server, count)


# what is asked


def test_clients_share_the_prompts_in_turn() -> None:
    asked = server_load.tasks(PROMPTS, 2, 16, Random(1))
    assert [(task.name, task.limit) for task in asked] == [("a", 16), ("b", 5), ("c", 16)]
    assert [[task.name for task in own] for own in server_load.dealt(asked, 2)] == [["a", "c"], ["b"]]


def test_prompts_come_again_where_there_are_more_clients_and_no_two_requests_are_the_same() -> None:
    asked = server_load.tasks(PROMPTS, 5, 16, Random(1))
    assert [task.name for task in asked] == ["a", "b", "c", "a", "b"]
    assert len({task.text for task in asked}) == 5


def test_the_first_line_is_new_in_every_round_and_the_same_for_all_of_a_round() -> None:
    rounds = [server_load.tasks(PROMPTS, 1, 16, Random(seed)) for seed in ("0 1", "0 1", "0 2")]
    assert rounds[0] == rounds[1]
    for one, other in zip(rounds[0], rounds[2], strict=True):
        assert one.text.split("\n")[0] != other.text.split("\n")[0]
        assert one.text.split("\n")[1:] == other.text.split("\n")[1:]


def test_a_long_text_goes_over_the_workload_as_often_as_it_takes() -> None:
    text = server_load.long_text(PROMPTS, 1000)
    body, _, question = text.rpartition("\n\n")
    assert len(body) == 1000
    assert body.count("Write b.") > 20
    assert question


# what is read


def test_an_answer_is_read_out_of_its_stream() -> None:
    stream = Stream("a", 1.0)
    events = [
        '{"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}}]}',
        chunk("Hel"),
        chunk(""),
        chunk("lo"),
        chunk(finish="length"),
        last_chunk(7, 3, draft_n=5, draft_n_accepted=4),
        "[DONE]",
    ]
    for number, data in enumerate(events):
        stream.feed(data, 4.0 + number)
    read = stream.answer()
    assert (read.prompt_tokens, read.tokens, read.drafted, read.accepted) == (7, 3, 5, 4)
    assert (read.arrivals, read.ended, read.finish) == ((5.0, 7.0), 10.0, "length")
    assert (read.first_token_seconds, read.gaps) == (4.0, [2.0])


def test_a_server_without_drafts_has_drafted_nothing() -> None:
    stream = Stream("a", 0.0)
    for data in (chunk(finish="stop"), last_chunk(), "[DONE]"):
        stream.feed(data, 1.0)
    read = stream.answer()
    assert (read.drafted, read.accepted, read.first_token_seconds, read.gaps) == (0, 0, None, [])


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    stream = Stream("a", 0.0)
    for data in (chunk("a"), last_chunk()):
        stream.feed(data, 1.0)
    with pytest.raises(ServerError, match="broke off after 1 pieces"):
        stream.answer()


def test_an_error_within_a_stream_is_told() -> None:
    with pytest.raises(ServerError, match="out of memory"):
        Stream("a", 0.0).feed('{"error": {"message": "out of memory"}}', 1.0)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, parts: Callable[[], AsyncIterator[str]]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts():
            yield f"data: {part}\n\n".encode()


def talking_to(
    reply: Callable[[str], Callable[[], AsyncIterator[str]]],
) -> tuple[httpx.AsyncClient, list[dict[str, object]]]:
    """A client of a server that streams what `reply` makes of a message, and the requests that it gets."""
    seen: list[dict[str, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        pieces = Pieces(reply(seen[-1]["messages"][0]["content"]))
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=pieces)

    return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://server"), seen


def test_every_client_asks_one_thing_after_the_other() -> None:
    under_way, most = 0, 0

    def reply(text: str) -> Callable[[], AsyncIterator[str]]:
        async def parts() -> AsyncIterator[str]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            yield chunk(text)
            under_way -= 1
            for part in (chunk(finish="stop"), last_chunk(), "[DONE]"):
                yield part

        return parts

    async def run() -> list[Answer]:
        async with http:
            return await server_load.load(http, server_load.dealt(asked, 2))

    http, seen = talking_to(reply)
    asked = [Task(name, name, 9) for name in "abcde"]
    answers = asyncio.run(run())
    assert [one.name for one in answers] == ["a", "c", "e", "b", "d"]
    assert sorted(body["messages"][0]["content"] for body in seen) == list("abcde")
    assert most == 2
    assert all(
        (body["temperature"], body["max_tokens"], body["stream_options"]) == (0.0, 9, {"include_usage": True})
        for body in seen
    )


def test_the_long_prompt_comes_when_the_stream_is_under_way() -> None:
    order: list[str] = []
    read = asyncio.Event()

    def reply(text: str) -> Callable[[], AsyncIterator[str]]:
        async def parts() -> AsyncIterator[str]:
            order.append(f"{text} begins")
            for number in range(6):
                if text == "disturbed" and number == 3:
                    await read.wait()
                yield chunk(str(number))
            if text == "long":
                read.set()
            order.append(f"{text} ends")
            for part in (chunk(finish="stop"), last_chunk(), "[DONE]"):
                yield part

        return parts

    async def run() -> Stall:
        async with http:
            quiet, disturbed, long = (Task(name, name, 9) for name in ("quiet", "disturbed", "long"))
            return await server_load.stall(http, quiet, disturbed, long, lead=3)

    http, _ = talking_to(reply)
    stalled = asyncio.run(run())
    assert order == [
        "quiet begins",
        "quiet ends",
        "disturbed begins",
        "long begins",
        "long ends",
        "disturbed ends",
    ]
    assert stalled.covered
    assert len(stalled.quiet_gaps) == 3
    assert stalled.disturbed_gaps


def test_a_refusal_is_told_with_its_reason() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, text="queue full")

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="http://server") as http:
            await ask(http, Task("a", "a", 9))

    with pytest.raises(ServerError, match="503: queue full"):
        asyncio.run(run())


# what it says


def test_gaps_count_whole_where_a_part_of_them_lies_within() -> None:
    arrivals = [0.0, 1.0, 2.0, 6.0, 7.0, 8.0]
    assert server_load.gaps_within(arrivals, 1.5, 6.5) == [1.0, 4.0, 1.0]
    assert server_load.gaps_within(arrivals, 3.0, 5.0) == [4.0]
    assert server_load.gaps_within(arrivals, 8.5, 9.0) == []


def test_a_stall_compares_the_stream_while_the_prompt_is_read_with_the_stream_alone() -> None:
    quiet = answer(*(float(n) for n in range(10)))
    disturbed = answer(0.0, 1.0, 2.0, 6.0, 7.0)
    long = answer(5.5, sent=1.5, prompt=3000)
    one = Disturbance("x", 0, Stall(quiet, disturbed, long, lead=2), others=0.2)
    figures = one.figures
    assert figures["quiet_gap_p95"] == 1.0
    assert figures["disturbed_gap_p95"] == figures["slowdown"] == pytest.approx(3.85)
    assert (figures["longest_gap"], figures["gaps_seen"], figures["long_first_token"]) == (4.0, 2, 4.0)
    assert one.stall.covered
    assert one.busy
    assert server_results.record(one)["stall"]["disturbed"]["arrivals"] == disturbed.arrivals


def test_a_stream_that_ended_first_is_told_to_have_done_so() -> None:
    one = Disturbance("x", 0, Stall(answer(0.0, 1.0), answer(0.0, 1.0), answer(9.0, sent=2.0), 1), 0.0)
    assert not one.stall.covered
    assert (one.figures["disturbed_gap_p95"], one.figures["slowdown"]) == (None, None)
    assert "the stream ended before" in server_tables.line(one, 1)


def test_speed_is_all_tokens_by_the_time_until_the_last_answer() -> None:
    answers = (answer(3.0, 4.0, sent=2.0, ended=6.0), answer(5.0, 7.0, sent=4.0, ended=12.0))
    figures = Load("x", 0, 2, answers, 0.0).figures
    assert figures["tokens_per_second"] == 2.0
    assert (figures["first_token_p50"], figures["gap_p50"]) == (1.0, 1.5)
    assert (figures["drafted"], figures["accepted"]) == (16, 12)


def test_ratios_are_of_rounds_and_of_medians() -> None:
    found = server_results.ratio({0: 10.0, 1: 20.0, 2: 30.0}, {0: 10.0, 1: 10.0, 2: 20.0, 3: 5.0})
    assert found is not None
    assert (found.median, found.lowest, found.highest, found.of_medians) == (1.5, 1.0, 2.0, 2.0)
    assert server_results.ratio({0: 10.0}, {1: 10.0}) is None


def test_the_summary_keeps_tests_apart_and_pairs_rounds_by_number() -> None:
    measured = [a_load("x", 0, 10), a_load("y", 0, 20, others=0.3), a_load("y", 1, 40), a_load("x", 1, 10)]
    measured.append(Load("x", 0, 8, (answer(1.0, tokens=50),), 0.0))
    found = server_results.summary(measured)
    assert list(found) == ["1 client", "8 clients"]
    assert found["1 client"]["subjects"]["y"]["tokens_per_second"] == 3.0
    assert found["1 client"]["subjects"]["y"]["busy"] == 1
    assert found["1 client"]["ratios"]["y"]["x"]["median"] == 3.0
    assert found["1 client"]["ratios"]["x"]["y"]["lowest"] == 0.25
    assert found["8 clients"] == {"subjects": found["8 clients"]["subjects"], "ratios": {"x": {}}}


def test_servers_that_read_other_prompts_are_not_compared() -> None:
    server_results.check_prompts([a_load("x", 0, 10), a_load("y", 1, 10, prompt=4)])
    with pytest.raises(ServerError, match=r"\{'x': 3, 'y': 4\}"):
        server_results.check_prompts([a_load("x", 0, 10), a_load("y", 0, 10, prompt=4)])


def test_what_is_recorded_is_json() -> None:
    recorded = json.loads(json.dumps(server_results.record(a_load("x", 0, 10))))
    assert recorded["tokens_per_second"] == 1.0
    assert recorded["answers"][0]["pieces"] == 1
    assert "arrivals" not in recorded["answers"][0]


def test_tables_show_both_tests(capsys: pytest.CaptureFixture[str]) -> None:
    stalled = Stall(answer(0.0, 1.0, 2.0), answer(0.0, 1.0, 4.0), answer(3.0, sent=1.5), lead=1)
    server_tables.print_tables([a_load("x", 0, 10), a_load("y", 0, 20), Disturbance("x", 0, stalled, 0.0)])
    shown = capsys.readouterr().out
    assert "2.00× 2.00-2.00" in shown
    assert "3.00×" in shown


def test_a_round_that_others_disturbed_is_flagged() -> None:
    assert "others used 30%" in server_tables.line(a_load("x", 0, 10, others=0.3), 2)
    assert "others" not in server_tables.line(a_load("x", 0, 10, others=0.01), 2)


def test_the_servers_own_work_is_not_that_of_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"others": 100.0, "whole": 200.0, "server": 10.0}
    monkeypatch.setattr(
        bench_server.OtherLoad, "_seconds", lambda self: (used["others"], used["whole"]), raising=True
    )
    monkeypatch.setattr(bench_server, "_processor_seconds", lambda process: used["server"])
    load = bench_server.StrangerLoad([os.getpid()])
    used |= {"others": 150.0, "whole": 300.0, "server": 50.0}
    assert load.share() == pytest.approx(0.1)


def test_processor_time_is_that_of_a_process_and_its_children() -> None:
    own = psutil.Process()
    assert bench_server._processor_seconds(own) >= own.cpu_times().user > 0.0
