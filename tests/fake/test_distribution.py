"""The whole engine, sampled: with drafts every text is exactly as probable as without.

Every way that chance can go is followed, so the bound is that of floating-point sums. Variants of the
drafter that break the rule of `decode.verify` show that the comparison would notice.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from branching import Oracle, branching_sampler, enumerate_outcomes

from fake.backend import Alternating, FakeBackend, FakeVocabulary
from llamaspec.decode.drafters.model import Guess, ModelDrafter, no_guess
from llamaspec.decode.ports import Draft, Drafter, DraftRequest, Row, Stop
from llamaspec.decode.sequence import Request
from llamaspec.engine import engine as engine_module
from llamaspec.engine.engine import Engine
from llamaspec.events import TextEvent
from llamaspec.settings import SamplingSettings, SpeculationSettings

VOCAB = 4
PROMPT = (1, 2)
OPEN = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, n_predict=6)
DrafterMaker = Callable[[], Drafter]
Distributed = dict[tuple[int, ...], float]


class FirstTokenKnown(FakeBackend):
    """The first token comes without a draft: it is made certain, which saves a factor of work."""

    def logits(self, text: Sequence[int]) -> Row:
        row = super().logits(text)
        if tuple(text) == PROMPT:
            row[:] = -np.inf
            row[3] = 0.0
        return row


def draft_model(vocab: int = VOCAB, kind: type[ModelDrafter] = ModelDrafter) -> DrafterMaker:
    return lambda: kind(FakeBackend(vocab, noise=0.7, scale=1.2), VOCAB)


def texts(
    monkeypatch: pytest.MonkeyPatch,
    drafter: DrafterMaker | None,
    speculation: SpeculationSettings,
    *,
    sampling: SamplingSettings = OPEN,
    length: int = 3,
    grammar: bool = False,
) -> Distributed:
    """The distribution of the first `length` tokens; shorter texts have ended."""

    def run(oracle: Oracle) -> tuple[int, ...]:
        monkeypatch.setattr(engine_module, "Sampler", branching_sampler(oracle))
        engine = Engine(
            FirstTokenKnown(VOCAB, scale=1.2),
            FakeVocabulary(VOCAB, eog=(0,)),
            [drafter()] if drafter else (),
        )
        request = Request(PROMPT, sampling, speculation, Alternating() if grammar else None)
        text: list[int] = []
        for event in engine.generate(request):
            if isinstance(event, TextEvent):
                text += event.tokens
            if len(text) >= length:
                break
        return tuple(text[:length])

    return enumerate_outcomes(run)


def distance(one: Distributed, other: Distributed) -> float:
    """Total variation."""
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2


def test_plain_texts_have_the_probability_that_the_logits_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(monkeypatch, None, SpeculationSettings(mode="off"))
    main = FirstTokenKnown(VOCAB, scale=1.2)
    expected: Distributed = {}

    def follow(text: tuple[int, ...], weight: float) -> None:
        if len(text) == 3:
            expected[text] = weight
            return
        weights = np.exp(main.logits(PROMPT + text).astype(float))
        for token, p in enumerate(weights / weights.sum()):
            if token == 0:
                expected[text] = expected.get(text, 0.0) + weight * p
            elif p > 0:
                follow((*text, token), weight * p)

    follow((), 1.0)
    expected = {text: weight for text, weight in expected.items() if weight > 0}
    assert distance(found, expected) < 1e-9


@pytest.mark.parametrize(
    ("draft_max", "draft_min", "p_min", "vocab"),
    [
        (2, 0, 0.0, VOCAB),
        (3, 0, 0.5, VOCAB),
        (2, 2, 0.5, VOCAB),
        (3, 3, 0.5, VOCAB),
        (3, 3, 0.6, VOCAB),
        (2, 0, 0.0, VOCAB + 2),
        (2, 0, 0.4, VOCAB - 1),
    ],
)
def test_drafts_leave_the_distribution_alone(
    monkeypatch: pytest.MonkeyPatch, draft_max: int, draft_min: int, p_min: float, vocab: int
) -> None:
    speculation = SpeculationSettings(draft_max=draft_max, draft_min=draft_min, p_min=p_min)
    plain = texts(monkeypatch, None, speculation)
    assert distance(texts(monkeypatch, draft_model(vocab), speculation), plain) < 1e-9


@pytest.mark.parametrize(
    "sampling",
    [
        OPEN.model_copy(update={"temperature": 0.6, "top_k": 3}),
        OPEN.model_copy(update={"top_p": 0.8}),
        OPEN.model_copy(update={"min_p": 0.3}),
        OPEN.model_copy(update={"repeat_penalty": 1.6, "presence_penalty": 0.5, "frequency_penalty": 0.3}),
        OPEN.model_copy(update={"ignore_eos": True}),
    ],
    ids=["top_k", "top_p", "min_p", "penalties", "ignore_eos"],
)
def test_whatever_the_samplers(monkeypatch: pytest.MonkeyPatch, sampling: SamplingSettings) -> None:
    speculation = SpeculationSettings(draft_max=2, p_min=0.3)
    plain = texts(monkeypatch, None, speculation, sampling=sampling)
    assert len(plain) > 1
    assert distance(texts(monkeypatch, draft_model(), speculation, sampling=sampling), plain) < 1e-9


def test_under_a_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    speculation = SpeculationSettings(draft_max=3, draft_min=2, p_min=0.4)
    plain = texts(monkeypatch, None, speculation, grammar=True)
    assert all(token % 2 == 1 - place % 2 for text in plain for place, token in enumerate(text))
    assert distance(texts(monkeypatch, draft_model(), speculation, grammar=True), plain) < 1e-9


class DropsShortDrafts(ModelDrafter):
    """A draft of one token is thrown away, in place of being cut."""

    def draft(self, requests: Sequence[DraftRequest], guess: Guess = no_guess) -> list[Draft]:
        return [d if len(d.tokens) > 1 else Draft() for d in super().draft(requests, guess)]


class KeepsOneOfShortDrafts(ModelDrafter):
    """Of a draft of two tokens only the first is judged; the other is forgotten and drawn anew."""

    def draft(self, requests: Sequence[DraftRequest], guess: Guess = no_guess) -> list[Draft]:
        drafts = super().draft(requests, guess)
        for draft in drafts:
            if len(draft.tokens) < 3:
                del draft.tokens[1:]
        return drafts


class DropsTheRarest(ModelDrafter):
    """What is drawn against the odds is not handed in."""

    def draft(self, requests: Sequence[DraftRequest], guess: Guess = no_guess) -> list[Draft]:
        drafts = super().draft(requests, guess)
        for draft in drafts:
            for place, (token, proposal) in enumerate(zip(draft.tokens, draft.proposals, strict=True)):
                if proposal is not None and token != proposal.ids[0]:
                    del draft.tokens[place:]
                    draft.cut(place, Stop.P_MIN)
                    break
        return drafts


@pytest.mark.parametrize(
    ("biased", "draft_min"), [(DropsShortDrafts, 2), (KeepsOneOfShortDrafts, 3), (DropsTheRarest, 0)]
)
def test_a_biased_drafter_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, biased: type[ModelDrafter], draft_min: int
) -> None:
    speculation = SpeculationSettings(draft_max=3, draft_min=draft_min, p_min=0.6)
    plain = texts(monkeypatch, None, speculation)
    assert distance(texts(monkeypatch, draft_model(kind=ModelDrafter), speculation), plain) < 1e-9
    assert distance(texts(monkeypatch, draft_model(kind=biased), speculation), plain) > 1e-4
