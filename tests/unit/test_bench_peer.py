"""llama-server as a peer: what it is started with, in the words of its version, and what is read of it."""

import sys
from pathlib import Path

import pytest

from llamaspec.bench.naming import speculation
from llamaspec.bench.peer import Options, PeerServer, flags, parse_peer
from llamaspec.errors import ServerError, UsageError
from llamaspec.settings import RuntimeSettings, SpeculationSettings

NOW = """\
----- common params -----

-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-ctkd, --cache-type-k-draft TYPE        KV cache data type for K for the draft model
-ctvd, --cache-type-v-draft TYPE        likewise for V
-cram, --cache-ram N                    set the maximum cache size in MiB
-ctxcp, --ctx-checkpoints, --swa-checkpoints N
                                        max number of context checkpoints to create per slot
-ngld, --gpu-layers-draft N             draft layers
--spec-draft-n-max N                    number of tokens to draft (default: 3)
--spec-draft-n-min N                    minimum number of draft tokens
--spec-draft-p-min, --draft-p-min P     minimum probability
--spec-type none,draft-simple,ngram-simple
                                        comma-separated list of types
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--draft-min, --draft-n-min N            the argument has been removed. use --spec-draft-n-min
"""
BEFORE = """\
-c,    --ctx-size N                     size of the prompt context
-cd,   --ctx-size-draft N               size of the draft's
--draft-max, --draft, --draft-n N       number of tokens to draft
--draft-min, --draft-n-min N            minimum number of draft tokens
--draft-p-min P                         minimum probability
--spec-type [none|ngram-cache]          type of speculation without a draft model
"""
MAIN, DRAFT = Path("main.gguf"), Path("draft.gguf")


def line(setting: str, help_text: str = NOW, draft: Path | None = DRAFT, **runtime: object) -> str:
    settings = SpeculationSettings.model_validate(speculation(setting))
    chosen = RuntimeSettings.model_validate({"threads": 2, **runtime})
    return " ".join(flags(Options(help_text), MAIN, draft, settings, chosen))


# what it is started with


def test_plain_is_without_a_draft_model_and_without_caches() -> None:
    told = line("plain")
    assert told.startswith("-m main.gguf -c 4096 -t 2 -tb 2 -b 2048 -ub 512 -np 1")
    assert told.endswith("--cache-ram 0 --ctx-checkpoints 0")


def test_drafts_are_asked_for_in_the_words_of_the_version() -> None:
    of_now = "-md draft.gguf --spec-type draft-simple --spec-draft-n-max 8 --spec-draft-n-min 0"
    assert line("fixed:8:0.5").endswith(f"{of_now} --spec-draft-p-min 0.5")
    of_before = "-md draft.gguf --draft-max 8 --draft-min 0 --draft-p-min 0.5"
    assert line("fixed:8:0.5", BEFORE).endswith(f"-np 1 {of_before}")
    assert "--spec-draft-n-max 3 --spec-draft-n-min 0 --spec-draft-p-min 0.0" in line("default")


def test_settings_of_the_runtime_are_the_same() -> None:
    told = line(
        "fixed:8:0.5",
        threads_batch=4,
        device="cpu",
        gpu_layers="all",
        gpu_layers_draft=3,
        flash_attn="on",
        cache_type_k="q8_0",
        cache_type_v="q8_0",
    )
    for part in ("-tb 4", "-dev none", "-ngl all", "-ngld 3", "-fa on", "-ctk q8_0", "-ctv q8_0"):
        assert part in told
    assert told.endswith("-ctkd q8_0 -ctvd q8_0")
    assert "-cd 512" in line("default", BEFORE, ctx_size_draft=512)


