"""What must not be seen by others: credentials anywhere, and in a bundle who and where this is."""

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_IN_ADDRESS = re.compile(r"(?<=://)[^/\s]+@")  # up to the last one: passwords may have it, too
# Whose host everybody knows; of other addresses all is left out: an index or a mirror of one's employer's.
_PUBLIC = r"(?:[\w-]+\.)*(?:huggingface\.co|pypi\.org|pythonhosted\.org|python\.org|github\.com)(?!\.?[\w-])"
_OWN_ADDRESS = re.compile(rf"""(?<=://)(?!{_PUBLIC})[^\s'"`<>]+""")
_OWN_HOST = re.compile(rf"(?<=://)(?!{_PUBLIC})[\w-]+(?:\.[\w-]+)+")
_TOKEN = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|pypi-|Bearer\s+)[\w.-]{8,}")
_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|AUTH|CREDENTIAL", re.IGNORECASE)
# What follows in a path: up to a space, and over spaces to a word that can only be a part of a path.
_WORD = r"""[^\s'"`,;:()<>|]*"""
_REST = rf"""{_WORD}(?:(?:\ [^\s'"`,;:()<>|\\/]+){{0,3}}\ {_WORD}(?:[\\/]{_WORD}|\.(?:gguf|ya?ml|json)))*"""
_ABSOLUTE = re.compile(rf"(?<![\w:/.)~-])~?/(?=[^\s/]){_REST}|(?<!\w)(?:[A-Za-z]:[\\/]|\\\\){_REST}")
_SHORTEST = 6  # characters of a secret that is looked for in texts

# What the environment may show of a setting: numbers and the words of our own options.
_PLAIN = re.compile(
    r"[-+]?\d+(?:\.\d+)?|auto|all|on|off|true|false|yes|no|fixed|cpu|cuda|metal|vulkan|rocm"
    r"|(?:model|ngram|corpus|cascade)(?:,(?:model|ngram|corpus|cascade))*|b?f16|f32|q[458]_[01]|iq4_nl",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """`text` without the user and password of an address, and without what looks like a token."""
    return _TOKEN.sub("(secret)", _IN_ADDRESS.sub("", text))


def shared_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that set something of llamaspec or the hub. Values that could be anything stay here."""
    return {
        name: value if _PLAIN.fullmatch(value) and not _SECRET_NAME.search(name) else "(set)"
        for name, value in sorted(environment.items())
        if name.startswith(("LLAMASPEC_", "HF_HUB_"))
    }


class Scrubber:
    """Takes out of texts who and where this is: folders, names of user and host, secrets."""

    def __init__(self, words: Mapping[str, str], folders: Mapping[str, str]) -> None:
        """What to write for a text, whichever its case; for a folder also in place of what is in it."""
        self._stand_ins = {text.lower(): stand_in for text, stand_in in {**words, **folders}.items()}
        # A part of another word is not the word: a user may be called `al`.
        self._words = re.compile(rf"(?<![^\W_]){_any_of(words)}(?![^\W_])", re.IGNORECASE)
        self._folders = re.compile(
            rf"(?<![^\W_])({_any_of(folders)})(?![^\W_])(?:[\\/]{_REST})?", re.IGNORECASE
        )

    @classmethod
    def of_this_machine(cls) -> "Scrubber":
        names = dict.fromkeys(_hosts(), "(host)") | dict.fromkeys(_users(), "(user)")
        folders = {form: stand_in for path, stand_in in _folders().items() for form in _forms(path)}
        secrets = {
            value: "(secret)"
            for name, value in os.environ.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST
        }
        return cls(names | secrets, folders)

    def text(self, text: str) -> str:
        text = self._folders.sub(lambda found: self._stand_ins[found[1].lower()], without_credentials(text))
        text = _ABSOLUTE.sub("(path)", _OWN_ADDRESS.sub("(address)", text))
        return self._words.sub(lambda found: self._stand_ins[found[0].lower()], text)

    def data(self, value: Any) -> Any:
        """Of a tree of mappings and sequences the same with all its texts scrubbed, but for the keys."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {key: self.data(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.data(inner) for inner in value]
        return value


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for the longest of them."""
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)"


def _users() -> Iterator[str]:
    with suppress(Exception):  # no such user: KeyError, OSError or ImportError by system and release
        yield getpass.getuser()
    yield from (
        os.environ[name] for name in ("USER", "USERNAME", "LOGNAME", "SUDO_USER") if name in os.environ
    )
    with suppress(RuntimeError):
        yield Path.home().name


def _hosts() -> Iterator[str]:
    for host in (platform.node(), os.environ.get("HOSTNAME", ""), os.environ.get("COMPUTERNAME", "")):
        if host and host != "localhost":
            yield host
            yield host.partition(".")[0]
    for value in os.environ.values():  # proxies and mirrors
        yield from _OWN_HOST.findall(without_credentials(value))


def _folders() -> dict[str, str]:
    """Folders with what they are, and those that the environment names."""
    paths = {
        part: "(path)"
        for value in os.environ.values()
        for part in value.split(os.pathsep)
        if len(Path(part).parts) > 1 and Path(part).is_absolute()
    }
    paths |= {sys.prefix: "(environment)", sys.base_prefix: "(Python)", tempfile.gettempdir(): "(temporary)"}
    paths |= {sys.executable: "(python)", str(Path.cwd()): "(current folder)"}
    with suppress(RuntimeError):
        paths[str(Path.home())] = "(home)"
    return paths


def _forms(path: str) -> set[str]:
    """A path as it is, as other programs write it, and as it stands in a quoted text."""
    bare = path.rstrip("/\\")
    return {bare, bare.replace("\\", "/"), bare.replace("\\", "\\\\")}
