"""The page that people share: whole, calm about what is not there, and safe whatever names it holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reports import noisy_report, report

from llamaspec.bench.html import write_html
from llamaspec.bench.report import Outcome, Report
from llamaspec.figures import Ratio

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}${x}$\\"
LONG = "W" * 500
ODD = "模型🦙ñïcödé—مرحبا"


class Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


def page_of(report: Report, folder: Path) -> Page:
    write_html(report, folder / "report.html")
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page of the whole report lies."""
    folder = tmp_path_factory.mktemp("report")
    write_html(report(), folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def with_names(name: str) -> Report:
    """The report with `name` for everything that has a name."""

    def renamed(value: Any) -> Any:
        kept = {"made_by", "started", "sha256", "finish"}
        if isinstance(value, dict):
            return {
                (f"{key}{name}"[:500] if key in names else key): each if key in kept else renamed(each)
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return f"{value}{name}"[:500] if isinstance(value, str) else value

    whole = report()
    names = {*whole.work.kinds, *(outcome.setting for outcome in whole.outcomes)}
    data = whole.model_dump(mode="json", by_alias=True)
    return Report.model_validate_json(json.dumps({"schema": data.pop("schema"), **renamed(data)}))


def only(name: str) -> Outcome:
    return report().outcome(name)


def test_the_page_is_whole(page: Page) -> None:
    assert page.open == []
    assert "auto is 1.73× as fast as plain here (1.69 to 1.76), same text for 15 of 16 prompts" in page.text
    for told in (
        "Intel(R) Xeon(R)",
        "qwen2.5-coder-1.5b-instruct.BF16.gguf",
        "a" * 64,
        "Greedy answers of at most 96 tokens to 16 prompts, each answered 2 times.",
        "that allows 12.4 tokens per second, of which plain reaches",
        "llamaspec bench -m qwen2.5-coder-1.5b-instruct.BF16.gguf -md qwen2.5-coder-0.5b-instruct.Q4_0.gguf "
        "--settings plain,fixed:16:0.75,auto --prompts 2 --repeat 2 -n 96",
        "runtime.threads",
    ):
        assert told in page.text
    assert sum(tag == "svg" for tag, _ in page.elements) == 6


def test_every_plot_has_words_and_a_table(page: Page) -> None:
    inside = {"figure": 0, "figcaption": 0, "details": 0, "h3": 0}
    for tag, _ in page.elements:
        if tag in inside:
            inside[tag] += 1
    assert inside == {"figure": 6, "figcaption": 6, "details": 7, "h3": 6}  # one more: the settings in effect
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes["aria-hidden"] == "true"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_ids_are_unique_and_references_lead_somewhere(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name, value in attributes.items():
            for target in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert target in ids
            if name == "href":
                assert (value or "")[0] == "#" and (value or "")[1:] in ids
            if name == "aria-labelledby":
                assert value in ids


def test_nothing_is_loaded_and_nothing_runs(page: Page, source: str) -> None:
    assert not re.search(r"https?://|//\w|@import|javascript:|data:", source)
    assert not page.tags() & {"script", "link", "img", "iframe", "object", "image", "foreignobject", "base"}
    for _, attributes in page.elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert ("meta", "default-src 'none'") in [
        (tag, str(attributes.get("content")).split(";")[0]) for tag, attributes in page.elements
    ]


def test_every_colour_follows_the_page(page: Page, source: str) -> None:
    styles = " ".join(a["style"] or "" for _, a in page.elements if "style" in a)
    assert "var(--series-1)" in styles
    assert "#" not in re.sub(r"url\(#[^)]*\)", "", styles)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", source)):
        assert f"{variable}:" in source


@pytest.mark.parametrize("name", [HOSTILE, LONG, ODD])
def test_names_are_text_whatever_they_hold(name: str, page: Page, tmp_path: Path) -> None:
    named = page_of(with_names(name), tmp_path)
    assert named.open == []
    assert named.tags() == page.tags()
    assert not any(attribute.startswith("on") for _, attributes in named.elements for attribute in attributes)
    assert name[:40] in named.text


def test_private_settings_stay_out(page: Page) -> None:
    assert "/home" not in page.text


def test_noise_comes_first_and_is_no_gain(tmp_path: Path) -> None:
    text = page_of(noisy_report(), tmp_path).text
    assert "Too noisy to conclude from: auto was 1.73× as fast as plain (1.69 to 1.76)" in text
    assert text.index("Other programs took more than 5 %") < text.index("The settings")
    assert "Repeat more often: --repeat 5." in text
    assert "faster" not in text


def test_the_same_report_gives_the_same_page(source: str, tmp_path: Path) -> None:
    write_html(report(), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == source
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"prices": None, "trials": (), "roofline": None, "noise": None},
            {
                "Price of a round by width: It was not measured here.",
                "Speed while an answer is written: The times of single tokens were not recorded",
            },
        ),
        (
            {"outcomes": (only("plain"),)},
            {
                "Speed by kind of text: Only one setting was timed, so that there is nothing to compare.",
                "Acceptance by position: Nothing was drafted.",
                "Accepted tokens per round: Nothing was drafted.",
                "There is no second setting to compare with.",
            },
        ),
        (
            {"outcomes": (Outcome(setting="plain"),), "trials": (), "prices": None},
            {"Nothing could be timed", "From one token to the next: The times"},
        ),
        ({"baseline": "not there"}, {"auto is 1.73× as fast as not there here"}),
    ],
)
def test_what_is_not_there_is_said(changes: dict[str, Any], said: set[str], tmp_path: Path) -> None:
    page = page_of(report(**changes), tmp_path)
    assert page.open == []
    assert {sentence for sentence in said if sentence not in page.text} == set()


def test_a_draft_that_is_not_there_is_in_no_command(tmp_path: Path) -> None:
    page = page_of(report(draft=None), tmp_path)
    assert "-md" not in page.text
    assert "draft model" not in page.text


def test_numbers_beyond_reason_break_nothing(tmp_path: Path) -> None:
    wild = only("auto").model_copy(
        update={
            "relative": Ratio(value=1e12, low=1e-9, high=1e18, count=9),
            "relative_by_kind": {"code": Ratio(value=1e-9, low=0.0, high=1e18, count=9)},
            "drafted_at": (10**18,) * 1000,
            "accepted_lengths": {10**9: 1, 0: 10**18},
        }
    )
    trial = report().trials[0]
    slow = trial.runs["auto"].model_copy(update={"times": (0.0, 1e-300, 5e-324, 1e250)})
    wild_report = report(
        outcomes=(only("plain"), wild), trials=(trial.model_copy(update={"runs": {"auto": slow}}),)
    )
    assert page_of(wild_report, tmp_path).open == []
