"""The Python that child processes are run with."""

import sys


def interpreter() -> str:
    """The Python to run. In a Windows virtual environment `sys.executable` only starts the real one."""
    if sys.platform == "win32":
        return str(getattr(sys, "_base_executable", sys.executable))
    return sys.executable
