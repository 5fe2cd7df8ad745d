"""Runs an application with uvicorn in this process, within limits that uvicorn alone does not keep.

A connection has so many seconds for its headers, and for reading what it is sent; there are only so many
of them. SIGTERM or SIGINT let what runs come to its end for a while, a second one ends it at once.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from llamaspec.closing import Closing
from llamaspec.errors import FileMissingError, LlamaspecError, UsageError
from llamaspec.server.problems import problem

_BACKLOG = 2048
_POLL_SECONDS = 0.05
_OTHER_FILES = 256
_CANCEL_SECONDS = 2.0  # for cancelled requests to say so


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Where to listen, and the limits. Times are in seconds.

    Port 0 is any free one. Connections beyond `max_connections` are answered 503, beyond twice as many not
    at all. `header_seconds` bound a TLS handshake and the arrival of a request's headers, which have
    together with the request line at most `max_header_bytes`; `keep_alive_seconds` the time between two
    requests; `write_seconds` how long a client may leave unread what it is sent; `drain_seconds` what is
    left to running requests when the server is to end.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    ssl_keyfile: Path | None = None
    ssl_certfile: Path | None = None
    drain_seconds: float = 10.0
    max_connections: int = 1024
    max_header_bytes: int = 32 << 10
    header_seconds: float = 10.0
    keep_alive_seconds: int = 30
    write_seconds: float = 60.0


class Listener(Closing):
    """Sockets that listen, and TLS if there is any. `port` is the real one."""

    def __init__(self, options: ServingOptions, sockets: list[socket.socket], tls: ssl.SSLContext | None):
        self.options = options
        self.sockets = sockets
        self.tls = tls
        self.port: int = sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def close(self) -> None:
        """A second call does nothing."""
        for listening in self.sockets:
            listening.close()


def listen(options: ServingOptions) -> Listener:
    """Take the address, before anything that takes long: clients wait until it is served.

    Raises UsageError for an address or port that can't be had, or TLS files that are no pair.
    """
    tls = _tls(options)
    if not 0 <= options.port <= 65_535:
        raise UsageError(f"{options.port} is not a port.", "Ports are 1 to 65535; 0 is any free one.")
    try:
        found = socket.getaddrinfo(
            options.host or None, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"{options.host} is not an address or name that is known here.") from None
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    port = options.port
    try:
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            try:
                sockets.append(_listening(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise _unavailable(options, error) from None
                missing = error  # of a name with addresses of both families one may be switched off
            else:
                port = sockets[-1].getsockname()[1]
        if not sockets:
            raise _unavailable(options, missing or OSError("no address")) from None
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return Listener(options, sockets, tls)


def serve(
    app: ASGIApp,
    options: ServingOptions,
    *,
    on_ready: Callable[[int], None] = lambda port: None,
    on_drain: Callable[[], None] = lambda: None,
    listener: Listener | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. In the main thread.

    `on_ready` is told the port once requests are answered. `on_drain` is called where requests still run
    after the time that they are left: it is to cancel them. `listener` is what `listen` made of the same
    options, and is closed. Raises what `listen` raises, and LlamaspecError where the app does not start.
    """
    _allow_files(2 * options.max_connections + _OTHER_FILES)
    with listener or listen(options) as opened:
        Server(app, opened, on_ready, on_drain).run()


