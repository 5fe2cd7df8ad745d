"""A collection of profiles that somebody could send: each is refused, and says why."""

import socket
import socketserver
import ssl
import threading
import urllib.request
import urllib.response
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hub_fakes import CONTENT, FakeHub, as_the_hub, sha256

from llamaspec.errors import HashMismatchError, NetworkError, ProfileError
from llamaspec.hub.fetch import fetch
from llamaspec.profiles import Profile, find, parse_profile, remote
from llamaspec.profiles.adding import downloads, find_foreign
from llamaspec.profiles.foreign import HOST_KEYS, foreign_problems, leaves

SOUND = "schema: 1\nname: mine\nmain: {repo: owner/name, file: model.gguf}\n"


def with_main(**keys: str) -> str:
    fields = {"repo": "owner/name", "file": "model.gguf"} | keys
    return "schema: 1\nname: mine\nmain:\n" + "".join(f"  {key}: {value}\n" for key, value in fields.items())


def with_wheel(**keys: str) -> str:
    fields = {"package": "p", "version": "'1.0'", "member": "m"} | keys
    wheel = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return with_main(sha256="a" * 64, mirrors=f"[{{wheels: [{{{wheel}}}]}}]")


def bomb() -> str:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    return "l0: &l0 [x, x, x]\n" + layers


