"""How a person names a model: a local path, `owner/repo:QUANT`, or `owner/repo/file.gguf[@revision]`."""

import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llamaspec.errors import UsageError
from llamaspec.hub.names import is_gguf
from llamaspec.hub.sources import RelativeName, RepoId, Revision

_FORMS = "Name a model as path/to/model.gguf, owner/repo:QUANT or owner/repo/file.gguf[@revision]."
_QUANT_FORM = re.compile(r"(?P<repo>[^/:@]+/[^/:@]+):(?P<quant>[A-Za-z0-9][\w.-]*)(?:@(?P<revision>.+))?")
_FILE_FORM = re.compile(r"(?P<repo>[^/:@]+/[^/:@]+)/(?P<file>.+?\.gguf)(?:@(?P<revision>.+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LocalFile:
    path: Path


@dataclass(frozen=True, slots=True)
class HubFile:
    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class HubQuant:
    repo: str
    quant: str
    revision: str = "main"


Reference = LocalFile | HubFile | HubQuant


def parse_reference(text: str) -> Reference:
    """Read a reference; a file that exists goes before anything it could mean on the hub.

    Raises:
        UsageError: it has none of the forms, or a name that is not safe on every system.
    """
    if not text.strip() or not text.isprintable():
        raise UsageError(f"{text!r} does not name a model.", _FORMS)
    path = expanded(text)
    if path.is_file() or _looks_local(text):
        return LocalFile(path)
    if form := _QUANT_FORM.fullmatch(text):
        repo, revision = _repo_and_revision(text, form)
        return HubQuant(repo, form["quant"], revision)
    if form := _FILE_FORM.fullmatch(text):
        repo, revision = _repo_and_revision(text, form)
        return HubFile(repo, _checked(text, RelativeName, form["file"]), revision)
    raise UsageError(f"{text!r} does not name a model.", _FORMS)


def expanded(text: str) -> Path:
    """A path as a person writes it, `~` being the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~someone who is not known here
        return Path(text)


def _looks_local(text: str) -> bool:
    return (
        text.startswith((".", "~", "/", "\\"))
        or "\\" in text
        or bool(PureWindowsPath(text).drive)
        or (is_gguf(text) and text.count("/") < 2)
    )


def _repo_and_revision(text: str, form: re.Match[str]) -> tuple[str, str]:
    return _checked(text, RepoId, form["repo"]), _checked(text, Revision, form["revision"] or "main")


def _checked(text: str, kind: Any, value: str) -> str:
    try:
        return TypeAdapter[str](kind).validate_python(value)
    except ValidationError:
        raise UsageError(f"{text!r} does not name a model: {value!r} is not valid there.", _FORMS) from None
