"""Commands of ours, as they are typed in this system's shell."""

import shlex
import subprocess
import sys


def command(*arguments: str) -> str:
    """`llamaspec` with these arguments."""
    words = ["llamaspec", *arguments]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
