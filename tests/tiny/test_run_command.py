"""`llamaspec run` on generated files: what it reports of speculation, with the real llama.cpp."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_files import VOCAB, tiny_llama
from typer.testing import CliRunner, Result

from llamaspec.cli import app
from llamaspec.errors import FileMissingError, UsageError

RUNNER = CliRunner()
PROMPT = "one two three one two three one two three one two"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    main = tiny_llama(folder / "main.gguf")
    draft = tiny_llama(folder / "draft.gguf", noise=0.05)
    return str(main), str(draft)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))


def run(pair: tuple[str, ...], *arguments: str) -> Result:
    models = [word for flag, model in zip(("-m", "-md"), pair, strict=False) for word in (flag, model)]
    common = ["-t", "1", "--device", "cpu", "-c", "256", "--raw", "--temp", "0", "-n", "40", "--ignore-eos"]
    return RUNNER.invoke(app, ["run", PROMPT, *models, *common, *arguments])


def told(pair: tuple[str, ...], *arguments: str) -> Any:
    result = run(pair, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(pair: tuple[str, ...], *arguments: str) -> Any:
    return run(pair, *arguments).exception


def test_compared_in_turns_with_a_second_cache(pair: tuple[str, str]) -> None:
    answer = told(pair, "--compare", "--verify", "--draft-max", "6", "--draft-p-min", "0")
    assert answer["settings"]["speculation"]["mode"] == "fixed"
    compare = answer["compare"]
    assert compare["same_text"] is True
    speeds = compare["speculative"]["per_second"], compare["plain"]["per_second"]
    assert compare["speedup"] == pytest.approx(speeds[0] / speeds[1])
    # The first token is the prompt's: it is there before the clock runs.
    assert compare["plain"]["tokens"] == 39
    assert answer["verify"] == {"same": True, "first_divergence": None, "plain": None}
    stats = answer["stats"]
    assert stats["predicted_seconds"] == compare["speculative"]["seconds"]
    assert stats["draft_n_accepted"] > 0
    assert stats["token_latency"] is None


def test_sampled_answers_can_be_compared_too(pair: tuple[str, str]) -> None:
    answer = told(pair, "--compare", "--temp", "1.5", "--seed", "7", "--spec", "auto")
    assert answer["compare"]["speedup"] > 0
    assert answer["compare"]["same_text"] is True, "a seed says what the text is"


def test_every_round_is_in_the_explanation(pair: tuple[str, str]) -> None:
    answer = told(pair, "--explain", "--spec", "fixed", "--drafters", "cascade", "--draft-max", "5")
    rounds, stats = answer["rounds"], answer["stats"]
    assert sum(len(one["emitted"]) for one in rounds) == 40
    assert sum(one["checked"] for one in rounds) == stats["draft_n"]
    assert sum(one["accepted"] for one in rounds) == stats["draft_n_accepted"]
    assert {one["drafter"] for one in rounds} <= {None, "cascade"}
    assert all(len(one["emitted"]) >= one["accepted"] for one in rounds)
    assert set(stats["drafters"]) == {"cascade"}
    assert set(stats["sources"]) <= {"model", "ngram"}
    assert "rounds" not in told(pair)


def test_the_explanation_leaves_the_answer_alone(pair: tuple[str, str]) -> None:
    plain = run(pair, "--no-spec", "--quiet")
    explained = run(pair, "--explain", "--draft-max", "4", "--draft-p-min", "0")
    assert explained.exit_code == 0
    assert explained.stdout == plain.stdout
    assert "[-rejected-]" in explained.stderr
    assert "by drafter" in explained.stderr


def test_auto_tells_the_prices_it_goes_by(pair: tuple[str, str]) -> None:
    prices = told(pair, "--draft-max", "8", "--spec", "auto")["prices"]
    assert set(prices["main_seconds"]) == {"1", "2", "4", "8"}
    assert all(seconds > 0 for seconds in prices["main_seconds"].values())
    assert prices["draft_step_seconds"] > 0
    assert set(prices["break_even"]) == {"model", "lookup"}
    alone = told(pair[:1])
    assert alone["prices"]["draft_step_seconds"] is None
    assert set(alone["prices"]["break_even"]) == {"lookup"}
    assert alone["settings"]["speculation"]["drafters"] == ["ngram"]
    assert told(pair, "--no-spec")["prices"] is None


def test_a_corpus_is_drafted_from(pair: tuple[str, str], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(PROMPT + told(pair, "--no-spec")["text"], encoding="utf-8")
    answer = told(pair[:1], "--corpus", str(corpus), "--spec", "fixed", "--drafters", "corpus")
    assert set(answer["stats"]["sources"]) == {"corpus"}
    assert answer["stats"]["draft_n_accepted"] > 0


def test_what_makes_no_sense_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    assert isinstance(failure(pair, "--corpus", str(tmp_path / "nothing")), FileMissingError)
    for arguments in (
        ("--no-spec", "--spec", "auto"),
        ("--no-spec", "--compare"),
        ("--compare", "--quiet"),
        ("--explain", "--quiet"),
        ("--drafters", "corpus"),
        ("--drafters", "ngram,other"),
    ):
        assert isinstance(failure(pair, *arguments), UsageError), arguments
    assert isinstance(failure(pair[:1], "--drafters", "model"), UsageError)


def test_what_is_left_out_is_said(pair: tuple[str, str], tmp_path: Path) -> None:
    assert "The draft model is not used" in run(pair, "--drafters", "ngram").stderr
    other = str(tiny_llama(tmp_path / "other.gguf", vocab=VOCAB.differing_at(70, "other")))
    mixed = run((pair[0], other), "--draft-mismatch", "plain", "--drafters", "model,ngram")
    assert mixed.exit_code == 0
    assert "left out: the drafters model" in mixed.stderr
