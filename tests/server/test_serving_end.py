import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from thread_server import GET, GET_HELD, PATIENCE, App, received, running, until_refused

HERE = Path(__file__).parent


def test_the_end_waits_for_what_runs_and_takes_nothing_new() -> None:
    app = App()
    with running(app, drain_seconds=PATIENCE) as server:
        with server.connect() as idle, server.connect(GET_HELD) as held:
            assert app.entered.wait(PATIENCE)
            server.server.stop()
            until_refused(server.port)
            assert received(idle) == b""
            assert not app.ended.is_set()
            app.release()
            assert received(held).endswith(b"done\r\n0\r\n\r\n")
        server.end()
        assert not server.drained.is_set()
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def test_what_takes_too_long_at_the_end_is_cut() -> None:
    app = App()
    with running(app, drain_seconds=0.05) as server, server.connect(GET_HELD) as held:
        assert app.entered.wait(PATIENCE)
        server.end()
        assert server.drained.is_set()
        assert received(held).endswith(b"held \r\n")
    assert len(app.left) == 1
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def test_what_hears_nothing_at_the_end_is_cancelled() -> None:
    app = App()
    deaf = GET.replace(b" / ", b" /deaf ")
    with running(app, drain_seconds=0.05) as server, server.connect(deaf):
        assert app.entered.wait(PATIENCE)
        server.end()
    assert app.ended.is_set()


@contextmanager
def process(drain_seconds: float) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    with subprocess.Popen(
        [sys.executable, str(HERE / "served.py"), str(drain_seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    ) as child:
        try:
            assert child.stdout is not None
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent these signals on Windows")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_well(sent: signal.Signals) -> None:
    # Longer than sse-starlette takes to see that its server is to end.
    with process(drain_seconds=1.5) as (child, port):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(GET)
            while b"first" not in connection.recv(1 << 16):
                pass
            child.send_signal(sent)
            assert received(connection).endswith(b"data: last\r\n\r\n\r\n0\r\n\r\n")
        out, err = child.communicate(timeout=PATIENCE)
        assert (out, err, child.returncode) == ("drain\nended\n", "", 0)


@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent these signals on Windows")
def test_a_second_signal_ends_it_at_once() -> None:
    with process(drain_seconds=1e6) as (child, port):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(GET)
            while b"first" not in connection.recv(1 << 16):
                pass
            child.send_signal(signal.SIGTERM)
            until_refused(port)
            child.send_signal(signal.SIGTERM)
            received(connection)
        out, err = child.communicate(timeout=PATIENCE)
        assert (out, err, child.returncode) == ("drain\nended\n", "", 0)
