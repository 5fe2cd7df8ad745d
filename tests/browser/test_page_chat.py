"""A conversation on the page: streaming, marks, stop, retry, comparison, key, hostile answers."""

import re
from typing import Any

import pytest
from fake_page_server import STORY, FakeServer, problem

TEXT = "".join(text for text, _ in STORY)


def say(page: Any, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def wait_for_end(page: Any) -> None:
    page.get_by_role("button", name="Retry").wait_for()


def test_an_answer_streams_and_becomes_markdown(page: Any, server: FakeServer) -> None:
    say(page, "What is it?")
    wait_for_end(page)
    assert page.locator(".prose strong").inner_text() == "fast"
    assert page.locator(".prose li").all_inner_texts() == ["one", "two"]
    figures = page.locator(".figures").inner_text()
    assert "24.0 tok/s" in figures
    assert "11 tokens" in figures
    assert "8 drafted, 6 kept (75 %)" in figures
    assert "1.60× plain" in figures
    (body,) = server.bodies
    assert body == {
        "model": "big-1.5b",
        "messages": [{"role": "user", "content": "What is it?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "token_details": True,
    }


def test_tokens_tell_who_drafted_them(page: Any) -> None:
    say(page, "Hello")
    wait_for_end(page)
    assert page.locator(".tokens").is_hidden()
    page.get_by_role("button", name="By token").click()
    assert page.locator(".prose").is_hidden()
    tokens = page.locator(".tokens .token")
    assert tokens.evaluate_all("all => all.map((each) => each.textContent)") == [text for text, _ in STORY]
    marks = tokens.evaluate_all("all => all.map((each) => /draft-(\\w+)/.exec(each.className)?.[1] ?? null)")
    assert marks == [drafter for _, drafter in STORY]
    lines = {
        name: page.locator(f".tokens .draft-{name}").first.evaluate(
            "each => getComputedStyle(each).textDecorationStyle"
        )
        for name in ("model", "ngram", "corpus")
    }
    assert len(set(lines.values())) == 3, "told by more than colour"
    legend = page.locator(".answer .legend").inner_text()
    assert re.sub(r"\s+", " ", legend) == "main model 5 draft model 3 n-gram 2 corpus 1"


def test_text_is_cut_by_its_tokens_as_far_as_they_go(page: Any) -> None:
    def detail(text: str, drafter: str | None) -> dict[str, Any]:
        return {"text": text, "drafter": drafter, "round": 1, "probability": 0.5}

    cut = page.evaluate(
        """async (cases) => {
          const { TokenView } = await import("/page/tokens.js");
          return cases.map(([text, details]) => {
            const view = new TokenView();
            view.add(text, details);
            return view.tokens.map((each) => [each.text, each.drafter]);
          });
        }""",
        [
            ["one two", [detail("one", "model"), detail(" two", None)]],
            ["é!", [detail("\ufffd", "model"), detail("\ufffd!", None)]],
            ["end", [detail("end", "ngram"), detail("<|im_end|>", None)]],
            ["bare", []],
        ],
    )
    assert cut == [
        [["one", "model"], [" two", None]],
        [["é!", "model"]],
        [["end", "ngram"]],
        [["bare", None]],
    ]


def test_a_hover_tells_probability_and_round(page: Any) -> None:
    say(page, "Hello")
    wait_for_end(page)
    page.get_by_role("button", name="By token").click()
    tip = page.get_by_role("tooltip")
    page.locator(".tokens .token").nth(4).hover()
    assert tip.inner_text().splitlines() == [
        '"fast"',
        "drafted by the n-gram, confirmed",
        "probability 93 %",
        "round 2",
    ]
    page.locator(".tokens .token").nth(0).hover()
    assert "the main model's own" in tip.inner_text()
    page.get_by_label("Your message").hover()
    assert tip.is_hidden()


def test_marks_are_seen_while_it_streams_and_stop_ends_it(page: Any, server: FakeServer) -> None:
    server.hold_after = 5
    say(page, "Go on for ever")
    page.locator(".tokens .draft-ngram").wait_for()
    assert page.get_by_role("button", name="Send").is_disabled()
    page.get_by_role("button", name="Stop").click()
    wait_for_end(page)
    assert server.left.wait(10), "the server is told"
    assert page.locator(".figures").inner_text() == "stopped"
    assert page.locator(".prose").inner_text().startswith("Speculative decoding is")
    server.hold_after = None
    say(page, "And then?")
    page.locator(".turn").nth(1).get_by_role("button", name="Retry").wait_for()
    roles = [(each["role"], each["content"]) for each in server.bodies[1]["messages"]]
    assert roles == [
        ("user", "Go on for ever"),
        ("assistant", "Speculative decoding is **fast"),
        ("user", "And then?"),
    ]


def test_retry_asks_the_same_again_and_clear_forgets(page: Any, server: FakeServer) -> None:
    say(page, "One")
    wait_for_end(page)
    server.answer = [("Another.", None)]
    page.get_by_role("button", name="Retry").click()
    page.get_by_text("Another.").first.wait_for()
    wait_for_end(page)
    assert server.bodies[0] == server.bodies[1]
    assert page.locator(".turn").count() == 1
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".turn").count() == 0
    say(page, "Two")
    wait_for_end(page)
    assert [each["content"] for each in server.bodies[2]["messages"]] == ["Two"]


def test_settings_are_sent_where_they_are_set(page: Any, server: FakeServer) -> None:
    page.get_by_label("System prompt").fill("Be short.")
    for name, value in {"Temperature": "0.5", "Top-k": "20", "Most tokens": "7", "Seed": "0"}.items():
        page.get_by_label(name, exact=True).fill(value)
    draft_max, p_min = page.get_by_label("Longest draft"), page.get_by_label("p-min")
    mode = page.get_by_label("Mode")
    for choice, enabled in {"": (0, 0), "off": (0, 0), "auto": (1, 0), "fixed": (1, 1)}.items():
        mode.select_option(choice)
        assert (draft_max.is_enabled(), p_min.is_enabled()) == enabled
    draft_max.fill("4")
    p_min.fill("0.6")
    say(page, "Hello")
    wait_for_end(page)
    body = server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert body["speculative"] == {"mode": "fixed", "draft_max": 4, "p_min": 0.6}
    wanted = {"temperature": 0.5, "top_k": 20, "max_tokens": 7, "seed": 0}
    assert {name: body.get(name) for name in wanted} == wanted
    assert not {"top_p", "min_p"} & body.keys()


def test_a_setting_that_can_not_be_is_not_sent(page: Any, server: FakeServer) -> None:
    page.get_by_label("Top-p").fill("1.5")
    say(page, "Hello")
    assert page.get_by_label("Top-p").evaluate("each => each === document.activeElement")
    assert page.get_by_label("Your message").input_value() == "Hello"
    assert server.bodies == []


def test_a_comparison_runs_one_after_the_other(page: Any, server: FakeServer) -> None:
    page.get_by_label("Your message").fill("Both ways")
    page.get_by_role("button", name="Compare A/B").click()
    page.locator(".verdict").wait_for()
    on, off = server.bodies
    assert server.most_at_once == 1
    assert "speculative" not in on
    assert off["speculative"] == {"mode": "off"}
    assert on["seed"] == off["seed"]
    assert on["messages"] == off["messages"]
    assert page.locator(".pair .answer h3").all_inner_texts() == ["With speculation", "Without"]
    assert "24.0 tok/s" in page.locator(".pair .figures").nth(0).inner_text()
    assert "15.0 tok/s" in page.locator(".pair .figures").nth(1).inner_text()
    said = page.locator(".verdict").inner_text()
    assert said.startswith("1.60× as fast as without: 24.0 tok/s against 15.0 tok/s.")
    assert "The texts are the same." in said
    boxes = [page.locator(".pair .answer").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]


def test_a_comparison_that_is_stopped_judges_nothing(page: Any, server: FakeServer) -> None:
    server.hold_after = 2
    page.get_by_label("Your message").fill("Both ways")
    page.get_by_role("button", name="Compare A/B").click()
    page.locator(".tokens .draft-model").wait_for()
    page.keyboard.press("Space")  # on Stop, where the focus has gone
    wait_for_end(page)
    assert len(server.bodies) == 1
    assert page.locator(".verdict").count() == 0


def test_nothing_to_compare_where_the_server_does_not_speculate(page: Any, server: FakeServer) -> None:
    server.stats = {**server.stats, "mode": "off"}
    page.locator("#pair", has_text="· off").wait_for()
    page.get_by_label("Your message").fill("Both ways")
    page.get_by_role("button", name="Compare A/B").click()
    page.get_by_text("there is no A").wait_for()
    assert server.bodies == []


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(watched: Any, server: FakeServer) -> None:
    server.key = "right"
    page = watched.page
    page.goto(server.url)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.wait_for()
    assert page.get_by_label("Key", exact=True).evaluate("each => each === document.activeElement")
    page.keyboard.insert_text("schlüssel")  # not to be had in a header
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("did not accept that key").wait_for()
    page.keyboard.type("right")
    page.keyboard.press("Enter")
    dialog.wait_for(state="hidden")
    page.locator("#speed svg").wait_for()
    say(page, "Hello")
    wait_for_end(page)
    page.reload()
    page.locator("#speed svg").wait_for()
    assert dialog.is_hidden()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_without_a_key_the_page_stays_usable(watched: Any, server: FakeServer) -> None:
    server.key = "right"
    page = watched.page
    page.goto(server.url)
    page.get_by_role("dialog", name="API key").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("The server asks for a key.").wait_for()
    asked = server.paths.count("/stats")
    page.get_by_role("button", name="Enter the key").click()
    page.keyboard.type("right")
    page.keyboard.press("Enter")
    page.locator("#speed svg").wait_for()
    assert asked == 1, "no polling without a key"
    assert page.get_by_role("button", name="Enter the key").is_hidden()


def test_a_refusal_is_told_as_the_server_says_it(page: Any, server: FakeServer) -> None:
    server.refusal = problem(503, "All slots are busy.", {"Retry-After": "3"})
    say(page, "Hello")
    wait_for_end(page)
    assert page.get_by_role("alert").inner_text() == "All slots are busy. Try again in 3 s."
    server.refusal = None
    page.get_by_role("button", name="Retry").click()
    page.locator(".prose").wait_for()


def test_an_answer_that_breaks_off_keeps_what_came(page: Any, server: FakeServer) -> None:
    server.break_off = True
    say(page, "Hello")
    wait_for_end(page)
    assert page.locator(".answer .problem").inner_text() == "The answer broke off before its end."
    assert page.locator(".prose strong").inner_text() == "fast"


HOSTILE = """<script>window.hit = 1</script>
<img src=x onerror="window.hit = 2"> <svg onload="window.hit = 3"></svg>

[click](javascript:window.hit=4) [data](data:text/html,<script>1</script>) [ok](https://example.org/a)

![track](https://example.org/pixel.png) <a href="javascript:window.hit=5">x</a>

<iframe srcdoc="<script>parent.hit = 6</script>"></iframe><form action=/v1/x><input name=a></form>

<math><mi//xlink:href="data:x,<script>window.hit=7</script>"> <style>body { display: none }</style>

```"><img src=x onerror=window.hit=8>
<b onmouseover="window.hit = 9">code</b>
```
"""


@pytest.mark.parametrize("streamed", [False, True])
def test_a_hostile_answer_does_nothing(page: Any, server: FakeServer, streamed: bool) -> None:
    parts = re.findall(r".{1,7}", HOSTILE, re.S) if streamed else [HOSTILE]
    server.answer = [(part, "model") for part in parts]
    say(page, "Attack")
    wait_for_end(page)
    answer = page.locator(".answer")
    inside = answer.evaluate(
        "all => [...all.querySelectorAll('script, img, svg, iframe, form, input, style, math')].length"
    )
    assert inside == 0
    handlers = answer.evaluate(
        "all => [...all.querySelectorAll('*')].flatMap((each) => each.getAttributeNames())"
        ".filter((name) => name.startsWith('on') || name === 'style')"
    )
    assert handlers == []
    links = page.locator(".prose a")
    assert links.evaluate_all("all => all.map((each) => each.getAttribute('href'))") == [
        "https://example.org/a",
        "https://example.org/pixel.png",
    ]
    assert links.first.get_attribute("rel") == "noopener noreferrer"
    page.get_by_text("click", exact=True).or_(page.get_by_text("click data")).first.click()
    assert page.evaluate("window.hit") is None
    assert "<script>window.hit = 1</script>" in page.locator(".prose").inner_text(), "shown, not lost"


def test_html_of_an_answer_can_not_be_let_in_past_the_policy(watched: Any, page: Any) -> None:
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch { return true } }"
    )
    assert refused, "trusted types"
    watched.complaints.clear()


def test_copy_gives_the_markdown(watched: Any, server: FakeServer) -> None:
    watched.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.page
    page.goto(server.url)
    say(page, "Hello")
    wait_for_end(page)
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == TEXT
