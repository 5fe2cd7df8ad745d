import http.client
import socket
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from thread_server import GET, GET_HELD, PATIENCE, App, answered, drip, received, running

from llamaspec.errors import FileMissingError, LlamaspecError, UsageError
from llamaspec.server.serving import Listener, ServingOptions, listen, serve

HERE = Path(__file__).parent
CERTIFICATE, KEY = HERE / "certificate.pem", HERE / "key.pem"


def test_it_answers_on_a_free_port_and_says_which() -> None:
    app = App()
    with running(app) as server:
        assert server.told == [server.port]
        assert server.port > 0
        assert server.listener.url == f"http://127.0.0.1:{server.port}"
        assert server.get() == (200, b"done")
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def test_a_client_can_not_say_that_it_is_another_and_learns_little_of_us() -> None:
    app = App()
    with running(app) as server, server.connect() as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 9.9.9.9\r\n"
            b"X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
        )
        assert b"uvicorn" not in received(connection).lower()
    assert app.scopes[0]["client"][0] == "127.0.0.1"
    assert app.scopes[0]["scheme"] == "http"


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_headers_that_do_not_come_are_not_waited_for(start: bytes) -> None:
    with running(App(), header_seconds=0.2) as server, server.connect(start) as connection:
        assert received(connection) == b""


def test_headers_that_drip_are_not_waited_for() -> None:
    with running(App(), header_seconds=0.2) as server:
        with server.connect(b"GET / HTTP/1.1\r\nX-Slow: ") as connection:
            assert drip(connection, b"abcdefgh") < 700
        assert server.get() == (200, b"done")


def test_a_second_request_has_its_own_time_for_headers() -> None:
    with running(App(), header_seconds=0.2) as server, server.connect(GET) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.read() == b"done"
        drip(connection, b"GET / HTTP/1.1\r\nX-Slow: abcdefgh")


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for() -> None:
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n"
    with running(App(), header_seconds=0.2) as server, server.connect(post) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.read() == b"done"
        drip(connection, b"abcdefgh")


def test_the_time_for_headers_binds_neither_answers_nor_idle_connections() -> None:
    app = App()
    with running(app, header_seconds=0.2) as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        idle.request("GET", "/")
        assert idle.getresponse().read() == b"done"
        app.entered.clear()
        with closing(idle), server.connect(GET_HELD) as held:
            assert app.entered.wait(PATIENCE)
            with server.connect() as silent:
                assert received(silent) == b""  # began last, and its time is over
            app.release()
            answer = http.client.HTTPResponse(held)
            answer.begin()
            assert answer.read() == b"held done"
            idle.request("GET", "/")
            assert idle.getresponse().read() == b"done"


def test_idle_connections_are_closed() -> None:
    with running(App(), keep_alive_seconds=1) as server, server.connect(GET) as connection:
        assert received(connection).endswith(b"\r\n\r\n4\r\ndone\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: y\r\n" * 400 + b"\r\n",
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: " + b"x" * 5000,
        b"G" * 5000,
    ],
)
def test_headers_that_are_too_large_are_refused(request_: bytes) -> None:
    app = App()
    with running(app, max_header_bytes=4096) as server:
        with server.connect(request_) as connection:
            status, headers, body = answered(connection)
        assert status == 431
        assert headers["connection"] == "close"
        assert body["error"]["message"] == "The headers are too large."
        assert app.scopes == []
        assert server.get() == (200, b"done")


def test_headers_within_the_limit_pass() -> None:
    with running(App(), max_header_bytes=4096) as server:
        sent = (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: " + b"x" * 3900 + b"\r\n\r\n"
        )
        with server.connect(sent) as connection:
            assert received(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x00\x05hello\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"]
)
def test_what_is_no_http_is_told_so(nonsense: bytes) -> None:
    with running(App()) as server, server.connect(nonsense) as connection:
        status, headers, body = answered(connection)
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert body["error"]["type"] == "invalid_request_error"


def test_nonsense_in_the_middle_of_an_answer_ends_it() -> None:
    app = App()
    start = b"POST /held HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running(app) as server, server.connect(start) as connection:
        assert app.entered.wait(PATIENCE)
        connection.sendall(b"not a chunk\r\n")
        assert received(connection).endswith(b"held \r\n")
        assert app.ended.wait(PATIENCE)
    assert len(app.left) == 1


