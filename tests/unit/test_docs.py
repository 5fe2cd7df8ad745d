"""The documentation: it builds, loads nothing from elsewhere, and what it says to type or write is sound."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from command_lines import commands, in_markdown, parse, programs

from llamaspec import errors
from llamaspec.bench.workload import Workload
from llamaspec.profiles import parse_profile

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *PAGES]
NAMES = [path.name for path in DOCUMENTS]

_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [block for kind, block in _BLOCK.findall(read(path)) if kind == language]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Loaded(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag != "a":
            self.found += [value for key in ("src", "srcset", "href") if (value := attributes.get(key))]


def test_it_builds_without_a_warning(site: Path) -> None:
    assert {page.stem for page in site.glob("*.html")} >= {"index", "cli", *(page.stem for page in PAGES)}


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = read(page)
        assert [place for place in _Loaded(text).found if "//" in place] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", read(style)) == [], style.name


def test_every_flag_is_in_the_reference(site: Path) -> None:
    page = read(site / "cli.html")
    for name, command in commands().items():
        assert f"<code>{name}</code>" in page
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert all(flag in page for flag in parameter.opts if flag.startswith("-")), name


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, id=f"{path.name}: {line}") for path in DOCUMENTS for line in in_markdown(read(path))],
)
def test_command_lines_are_understood(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("LLAMASPEC_")]:
        monkeypatch.delenv(name)
    for arguments in programs(line):
        parse(arguments)


def test_command_lines_are_found_where_a_shell_would_find_them() -> None:
    block = "$ A=1 x | bin/llamaspec run 'a | b' -n 3 > out.txt  # llamaspec no"
    text = f"```\n{block}\n```\nSay `llamaspec ls`, `ls`."
    assert [programs(line) for line in in_markdown(text)] == [[["run", "a | b", "-n", "3"]], [["ls"]]]
    with pytest.raises(Exception, match="--nonsense"):
        parse(["run", "--nonsense"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", read(path)):
        assert target == "cli.md" or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_blocks_are_what_they_say(path: Path) -> None:
    for block in blocks(path, "python"):
        ast.parse(block)
    for block in blocks(path, "json"):
        json.loads(block)
    for block in blocks(path, "yaml"):
        data = yaml.safe_load(block)
        if "prompts" in data:
            Workload.model_validate(data)
        else:
            parse_profile(block.encode(), path.name)


def test_the_drafter_that_is_shown_works() -> None:
    drafter, test = blocks(ROOT / "docs" / "design.md", "python")
    names: dict[str, object] = {}
    exec(drafter, names)
    exec(test, names)


def test_every_error_is_explained() -> None:
    told = dict(
        re.findall(r"^\| (\d+) \| `(\w+)` \|", read(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    )
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert told == {str(kind.exit_code): kind.__name__ for kind in kinds}


def test_plots_are_drawn_from_the_figures_that_are_there() -> None:
    data = (ROOT / "docs" / "data" / "measured.yaml").read_bytes().replace(b"\r\n", b"\n")
    plots = sorted((ROOT / "docs" / "plots").glob("*.svg"))
    assert plots
    for plot in plots:
        assert hashlib.sha256(data).hexdigest() in read(plot), "run scripts/build_plots.py"
        assert f"plots/{plot.name}" in read(ROOT / "docs" / "how-it-works.md")


def test_the_tables_have_the_figures_that_are_plotted() -> None:
    measured = yaml.safe_load(read(ROOT / "docs" / "data" / "measured.yaml"))
    page = read(ROOT / "docs" / "how-it-works.md")
    for name, values in measured["speedups"].items():
        if name != "kinds":
            assert " | ".join(f"{value:.2f}" for value in values) in page, name