class Server(uvicorn.Server):
    """One run of an application behind a listener. Outside of the main thread only `stop` ends it."""

    def __init__(
        self,
        app: ASGIApp,
        listener: Listener,
        on_ready: Callable[[int], None] = lambda port: None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = listener.options
        self._listener = listener
        self._on_ready = on_ready
        self._on_drain = on_drain
        super().__init__(
            uvicorn.Config(
                _HeaderLimit(app, self.options.max_header_bytes),
                http=_Connection,
                ws="none",
                loop="asyncio",
                interface="asgi3",
                h11_max_incomplete_event_size=self.options.max_header_bytes,
                timeout_keep_alive=self.options.keep_alive_seconds,
                proxy_headers=False,  # whoever connects could say that he is someone else
                server_header=False,
                access_log=False,
                log_config=None,
                log_level=logging.ERROR,  # that a client sends nonsense is no news
            )
        )

    def stop(self) -> None:
        """End as after a signal. From any thread."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            if threading.current_thread() is threading.main_thread():
                # From a bound method sse-starlette would find the server, and watch it
                # to end every stream as soon as it is to drain.
                for number in HANDLED_SIGNALS:
                    signal.signal(number, partial(self.handle_exit))
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not told to uvicorn, which would raise the signal again: a drained server ends well.
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise LlamaspecError("The server's application does not start.", "The log says why.")
        limits = self.options.header_seconds if self._listener.tls else None
        self.servers = [
            await asyncio.get_running_loop().create_server(
                lambda: _Connection(self),
                sock=listening,
                ssl=self._listener.tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=limits,
                ssl_shutdown_timeout=limits,
            )
            for listening in self._listener.sockets
        ]
        self.started = True
        self._on_ready(self._listener.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._ended_within(self.options.drain_seconds, unless_forced=True):
            self._on_drain()
            await self._ended_within(_CANCEL_SECONDS, unless_forced=True)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if not await self._ended_within(_CANCEL_SECONDS):
            for task in self.server_state.tasks:
                task.cancel()
        await self.lifespan.shutdown()

    async def _ended_within(self, seconds: float, *, unless_forced: bool = False) -> bool:
        """Wait for the requests and connections to end; False: some still run."""
        state = self.server_state
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (state.connections or state.tasks) and not (unless_forced and self.force_exit):
                    await asyncio.sleep(_POLL_SECONDS)
        return not (state.connections or state.tasks)


class _Connection(H11Protocol):
    """One connection, which is closed when it keeps us waiting."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.config, server.server_state, server.lifespan.state)
        self._server = server
        self._options = server.options
        self._until_headers: asyncio.TimerHandle | None = None
        self._until_read: asyncio.TimerHandle | None = None

    @property
    def _is_idle(self) -> bool:
        """No request is being answered; the rest of one may still arrive, and is thrown away."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        many = len(self.connections)
        if self._server.should_exit or many > 2 * self._options.max_connections:
            transport.abort()
            return
        if many > self._options.max_connections:
            self.app = _refuse_connection
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._headers_are_here()
        self._is_read()

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            self._expect_headers()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if not self._is_idle:
            self._headers_are_here()

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            self._expect_reading()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._is_read()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def shutdown(self) -> None:
        if self._is_idle:
            self._close()
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Called for what is not HTTP. In the middle of an answer there is no way to say so."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        if self.cycle is not None:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            told = "The headers are too large." if status == 431 else "The request is not valid HTTP."
            answer = problem(status, told, headers={"Connection": "close"})
            for event in (
                h11.Response(status_code=status, headers=answer.raw_headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._expect_reading()

    def _expect_reading(self) -> None:
        """What has been written may wait so long to be read, and no longer."""
        if self._until_read is None:
            self._until_read = self.loop.call_later(self._options.write_seconds, self.transport.abort)

    def _is_read(self) -> None:
        if self._until_read is not None:
            self._until_read.cancel()
            self._until_read = None

    def _expect_headers(self) -> None:
        if self._until_headers is None:
            self._until_headers = self.loop.call_later(self._options.header_seconds, self._close)

    def _headers_are_here(self) -> None:
        if self._until_headers is not None:
            self._until_headers.cancel()
            self._until_headers = None


class _HeaderLimit:
    """Refuses headers that are too large, but came so fast that the parser did not have to wait for them."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and _header_bytes(scope) > self._limit:
            app = problem(431, "The headers are too large.", headers={"Connection": "close"})
        await app(scope, receive, send)


def _header_bytes(scope: Scope) -> int:
    line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"]) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])


async def _refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    busy = problem(503, "There are too many connections. Try again later.", headers={"Connection": "close"})
    await busy(scope, receive, send)


def _listening(family: int, address: tuple[Any, ...]) -> socket.socket:
    dual = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)


def _allow_files(count: int) -> None:
    """Every connection is an open file, of which some systems allow 256 unless they are asked."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _unavailable(options: ServingOptions, error: OSError) -> UsageError:
    place = f"{options.host}:{options.port}"
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"{place} is in use already.", "Name another --port; 0 is any free one.")
    if isinstance(error, PermissionError):
        return UsageError(f"{place} may not be used.", "Name a --port from 1024 on.")
    return UsageError(f"{options.host} is not an address of this machine.", "127.0.0.1 always is.")


def _tls(options: ServingOptions) -> ssl.SSLContext | None:
    files = (options.ssl_certfile, options.ssl_keyfile)
    if files == (None, None):
        return None
    certificate, key = files
    if certificate is None or key is None:
        raise UsageError("TLS needs a key and a certificate.", "Name --ssl-keyfile and --ssl-certfile.")
    for path in (certificate, key):
        if not path.is_file():
            raise FileMissingError(f"There is no file {path}.", "Check --ssl-keyfile and --ssl-certfile.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password at hand OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"{certificate} and {key} are no certificate and key that belong together ({error}).",
            "Both are PEM files; the key has no password.",
        ) from None
    return context
