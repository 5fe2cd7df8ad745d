"""The server that all client libraries talk to: `llamaspec serve` with the shipped pair, drafting always."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_help import Served

_MODEL = "qwen2.5-coder-1.5b"
_CANT_BE_HAD = range(20, 25)  # exit codes of ModelFetchError and those below it
_GREEDY_AND_DRAFTING = ("--temp", "0", "--draft-max", "4")


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    command = [sys.executable, "-m", "llamaspec", "serve", "-p", _MODEL, "-c", "4096", "--parallel", "2"]
    command += [*_GREEDY_AND_DRAFTING, "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        told = []
        try:
            for line in process.stderr:
                told.append(line)
                if '"ready"' in line:
                    break
            else:
                _not_ready(process.wait(), "".join(told))
            reader = threading.Thread(target=process.stderr.read)
            reader.start()
            yield Served(json.loads(told[-1])["url"], _MODEL)
        finally:
            process.terminate()
        process.wait(timeout=60)
        reader.join()


def _not_ready(code: int, told: str) -> None:
    if code in _CANT_BE_HAD and os.environ.get("LLAMASPEC_REQUIRE_MODELS") != "1":
        pytest.skip(f"the models can't be had here: {told}")
    pytest.fail(f"llamaspec serve ended with code {code}: {told}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Some libraries leave connections open: they are collected here, and not in the time of another test.

    This is called for the tests of other folders, too, and with these libraries it takes half a second.
    """
    here = Path(__file__).parent
    if here not in item.path.parents:
        return (yield)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        done = yield
        if nextitem is None or here not in nextitem.path.parents:
            asyncio.set_event_loop(None)  # one may be left open, which the next test would drop
        gc.collect()
    return done
