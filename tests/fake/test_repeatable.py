"""With a seed of its own a sampled text is the same whatever is drafted, if it is asked to be repeatable."""

from collections.abc import Sequence

import pytest

from fake.backend import FakeBackend, FakeVocabulary
from fake.running import FIXED, GREEDY, PLAIN, PROMPT, RARE_END, CheckedEngine, Outcome, drafters, run
from fake.test_combinations import SETS, all_drafters, known, settings
from llamaspec.decode.sequence import Request
from llamaspec.settings import DrafterName, SamplingSettings
from llamaspec.stats import Stats


def sampled(seed: int) -> SamplingSettings:
    return GREEDY.model_copy(update={"temperature": 1.1, "top_k": 0, "seed": seed})


def plainly(seed: int) -> Outcome:
    return run(Request(PROMPT, sampled(seed), PLAIN))


@pytest.mark.parametrize("name", drafters())
@pytest.mark.parametrize("seed", range(4))
def test_a_sampled_text_depends_on_its_seed_alone(name: str, seed: int) -> None:
    request = Request(PROMPT, sampled(seed), FIXED, repeatable=True)
    assert run(request, drafters()[name]()) == plainly(seed)


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("mode", ["auto", "fixed"])
def test_so_it_does_with_any_drafters(names: Sequence[DrafterName], mode: str) -> None:
    drafted = 0
    for seed in range(3):
        expected = plainly(seed)
        engine = CheckedEngine(
            FakeBackend(bias=RARE_END),
            FakeVocabulary(),
            all_drafters([*PROMPT, *expected.tokens], FakeBackend(bias=RARE_END, noise=0.3)),
            knowledge=known(),
        )
        stats = Stats()
        request = Request(PROMPT, sampled(seed), settings(mode, names), repeatable=True)
        assert Outcome.of(engine.generate(request, stats)) == expected
        drafted += stats.draft_n
    assert drafted or names == ("ngram",)


def test_seeds_differ() -> None:
    assert len({plainly(seed).text for seed in range(8)}) == 8
