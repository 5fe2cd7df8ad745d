"""The real models of the shipped profiles, fetched once into the cache."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamaspec.errors import ModelFetchError
from llamaspec.hub.fetch import fetch
from llamaspec.hub.sources import ModelSource
from llamaspec.profiles import find_profile


def _fetched(source: ModelSource) -> Path:
    try:
        return fetch(source).path
    except ModelFetchError as error:
        if os.environ.get("LLAMASPEC_REQUIRE_MODELS") == "1":
            raise
        pytest.skip(f"{source.file} can't be had here: {error.message}")


@dataclass(frozen=True)
class Pair:
    main: Path
    draft: Path


@pytest.fixture(scope="session")
def pair() -> Pair:
    profile = find_profile("qwen2.5-coder-1.5b")
    assert profile.draft is not None
    return Pair(_fetched(profile.main), _fetched(profile.draft))


@pytest.fixture(scope="session")
def small_model() -> Path:
    return _fetched(find_profile("smollm2-135m").main)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def llamaspec() -> Callable[..., Ran]:
    """Run the command line as a user does, in a process of its own."""

    def run(*arguments: str | Path, stdin: str = "") -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "llamaspec", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
