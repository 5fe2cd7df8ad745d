"""llamaspec: speculative decoding over llama.cpp that measures what it earns.

For programs: `load` a pair, iterate over what `chat` or `complete` yield, read `stats`, `close`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaspec.session import Session, load

    __version__: str

__all__ = ["Session", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # What is slow to import is imported when it is asked for: the engine pulls in the native library.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("llamaspec")
        except PackageNotFoundError:  # a source tree that was never installed
            return "0+unknown"
    if name in ("Session", "load"):
        from llamaspec import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
