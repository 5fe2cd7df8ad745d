"""The live view, the keyboard, widths and colours."""

import base64
from typing import Any

import pytest
from fake_page_server import FakeServer

FOCUSED = """() => {
  const each = document.activeElement;
  return each.id || each.getAttribute("aria-label") || each.textContent;
}"""


def answered(page: Any) -> None:
    page.get_by_label("Your message").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Retry").wait_for()


def test_the_live_view_tells_what_speculation_earns(page: Any) -> None:
    assert page.locator("#speed strong").inner_text() == "1.60×"
    names = page.get_by_role("img").evaluate_all("all => all.map((each) => each.getAttribute('aria-label'))")
    assert names == [
        "Tokens per second. now: 24.1 tok/s, plain: 15.0 tok/s",
        "Acceptance by position, in percent. 1: 95, 2: 88, 3: 81, 4: 72, 5: 60",
        "Rounds by draft length. 0: 12, 1: 0, 2: 5, 3: 0, 4: 30, 5: 0, 6: 0, 7: 0, 8: 9",
        "KV cache. KV cells: 300 of 4096",
    ]
    assert "1 of 2 busy, 2 of 64 queued" in page.locator("#slots").inner_text()
    assert page.locator("#history tbody tr").count() == 7


def test_the_live_view_follows_the_server(page: Any, server: FakeServer) -> None:
    speed = {"tokens_per_second": None, "plain_tokens_per_second": None, "estimated_speedup": None}
    server.stats = {
        **server.stats,
        "draft_model": None,
        "speed": speed,
        "acceptance_rate": None,
        "acceptance_per_position": [],
        "draft_lengths": {},
        "drafters": {},
        "history": [],
    }
    page.get_by_text("Nothing drafted yet.").wait_for()
    assert page.locator("#speed strong").inner_text() == "–"
    assert page.locator("#pair").inner_text() == "big-1.5b · auto"


def test_it_asks_nothing_while_nobody_can_see_it(watched: Any, server: FakeServer) -> None:
    page = watched.page
    page.clock.install()
    page.goto(server.url)
    page.locator("#pair", has_text="big-1.5b").wait_for()
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, value: true})")
    page.clock.run_for(2_000)
    asked = len(watched.requests)
    page.clock.run_for(30_000)
    assert len(watched.requests) == asked
    with page.expect_request("**/stats"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_server_that_is_gone_is_told(watched: Any, page: Any) -> None:
    page.route("**/stats", lambda route: route.abort())
    page.get_by_text("The server can't be reached.").wait_for()
    page.unroute("**/stats")
    page.locator("#connection:empty").wait_for(state="attached")
    watched.complaints = [text for text in watched.complaints if "ERR_FAILED" not in text]


def test_by_keyboard_alone(page: Any, server: FakeServer) -> None:
    assert page.evaluate(FOCUSED) == "prompt"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED) == "Skip to the prompt"
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "prompt"
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Retry").wait_for()
    assert server.bodies[0]["messages"][0]["content"] == "First line\nsecond"
    assert page.evaluate(FOCUSED) == "prompt"

    for name in ("Retry", "Copy", "By token"):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate(FOCUSED) == name
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED).startswith("Tokens of the answer")
    tip = page.get_by_role("tooltip")
    assert '"Speculative"' in tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert '" decoding"' in tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert "round 2" in tip.inner_text()
    page.keyboard.press("End")
    active = page.locator(".tokens").get_attribute("aria-activedescendant")
    told = page.locator(f"[id='{active}']").get_attribute("aria-label")
    assert told == '"- two", the main model\'s own, probability 93 %, round 4'
    page.keyboard.press("Escape")
    assert tip.is_hidden()

    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
    order = ["By token", "Copy", "Retry", "prompt", "clear", "compare", "send", "Last requests", "system"]
    assert [name for name in seen if name in order] == order
    outlines = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outlines == "solid", "the focus is seen"


