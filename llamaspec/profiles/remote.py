"""Profiles from elsewhere: an https address, or a file on the hub. Small, soon, or not at all.

An address can be anyone's, and must not be a way to ask machines that only this one can reach: every name is
resolved here, all its addresses must be public ones, and one of those is connected to, also after a redirect.
A proxy from the environment is the user's own and may be anywhere. What is asked of it is held to the same
rule, but for names that only the proxy can resolve.
"""

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import IO, Any

from llamaspec.errors import ModelNotFoundError, NetworkError, ProfileError, ProfileNotFoundError
from llamaspec.hub.models import NoProgress
from llamaspec.hub.sources import HubMirror
from llamaspec.profiles.document import MAX_BYTES, printable, shown

TIMEOUT_SECONDS = 10.0
_MAX_ADDRESS = 2000
_MOST_TRIED = 4
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


def fetch_url(address: str) -> tuple[bytes, str]:
    """(content, address without what could be secret in it) of a profile.

    Raises:
        ProfileError: not https, redirected to something else, too large, or a web page.
        ProfileNotFoundError: the server has no such file.
        NetworkError: it does not answer, not in time, or with an error.
    """
    origin = _public(address)
    request = urllib.request.Request(address, headers={"User-Agent": "llamaspec", "Accept": "*/*"})
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        with build_opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            if response.headers.get_content_type() == "text/html":
                raise ProfileError(f"{origin}: a web page, not a profile", "Use the address of the raw file.")
            return _read(response, origin, deadline), origin
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise ProfileNotFoundError(f"{origin}: the server has no such file") from None
        raise NetworkError(f"{origin}: the server answers {error.code} {shown(error.reason)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NetworkError(
            f"{origin}: no answer: {printable(str(reason))}",
            "Check the address and the network; a profile can be a local file too.",
        ) from error


def fetch_from_hub(place: HubMirror) -> tuple[bytes, str]:
    """(content, reference) of a file on the hub: its cached copy where the hub does not answer.

    Raises:
        ProfileError: too large.
        ProfileNotFoundError: no such repository, revision or file, or none that may be read without a token.
        ModelFetchError: with its kinds, for everything else that goes wrong on the hub.
    """
    from llamaspec.hub.huggingface import cached_file, download

    origin = f"{place.repo}/{place.file}@{place.revision}"
    try:
        path = download(place, sha256=None, size=None, progress=_SmallFile(origin))
    except ModelNotFoundError as error:
        raise ProfileNotFoundError(f"{origin}: {error.message}", error.hint) from error
    except NetworkError:
        if (cached := cached_file(place)) is None:
            raise
        path = cached
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1), origin


class PublicHttps(urllib.request.HTTPSHandler):
    """Connects to public addresses alone."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicConnection, req, context=self._tls)  # type: ignore[arg-type]


class _PublicConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=timeout, context=context)
        self._tls = context
        self._through_proxy = False

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None) -> None:
        with suppress(socket.gaierror):
            public_addresses(host.removeprefix("[").removesuffix("]"), port or self.default_port)
        self._through_proxy = True
        super().set_tunnel(host, port, headers)

    def connect(self) -> None:
        if self._through_proxy:
            return super().connect()
        reached = _connect(public_addresses(self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(reached, server_hostname=self.host)


def public_addresses(host: str, port: int) -> list[tuple[str, int]]:
    """The addresses of `host`, as a socket takes them.

    Raises:
        ProfileError: one of them is not a public one: of this machine, a private network, or of no network.
        OSError: the name can't be resolved.
    """
    found = [place[4] for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for place in found:
        if not _is_public(ipaddress.ip_address(place[0])):
            raise ProfileError(
                f"{shown(host)} leads to {place[0]}, which is no public address",
                "A profile of your own network can be saved as a file, and named by its path.",
            )
    return [(str(place[0]), int(place[1])) for place in found]


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """An IPv6 address that stands for an IPv4 one counts as that."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:
            return False
        address = _ipv4_in(address) or address
    return address.is_global and not address.is_multicast and not address.is_reserved


def _ipv4_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """What a mapped, translated (RFC 6052), 6to4 or Teredo address leads to."""
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])


def _connect(places: list[tuple[str, int]], timeout: float | None) -> socket.socket:
    """To the first that answers of a few. Raises OSError: the last one's, where none does."""
    *others, last = places[:_MOST_TRIED]
    for place in others:
        with suppress(OSError):
            return socket.create_connection(place, timeout)
    return socket.create_connection(last, timeout)


class _SmallFile(NoProgress):
    """Stops a download that says it is larger than a profile can be, before its first byte."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def start(self, task: str, total: int | None) -> None:
        if total is not None and total > MAX_BYTES:
            raise _too_large(self._origin)


class HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone: a profile's address must not lead to the unencrypted or the local."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise ProfileError(f"{_public(req.full_url)}: redirected to something that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def build_opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(HttpsRedirects, PublicHttps)


def _read(response: Any, origin: str, deadline: float) -> bytes:
    """The whole body, within the cap and the deadline: a server can keep a connection alive byte by byte."""
    content = bytearray()
    while chunk := response.read1(16_384):
        content += chunk
        if len(content) > MAX_BYTES:
            raise _too_large(origin)
        if time.monotonic() > deadline:
            raise NetworkError(f"{origin}: not complete after {TIMEOUT_SECONDS:.0f} seconds")
    return bytes(content)


def _public(address: str) -> str:
    """`address` without user, password, query and fragment.

    Raises:
        ProfileError: it is not an https address.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if (
        host is None
        or parts.scheme != "https"
        or not address.isascii()
        or not address.isprintable()
        or " " in address
        or len(address) > _MAX_ADDRESS
    ):
        raise ProfileError(
            f"{shown(address)}: not an https address", "Profiles are fetched over https:// alone."
        )
    return f"https://{host}{f':{port}' if port else ''}{parts.path}"


def _too_large(origin: str) -> ProfileError:
    return ProfileError(f"{origin}: larger than {MAX_BYTES // 1024} KiB: not a profile")
