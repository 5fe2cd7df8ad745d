"""Who may ask: one pure ASGI middleware in front of everything, which lets nothing pass that it doesn't know.

In this order: the Host (against DNS rebinding), the Origin (other pages in the person's browser), the key,
and the body, which is read here within its limits before the application sees anything of the request.
"""

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamaspec.errors import FileMissingError, UsageError
from llamaspec.server.problems import problem

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[0-9a-z._-]+))(?::[0-9]{0,5})?", re.ASCII)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", re.ASCII)
_PATTERNS = {"*": ".+", "localhost": r"[a-z][a-z0-9+.-]*://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?"}
_METHODS = ("GET", "POST", "DELETE", "OPTIONS")
_KEY = re.compile(r"[!-~]+", re.ASCII)

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What the guard lets pass. Raises UsageError for hosts, origins and paths that could never match.

    `allowed_hosts` are names or addresses, without a port, besides those of the loopback: the address that
    the server is bound to belongs here. 0.0.0.0 or :: stands for every address written in digits, which no
    DNS name can be rebound to; * for every host. `allowed_origins` are other sites whose pages may ask
    (CORS), as https://example.org; localhost for all on the loopback, * for all. `open_paths` are exact,
    `open_folders` end with a slash: these can be had (GET, HEAD) without a key. Without any `keys` everything
    can.

    A body has at most `max_body_bytes`, and `body_seconds` to arrive (None: for ever); all those arriving
    together have at most `max_arriving_bytes`, or what one may have if that is more.
    """

    keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 16 << 20
    max_arriving_bytes: int = 256 << 20
    body_seconds: float | None = 60.0
    open_paths: frozenset[str] = frozenset({"/", "/favicon.ico", "/health", "/v1/health"})
    open_folders: tuple[str, ...] = ("/page/",)

    def __post_init__(self) -> None:
        if not all(_KEY.fullmatch(key) for key in self.keys):
            raise UsageError("An API key is empty, or has characters that no header can carry.")
        for host in self.allowed_hosts:
            if host != "*" and _named_host(host) is None:
                raise UsageError(f"{host!r} is not a host.", "Name it without scheme and port.")
        for origin in self.allowed_origins:
            if origin not in ("*", "localhost") and not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"{origin!r} is not an origin.",
                    "An origin is scheme://host:port, in lower case, no more.",
                )
        for folder in self.open_folders:
            if not re.fullmatch(r"/.+/", folder):
                raise UsageError(f"{folder!r} is not a folder that could be open.")


def read_keys(api_key: str | None, api_key_file: Path | None) -> tuple[str, ...]:
    """The keys of `--api-key` (several: with commas between) and of a file: one a line, # for comments.

    Raises UsageError for a key that is empty or has spaces, and for a file without keys.
    """
    keys = [key.strip() for key in api_key.split(",")] if api_key is not None else []
    if api_key_file is not None:
        keys += _keys_of_file(api_key_file)
    if not all(_KEY.fullmatch(key) for key in keys):
        raise UsageError(
            "An API key is empty, or has other characters than visible ASCII.", "Is a variable unset?"
        )
    return tuple(dict.fromkeys(keys))


def _keys_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileMissingError(f"There is no file {path}.", "Check --api-key-file.") from None
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The key file {path} can't be read as text.") from None
    keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
    if not keys:
        raise UsageError(f"The key file {path} has no key.", "Write one key a line.")
    return keys


def check_exposure(host: str, keys: Sequence[str], no_auth: bool) -> None:
    """Raises UsageError where others than this machine could use the server without a key."""
    if no_auth and keys:
        raise UsageError("--no-auth contradicts the API key.", "Drop one of them.")
    if not keys and not no_auth and not is_loopback(host):
        raise UsageError(
            f"On {host or 'all addresses'} other machines could use the server without a key.",
            "Set one with --api-key or --api-key-file, or say --no-auth to serve whoever can connect.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what is bound to `host`. Names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """The middleware: `app` sees the requests that `options` let pass, each with its whole body at once."""

    def __init__(self, app: ASGIApp, options: GuardOptions) -> None:
        self._app = app
        self._options = options
        self._keys = [key.encode() for key in options.keys]
        named = [_named_host(host) for host in options.allowed_hosts]
        self._hosts = _LOOPBACK_NAMES.union(host for host in named if host)
        self._any_host = "*" in options.allowed_hosts
        self._any_address = not self._hosts.isdisjoint({"0.0.0.0", "::"})
        is_open = "*" in options.allowed_origins
        patterns = [_PATTERNS.get(origin, re.escape(origin)) for origin in options.allowed_origins]
        self._origins = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.ASCII)
        self._cors = (_OpenCORS if is_open else CORSMiddleware)(
            self._admit,
            allow_origin_regex=self._origins.pattern,
            allow_methods=_METHODS,
            allow_headers=["*"],
            allow_credentials=is_open,  # as llama-server; there are no cookies, keys travel in headers
            allow_private_network=True,
        )
        self._arriving = 0
        self._max_arriving = max(options.max_arriving_bytes, options.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        hosts = _values(scope["headers"], b"host")
        origins = _values(scope["headers"], b"origin")
        host = _parsed_host(hosts[0]) if len(hosts) == 1 else None
        origin = origins[0].decode("latin-1") if len(origins) == 1 else None
        inner: ASGIApp
        if host is None:
            inner = problem(400, "The Host header is missing or malformed.")
        elif not self._is_allowed(host):
            inner = problem(403, "This server does not answer to that Host: name it with --allowed-host.")
        elif not origins or (origin and _is_same_origin(origin, hosts[0].decode(), scope["scheme"])):
            inner = self._admit
        elif origin and self._origins.fullmatch(origin):
            inner = self._cors
        elif scope["method"] == "OPTIONS" and _values(scope["headers"], b"access-control-request-method"):
            inner = Response(headers={"Vary": "Origin"})  # that nothing is allowed the browser concludes
        else:
            inner = problem(403, "Pages of this Origin may not use the server: name it with --cors-origin.")
        await inner(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        return self._any_host or host in self._hosts or (self._any_address and _is_address(host))

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (self._is_open(scope) or self._has_key(scope["headers"])):
            told = "A valid API key is needed, as Authorization: Bearer KEY or X-Api-Key: KEY."
            refusal = problem(401, told, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        read = await self._read(scope["headers"], receive)
        if isinstance(read, Response):
            await read(scope, receive, send)
        elif read is not None:
            await self._app(scope, _replay(read, receive), send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["method"] not in ("GET", "HEAD"):
            return False
        path: str = scope["path"]
        return path in self._options.open_paths or (
            path.startswith(self._options.open_folders) and ".." not in path.split("/")
        )

    def _has_key(self, headers: Headers) -> bool:
        """Every key is compared, whatever came of the others: the time tells nothing."""
        offered = _values(headers, b"x-api-key")
        for value in _values(headers, b"authorization"):
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                offered.append(key.strip())
        matches = [hmac.compare_digest(one, key) for one in offered for key in self._keys]
        return any(matches) or not self._keys

    async def _read(self, headers: Headers, receive: Receive) -> list[Message] | Response | None:
        """The body as one message, or why it is refused, or None where the client has gone away."""
        limit = self._options.max_body_bytes
        too_large = f"The body is larger than {limit} bytes."
        for length in _values(headers, b"content-length"):
            if not length.isdigit():
                return problem(400, "The Content-Length header is malformed.")
            if len(length) > 18 or int(length) > limit:
                return problem(413, too_large)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._options.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunks.append(message.get("body", b""))
                    more = message.get("more_body", False)
                    size += len(chunks[-1])
                    self._arriving += len(chunks[-1])
                    if size > limit:
                        return problem(413, too_large)
                    if self._arriving > self._max_arriving:
                        return problem(503, "Too much is being sent at once. Try again later.")
        except TimeoutError:
            return problem(408, "The body took too long to arrive.", headers={"Connection": "close"})
        finally:
            self._arriving -= size
        return [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]


class _OpenCORS(CORSMiddleware):
    """For pages of all origins: preflights are answered as llama-server does."""

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        response = super().preflight_response(request_headers)
        response.headers["Access-Control-Allow-Headers"] = "*"
        return response


def _replay(pending: list[Message], receive: Receive) -> Receive:
    """The body, held no longer than until it is taken, and then what really comes: the disconnect."""

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _parsed_host(header: bytes) -> str | None:
    """The host of a Host header in its one way of writing, or None where it is malformed."""
    match = _HOST.fullmatch(header.decode("latin-1").lower())
    if match is None:
        return None
    if match["name"]:
        return match["name"].removesuffix(".") or None
    try:
        return str(ipaddress.IPv6Address(match["v6"]))
    except ValueError:
        return None


def _named_host(text: str) -> str | None:
    """The same for a host that an operator names: IPv6 needs no brackets, and a port makes no sense."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None if ":" in text else _parsed_host(text.encode())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_same_origin(origin: str, host: str, scheme: str) -> bool:
    """Host and port agree. Where we speak HTTP, what came over HTTPS has been through a proxy."""
    its_scheme, separator, its_host = origin.lower().partition("://")
    schemes = {"https"} if scheme == "https" else {"http", "https"}
    return bool(separator) and its_scheme in schemes and its_host == host.lower()
