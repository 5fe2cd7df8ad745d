#!/usr/bin/env python3
"""The libraries of the web page, into `llamaspec/server/page/vendor/`: bit for bit what npm's registry has.

Usage: scripts/build_page.py

Each package is fetched with `npm pack` by its exact version and has to have the SHA-512 that is pinned here.
Its files are copied unchanged, with its licence; a second run changes nothing. To update: change a version,
run `npm view NAME@VERSION dist.integrity`, and pin what it says.
"""

import base64
import hashlib
import hmac
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "llamaspec" / "server" / "page" / "vendor"


@dataclass(frozen=True, slots=True)
class Package:
    """`files` maps what we call a file to its path in the package; `integrity` is the SHA-512, in base64."""

    name: str
    version: str
    licence: str
    integrity: str
    files: Mapping[str, str]


PACKAGES = (
    Package(
        "marked",
        "18.2.1",
        "MIT",
        "ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA==",
        {"marked.js": "lib/marked.esm.js", "marked.LICENSE.txt": "LICENSE"},
    ),
    Package(
        "dompurify",
        "3.4.18",
        "MPL-2.0 OR Apache-2.0",
        "ofe3wI/uNm68HInABYFJYqQxRw1EaKAjNdrFVKqjUY+UZurvNd2L/HuQe097s/4RivWiZyP6tT7aoT8atjfhwg==",
        {"dompurify.js": "dist/purify.es.mjs", "dompurify.LICENSE.txt": "LICENSE"},
    ),
)


def main() -> int:
    npm = shutil.which("npm")
    if npm is None:
        print("npm is needed to fetch the libraries: install Node.js.", file=sys.stderr)
        return 1
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        archive = _fetch(npm, package)
        digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
        if not hmac.compare_digest(digest, package.integrity):
            print(f"{package.name} {package.version} is not what was pinned: {digest}.", file=sys.stderr)
            return 1
        files |= _members(archive, package)
    files["VERSIONS.txt"] = _versions(files).encode()
    VENDOR.mkdir(parents=True, exist_ok=True)
    for stale in VENDOR.iterdir():
        if stale.name not in files:
            stale.unlink()
    for name, content in files.items():
        (VENDOR / name).write_bytes(content)
    print(files["VERSIONS.txt"].decode(), end="")
    return 0


def _versions(files: Mapping[str, bytes]) -> str:
    lines = ["Unchanged files of npm packages, written by scripts/build_page.py, with their SHA-256."]
    for package in PACKAGES:
        lines += ["", f"{package.name} {package.version} ({package.licence})"]
        lines += [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in package.files]
    return "\n".join(lines) + "\n"


def _fetch(npm: str, package: Package) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        (archive,) = Path(folder).glob("*.tgz")
        return archive.read_bytes()


def _members(archive: bytes, package: Package) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name, path in package.files.items():
            member = tar.extractfile(f"package/{path}")
            if member is None:
                raise FileNotFoundError(f"{package.name} has no file {path}")
            contents[name] = member.read()
    return contents


if __name__ == "__main__":
    sys.exit(main())
