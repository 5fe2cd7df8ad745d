"""A text written in the user's own editor."""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from llamaspec.cli.interrupt import Interrupt
from llamaspec.cli.prompt import read_text
from llamaspec.errors import UsageError

_WINDOWS = os.name == "nt"
_USUAL = ("notepad",) if _WINDOWS else ("nano", "vim", "vi")


def edited(start: str) -> str:
    """What the user makes of `start`. Raises UsageError where there is no editor, or it fails."""
    words = _editor()
    with tempfile.TemporaryDirectory(prefix="llamaspec-") as folder:
        path = Path(folder) / "message.md"
        path.write_text(start, encoding="utf-8")
        try:
            with Interrupt(patient=True):  # Ctrl-C is the editor's
                done = subprocess.run([*words, str(path)], check=False)
        except OSError as error:
            raise UsageError(
                f"The editor {words[0]} can't be started: {error.strerror}.", "Name another one in $EDITOR."
            ) from error
        if done.returncode:
            raise UsageError(f"The editor {words[0]} failed, and nothing is sent.")
        return read_text(path)


def _editor() -> list[str]:
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        words = [word.strip('"') for word in shlex.split(named, posix=not _WINDOWS)]
    else:
        words = [found for name in _USUAL if (found := shutil.which(name))][:1]
    if not words:
        raise UsageError("There is no editor.", "Name yours in the environment variable EDITOR.")
    return words
