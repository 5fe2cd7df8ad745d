"""Profiles from elsewhere: an https address, or a file on the hub. Small, soon, or not at all."""

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

from llamaspec.errors import ModelNotFoundError, NetworkError, ProfileError, ProfileNotFoundError
from llamaspec.hub.models import NoProgress
from llamaspec.hub.sources import HubMirror
from llamaspec.profiles.document import MAX_BYTES, shown

TIMEOUT_SECONDS = 10.0


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
        raise NetworkError(f"{origin}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NetworkError(
            f"{origin}: no answer: {reason}",
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
    return urllib.request.build_opener(HttpsRedirects)


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
    ):
        raise ProfileError(
            f"{shown(address)}: not an https address", "Profiles are fetched over https:// alone."
        )
    return f"https://{host}{f':{port}' if port else ''}{parts.path}"


def _too_large(origin: str) -> ProfileError:
    return ProfileError(f"{origin}: larger than {MAX_BYTES // 1024} KiB: not a profile")
