"""Requests run on a fake model, by an engine that is looked after at every step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from fake.backend import FakeBackend, FakeVocabulary, ScriptedDrafter
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.ports import Drafter
from llamaspec.decode.sequence import Phase, Request
from llamaspec.engine.engine import Engine
from llamaspec.events import Event, FinishEvent, FinishReason
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

PROMPT = (3, 1, 4, 1, 5)
PLAIN = SpeculationSettings(mode="off")
FIXED = SpeculationSettings(mode="fixed")
GREEDY = SamplingSettings(temperature=0.0, n_predict=40)
RARE_END = {0: -2.0}  # token 0 ends a generation: without this, one in twelve does


class CheckedEngine(Engine):
    """Looks after every step whether both KV caches hold what the sequences say."""

    def step(self) -> list[Event]:
        events = super().step()
        slots = set()
        for sequence in self._running:
            held = self._main.held.get(sequence.slot, [])
            assert held == sequence.tokens[: sequence.held]
            if self._main._rollback == "any" and sequence.phase is Phase.DECODING:
                assert sequence.held == len(sequence.tokens) - 1
            slots.add(sequence.slot)
            if isinstance(drafter := self._drafting._drafters.get("model"), ModelDrafter):
                backend = drafter._backend
                drafted = backend.held.get(sequence.slot, [])
                assert len(drafted) == drafter._held[sequence.slot] <= len(sequence.tokens) - 1
                known = [t if t < backend.vocab_size else 0 for t in sequence.tokens[: len(drafted)]]
                assert drafted == known
        empty, kept = self._seating._slots._empty, self._seating._slots._kept
        assert slots.isdisjoint(empty) and slots.isdisjoint(kept)
        assert all(not self._main.held.get(slot) for slot in empty)
        assert all(self._main.held[slot] == text for slot, text in kept.items())
        return events


@dataclass(slots=True)
class Outcome:
    """What one request came to. `drafted` counts events, and plays no part in a comparison."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    error: Exception | None = None
    drafted: int = field(default=0, compare=False)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        outcome = cls()
        for event in events:
            assert outcome.reason is None, "an event behind the last one"
            if isinstance(event, FinishEvent):
                outcome.reason, outcome.error = event.reason, event.error
            else:
                outcome.text += event.text
                outcome.tokens += event.tokens
                outcome.drafted += event.drafted
        return outcome


def run(
    request: Request,
    drafter: Drafter | None = None,
    main: FakeBackend | None = None,
    vocabulary: FakeVocabulary | None = None,
    stats: Stats | None = None,
) -> Outcome:
    main = main or FakeBackend(bias=RARE_END)
    engine = CheckedEngine(main, vocabulary or FakeVocabulary(main.vocab_size), [drafter] if drafter else ())
    outcome = Outcome.of(engine.generate(request, stats))
    assert not engine.busy
    assert not any(main.held.values())
    if isinstance(drafter, ScriptedDrafter):
        assert not drafter.texts
    return outcome


def plain(sampling: SamplingSettings = GREEDY, prompt: Sequence[int] = PROMPT, **main: object) -> Outcome:
    return run(Request(tuple(prompt), sampling, PLAIN), None, FakeBackend(**{"bias": RARE_END, **main}))


def follows(text: Sequence[int], wrong_at: Callable[[int], bool] = lambda place: False) -> ScriptedDrafter:
    """Drafts on along `text`, but another token where `wrong_at` says of a place in the text."""

    def script(tokens: Sequence[int]) -> list[int]:
        start = len(tokens)
        return [
            (token + 1) % 12 if wrong_at(place) else token for place, token in enumerate(text[start:], start)
        ]

    return ScriptedDrafter(script)


def random_drafts(seed: int) -> ScriptedDrafter:
    random = np.random.default_rng(seed)
    return ScriptedDrafter(lambda tokens: random.integers(0, 12, random.integers(0, 9)).tolist())


def drafters() -> dict[str, Callable[[], Drafter]]:
    text = [*PROMPT, *plain().tokens]
    return {
        "right": lambda: follows(text),
        "wrong": lambda: follows(text, lambda place: True),
        "every third wrong": lambda: follows(text, lambda place: place % 3 == 0),
        "random": lambda: random_drafts(1),
        "none": lambda: ScriptedDrafter(lambda tokens: []),
        "ends": lambda: ScriptedDrafter(lambda tokens: [0] * 8),
        "ends later": lambda: ScriptedDrafter(lambda tokens: [*text[len(tokens) : len(tokens) + 3], 0, 5, 6]),
        "same model": lambda: ModelDrafter(FakeBackend(bias=RARE_END), 12),
        "near model": lambda: ModelDrafter(FakeBackend(bias=RARE_END, noise=0.5), 12),
        "other model": lambda: ModelDrafter(FakeBackend(seed=9), 12),
        "smaller vocabulary": lambda: ModelDrafter(FakeBackend(9, noise=0.3), 12),
        "larger vocabulary": lambda: ModelDrafter(FakeBackend(20, noise=0.3), 12),
        "short context": lambda: ModelDrafter(FakeBackend(noise=0.3, context_size=17), 12),
        "narrow batches": lambda: ModelDrafter(FakeBackend(noise=0.3, batch_size=2), 12),
        "forgetful model": lambda: ModelDrafter(FakeBackend(noise=0.3, rollback="none"), 12),
        "model with checkpoints": lambda: ModelDrafter(FakeBackend(noise=0.3, rollback="start"), 12),
    }
