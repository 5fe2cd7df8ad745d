import asyncio
from pathlib import Path
from typing import Any

import pytest
from asking import Recorder, ask, asked, never
from starlette.types import Message, Receive, Scope, Send

from llamaspec.errors import FileMissingError, UsageError
from llamaspec.server.guard import Guard, GuardOptions, check_exposure, is_loopback, read_keys

KEYED = GuardOptions(keys=("sk-first", "sk-second"))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "127.0.0.1:80", "[::1]", "[::1]:8080"],
)
def test_the_loopback_has_its_names(host: str) -> None:
    assert ask(host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "[::2]",
    ],
)
def test_another_host_is_refused_on_every_path(host: str) -> None:
    for path in ("/", "/health", "/v1/models"):
        answer = ask(path=path, host=host)
        assert answer.status == 403
        assert answer.error["type"] == "permission_error"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "a b",
        "user@localhost",
        "localhost:80:80",
        "localhost/x",
        "[::1",
        "[1.2.3.4]",
        "[x]",
        ":80",
        ".",
    ],
)
def test_a_host_that_is_none_is_a_bad_request(host: str | None) -> None:
    assert ask(host=host).status == 400


def test_two_hosts_are_a_bad_request() -> None:
    assert ask(headers=[("host", "localhost")]).status == 400


def test_hosts_that_are_named_are_answered() -> None:
    options = GuardOptions(allowed_hosts=("Box.Example", "192.168.1.7", "fd00:0::5"))
    for host in ("box.example:8080", "192.168.1.7", "[fd00::5]:1", "localhost"):
        assert ask(options, host=host).status == 200
    assert ask(options, host="192.168.1.8").status == 403
    assert ask(GuardOptions(allowed_hosts=("*",)), host="any.example").status == 200


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_bound_to_all_addresses_it_answers_to_addresses_and_not_to_names(bound: str) -> None:
    options = GuardOptions(allowed_hosts=(bound,))
    assert ask(options, host="192.168.1.7:8080").status == 200
    assert ask(options, host="[fd00::5]:8080").status == 200
    assert ask(options, host="evil.example").status == 403


@pytest.mark.parametrize(
    ("host", "origin", "scheme"),
    [
        ("localhost:8080", "http://localhost:8080", "http"),
        ("localhost", "https://localhost", "http"),  # behind a proxy that ends TLS
        ("127.0.0.1:8443", "https://127.0.0.1:8443", "https"),
    ],
)
def test_our_own_page_may_ask(host: str, origin: str, scheme: str) -> None:
    answer = ask(host=host, headers=[("origin", origin)], scheme=scheme)
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


FOREIGN = pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "null",
        "",
        "localhost:8080",
        "ftp://localhost:8080",
    ],
)
PREFLIGHT = [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization")]


@FOREIGN
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_others_are_refused_whatever_they_ask(origin: str, method: str) -> None:
    headers = [("origin", origin), ("content-type", "text/plain")]
    app = Recorder()
    answer = asyncio.run(asked(Guard(app, GuardOptions()), "/health", method=method, headers=headers))
    assert answer.status == 403
    assert app.bodies == []
    assert "access-control-allow-origin" not in answer.headers


@FOREIGN
def test_a_preflight_of_others_is_allowed_nothing(origin: str) -> None:
    app = Recorder()
    headers = [("origin", origin), *PREFLIGHT]
    answer = asyncio.run(asked(Guard(app, GuardOptions()), "/health", method="OPTIONS", headers=headers))
    assert answer.status == 200
    assert app.bodies == []
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_plain_http_is_another_origin_than_ours_with_tls() -> None:
    headers = [("origin", "http://localhost:8080")]
    assert ask(headers=headers, scheme="https").status == 403


def test_two_origins_are_refused() -> None:
    headers = [("origin", "http://localhost:8080")] * 2
    assert ask(headers=headers).status == 403


NAMED = GuardOptions(keys=("sk-first",), allowed_origins=("https://chat.example", "app://notes.md"))


def test_a_named_origin_gets_its_preflight_without_a_key() -> None:
    headers = [
        ("origin", "https://chat.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-stainless-lang"),
        ("access-control-request-private-network", "true"),
    ]
    app = Recorder()
    answer = asyncio.run(asked(Guard(app, NAMED), method="OPTIONS", headers=headers))
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert app.bodies == []


def test_a_named_origin_needs_the_key_and_can_read_the_refusal() -> None:
    headers = [("origin", "app://notes.md")]
    refused = ask(NAMED, headers=headers)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "app://notes.md"
    served = ask(NAMED, headers=[*headers, ("authorization", "Bearer sk-first")])
    assert served.status == 200
    assert served.headers["access-control-allow-origin"] == "app://notes.md"
    assert served.headers["vary"] == "Origin"


def test_every_origin_can_be_named() -> None:
    guard = Guard(Recorder(), GuardOptions(allowed_origins=("*",)))
    origin = ("origin", "https://any.example")
    for method, more in (("POST", []), ("OPTIONS", PREFLIGHT)):
        answer = asyncio.run(asked(guard, method=method, headers=[origin, *more]))
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://any.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["vary"].split(",")[0] == "Origin"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "*"


LOOPBACK = GuardOptions(allowed_origins=("localhost",))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:5173",
        "http://[::1]:80",
        "app://localhost",
    ],
)
def test_origins_of_the_loopback_can_be_named_together(origin: str) -> None:
    answer = ask(LOOPBACK, headers=[("origin", origin)])
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "http://notlocalhost",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://localhost:80x",
        "http://localhost@evil.example",
        "http://127.0.0.1.evil.example",
        "http://127x0x0x1",
        "localhost",
    ],
)
def test_what_is_like_the_loopback_is_another_origin(origin: str) -> None:
    assert ask(LOOPBACK, headers=[("origin", origin)]).status == 403


