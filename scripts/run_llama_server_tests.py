"""llama.cpp's own server tests, run against llama-server and against `llamaspec serve`.

    python scripts/run_llama_server_tests.py SOURCE --model MODEL [--peers FOLDER] [--python PYTHON]

SOURCE is the tree of llama.cpp that comes with the binding (`vendor/llama.cpp` in its source package); its
tests are used where they lie. They start a server by flags of llama-server: the program they start is one
that this script writes, which translates these flags and then becomes the server. In place of the model
that the tests fetch it is given the one named here, so that what asserts that model's words fails for both:
what counts is how many of the tests that llama-server passes are passed here too. Those that are not, and
are not known with a reason, make this fail; those that are known are listed with it.

PYTHON has what the tests' `requirements.txt` names, in any version. POSIX only: a program that becomes
another one is not to be had on Windows, where the tests could not end it.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

TESTS = ("basic", "completion", "chat_completion", "security", "tokenize", "metrics", "ignore_eos")
_FLAG = re.compile(r"--?[a-z]|--$")
_THEIR_MODEL = "ggml-org/test-model-stories260K"

_ONE_CONTEXT = "The context is shared by all requests: each may have the whole of it, not its slot's part."

KNOWN: Mapping[str, str] = {
    "test_basic::test_server_multiple_addresses": "It listens on one address.",
    "test_basic::test_server_props": _ONE_CONTEXT,
    "test_basic::test_server_slots": _ONE_CONTEXT,
    "test_basic::test_server_model_aliases_and_tags": "A model has no tags, and its first name is its id.",
    "test_completion::test_completion_parallel_slots": (
        "The seed draws other tokens: for one prompt first the end of generation, of probability 0.11."
    ),
    "test_chat_completion::test_context_size_exceeded": _ONE_CONTEXT,
    "test_chat_completion::test_context_size_exceeded_stream": _ONE_CONTEXT,
    "test_security::test_cors_origins_defaults_to_localhost_with_tools_enabled": "It has no tools.",
    "test_security::test_cors_proxy_only_forwards_explicit_proxy_headers": "It fetches nothing for others.",
}
"""Tests that llama-server passes and llamaspec need not, by why."""

_HERE_ANYWAY = frozenset(
    {
        "--backend_sampling",
        "--cont-batching",
        "--jinja",
        "--kv-unified",
        "--metrics",
        "--no-jinja",
        "--offline",
    }
)
"""Switches for what `llamaspec serve` does whatever is said, and for how it is done, not what comes of it."""

_PROFILE = """\
schema: 1
name: stand-in
main: {{repo: stand-in/stand-in, file: stand-in.gguf}}
chat: {{template: {template}}}
"""

_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "command-r": (
        "{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}"
        "{% for message in messages %}<|START_OF_TURN_TOKEN|><|{{ names[message.role] }}_TOKEN|>"
        "{{ message.content | trim }}<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
        "{{ message.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
}
"""Chat templates that llama-server knows by name; here a template is always given as a text."""

_PLUGIN = """
import requests


def pytest_configure(config):
    import utils

    # Their session first starts a server for each of their models, to fetch it: there is nothing to fetch.
    utils.ServerPreset.load_all = staticmethod(lambda: None)

    # They look for headers by names in one spelling, while case means nothing in them.
    class Response(utils.ServerResponse):
        def __setattr__(self, name, value):
            caseless = requests.structures.CaseInsensitiveDict
            super().__setattr__(name, caseless(value) if name == "headers" else value)

    utils.ServerResponse = Response
"""


def for_llama_server(flags: Sequence[str], model: str) -> list[str]:
    """The tests' flags with `model` in place of their small one."""
    given = list(flags)
    if "--hf-repo" in given and given[(at := given.index("--hf-repo")) + 1] == _THEIR_MODEL:
        given[at : at + 2] = ["--model", model]
    return given


def for_llamaspec(flags: Sequence[str], model: str, profile: Path) -> list[str]:
    """The same for `llamaspec serve`: what it has no flag for is handed on, for it to refuse.

    The chat template is not a flag here, but belongs to a profile, which is written to `profile`. Pages
    of all origins may ask llama-server unless some are named, and it has metrics only where it is told to.
    """
    template, origin = None, "*"
    translated = ["--model", model, *(() if "--metrics" in flags else ("--no-metrics",))]
    for flag, value in _pairs(flags):
        match flag:
            case "--hf-repo" if value == _THEIR_MODEL:
                pass
            case "--chat-template":
                template = _TEMPLATES.get(value, value)
            case "--chat-template-file":
                template = Path(value).read_text(encoding="utf-8")
            case "--cors-origins":
                origin = value
            case _ if flag not in _HERE_ANYWAY:
                translated += [flag, value] if value else [flag]
    profile.write_text(_PROFILE.format(template=json.dumps(template)), encoding="utf-8")
    return ["--profile", str(profile), "--cors-origin", origin, *translated]


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each flag with its value, or nothing."""
    for flag, value in pairwise([*flags, "--"]):
        if _FLAG.match(flag):
            yield flag, "" if _FLAG.match(value) else value


def outcomes(report: Path) -> dict[str, str]:
    """Outcome (passed, failed, skipped) of each test in a JUnit report, by `file::test`."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        marks = {child.tag for child in case}
        found[name] = (
            "failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"
        )
    return found


