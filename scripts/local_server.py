"""A server of this machine for the length of a block: started on a free port, waited for, ended by its id."""

import http.client
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_LOAD_SECONDS = 600


class ServerFailed(Exception):
    """A server that ended, did not load, or answered badly; with the end of its log."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that is loaded. `pid` is its process, `port` where it listens, `log` what it has printed."""

    name: str
    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def failure(self, what: str) -> ServerFailed:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return ServerFailed("\n".join([f"{self.name} {what}", *lines[-15:]]))


@contextmanager
def started(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[LocalServer]:
    """Start `command` with `--host` and `--port` added; the server, once its `/health` says that it is well.

    Raises ServerFailed where it ends before, or takes too long.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log.txt"
        port = _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--host", HOST, "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )
        server = LocalServer(name, process.pid, port, log)
        try:
            deadline = time.monotonic() + _LOAD_SECONDS
            while not _is_well(port):
                if process.poll() is not None:
                    raise server.failure(f"ended with {process.returncode}: {shlex.join(command)}")
                if time.monotonic() > deadline:
                    raise server.failure("did not load in time")
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
