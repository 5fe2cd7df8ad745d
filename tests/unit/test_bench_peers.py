"""What the benchmark reads out of each program's output, and how it compares runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_peers
import peer_runs
from peer_runs import Run, RunFailed

from llamaspec.errors import ServerError

PROMPT = "<|im_start|>user\nSay \\n.<|im_end|>\n<|im_start|>assistant\n"
SIMPLE_LOG = """\
0.01.360.937 W load: control-looking token: 7 '</s>' was not control-type
0.11.717.450 I encoded   18 tokens in    0.380 seconds, speed:   47.339 t/s
0.11.717.474 I decoded   34 tokens in    1.700 seconds, speed:   20.000 t/s
0.11.717.563 I 
0.11.717.642 I n_draft   = 4
0.11.717.658 I n_predict = 34
0.11.717.744 I n_drafted = 26
0.11.717.760 I n_accept  = 21
0.11.717.864 I accept    = 80.769%
"""


def a_run(speed: float = 10.0, *, text: str | None = "abc", tokens: int = 8, prompt: int | None = 5) -> Run:
    return Run(timed_tokens=8, seconds=8 / speed, tokens=tokens, prompt_tokens=prompt, text=text)


def test_llamaspec_leaves_out_the_token_that_the_prompt_gives() -> None:
    stats = {
        "prompt_tokens": 5,
        "prompt_seconds": 0.5,
        "predicted_tokens": 33,
        "predicted_seconds": 2.0,
        "draft_n": 20,
        "draft_n_accepted": 15,
    }
    run = peer_runs.parse_llamaspec(json.dumps({"text": "é\n", "stats": stats, "usage": {}}))
    assert (run.speed, run.tokens, run.prompt_tokens) == (16.0, 33, 5)
    assert (run.drafted, run.accepted, run.text) == (20, 15, "é\n")


def test_speculative_simple_counts_every_decoded_token() -> None:
    run = peer_runs.parse_speculative_simple(f"\n\n{PROMPT}The answer\n\n", SIMPLE_LOG, PROMPT)
    assert run.speed == pytest.approx(20.0)
    assert (run.tokens, run.prompt_tokens, run.prompt_seconds) == (34, 18, 0.38)
    assert (run.drafted, run.accepted) == (26, 21)
    assert run.text == "The answer\n\n"


def test_speculative_simple_without_its_prompt_has_no_text() -> None:
    assert peer_runs.parse_speculative_simple("something else", SIMPLE_LOG, PROMPT).text is None


def test_a_log_that_is_not_understood_is_shown() -> None:
    with pytest.raises(RunFailed, match="unknown argument"):
        peer_runs.parse_speculative_simple("", "error: unknown argument", PROMPT)


@pytest.mark.parametrize("drafts", [{}, {"draft_n": 12, "draft_n_accepted": 9}])
def test_server_timings(drafts: dict[str, int]) -> None:
    timings = {"prompt_n": 7, "prompt_ms": 250.0, "predicted_n": 41, "predicted_ms": 2000.0, **drafts}
    run = peer_runs.parse_server(json.dumps({"content": "text", "timings": timings}))
    assert (run.speed, run.prompt_tokens, run.prompt_seconds) == (20.0, 7, 0.25)
    assert (run.drafted, run.accepted) == (drafts.get("draft_n", 0), drafts.get("draft_n_accepted", 0))


def test_bench_has_neither_prompt_nor_text() -> None:
    run = peer_runs.parse_bench(json.dumps([{"n_gen": 32, "avg_ns": 2_000_000_000, "avg_ts": 16.0}]))
    assert run.speed == 16.0
    assert run.text is None and run.prompt_tokens is None


def test_a_program_that_fails_says_how() -> None:
    with pytest.raises(RunFailed, match="ended with 3:\nbecause"):
        peer_runs.run_program(
            [sys.executable, "-c", "import sys; print('because', file=sys.stderr); sys.exit(3)"]
        )


def test_settings_of_the_environment_reach_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_DRAFT_MAX", "1")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    shown, _ = peer_runs.run_program([sys.executable, "-c", "import os; print(*os.environ)"])
    assert not {"LLAMASPEC_DRAFT_MAX", "LLAMA_ARG_THREADS"} & set(shown.split())


FAKE_SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status); self.end_headers(); self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer(200, {"status": "ok"})
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200 if request["prompt"] else 400, request)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_server_is_asked_and_ended() -> None:
    with peer_runs.serving([sys.executable, "-c", FAKE_SERVER]) as complete:
        assert json.loads(complete({"prompt": "é"})) == {"prompt": "é"}
        with pytest.raises(ServerError, match="answered 400"):
            complete({"prompt": ""})
    with pytest.raises(ServerError, match="does not answer"):
        complete({"prompt": "é"})


def test_a_server_that_does_not_start_says_why() -> None:
    program = "import sys; sys.exit('no such model')"
    command = [sys.executable, "-c", program]
    with pytest.raises(ServerError, match="no such model"), peer_runs.serving(command):
        pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (a_run(text="abc"), a_run(text="abc"), True),
        (a_run(text="abc", tokens=8), a_run(text="abcde\n\n", tokens=10), True),  # cut at different places
        (a_run(text="ab\ufffd"), a_run(text="abcde"), True),  # cut within a character
        (a_run(text="abc", tokens=5), a_run(text="abcde", tokens=8), False),  # one ended, one went on
        (a_run(text="abx"), a_run(text="abcde"), False),
        (a_run(text=None), a_run(), None),
    ],
)
def test_same_text(one: Run, other: Run, same: bool | None) -> None:
    assert bench_peers.same_text(one, other, n_predict=8) is same
    assert bench_peers.same_text(other, one, n_predict=8) is same


def test_ratios_are_taken_within_rounds() -> None:
    ours = [a_run(20.0), a_run(10.0), a_run(5.0)]
    theirs = [a_run(10.0), a_run(5.0), a_run(2.0)]
    assert bench_peers.ratio(ours, theirs) == pytest.approx(2.0)


def test_every_program_goes_first_in_turn() -> None:
    started: list[str] = []

    def runner(program: str) -> bench_peers.Runner:
        def run() -> Run:
            started.append(program)
            return a_run()

        return run

    bench_peers.measure({program: runner(program) for program in "abc"}, rounds=3)
    assert "".join(started) == "abcbcacab"


def test_programs_that_read_different_prompts_are_not_compared() -> None:
    with pytest.raises(RunFailed, match="same prompt"):
        bench_peers.measure({"a": a_run, "b": lambda: a_run(prompt=6)}, rounds=1)


def test_summary_without_a_plain_run_has_no_ratio_to_it() -> None:
    (row,) = bench_peers.summary({bench_peers.OURS: [a_run(4.0), a_run(6.0)]}, n_predict=8)
    assert (row["tokens_per_second"], row["slowest"], row["fastest"]) == (5.0, 4.0, pytest.approx(6.0))
    assert row["to_plain"] is None and row["llamaspec_to_it"] == 1.0
    assert row["same_text_as_plain"] is None and row["prompt_seconds"] is None
