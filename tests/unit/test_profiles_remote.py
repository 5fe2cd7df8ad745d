"""Profiles from addresses and from the hub, both made up here."""

import io
import re
import urllib.request
import urllib.response
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamaspec.errors import ModelNotFoundError, NetworkError, ProfileError, ProfileNotFoundError
from llamaspec.hub import huggingface
from llamaspec.hub.sources import HubMirror
from llamaspec.profiles import find, find_profile, remote
from llamaspec.profiles.document import MAX_BYTES

TEXT = "schema: 1\nname: mine\nmain: {repo: owner/name, file: model.gguf}\n"


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    path = tmp_path / "cached.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


# By address

Answer = Callable[[urllib.request.Request], tuple[int, dict[str, str], bytes]]


def serve(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[str]:
    """Answer https requests with (status, headers, body); the addresses that were asked for."""
    asked: list[str] = []

    class FakeHttps(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            asked.append(req.full_url)
            status, headers, body = answer(req)
            message = Message()
            for key, value in headers.items():
                message[key] = value
            response = urllib.response.addinfourl(io.BytesIO(body), message, req.full_url, status)
            response.msg = ""  # type: ignore[attr-defined]
            return response

    opener = urllib.request.build_opener(remote.HttpsRedirects, FakeHttps)
    monkeypatch.setattr(remote, "build_opener", lambda: opener)
    return asked


def test_a_profile_from_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, lambda _: (200, {"Content-Type": "text/plain"}, TEXT.encode()))
    found = find("https://user:password@example.org:8443/x.yaml?token=secret#part")
    assert found.profile.name == "mine"
    assert found.origin == "https://example.org:8443/x.yaml"


def test_a_profile_from_an_address_names_no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, lambda _: (200, {}, f"{TEXT}speculation: {{corpus: /etc}}\n".encode()))
    with pytest.raises(ProfileError, match="can't name files of this machine"):
        find("https://example.org/x.yaml")


def test_problems_of_a_profile_from_an_address_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, lambda _: (200, {}, TEXT.replace("mine", "Mine").encode()))
    with pytest.raises(ProfileError, match=r"https://example\.org/x\.yaml:2: name: 'Mine' is not"):
        find_profile("https://example.org/x.yaml?token=secret")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/x.yaml",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "https://",
        "https://[x/y.yaml",
        "https://example.org/a b.yaml",
        "https://exämple.org/x.yaml",
        "https://example.org:x/y",
        "https://a\r\nb/x",
    ],
)
def test_only_https_addresses_are_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, lambda _: (200, {}, TEXT.encode()))
    with pytest.raises(ProfileError, match="not an https address"):
        find_profile(address)
    assert asked == []


@pytest.mark.parametrize(
    "target", ["http://example.org/y", "file:///etc/passwd", "ftp://example.org/y", "http://localhost"]
)
def test_redirects_stay_on_https(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, lambda _: (302, {"Location": target}, b""))
    with pytest.raises((ProfileError, NetworkError)):
        find_profile("https://example.org/x.yaml")
    assert asked == ["https://example.org/x.yaml"]


def test_redirects_to_https_are_followed_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(request: urllib.request.Request) -> tuple[int, dict[str, str], bytes]:
        if request.full_url.endswith("/x.yaml"):
            return 302, {"Location": "https://cdn.example.org/y.yaml"}, b""
        return 200, {}, TEXT.encode()

    serve(monkeypatch, once)
    assert find_profile("https://example.org/x.yaml").name == "mine"
    serve(monkeypatch, lambda request: (302, {"Location": request.full_url + "x"}, b""))
    with pytest.raises(NetworkError):
        find_profile("https://example.org/x.yaml")


def test_what_a_server_may_answer_instead_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        serve(monkeypatch, lambda _: (status, {"Content-Type": kind}, body))

    address = "https://example.org/x.yaml"
    answer(200, b"#" * (MAX_BYTES + 1))
    with pytest.raises(ProfileError, match="larger than 256 KiB"):
        find_profile(address)
    answer(200, b"<!doctype html>", "text/html; charset=utf-8")
    with pytest.raises(ProfileError, match="a web page"):
        find_profile(address)
    answer(404)
    with pytest.raises(ProfileNotFoundError, match="no such file"):
        find_profile(address)
    answer(503)
    with pytest.raises(NetworkError, match="503"):
        find_profile(address)


def test_a_server_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: urllib.request.Request) -> tuple[int, dict[str, str], bytes]:
        raise ConnectionRefusedError(111, "Connection refused")

    serve(monkeypatch, refuse)
    with pytest.raises(NetworkError, match=re.escape("https://example.org/x.yaml: no answer: ")):
        find_profile("https://example.org/x.yaml")


def test_a_server_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    class Endless(io.BytesIO):
        def read1(self, *_: Any) -> bytes:
            return b"#"

    with pytest.raises(NetworkError, match="not complete after 10 seconds"):
        remote._read(Endless(), "https://example.org/x.yaml", deadline=10)


# On the hub


def test_a_profile_on_the_hub(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def download(place: HubMirror, **_: Any) -> Path:
        places.append(place)
        return cached

    monkeypatch.setattr(huggingface, "download", download)
    assert find("owner/repo/folder/x.yaml@v1").origin == "owner/repo/folder/x.yaml@v1"
    assert find_profile("owner/repo/x.yml").name == "mine"
    assert places == [
        HubMirror(repo="owner/repo", file="folder/x.yaml", revision="v1"),
        HubMirror(repo="owner/repo", file="x.yml", revision="main"),
    ]


@pytest.mark.parametrize(
    "reference",
    [
        "owner/repo/../x.yaml",
        "owner/repo//x.yaml",
        "../repo/x.yaml",
        "./repo/x.yaml",
        "C:/repo/x.yaml",
        "/owner/repo/x.yaml",
        "owner/repo/x.yaml@../main",
        "owner/repo/x.yaml@",
        "owner/repo/x.gguf",
        "owner/x.yaml",
        "~/repo/x.yaml",
    ],
)
def test_what_is_no_file_on_the_hub_is_not_asked_for(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface, "download", download)
    with pytest.raises(ProfileNotFoundError):
        find_profile(reference)


def test_a_hub_that_fails(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure: Exception = ModelNotFoundError("owner/repo has no such file.")

    def download(place: HubMirror, **_: Any) -> Path:
        raise failure

    monkeypatch.setattr(huggingface, "download", download)
    monkeypatch.setattr(huggingface, "cached_file", lambda _: None)
    with pytest.raises(ProfileNotFoundError, match="owner/repo has no such file"):
        find_profile("owner/repo/x.yaml")
    failure = NetworkError("no answer")
    with pytest.raises(NetworkError):
        find_profile("owner/repo/x.yaml")
    monkeypatch.setattr(huggingface, "cached_file", lambda _: cached)
    assert find_profile("owner/repo/x.yaml").name == "mine"


def test_a_large_file_on_the_hub_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(place: HubMirror, *, progress: Any, **_: Any) -> Path:
        progress.start("Fetching x.yaml", MAX_BYTES + 1)
        raise AssertionError("the download went on")

    monkeypatch.setattr(huggingface, "download", download)
    with pytest.raises(ProfileError, match="larger than 256 KiB"):
        find_profile("owner/repo/x.yaml")