COLLECTION: dict[str, tuple[str, str]] = {
    # Names that climb, or that some system reads as something else
    "climbing": (with_main(file="../../.ssh/authorized_keys"), "is not a plain relative file name"),
    "absolute": (with_main(file="/etc/passwd"), "is not a plain relative file name"),
    "drive": (with_main(file="'C:\\Windows\\x.gguf'"), "is not a plain relative file name"),
    "share": (with_main(file="'\\\\host\\share\\x.gguf'"), "is not a plain relative file name"),
    "device": (with_main(file="nul.gguf"), "is not a plain relative file name"),
    "stream": (with_main(file="'x.gguf:y'"), "is not a plain relative file name"),
    "dots within": (with_main(file="a/../../x.gguf"), "is not a plain relative file name"),
    "member": (with_wheel(member="../x"), "is not a plain relative file name"),
    "revision": (with_main(revision="../../main"), "is not a branch, a tag or a commit"),
    "revision within": (with_main(revision="a/../b"), "is not a plain relative file name"),
    "name that climbs": (SOUND.replace("mine", "../mine"), "is not lower-case letters and digits"),
    "name of a device": (SOUND.replace("mine", "con"), "is not a plain relative file name"),
    # Hosts: there is the hub, and the package index
    "repository at an address": (with_main(repo="https://evil.example/x"), "is not owner/name"),
    "repository at a host": (with_main(repo="evil.example:8080/x"), "is not owner/name"),
    "repository that climbs": (with_main(repo="'../x'"), "is not owner/name"),
    "package at an address": (with_wheel(package="'p @ https://evil.example/p.whl'"), "is not the name of a"),
    "package with an option": (with_wheel(package="--index-url"), "is not the name of a package"),
    "version with an address": (with_wheel(version="'1.0 --find-links x'"), "is not one exact version"),
    "version that is none": (with_wheel(version="'>=1'"), "is not one exact version"),
    "host": (SOUND + "server: {host: 0.0.0.0}\n", "server: unknown key"),
    "mirror at an address": (with_main(mirrors="[{url: https://evil.example/x}]"), "url: unknown key"),
    "endpoint": (with_main(endpoint="https://evil.example"), "endpoint: unknown key"),
    "token": (SOUND + "token: abc\n", "token: unknown key"),
    "hook": (SOUND + "on_load: rm -rf ~\n", "on_load: unknown key"),
    "environment": (SOUND + "env: {LD_PRELOAD: x.so}\n", "env: unknown key"),
    # Files of this machine
    "main": (
        "schema: 1\nname: mine\nmain: {path: /etc/passwd}\n",
        "main.path: a profile from elsewhere can't name files of this machine",
    ),
    "draft": (SOUND + "draft: {path: ~/x.gguf}\n", "draft.path: a profile from elsewhere can't name"),
    "corpus": (
        SOUND + "speculation: {corpus: ~/.ssh}\n",
        "speculation.corpus: a profile from elsewhere can't",
    ),
    "both kinds": (with_main(path="/etc/passwd"), "main.path: a profile from elsewhere can't name"),
    # YAML that expands, runs or nests
    "bomb": (bomb(), "anchors and aliases (& and *) are not allowed"),
    "recursion": ("a: &a [*a]\n", "anchors and aliases (& and *) are not allowed"),
    "merge": (SOUND + "x: {<<: *y}\n", "anchors and aliases (& and *) are not allowed"),
    "code": ("a: !!python/object/apply:os.system [id]\n", "tags are not allowed"),
    "module": ("a: !!python/name:os.system ''\n", "tags are not allowed"),
    "binary": ("a: !!binary aGk=\n", "tags are not allowed"),
    "include": ("a: !include /etc/passwd\n", "tags are not allowed"),
    "deep": ("a: " + "[" * 100_000, "nested too deeply"),
    "deep mappings": ("a: " + "{a: " * 50_000, "nested too deeply"),
    "many keys": ("".join(f"k{n}:\n" for n in range(20_000)), "too many values"),
    "many documents": (SOUND + "---\n" + SOUND, "expected a single document"),
    "large": ("#" * 300_000, "larger than 256 KiB"),
    "twice": (SOUND + "name: other\n", "name: given twice"),
    "merge key": (SOUND + "'<<': {main: 1}\n", "<<: unknown key"),
    # Numbers
    "large size": (with_main(size="9" * 20), "is above"),
    "endless size": (with_main(size="9" * 100_000), "must be a whole number"),
    "negative size": (with_main(size="-1"), "is below 1"),
    "context": (SOUND + "runtime: {ctx_size: 99999999999}\n", "is above"),
    "threads": (SOUND + "runtime: {threads: 1000000}\n", "is above 1024"),
    "infinity": (SOUND + "sampling: {temperature: .inf}\n", "must be a finite number"),
    "overflow": (SOUND + "sampling: {temperature: 1e999}\n", "must be a finite number"),
    "sexagesimal": (SOUND + "runtime: {ctx_size: 1:30:00}\n", "must be a whole number"),
    "hexadecimal": (SOUND + "runtime: {ctx_size: 0x7fffffff}\n", "must be a whole number"),
    "other digits": (SOUND + "runtime: {ctx_size: ٤٠٩٦}\n", "must be a whole number"),
    "other version": (SOUND.replace("schema: 1", "schema: 2"), "schema: must be 1"),
    "a switch as version": (SOUND.replace("schema: 1", "schema: true"), "schema: must be the whole number 1"),
    "a fraction as version": (
        SOUND.replace("schema: 1", "schema: 1.0"),
        "schema: must be the whole number 1",
    ),
    # Unicode
    "homoglyph in the name": (SOUND.replace("mine", "min\u0435"), "is not lower-case letters and digits"),
    "homoglyph in the owner": (with_main(repo="Qw\u0435n/name"), "is not owner/name"),
    "full width": (with_main(repo="owner/n\uff41me"), "is not owner/name"),
    "reversed file": (with_main(file='"model\\u202Efugg.gguf"'), "hides or reorders text: U+202E"),
    "zero width": (with_main(file='"model\\u200B.gguf"'), "hides or reorders text: U+200B"),
    "isolate": (SOUND + 'description: "a \\u2066b"\n', "hides or reorders text: U+2066"),
    "hidden instructions": (
        SOUND + 'chat: {system: "Be kind.\\U000E0049\\U000E0067"}\n',
        "chat.system: holds a character that hides or reorders text: U+E0049",
    ),
    "escape sequence": (SOUND + 'description: "\\e[2J"\n', "must be one line of printable text"),
    "line feed in a name": (with_main(repo='"owner/name\\n"'), "is not owner/name"),
    "null": (with_main(file='"a\\0.gguf"'), "is not a plain relative file name"),
    "half a character": (SOUND + 'description: "\\uD800"\n', "half a character"),
    "key with an escape": (SOUND + '"\\e[2Jx": 1\n', "\\x1b[2Jx: unknown key"),
    # Hashes
    "short hash": (with_main(sha256="abc123"), "is not 64 lower-case hexadecimal digits"),
    "hash that is a path": (with_main(sha256="../" * 21 + "x"), "is not 64 lower-case hexadecimal digits"),
    "upper case": (with_main(sha256="A" * 64), "is not 64 lower-case hexadecimal digits"),
    "wheel without": (
        with_main(mirrors="[{wheels: [{package: p, version: '1.0', member: m}]}]"),
        "a wheel mirror needs the file's sha256",
    ),
}


