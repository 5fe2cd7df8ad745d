"""What is kept from one start to the next, and what is not trusted."""

import json
from pathlib import Path

import pytest

from llamaspec.control.auto import Knowledge
from llamaspec.decode.ports import Evidence
from llamaspec.remembered import Remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path))
    return tmp_path


def knowledge() -> Knowledge:
    known = Knowledge(rate=1.5, budget=1.25)
    known.prices.main.measure(1, 0, [0.05])
    known.prices.main.measure(8, 3000, [0.09])
    known.prices.draft.measure(1, 0, [0.01])
    for kept in (True, True, False):
        known.acceptance.learn(Evidence("model", 0.8, 3), kept)
    return known


def test_what_was_saved_is_there_again() -> None:
    Remembered({"pair": 1}).save(knowledge())
    assert Remembered({"pair": 1}).load().as_dict() == knowledge().as_dict()
    assert not Remembered({"pair": 2}).load().prices.main.known


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"prices": {"main": {"0": {"1": [1e999, 3]}}}}',
        '{"prices": 3}',
        "[" * 100_000,
        '{"prices": {}, "rate": ' + "9" * 400 + "}",
    ],
)
def test_a_damaged_file_is_as_if_there_was_none(text: str) -> None:
    place = Remembered({"pair": 1})
    place.path.parent.mkdir(parents=True)
    place.path.write_text(text)
    assert place.load().as_dict() == Knowledge().as_dict()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rate",), -1.0),
        (("rate",), float("nan")),
        (("budget",), 1e300),
        (("prices", "main", "0", "1"), [-1.0, 3.0]),
        (("prices", "main", "0", "1"), [float("nan"), 3.0]),
        (("prices", "main", "0", "500"), [1.0, 3.0]),
        (("acceptance", "kept", "model:3"), [5.0, 3.0]),
    ],
)
def test_impossible_figures_are_refused(path: tuple[str, ...], value: object) -> None:
    place = Remembered({"pair": 1})
    place.save(knowledge())
    data = json.loads(place.path.read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    place.path.write_text(json.dumps(data))
    assert place.load().as_dict() == Knowledge().as_dict()


def test_prices_that_no_longer_fit_are_left_out() -> None:
    known = knowledge()
    for number in range(64):
        known.prices.main.observe(1, 0, 0.05 * (4.0 if number % 2 else 0.25))
    assert not known.prices.fit
    place = Remembered({"pair": 1})
    place.save(known)
    again = place.load()
    assert not again.prices.main.known
    assert again.acceptance.rate(Evidence("model", 0.8, 3)) == known.acceptance.rate(
        Evidence("model", 0.8, 3)
    )


def test_a_cache_that_can_not_be_written_is_no_error(cache: Path) -> None:
    (cache / "measured").write_text("a file in the way")
    Remembered({"pair": 1}).save(knowledge())
    assert not list(cache.glob("**/*.partial"))