def run(
    source: Path, python: str, command: Sequence[str], model: Path, chosen: str, log: Path
) -> dict[str, str]:
    """Run the tests against the server that `command` starts; their outcomes, with all they said in `log`."""
    tests = source / "tools" / "server" / "tests"
    with tempfile.TemporaryDirectory() as name, log.open("w", encoding="utf-8") as said:
        folder = Path(name)
        (folder / "llamaspec_plugin.py").write_text(_PLUGIN, encoding="utf-8")
        server = folder / "server"
        this = [sys.executable, str(Path(__file__).resolve())]
        translate = [*this, "--become", name, json.dumps([*command]), str(model)]
        server.write_text(f'#!/bin/sh\nexec {shlex.join(translate)} "$@"\n', encoding="utf-8")
        server.chmod(0o755)
        report = folder / "report.xml"
        subprocess.run(
            [
                *(python, "-m", "pytest", "-p", "llamaspec_plugin", "-p", "no:cacheprovider"),
                *(f"--junitxml={report}", "-m", "not slow", "-k", chosen),
                *(f"unit/test_{name}.py" for name in TESTS),
            ],
            cwd=tests,
            env={
                **os.environ,
                "LLAMA_SERVER_BIN_PATH": str(server),
                "LLAMA_CACHE": str(folder),
                "PORT": str(_free_port()),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": os.pathsep.join((str(folder), str(tests))),
                "LLAMASPEC_PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            },
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return outcomes(report)


def become(folder: Path, command: str, model: str, flags: Sequence[str]) -> None:
    """Be the program that the tests start: replace this process by the server."""
    words = json.loads(command)
    os.environ["PYTHONPATH"] = os.environ.pop("LLAMASPEC_PYTHONPATH")
    if "llamaspec" in words:
        words += for_llamaspec(flags, model, folder / "stand-in.yaml")
    else:
        words += for_llama_server(flags, model)
    os.execv(words[0], words)


def compare(theirs: Mapping[str, str], ours: Mapping[str, str]) -> int:
    """Tell how ours compare; the exit code: 0 where nothing is missing but what is known."""
    wanted = [name for name, outcome in theirs.items() if outcome == "passed"]
    missing = [name for name in wanted if ours.get(name) != "passed"]
    unexpected = 0
    for name in missing:
        reason = KNOWN.get(name.partition("[")[0])
        unexpected += reason is None
        print(f"{name}: {reason or 'NOT EXPECTED'}")
    passed = len(wanted) - len(missing)
    print(
        f"llama-server passes {len(wanted)}; of these llamaspec passes {passed} ({passed / len(wanted):.1%})."
    )
    if more := sorted(name for name in ours if ours[name] == "passed" and theirs.get(name) != "passed"):
        print(f"llamaspec alone passes {len(more)}: {', '.join(more)}.")
    return 1 if unexpected else 0


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    if sys.argv[1:2] == ["--become"]:
        become(Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="llama.cpp's source tree")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file that stands in for theirs")
    parser.add_argument("--peers", type=Path, help="folder with llama-server; without: it is built")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the tests")
    parser.add_argument(
        "--theirs", type=Path, help="llama-server's outcomes: read, or if missing written there"
    )
    parser.add_argument("--logs", type=Path, default=Path(), help="folder for what the tests print")
    parser.add_argument("--threads", type=int, help="of each server; fewer than the cores on a busy machine")
    parser.add_argument("-k", dest="chosen", default="test_", help="only the tests that match, as in pytest")
    given = parser.parse_args()
    from peer_build import peer_programs  # not needed, and not found, in the program that the tests start

    model = given.model.resolve()

    def outcome_of(command: list[str], name: str) -> dict[str, str]:
        command = [*command, "--threads", str(given.threads)] if given.threads else command
        return run(given.source, given.python, command, model, given.chosen, given.logs / f"{name}.log")

    if given.theirs is not None and given.theirs.exists():
        theirs = json.loads(given.theirs.read_text(encoding="utf-8"))
    else:
        theirs = outcome_of([str(peer_programs(given.peers)["llama-server"].resolve())], "llama-server")
        if given.theirs is not None:
            given.theirs.write_text(json.dumps(theirs, indent=1), encoding="utf-8")
    return compare(theirs, outcome_of([sys.executable, "-m", "llamaspec", "serve"], "llamaspec"))


if __name__ == "__main__":
    sys.exit(main())