@pytest.mark.parametrize(
    ("setting", "draft", "message"),
    [
        ("auto", DRAFT, "no mode auto"),
        ("fixed:8:0.5", None, "with a draft model alone"),
    ],
)
def test_speculation_that_it_does_not_have_is_refused(setting: str, draft: Path | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        line(setting, draft=draft)


def test_other_drafters_are_refused() -> None:
    settings = SpeculationSettings(mode="fixed", drafters=("ngram",))
    with pytest.raises(UsageError, match="with a draft model alone"):
        flags(Options(NOW), MAIN, DRAFT, settings, RuntimeSettings())


def test_a_version_that_can_not_be_told_is_refused() -> None:
    without = NOW.replace("--spec-draft-n-max N ", "--another N ")
    with pytest.raises(UsageError, match="no option --spec-draft-n-max"):
        line("fixed:8:0.5", without)


# which program it is


def test_a_peer_has_a_name_and_a_path() -> None:
    assert parse_peer(f"llama-server={sys.executable}") == ("llama-server", Path(sys.executable))
    assert parse_peer(f"b-9000={sys.executable}")[0] == "b-9000"


@pytest.mark.parametrize(
    "text",
    ["", "llama-server", "llama-server=", "=x", "Big=x", "a\x1b=x", "llama-server=/no/such/program"],
)
def test_what_names_no_program_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_peer(text)


def test_another_program_is_no_peer() -> None:
    with pytest.raises(UsageError, match="is no llama-server"):
        Options.of(Path(sys.executable))


# what it answers

PROGRAM = f"""\
#!{sys.executable}
import http.server, json, sys
if "--help" in sys.argv:
    print({NOW!r})
    raise SystemExit
if "missing.gguf" in sys.argv:
    raise SystemExit("no such model")
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status); self.end_headers(); self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer(200, {{}})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["temperature"] == 0 and body["cache_prompt"] is False
        timings = {{"prompt_n": 7, "prompt_ms": 50.0, "predicted_ms": 500.0}}
        timings["predicted_n"] = body["n_predict"]
        drafts = {{"draft_n": 4, "draft_n_accepted": 3}} if "-md" in sys.argv else {{}}
        said = {{"content": body["prompt"] + "!", "stop_type": "limit", "timings": timings | drafts}}
        self.answer(400 if body["prompt"] == "long" else 200, {{}} if body["prompt"] == "odd" else said)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
needs_scripts = pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "llama-server"
    path.write_text(PROGRAM, encoding="utf-8")
    path.chmod(0o755)
    return path


def peer(program: Path, setting: str = "plain", main: Path = MAIN) -> PeerServer:
    settings = SpeculationSettings.model_validate(speculation(setting))
    return PeerServer(program, main, DRAFT, speculation=settings, runtime=RuntimeSettings(threads=1))


@needs_scripts
def test_an_answer_is_read_as_one_run(program: Path) -> None:
    with peer(program, "fixed:8:0.5") as server:
        assert server.command[0] == str(program)
        run = server.answer("é", 11)
        assert server.text == "é!"
    assert (run.predicted, run.timed_tokens, run.speed) == (11, 10, 20.0)
    assert (run.prompt_tokens, run.prompt_seconds) == (7, 0.05)
    assert (run.drafted, run.accepted, run.finish) == (4, 3, "length")
    server.close()
    with pytest.raises(ServerError, match="does not answer"):
        server.answer("é", 11)


@needs_scripts
def test_a_plain_peer_has_drafted_nothing(program: Path) -> None:
    with peer(program) as server:
        run = server.answer("a", 2)
    assert (run.drafted, run.accepted) == (0, 0)


@needs_scripts
def test_what_goes_wrong_is_told_with_the_log(program: Path) -> None:
    with peer(program) as server:
        with pytest.raises(ServerError, match=r"(?s)answered 400.*POST /completion"):
            server.answer("long", 2)
        with pytest.raises(ServerError, match="not understood"):
            server.answer("odd", 2)
    with pytest.raises(ServerError, match=r"(?s)llama-server ended with 1.*no such model"):
        peer(program, main=Path("missing.gguf"))
