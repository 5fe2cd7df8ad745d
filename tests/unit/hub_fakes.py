"""A package index in a folder and a hub on this machine, with models of a few kilobytes."""

import hashlib
import json
import random
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llamaspec.hub.sources import ModelSource, WheelMirror, WheelPart

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = random.Random(1).randbytes(300_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, part: WheelPart, content: bytes) -> Path:
    stem = part.package.replace("-", "_")
    path = folder / f"{stem}-{part.version}-py3-none-any.whl"
    info = f"{stem}-{part.version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(part.member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def wheel_source(folder: Path, content: bytes = CONTENT, parts: int = 3, **changes: object) -> ModelSource:
    """A source whose wheels lie in `folder`, and whose file of record nobody has."""
    wheels = tuple(
        WheelPart(
            package=f"tiny-model-part{n}", version="1.0.0", member=f"tiny_model_part{n}/data/part{n:02}.bin"
        )
        for n in range(1, parts + 1)
    )
    step = -(-len(content) // parts)
    for n, part in enumerate(wheels):
        write_wheel(folder, part, content[n * step : (n + 1) * step])
    return ModelSource(
        repo="owner/absent",
        file="tiny.gguf",
        sha256=sha256(content),
        size=len(content),
        mirrors=(WheelMirror(wheels=wheels),),
    ).model_copy(update=changes)


@dataclass
class FakeHub:
    """`files` by repository and name; `requests` as they came; `damage` sends other bytes than announced."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    licences: dict[str, str] = field(default_factory=dict)
    etags: bool = True
    damage: bool = False
    status: int | None = None


@contextmanager
def serving(hub: FakeHub) -> Iterator[str]:
    """The address of a server with huggingface_hub's routes for metadata, files and listings."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            return

        def _answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.status:
                return self._fail(hub.status, "")
            parts = self.path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                return self._list("/".join(parts[2:4]))
            repo, file = "/".join(parts[:2]), "/".join(parts[4:])
            if repo in hub.gated:
                return self._fail(403, "GatedRepo")
            if repo not in hub.files:
                return self._fail(401, "RepoNotFound")
            if parts[3] not in ("main", COMMIT):
                return self._fail(404, "RevisionNotFound")
            if (content := hub.files[repo].get(file)) is None:
                return self._fail(404, "EntryNotFound")
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(content) if hub.etags else "an-etag"}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(bytes(len(content)) if hub.damage else content)

        def _list(self, repo: str) -> None:
            if repo not in hub.files:
                return self._fail(401, "RepoNotFound")
            siblings = [
                {
                    "rfilename": name,
                    "size": len(content),
                    "lfs": {"size": len(content), "sha256": sha256(content), "pointerSize": 100},
                }
                for name, content in hub.files[repo].items()
            ]
            card = {"license": hub.licences[repo]} if repo in hub.licences else {}
            body = json.dumps({"id": repo, "sha": COMMIT, "cardData": card, "siblings": siblings}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def as_the_hub(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """`hub` in place of the real one, with empty caches in `folder`."""
    from huggingface_hub import close_session, constants

    monkeypatch.setenv("LLAMASPEC_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    with serving(hub) as address:
        point_at(address, monkeypatch)
        yield hub
        close_session()
