"""A server of this machine: started on a free port, waited for, ended by its id."""

import http.client
import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llamaspec.closing import Closing
from llamaspec.errors import ServerError

HOST = "127.0.0.1"
_LOAD_SECONDS = 600
_ANSWER_SECONDS = 3600
_LOG_LINES = 15


def clean_environment() -> dict[str, str]:
    """Ours, without what would change the settings of the programs; text in UTF-8."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("LLAMASPEC_", "LLAMA_ARG_"))
    }
    return kept | {"PYTHONUTF8": "1"}


class LocalServer(Closing):
    """`command` with `--host` and `--port` added, from when its `/health` says that it is well until `close`.

    `pid` is its process, `port` where it listens. Raises ServerError where it does not start, ends before it
    is well, or takes too long, with the end of what it printed.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = _free_port()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "log.txt"
        try:
            with self._log.open("wb") as output:
                self._process = subprocess.Popen(
                    [*command, "--host", HOST, "--port", str(self.port)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                )
        except OSError as error:
            self._folder.cleanup()
            raise ServerError(f"{name} can't be started: {error.strerror or error}.") from None
        try:
            self._wait(command)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def failure(self, what: str) -> ServerError:
        """An error that says so, with the end of the server's log while there is one."""
        log = self._log.read_text(encoding="utf-8", errors="replace") if self._log.is_file() else ""
        lines = log.splitlines()
        return ServerError("\n".join([f"{self.name} {what}", *lines[-_LOG_LINES:]]))

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The whole answer. Raises ServerError for a refusal, and where there is none."""
        try:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_SECONDS)
            with closing(connection):
                headers = {"Content-Type": "application/json"}
                connection.request("POST", path, json.dumps(body).encode(), headers)
                answer = connection.getresponse()
                status, read = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self.failure(f"does not answer: {str(error) or type(error).__name__}") from None
        if status != http.client.OK:
            raise self.failure(f"answered {status}: {read.decode('utf-8', 'replace')}")
        return read

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _wait(self, command: Sequence[str]) -> None:
        deadline = time.monotonic() + _LOAD_SECONDS
        while not _is_well(self.port):
            if (status := self._process.poll()) is not None:
                raise self.failure(f"ended with {status}: {shlex.join(command)}")
            if time.monotonic() > deadline:
                raise self.failure("did not load in time")
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_well(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