def test_every_control_has_a_name(page: Any) -> None:
    answered(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, section, aside")]
          .filter((each) => !(each.labels?.length || each.textContent.trim()
            || each.getAttribute("aria-label") || each.getAttribute("aria-labelledby")))
          .map((each) => each.outerHTML)"""
    )
    assert nameless == []


WIDE = "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n|" + " column |" * 30 + "\n|" + " --- |" * 30


@pytest.mark.parametrize("width", [320, 360, 900, 1200, 1500])
def test_no_width_overflows(watched: Any, server: FakeServer, width: int) -> None:
    server.answer = [(WIDE, "model")]
    page = watched.page
    page.set_viewport_size({"width": width, "height": 740})
    page.goto(server.url)
    page.locator("#speed svg").wait_for(state="attached")
    answered(page)
    inner = """() => ["html", "#scroll"]
      .map((name) => document.querySelector(name))
      .map((each) => each.scrollWidth - each.clientWidth)"""
    assert page.evaluate(inner) == [0, 0]
    page.get_by_role("button", name="By token").click()
    assert page.evaluate(inner) == [0, 0]
    for view in ("Live", "Settings", "Chat"):
        choice = page.get_by_role("button", name=view, exact=True)
        if choice.is_visible():
            choice.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_role("button", name="Send").is_visible()


def test_on_a_phone_one_view_at_a_time(watched: Any, server: FakeServer) -> None:
    page = watched.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.url)
    for view in ("live", "settings", "chat"):
        page.locator(f"nav [data-view={view}]").click()
        shown = [each for each in ("chat", "live", "settings") if page.locator(f"#{each}").is_visible()]
        assert shown == [view]
        assert page.locator(f"nav [data-view={view}]").get_attribute("aria-pressed") == "true"


def test_beside_the_chat_is_what_was_chosen(watched: Any, server: FakeServer) -> None:
    page = watched.page
    page.set_viewport_size({"width": 1000, "height": 740})
    page.goto(server.url)
    assert page.get_by_role("button", name="Chat", exact=True).is_hidden()
    for view, other in (("live", "settings"), ("settings", "live"), ("live", "settings")):
        page.locator(f"nav [data-view={view}]").click()
        assert page.locator("#chat").is_visible()
        assert page.locator(f"#{view}").is_visible()
        assert page.locator(f"#{other}").is_hidden()
        assert page.locator("nav [aria-pressed=true]").get_attribute("data-view") == view
    page.set_viewport_size({"width": 360, "height": 740})
    page.locator("body[data-view=chat]").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1400, 900), (360, 740)])
def test_the_page_draws(watched: Any, server: FakeServer, scheme: str, size: tuple[int, int]) -> None:
    page = watched.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(server.url)
    page.locator("#speed svg").wait_for(state="attached")
    answered(page)
    page.get_by_role("button", name="By token").click()
    seen = picture(page.context.new_page(), page.screenshot())
    assert (seen["width"], seen["height"]) == size
    assert seen["colours"] > 100, "more than an empty ground"
    assert seen["ground"] > 200 if scheme == "light" else seen["ground"] < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_text(watched: Any, server: FakeServer, scheme: str) -> None:
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    page.goto(server.url)
    colours = page.evaluate(
        """(names) => Object.fromEntries(names.map(
          (name) => [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)]))""",
        ["ground", "raised", "sunken", "text", "soft", "accent", "on-accent", "problem"],
    )
    for text in ("text", "soft", "accent", "problem"):
        for ground in ("ground", "raised", "sunken"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """By WCAG 2.2, of colours as `#rrggbb`."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour.strip()[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def picture(other: Any, png: bytes) -> dict[str, int]:
    """Of a PNG, read by a page of its own: size, number of colours, and the commonest red (0 to 255)."""
    result: dict[str, int] = other.evaluate(
        """async (source) => {
          const image = new Image();
          image.src = source;
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
          canvas.drawImage(image, 0, 0);
          const pixels = new Uint32Array(canvas.getImageData(0, 0, image.width, image.height).data.buffer);
          const counts = new Map();
          for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
          const [ground] = [...counts].reduce((best, each) => (each[1] > best[1] ? each : best));
          return { width: image.width, height: image.height, colours: counts.size, ground: ground & 255 };
        }""",
        f"data:image/png;base64,{base64.b64encode(png).decode()}",
    )
    return result