@pytest.mark.parametrize(("text", "reason"), COLLECTION.values(), ids=COLLECTION)
def test_it_is_refused_with_its_reason(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(ProfileError) as caught:
        find_foreign(str(path))
    assert reason in caught.value.message
    told = caught.value.message.replace("\n", "")
    assert told.isprintable() and len(told) < 10_000


def test_what_is_not_hostile_is_taken(tmp_path: Path) -> None:
    text = SOUND + 'chat: {system: "\u0645\u06cc\\u200c\u062e, \U0001f469\\u200d\U0001f4bb"}\n'
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert find_foreign(str(tmp_path / "x.yaml")).origin == "x.yaml"


# Keys that act on this machine


def keys_of(schema: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a profile can have, by its JSON schema."""

    def properties(part: dict[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        inner = [*part.get("anyOf", ()), *part.get("oneOf", ())]
        if "items" in part:
            inner.append(part["items"])
        for name, value in part.get("properties", {}).items():
            yield from properties(value, (*at, name))
        for each in inner:
            yield from properties(each, at)
        if not inner and "properties" not in part:
            yield at

    return properties(schema, at)


REVIEWED = {
    "": "schema name description license origin",
    "main": "repo file revision sha256 size path",
    "main.mirrors": "repo file revision",
    "main.mirrors.wheels": "package version member",
    "speculation": "mode drafters corpus draft_max draft_min p_min",
    "runtime": "ctx_size ctx_size_draft gpu_layers gpu_layers_draft device threads threads_batch flash_attn "
    "cache_type_k cache_type_v batch_size ubatch_size",
    "sampling": "n_predict temperature top_k top_p min_p repeat_penalty repeat_last_n presence_penalty "
    "frequency_penalty seed ignore_eos stop",
    "chat": "system template",
}


def test_every_key_has_been_looked_at_for_what_it_does_to_this_machine() -> None:
    """A new key belongs into `HOST_KEYS` if it names a file, a host, a port or a secret; then in here."""
    reviewed = {f"{section}.{key}".lstrip(".") for section, keys in REVIEWED.items() for key in keys.split()}
    reviewed |= {key.replace("main.", "draft.", 1) for key in reviewed if key.startswith("main.")}
    keys = {
        ".".join(key) for key in keys_of(Profile.model_json_schema(by_alias=True)) if key[0] != "provenance"
    }
    assert keys - {"draft"} == reviewed  # what is left of `draft: null`
    assert {".".join(map(str, key)) for key in HOST_KEYS} <= reviewed


def test_a_profile_that_was_added_stays_somebodys(tmp_path: Path) -> None:
    text = SOUND + "origin: https://example.org/x.yaml\nspeculation: {corpus: /etc}\n"
    with pytest.raises(
        ProfileError, match=r"speculation\.corpus: a profile from elsewhere can't name"
    ) as caught:
        parse_profile(text.encode(), "mine.yaml")
    assert "without its origin" in caught.value.hint
    own = text.replace("origin: https://example.org/x.yaml\n", "")
    assert parse_profile(own.encode(), "mine.yaml").speculation.corpus == "/etc"


def test_every_value_is_looked_at() -> None:
    data = {"a": [{"b": "x\u202e"}, "y"], "main": {"path": "x"}}
    assert dict(leaves(data)) == {("a", 0, "b"): "x\u202e", ("a", 1): "y", ("main", "path"): "x"}
    assert [key for key, _ in foreign_problems(data)] == [("a", 0, "b"), ("main", "path")]


# Hashes


@pytest.mark.parametrize("promise", [{"sha256": "b" * 64}, {"size": 5}])
def test_a_wrong_promise_is_found_out_before_and_after(
    promise: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_the_hub(FakeHub({"owner/name": {"model.gguf": CONTENT}}), tmp_path, monkeypatch):
        data = {"schema": 1, "name": "x", "main": {"repo": "owner/name", "file": "model.gguf", **promise}}
        profile = Profile.model_validate(data)
        with pytest.raises(HashMismatchError, match="is not the file that was promised"):
            downloads(profile)
        with pytest.raises(HashMismatchError, match="is not the file that was promised"):
            fetch(profile.main)


@pytest.mark.parametrize("promise", [f"sha256: {'b' * 64}", "size: 5"])
def test_a_local_file_must_be_the_one_that_was_measured(promise: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    text = f"schema: 1\nname: x\nmain: {{path: '{tmp_path / 'm.gguf'}', {promise}}}\n"
    with pytest.raises(HashMismatchError, match="is not the file that the profile names"):
        fetch(parse_profile(text.encode(), "x").main)
    right = text.replace(promise, f"sha256: {sha256(CONTENT)}, size: {len(CONTENT)}")
    assert fetch(parse_profile(right.encode(), "x").main).path == tmp_path / "m.gguf"


# Addresses


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Resolve these names alone, and connect to nothing; what was connected to."""
    reached: list[str] = []

    def getaddrinfo(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in names[host]
        ]

    def connect(place: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        reached.append(place[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", connect)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return reached


PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::1", "::", "fc00::1", "fd12::1", "fe80::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1"),
    *("64:ff9b::a00:1", "2002:7f00:1::1", "64:ff9b:1::1", "fec0::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = resolving(
        monkeypatch, {"inner.example": [address], "mixed.example": ["93.184.216.34", address]}
    )
    for host in ("inner.example", "mixed.example"):
        with pytest.raises(ProfileError) as caught:
            find(f"https://{host}/x.yaml")
        assert caught.value.message == f"{host} leads to {address}, which is no public address"
    assert reached == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:7f00:1]"])
def test_neither_are_they_in_any_writing(host: str) -> None:
    with pytest.raises((ProfileError, NetworkError), match=r"no public address|no answer"):
        find(f"https://{host}:9/x.yaml")


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = resolving(monkeypatch, {"example.org": ["93.184.216.34", "2606:4700::1", *["8.8.8.8"] * 9]})
    with pytest.raises(NetworkError, match="no answer"):
        find("https://example.org/x.yaml")
    assert reached == ["93.184.216.34", "2606:4700::1", "8.8.8.8", "8.8.8.8"]


def test_the_certificate_is_that_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"example.org": ["93.184.216.34"]})
    ours, theirs = socket.socketpair()
    named = []

    def wrap(self: ssl.SSLContext, sock: socket.socket, server_hostname: str) -> None:
        named.append((sock, server_hostname, self.check_hostname, self.verify_mode))
        raise ssl.SSLCertVerificationError("not theirs")

    monkeypatch.setattr(socket, "create_connection", lambda *_: ours)
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    with ours, theirs, pytest.raises(NetworkError, match="not theirs"):
        find("https://example.org/x.yaml")
    assert named == [(ours, "example.org", True, ssl.CERT_REQUIRED)]


@pytest.mark.parametrize("target", ["https://10.0.0.1/x.yaml", "https://inner.example/x.yaml"])
def test_a_redirect_is_held_to_the_same(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = resolving(monkeypatch, {"10.0.0.1": ["10.0.0.1"], "inner.example": ["192.168.0.1"]})

    class Redirecting(remote.PublicHttps):
        def https_open(self, req: urllib.request.Request) -> Any:
            if req.host != "example.org":
                return super().https_open(req)
            message = Message()
            message["Location"] = target
            response = urllib.response.addinfourl(None, message, req.full_url, 302)  # type: ignore[arg-type]
            response.msg = ""  # type: ignore[attr-defined]
            response.read = lambda: b""  # type: ignore[attr-defined]
            response.close = lambda: None  # type: ignore[method-assign]
            return response

    opener = urllib.request.build_opener(remote.HttpsRedirects, Redirecting)
    monkeypatch.setattr(remote, "build_opener", lambda: opener)
    with pytest.raises(ProfileError, match="which is no public address"):
        find("https://example.org/x.yaml")
    assert reached == []


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where a proxy on this machine, which refuses everything, is asked to connect to."""
    asked: list[str] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().split()[1])
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 403 \x1b[2JForbidden\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield asked
        server.shutdown()
        thread.join()


def test_a_proxy_is_used_where_there_is_one_and_asked_for_public_addresses_alone(proxy: list[str]) -> None:
    with pytest.raises(NetworkError) as caught:
        find("https://known-to-the-proxy-alone.invalid/x.yaml")
    assert caught.value.message.isprintable()
    assert proxy == ["known-to-the-proxy-alone.invalid:443"]
    with pytest.raises(ProfileError, match=r"10\.0\.0\.1, which is no public address"):
        find("https://10.0.0.1/x.yaml")
    assert len(proxy) == 1
