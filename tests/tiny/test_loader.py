"""Loading a pair, and what is left of it."""

import threading
from pathlib import Path

import pytest
from gguf_files import tiny_llama

from llamaspec.session import load


def test_prices_are_measured_by_a_thread_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lives on would keep its OpenMP threads, and slow down whoever decodes."""
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    threads = []
    monkeypatch.setattr(
        "llamaspec.engine.loader.calibrate", lambda *of: threads.append(threading.current_thread())
    )
    model = str(tiny_llama(tmp_path / "main.gguf"))
    runtime = {"ctx_size": 256, "threads": 1, "device": "cpu"}
    with load(main=model, settings={"runtime": runtime, "speculation": {"mode": "auto"}}):
        (thread,) = threads
        assert thread is not threading.current_thread()
        assert not thread.is_alive()
