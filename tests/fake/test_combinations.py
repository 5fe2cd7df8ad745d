"""Every combination of drafters, fixed and by price: greedy texts are plain, sampled ones as probable."""

from collections.abc import Callable, Sequence
from itertools import chain, combinations

import numpy as np
import pytest
from branching import Oracle, branching_sampler, enumerate_outcomes

from fake.backend import FakeBackend, FakeVocabulary
from fake.running import GREEDY, PLAIN, PROMPT, RARE_END, CheckedEngine, Outcome, plain
from fake.test_distribution import OPEN, VOCAB, FirstTokenKnown, distance
from fake.test_distribution import PROMPT as SHORT_PROMPT
from llamaspec.control.auto import Knowledge
from llamaspec.decode.drafters.cascade import CascadeDrafter
from llamaspec.decode.drafters.corpus import CorpusDrafter, CorpusIndex
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.drafters.ngram import NgramDrafter
from llamaspec.decode.ports import Drafter
from llamaspec.decode.sequence import Request
from llamaspec.engine import engine as engine_module
from llamaspec.engine.engine import Engine
from llamaspec.events import TextEvent
from llamaspec.settings import DrafterName, SpeculationSettings
from llamaspec.stats import Stats

NAMES: tuple[DrafterName, ...] = ("model", "ngram", "corpus", "cascade")
SETS = list(chain.from_iterable(combinations(NAMES, count) for count in range(1, len(NAMES) + 1)))


def known(step: float = 0.05, rise: float = 0.02) -> Knowledge:
    """Prices at which drafting pays: a batch of w costs 1 + rise * w, a draft step `step`."""
    knowledge = Knowledge()
    for width in (1, 2, 4, 8, 16, 33):
        knowledge.prices.main.measure(width, 0, [1.0 + rise * width])
        knowledge.prices.draft.measure(width, 0, [step])
        knowledge.prices.check.measure(width, 0, [step * (1.0 + 0.1 * width)])
    return knowledge


def all_drafters(corpus: Sequence[int], draft: FakeBackend, vocab: int = 12) -> list[Drafter]:
    """As the loader makes them. The corpus is what the main model writes, so that it is worth following."""
    model, ngram = ModelDrafter(draft, vocab), NgramDrafter()
    corpus_drafter = CorpusDrafter(CorpusIndex.build(np.array(corpus, np.int32)))
    return [model, CascadeDrafter(model, ngram), ngram, corpus_drafter]


def settings(mode: str, names: Sequence[DrafterName], draft_max: int = 8) -> SpeculationSettings:
    return SpeculationSettings(
        mode=mode,  # type: ignore[arg-type]
        drafters=tuple(names),
        corpus="corpus" if "corpus" in names else None,
        draft_max=draft_max,
        p_min=0.3,
    )


def repetitive(scale: float = 2.0) -> Callable[..., FakeBackend]:
    """A model that looks at the last two tokens alone, so that its texts run in circles."""

    class Short(FakeBackend):
        def logits(self, text: Sequence[int]) -> np.ndarray:
            return super().logits(text[-2:])

    return lambda **more: Short(bias=RARE_END, scale=scale, **more)


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("mode", ["auto", "fixed"])
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
def test_greedy_text_is_the_plain_text(names: Sequence[DrafterName], mode: str, rollback: str) -> None:
    for make in (lambda **more: FakeBackend(bias=RARE_END, **more), repetitive()):
        main = make(rollback=rollback)
        expected = Outcome.of(Engine(make(), FakeVocabulary()).generate(Request(PROMPT, GREEDY, PLAIN)))
        drafters = all_drafters([*PROMPT, *expected.tokens], make(noise=0.3, rollback=rollback))
        engine = CheckedEngine(main, FakeVocabulary(), drafters, knowledge=known())
        stats = Stats()
        got = Outcome.of(engine.generate(Request(PROMPT, GREEDY, settings(mode, names)), stats))
        assert got == expected
        assert not any(main.held.values())
        assert set(stats.sources) <= {*names, *(("model", "ngram") if "cascade" in names else ())}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["auto", "fixed"])
def test_each_drafter_drafts_and_is_accepted(name: DrafterName, mode: str) -> None:
    make = repetitive()
    sampling = GREEDY.model_copy(update={"n_predict": 120})
    expected = Outcome.of(Engine(make(), FakeVocabulary()).generate(Request(PROMPT, sampling, PLAIN)))
    main, stats = make(), Stats()
    engine = CheckedEngine(
        main, FakeVocabulary(), all_drafters(expected.tokens, make(noise=0.1)), knowledge=known()
    )
    assert Outcome.of(engine.generate(Request(PROMPT, sampling, settings(mode, [name])), stats)) == expected
    assert stats.draft_n_accepted > 40
    assert main.decodes < 80
    assert ("model" if name == "cascade" else name) in stats.sources


def test_a_cascade_spares_the_draft_model_evaluations() -> None:
    make = repetitive()
    decodes = {}
    for name in ("model", "cascade"):
        draft = make(noise=0.1)
        engine = Engine(make(), FakeVocabulary(), all_drafters([1, 2, 3], draft), knowledge=known())
        sampling = GREEDY.model_copy(update={"n_predict": 120})
        Outcome.of(engine.generate(Request(PROMPT, sampling, settings("fixed", [name]))))
        decodes[name] = draft.decodes
    assert decodes["cascade"] < 0.7 * decodes["model"]


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("mode", ["auto", "fixed"])
def test_sampled_texts_are_as_probable_as_plain_ones(
    monkeypatch: pytest.MonkeyPatch, names: Sequence[DrafterName], mode: str
) -> None:
    prompt = (*SHORT_PROMPT, 3, 1, *SHORT_PROMPT)

    class Known(FirstTokenKnown):
        """As that one, with a prompt in which the first tokens of the answer stand before."""

        def logits(self, text: Sequence[int]) -> np.ndarray:
            return super().logits(text[len(prompt) - len(SHORT_PROMPT) :])

    def texts(speculation: SpeculationSettings) -> dict[tuple[int, ...], float]:
        def run(oracle: Oracle) -> tuple[int, ...]:
            monkeypatch.setattr(engine_module, "Sampler", branching_sampler(oracle))
            engine = Engine(
                Known(VOCAB, scale=1.2),
                FakeVocabulary(VOCAB, eog=(0,)),
                all_drafters([1, 2, 3, 1, 2, 2, 3, 1], Known(VOCAB, noise=0.7, scale=1.2), VOCAB),
                knowledge=known(step=0.01, rise=0.0),
                clock=lambda: 0.0,
            )
            text: list[int] = []
            for event in engine.generate(Request(prompt, OPEN, speculation)):
                if isinstance(event, TextEvent):
                    text += event.tokens
                if len(text) >= 3:
                    break
            return tuple(text[:3])

        return enumerate_outcomes(run)

    assert distance(texts(settings(mode, names, draft_max=2)), texts(PLAIN)) < 1e-9


def test_without_prices_auto_does_not_draft() -> None:
    stats = Stats()
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END), FakeVocabulary(), all_drafters(PROMPT, FakeBackend(bias=RARE_END))
    )
    assert Outcome.of(engine.generate(Request(PROMPT, GREEDY), stats)) == plain()
    assert stats.draft_n == 0
