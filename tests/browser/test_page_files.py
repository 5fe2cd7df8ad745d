"""What is served of the page, and how: no browser needed."""

import hashlib
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llamaspec.server.page import CSP, page_files, page_routes


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


def served() -> list[str]:
    return ["/", *(f"/page/{name}" for name in ("app.js", "base.css", "icon.svg", "vendor/marked.js"))]


@pytest.mark.parametrize("path", served())
def test_headers_fence_every_file_in(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/base.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/vendor/marked.LICENSE.txt", "text/plain; charset=utf-8"),
    ],
)
def test_content_types(client: TestClient, path: str, content_type: str) -> None:
    assert client.get(path).headers["content-type"] == content_type


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    etag = client.get("/page/app.js").headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get("/page/app.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/page/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/__init__.py",
        "/page/%2e%2e/__init__.py",
        "/page/..%2f__init__.py",
        "/page//etc/passwd",
        "/page/vendor",
        "/page/",
        "/page/index.html",
        "/page/app.js%00",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_only_reading(client: TestClient) -> None:
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200


def test_the_policy_allows_no_inline_code_and_no_foreign_origin() -> None:
    policy = dict(part.split(" ", 1) for part in CSP.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in CSP
    assert "http" not in CSP


def test_the_page_has_no_inline_code_and_names_only_files_that_are_there(client: TestClient) -> None:
    html = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    links = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert links
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


def modules() -> list[Any]:
    return [pytest.param(path, id=path.name) for path in sorted(page_files().rglob("*.js"))]


@pytest.mark.parametrize("module", modules())
def test_imports_of_modules_are_files_of_the_page(module: Any) -> None:
    for name in re.findall(r'^import .*?["\']([^"\']+)["\'];?$', module.read_text(encoding="utf-8"), re.M):
        assert (module.parent / name).is_file(), name


def test_libraries_are_unchanged_and_come_with_their_licences() -> None:
    vendor = page_files() / "vendor"
    told = (vendor / "VERSIONS.txt").read_text(encoding="utf-8")
    pinned = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", told, re.M)}
    there = {path.name for path in vendor.iterdir()} - {"VERSIONS.txt"}
    assert pinned.keys() == there == {*there, "marked.LICENSE.txt", "dompurify.LICENSE.txt"}
    for name, digest in pinned.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