def test_a_named_origin_is_taken_to_the_letter() -> None:
    assert ask(NAMED, headers=[("origin", "https://chatXexample")]).status == 403


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer sk-first"),
        ("authorization", "bearer  sk-second "),
        ("x-api-key", "sk-second"),
    ],
)
def test_a_key_opens(header: tuple[str, str]) -> None:
    assert ask(KEYED, headers=[header]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer sk-firs")],
        [("authorization", "Bearer sk-first sk-second")],
        [("authorization", "Basic sk-first")],
        [("authorization", "sk-first")],
        [("x-api-key", "")],
        [("x-api-key", "SK-FIRST")],
        [("x-api-key", "sk-first\xff")],
        [("cookie", "x-api-key=sk-first")],
    ],
)
def test_without_a_key_nothing_opens(headers: list[tuple[str, str]]) -> None:
    app = Recorder()
    answer = asyncio.run(asked(Guard(app, KEYED), headers=headers, method="POST", messages=never()))
    assert answer.status == 401
    assert answer.error["type"] == "authentication_error"
    assert answer.error["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert app.bodies == []
    assert b"sk-" not in answer.body


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(offered: bytes, key: bytes) -> bool:
        compared.append(key)
        return offered == key

    monkeypatch.setattr("llamaspec.server.guard.hmac.compare_digest", compare)
    assert ask(KEYED, headers=[("x-api-key", "sk-first")]).status == 200
    assert compared == [b"sk-first", b"sk-second"]


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/health", "/favicon.ico", "/page/app.js", "/page/x/y.css"]
)
def test_health_and_the_page_are_open_to_be_read(path: str) -> None:
    assert ask(KEYED, path).status == 200
    assert ask(KEYED, path, method="HEAD").status == 200
    assert ask(KEYED, path, method="POST").status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/health/",
        "/HEALTH",
        "//health",
        "/page",
        "/pages/x",
        "/page/../slots",
        "/page/a/..",
        "/slots",
        "/metrics",
        "/docs",
        "",
    ],
)
def test_all_else_is_closed(path: str) -> None:
    assert ask(KEYED, path).status == 401


def test_lifespan_passes_and_websockets_do_not() -> None:
    seen: list[str] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    guard = Guard(app, GuardOptions())
    for kind in ("lifespan", "websocket"):
        asyncio.run(guard({"type": kind, "headers": [(b"host", b"localhost")]}, receive, send))
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": ("",)},
        {"keys": ("a b",)},
        {"allowed_hosts": ("localhost:80",)},
        {"allowed_hosts": ("http://box",)},
        {"allowed_hosts": ("",)},
        {"allowed_origins": ("https://chat.example/",)},
        {"allowed_origins": ("chat.example",)},
        {"allowed_origins": ("null",)},
        {"open_folders": ("/",)},
        {"open_folders": ("/page",)},
    ],
)
def test_options_that_could_not_mean_anything_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GuardOptions(**wrong)


def test_keys_come_from_the_flag_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbf# ours\r\n\r\nsk-first\r\n  sk-third  \n")
    assert read_keys(None, None) == ()
    assert read_keys("sk-first, sk-second", path) == ("sk-first", "sk-second", "sk-third")


@pytest.mark.parametrize("key", ["", " ", ",", "sk-first,", "two words", "schlüssel"])
def test_a_key_that_could_not_be_sent_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_keys(key, None)
    assert "sk-" not in caught.value.message


def test_key_files_without_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(FileMissingError):
        read_keys(None, path)
    for content in (b"", b"# none\n\n", b"\xff\xfe", b"two words\n"):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            read_keys(None, path)
    with pytest.raises(UsageError):
        read_keys(None, tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost"])
def test_the_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, (), no_auth=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "box.example", ""])
def test_what_others_can_reach_needs_a_key_or_a_word(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_exposure(host, (), no_auth=False)
    assert "--no-auth" in caught.value.hint
    assert "--api-key" in caught.value.hint
    check_exposure(host, ("sk-first",), no_auth=False)
    check_exposure(host, (), no_auth=True)


def test_no_auth_and_a_key_contradict_each_other() -> None:
    with pytest.raises(UsageError):
        check_exposure("127.0.0.1", ("sk-first",), no_auth=True)
