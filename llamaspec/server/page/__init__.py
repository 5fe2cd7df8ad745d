"""The web page: a few static files, read once, and the headers that fence them in.

What is served is a fixed list of names; nothing a request says becomes a path.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
"""Only our own files, no inline code or style, and text becomes HTML through DOMPurify alone."""

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    content_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        headers = {**_HEADERS, "ETag": self.etag}
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if known & {self.etag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.content_type, headers=headers)


def page_files() -> Path:
    """The folder that holds the page's files."""
    return Path(__file__).parent


def page_routes() -> list[Route]:
    """Routes for the page at `/` and its files below `/page/`: open to whoever may reach the server.

    They hold no data of the server's: what the page shows it asks for with the key.
    """
    files = _read(page_files())
    index = files.pop("index.html")
    return [_route("/", index), *(_route(f"/page/{name}", asset) for name, asset in files.items())]


def _route(path: str, asset: _Asset) -> Route:
    async def file(request: Request) -> Response:
        return asset.answer(request)

    return Route(path, file)


def _read(folder: Path) -> dict[str, _Asset]:
    """By name relative to the folder, with forward slashes."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _CONTENT_TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            files[path.relative_to(folder).as_posix()] = _Asset(body, _CONTENT_TYPES[path.suffix], etag)
    return files
