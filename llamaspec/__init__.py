"""llamaspec: speculative decoding over llama.cpp that measures what it earns.

import llamaspec

with llamaspec.load("qwen2.5-coder-1.5b") as llm:
    for event in llm.chat("Write a quick sort in Python"):
        print(event.text, end="")
    print(llm.stats.acceptance_rate)
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaspec.session import Session, load

try:
    __version__ = version("llamaspec")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Session", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Loading the engine pulls in NumPy and the native library: only when it is asked for.
    if name in ("Session", "load"):
        from llamaspec import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
