"""Chromium, driven by Playwright, on the real page over a fake server."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from fake_page_server import FakeServer

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def unavailable(reason: str) -> None:
    """Skip, or fail where everything has to be there."""
    if os.environ.get("LLAMASPEC_REQUIRE_MODELS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")  # while it is open an event loop runs in this thread: other tests have theirs
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("Playwright is not installed")
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        unavailable("there is no Chromium on the path")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=[*FLAGS, *(["--no-sandbox"] if as_root else [])]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


class Watched:
    """A page, with all that it asked for and all that the browser had against it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(10_000)
        page.on("console", lambda message: self.complaints.append(message.text) if is_bad(message) else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))


def is_bad(message: Any) -> bool:
    """An answer of 4xx or 5xx is logged by the browser too; those the tests bring about themselves."""
    return (
        message.type in ("error", "warning") and "the server responded with a status of" not in message.text
    )


@pytest.fixture
def watched(browser: Any, server: FakeServer) -> Iterator[Watched]:
    """At the end of each test: no complaint of the browser, and no request to elsewhere."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    watched = Watched(context.new_page())
    yield watched
    context.close()
    assert watched.complaints == []
    assert [url for url in watched.requests if not url.startswith((server.url, "data:"))] == []


@pytest.fixture
def page(watched: Watched, server: FakeServer) -> Any:
    """The page, open."""
    watched.page.goto(server.url)
    watched.page.locator("#pair", has_text="big-1.5b").wait_for()
    return watched.page