def test_a_client_that_leaves_is_noticed() -> None:
    app = App()
    with running(app) as server:
        with server.connect(GET_HELD):
            assert app.entered.wait(PATIENCE)
        assert app.ended.wait(PATIENCE)
    assert len(app.left) == 1


def test_a_client_that_does_not_read_is_not_waited_for() -> None:
    app = App()
    with running(app, write_seconds=0.2) as server:
        with server.connect(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            assert app.ended.wait(PATIENCE)
        assert server.get() == (200, b"done")


def test_more_connections_than_allowed_are_refused_and_later_taken_again() -> None:
    with running(App(), max_connections=2) as server:
        with server.connect(GET) as one, server.connect(GET) as two:
            for connection in (one, two):
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
            with server.connect(GET) as refused:
                status, headers, body = answered(refused)
            assert status == 503
            assert int(headers["retry-after"]) > 0
            assert body["error"]["type"] == "unavailable_error"
        for _ in range(1000):  # until the server has seen that the two are gone
            if server.get()[0] == 200:
                break
        else:
            raise AssertionError("the server takes no connections any more")


def test_far_more_connections_than_allowed_are_cut() -> None:
    with (
        running(App(), max_connections=1) as server,
        server.connect() as one,
        server.connect() as two,
        server.connect() as three,
    ):
        assert received(three) == b""
        two.sendall(GET)
        assert answered(two)[0] == 503
        one.sendall(GET)
        assert one.recv(15) == b"HTTP/1.1 200 OK"


def test_an_application_that_does_not_start_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    with pytest.raises(LlamaspecError, match="does not start"):
        serve(app, ServingOptions(port=0))
    assert "no model" in caplog.text


def test_a_port_in_use_is_told() -> None:
    with listen(ServingOptions(port=0)) as first:
        with pytest.raises(UsageError, match=f"127.0.0.1:{first.port} is in use") as caught:
            listen(ServingOptions(port=first.port))
        assert "--port" in caught.value.hint


@pytest.mark.parametrize(
    "where",
    [{"host": "192.0.2.1"}, {"host": "no such host"}, {"host": "x" * 300}, {"port": 65_536}, {"port": -1}],
)
def test_an_address_that_can_not_be_had_is_told(where: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        listen(ServingOptions(**{"port": 0, **where}))


def test_a_name_is_listened_to_on_all_its_addresses() -> None:
    with listen(ServingOptions(host="localhost", port=0)) as listener:
        assert {opened.getsockname()[1] for opened in listener.sockets} == {listener.port}
        addresses = {opened.getsockname()[0] for opened in listener.sockets}
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_addresses_of_version_6_are_written_in_brackets() -> None:
    try:
        listener = listen(ServingOptions(host="::1", port=0))
    except UsageError:
        pytest.skip("no IPv6 here")
    with listener:
        assert listener.url == f"http://[::1]:{listener.port}"


def over_tls(listener: Listener) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(CERTIFICATE))
    connection = socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE)
    return trust.wrap_socket(connection, server_hostname="localhost")


def test_tls_with_its_own_time_for_the_handshake() -> None:
    app = App()
    with running(app, ssl_certfile=CERTIFICATE, ssl_keyfile=KEY, header_seconds=1.0) as server:
        assert server.listener.url.startswith("https://")
        with over_tls(server.listener) as connection:
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert received(connection).startswith(b"HTTP/1.1 200 ")
        with server.connect() as silent:
            assert received(silent) == b""
    assert app.scopes[0]["scheme"] == "https"


def test_tls_files_are_checked_first(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("no key", encoding="utf-8")
    with pytest.raises(UsageError):
        listen(ServingOptions(port=0, ssl_certfile=CERTIFICATE))
    with pytest.raises(UsageError):
        listen(ServingOptions(port=0, ssl_keyfile=KEY))
    with pytest.raises(FileMissingError):
        listen(ServingOptions(port=0, ssl_certfile=CERTIFICATE, ssl_keyfile=tmp_path / "missing.pem"))
    for certificate, key in ((CERTIFICATE, other), (other, KEY), (CERTIFICATE, HERE / "encrypted.pem")):
        with pytest.raises(UsageError):
            listen(ServingOptions(port=0, ssl_certfile=certificate, ssl_keyfile=key))
