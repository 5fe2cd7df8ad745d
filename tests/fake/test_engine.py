"""The engine on a fake model: with any drafter the greedy text is the plain text, and every request ends once."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice

import numpy as np
import pytest
from fake.backend import Alternating, FakeBackend, FakeVocabulary, ScriptedDrafter

from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.ports import Drafter
from llamaspec.decode.sequence import Phase, Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import (
    ClosedError,
    ContextError,
    DecodeAborted,
    DecodeError,
    GrammarError,
    LlamaspecError,
    UsageError,
)
from llamaspec.events import Event, FinishEvent, FinishReason, TextEvent
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

PROMPT = (3, 1, 4, 1, 5)
PLAIN = SpeculationSettings(mode="off")
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
            if isinstance(self._drafter, ModelDrafter):
                backend = self._drafter._backend
                drafted = backend.held.get(sequence.slot, [])
                assert len(drafted) == self._drafter._held[sequence.slot] <= len(sequence.tokens) - 1
                known = [t if t < backend.vocab_size else 0 for t in sequence.tokens[: len(drafted)]]
                assert drafted == known
        assert slots.isdisjoint(self._free)
        assert all(not self._main.held.get(slot) for slot in self._free)
        return events


class Outcome:
    """What one request came to."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.drafted = 0
        self.ends: list[FinishEvent] = []
        for event in events:
            assert not self.ends, "an event behind the last one"
            if isinstance(event, TextEvent):
                self.text += event.text
                self.tokens += event.tokens
                self.drafted += event.drafted
            else:
                self.ends.append(event)

    @property
    def reason(self) -> FinishReason | None:
        assert len(self.ends) <= 1
        return self.ends[0].reason if self.ends else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and vars_but_drafted(self) == vars_but_drafted(other)

    def __repr__(self) -> str:
        return f"{self.text!r} {self.tokens} {self.reason}"


def vars_but_drafted(outcome: Outcome) -> tuple[object, ...]:
    return outcome.text, outcome.tokens, outcome.reason


def run(
    request: Request,
    drafter: Drafter | None = None,
    main: FakeBackend | None = None,
    vocabulary: FakeVocabulary | None = None,
    stats: Stats | None = None,
) -> Outcome:
    main = main or FakeBackend(bias=RARE_END)
    engine = CheckedEngine(main, vocabulary or FakeVocabulary(main.vocab_size), drafter)
    outcome = Outcome(engine.generate(request, stats))
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


@pytest.mark.parametrize("name", drafters())
@pytest.mark.parametrize(
    "speculation",
    [
        SpeculationSettings(draft_max=1, p_min=0.0),
        SpeculationSettings(draft_max=8, p_min=0.0),
        SpeculationSettings(draft_max=8, draft_min=3, p_min=0.5),
        SpeculationSettings(draft_max=31, p_min=0.3),
    ],
    ids=["1", "8", "3-8", "31"],
)
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
def test_greedy_text_is_the_plain_text(name: str, speculation: SpeculationSettings, rollback: str) -> None:
    expected = plain()
    assert len(expected.tokens) > 20
    main = FakeBackend(bias=RARE_END, rollback=rollback)
    assert run(Request(PROMPT, GREEDY, speculation), drafters()[name](), main) == expected


def test_right_drafts_save_decodes_and_wrong_ones_cost_none() -> None:
    def decodes(name: str) -> int:
        main = FakeBackend(bias=RARE_END)
        run(Request(PROMPT, GREEDY, SpeculationSettings(draft_max=8, p_min=0.0)), drafters()[name](), main)
        return main.decodes

    assert decodes("wrong") == decodes("none") == 40
    assert decodes("same model") == decodes("right") < 8


def test_speculation_switched_off_asks_no_drafter() -> None:
    drafter = ScriptedDrafter(lambda tokens: pytest.fail("asked"))
    assert run(Request(PROMPT, GREEDY, PLAIN), drafter) == plain()


@pytest.mark.parametrize("seed", range(12))
def test_an_end_of_generation_stops_wherever_it_comes(seed: int) -> None:
    sampling = GREEDY.model_copy(update={"n_predict": 200})
    expected = plain(sampling, seed=seed, bias=None)
    drafter = ModelDrafter(FakeBackend(seed=seed), 12)
    got = run(Request(PROMPT, sampling), drafter, FakeBackend(seed=seed))
    assert got == expected
    assert got.reason is FinishReason.STOP
    assert 0 not in got.tokens


@pytest.mark.parametrize("budget", range(12))
@pytest.mark.parametrize("draft_max", [1, 3, 8])
def test_the_budget_ends_at_every_place_of_a_draft(budget: int, draft_max: int) -> None:
    sampling = GREEDY.model_copy(update={"n_predict": budget})
    stats = Stats()
    speculation = SpeculationSettings(draft_max=draft_max, p_min=0.0)
    got = run(Request(PROMPT, sampling, speculation), drafters()["right"](), stats=stats)
    assert got.tokens == plain().tokens[:budget]
    assert got.reason is FinishReason.LENGTH
    assert stats.predicted_tokens == len(stats.latencies) == budget


@pytest.mark.parametrize("room", range(1, 12))
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
def test_a_full_context_ends_at_every_place_of_a_draft(room: int, rollback: str) -> None:
    main = FakeBackend(bias=RARE_END, context_size=len(PROMPT) + room, rollback=rollback)
    drafter = follows([*PROMPT, *plain().tokens], lambda place: place % 4 == 3)
    got = run(Request(PROMPT, GREEDY, SpeculationSettings(draft_max=8)), drafter, main)
    assert got.tokens == plain().tokens[:room]
    assert got.reason is FinishReason.LENGTH


@pytest.mark.parametrize("place", range(14))
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_stop_string_ends_at_every_place_of_a_draft(place: int, width: int) -> None:
    text = plain().text
    stop = text[place : place + width]
    sampling = GREEDY.model_copy(update={"stop": (stop, "never seen")})
    for name in ("right", "every third wrong", "near model"):
        got = run(Request(PROMPT, sampling), drafters()[name]())
        assert got == plain(sampling)
        assert got.text == text[: text.index(stop)]
        assert got.reason is FinishReason.STOP


def test_a_beginning_of_a_stop_string_is_shown_in_the_end() -> None:
    expected = plain()
    sampling = GREEDY.model_copy(update={"stop": (expected.text[-2:] + "no more of it",)})
    assert run(Request(PROMPT, sampling), drafters()["right"]()) == expected


def test_characters_that_span_tokens_come_out_whole() -> None:
    pieces = [b"<eos>", b"a", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"b", b"\xff", b"c", b"", b"d", b"ee"]
    vocabulary = FakeVocabulary(pieces=pieces)
    expected = run(Request(PROMPT, GREEDY, PLAIN), vocabulary=vocabulary)
    whole = b"".join(pieces[token] for token in expected.tokens).decode("utf-8", "replace")
    assert expected.text == whole
    got = run(Request(PROMPT, GREEDY), drafters()["every third wrong"](), vocabulary=vocabulary)
    assert got == expected


@pytest.mark.parametrize("seed", range(6))
def test_one_seed_gives_one_text(seed: int) -> None:
    sampling = SamplingSettings(temperature=1.0, seed=seed, n_predict=30)

    def once() -> Outcome:
        drafter = ModelDrafter(FakeBackend(bias=RARE_END, noise=0.5), 12)
        return run(Request(PROMPT, sampling, SpeculationSettings(p_min=0.3, draft_min=2)), drafter)

    assert once() == once()


def test_other_seeds_give_other_texts_and_no_seed_gives_a_new_one() -> None:
    texts = {
        plain(SamplingSettings(temperature=1.5, seed=seed, n_predict=30)).text for seed in (1, 2, 3, -1, -1)
    }
    assert len(texts) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"repeat_penalty": 1.5},
        {"frequency_penalty": 0.7, "repeat_last_n": -1},
        {"presence_penalty": 1.2, "repeat_last_n": 3},
        {"ignore_eos": True},
        {"ignore_eos": True, "repeat_penalty": 0.8},
    ],
)
@pytest.mark.parametrize("name", ["near model", "random", "ends", "smaller vocabulary", "larger vocabulary"])
def test_penalties_and_bans_act_the_same_inside_drafts(changes: dict[str, object], name: str) -> None:
    sampling = GREEDY.model_copy(update=changes)
    expected = plain(sampling)
    assert run(Request(PROMPT, sampling), drafters()[name]()) == expected
    if "ignore_eos" in changes:
        assert expected.reason is FinishReason.LENGTH


@pytest.mark.parametrize("name", ["near model", "right", "random", "ends later"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_holds_inside_drafts(name: str, temperature: float) -> None:
    sampling = GREEDY.model_copy(update={"temperature": temperature, "seed": 5})
    got = run(Request(PROMPT, sampling, grammar=Alternating()), drafters()[name]())
    assert [token % 2 for token in got.tokens] == list(islice(cycle([1, 0]), len(got.tokens)))
    if temperature == 0.0:
        assert got == run(Request(PROMPT, sampling, PLAIN, Alternating()))


def test_drafts_that_the_grammar_forbids_never_reach_the_main_model() -> None:
    main = FakeBackend(bias=RARE_END)
    drafter = ScriptedDrafter(lambda tokens: [6, 8, 10, 2])
    run(Request(PROMPT, GREEDY, grammar=Alternating()), drafter, main)
    assert main.widest <= max(len(PROMPT), 2)


def drain(engine: Engine) -> dict[int, Outcome]:
    events: dict[int, list[Event]] = {}
    while engine.busy:
        for event in engine.step():
            events.setdefault(event.request, []).append(event)
    return {request: Outcome(own) for request, own in events.items()}


PROMPTS = [(1, 2, 3), PROMPT, tuple(islice(cycle([7, 5, 9, 2, 11]), 40)), (6,), (8, 8, 8, 8, 8, 8, 8)]


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
@pytest.mark.parametrize("sizes", [{}, {"batch_size": 10, "max_rows": 10}, {"batch_size": 5, "max_rows": 5}])
@pytest.mark.parametrize("name", ["near model", "random", "right"])
def test_many_at_once_give_what_each_gives_alone(
    slots: int, rollback: str, sizes: dict[str, int], name: str
) -> None:
    main = FakeBackend(bias=RARE_END, rollback=rollback, **sizes)
    draft = ModelDrafter(FakeBackend(bias=RARE_END, noise=0.5, rollback=rollback, **sizes), 12)
    drafter = draft if name == "near model" else drafters()[name]()
    engine = CheckedEngine(main, FakeVocabulary(), drafter, slots=slots)
    speculation = SpeculationSettings(draft_max=8, p_min=0.2)
    requests = {engine.submit(Request(prompt, GREEDY, speculation)): prompt for prompt in PROMPTS}
    outcomes = drain(engine)
    assert {request: outcomes[request] for request in requests} == {
        request: plain(prompt=prompt) for request, prompt in requests.items()
    }


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("rollback", ["any", "none"])
def test_batches_narrower_than_the_prompt(batch_size: int, rollback: str) -> None:
    main = FakeBackend(bias=RARE_END, batch_size=batch_size, rollback=rollback)
    drafter = ModelDrafter(FakeBackend(noise=0.5, batch_size=batch_size), 12)
    got = run(Request(PROMPTS[2], GREEDY, SpeculationSettings(p_min=0.0)), drafter, main)
    assert got == plain(prompt=PROMPTS[2])


def test_a_prompt_is_read_on_while_another_drafts_as_much_as_it_can() -> None:
    text = [*PROMPT, *plain().tokens]
    main = FakeBackend(bias=RARE_END, batch_size=8, max_rows=8)
    engine = CheckedEngine(main, FakeVocabulary(), follows(text), slots=2)
    speculation = SpeculationSettings(draft_max=64, p_min=0.0)
    first = engine.submit(Request(PROMPT, GREEDY, speculation))
    engine.step()
    second = engine.submit(Request((6, 2, 6, 2), GREEDY, speculation))
    order = [event.request for _ in range(3) for event in engine.step()]
    assert {first, second} == set(order)


def test_a_cancelled_request_ends_once_in_every_phase() -> None:
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END, batch_size=3), FakeVocabulary(), drafters()["near model"](), slots=2
    )
    requests = [engine.submit(Request(PROMPT, GREEDY)) for _ in range(5)]
    for steps, request in enumerate(requests):
        events = [event for _ in range(steps) for event in engine.step()]
        assert not any(isinstance(event, FinishEvent) for event in events)
        [end] = [event for event in engine.cancel(request) if isinstance(event, FinishEvent)]
        assert end == FinishEvent(request, FinishReason.CANCELLED)
        assert engine.cancel(request) == []
    assert not engine.busy
    assert engine.cancel(12345) == []
    survivor = engine.submit(Request(PROMPT, GREEDY))
    assert drain(engine)[survivor] == plain()


def test_a_generator_closed_early_frees_its_slot() -> None:
    engine = CheckedEngine(FakeBackend(bias=RARE_END), FakeVocabulary(), drafters()["near model"]())
    for count in range(6):
        events = engine.generate(Request(PROMPT, GREEDY))
        for _ in range(count):
            next(events)
        events.close()
        assert not engine.busy
    assert Outcome(engine.generate(Request(PROMPT, GREEDY))) == plain()


@pytest.mark.parametrize("where", ["main", "draft"])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("error", [DecodeError("broken"), DecodeAborted("stopped")])
def test_an_error_of_a_model_ends_everyone_running_once(
    where: str, number: int, error: LlamaspecError
) -> None:
    failures = {number: error}
    main = FakeBackend(bias=RARE_END, failures=failures if where == "main" else None)
    draft = FakeBackend(noise=0.5, failures=failures if where == "draft" else None)
    engine = CheckedEngine(main, FakeVocabulary(), ModelDrafter(draft, 12), slots=2)
    requests = [engine.submit(Request(prompt, GREEDY)) for prompt in PROMPTS[:3]]
    outcomes = drain(engine)
    assert [outcomes[request].reason for request in requests] == [
        FinishReason.ERROR,
        FinishReason.ERROR,
        FinishReason.LENGTH,
    ]
    assert all(outcomes[request].ends[0].error is error for request in requests[:2])
    assert outcomes[requests[2]] == plain(prompt=PROMPTS[2])
    assert not any(main.held.values())
    assert not any(draft.held.values())


def test_generate_raises_what_ended_it() -> None:
    error = DecodeError("broken")
    engine = CheckedEngine(FakeBackend(bias=RARE_END, failures={4: error}), FakeVocabulary())
    with pytest.raises(DecodeError) as caught:
        list(engine.generate(Request(PROMPT, GREEDY)))
    assert caught.value is error
    assert not engine.busy
    assert Outcome(engine.generate(Request(PROMPT, GREEDY))) == plain()


@pytest.mark.parametrize("last", range(5))
def test_a_grammar_that_allows_nothing_ends_its_own_request_alone(last: int) -> None:
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END), FakeVocabulary(), drafters()["near model"](), slots=2
    )
    stuck = engine.submit(Request(PROMPT, GREEDY, grammar=Alternating(last=last)))
    free = engine.submit(Request(PROMPT, GREEDY))
    outcomes = drain(engine)
    assert isinstance(outcomes[stuck].ends[0].error, GrammarError)
    assert len(outcomes[stuck].tokens) <= last
    assert outcomes[free] == plain()


def test_closing_ends_every_request_once() -> None:
    closed: list[bool] = []
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END), FakeVocabulary(), slots=2, on_close=lambda: closed.append(True)
    )
    requests = [engine.submit(Request(prompt, GREEDY)) for prompt in PROMPTS[:4]]
    early = [event for _ in range(3) for event in engine.step()]
    assert not any(isinstance(event, FinishEvent) for event in early)
    ends = Counter(event for event in engine.close() if isinstance(event, FinishEvent))
    assert ends == {FinishEvent(request, FinishReason.CANCELLED): 1 for request in requests}
    assert engine.close() == []
    assert closed == [True]
    for use in (engine.step, lambda: engine.submit(Request(PROMPT)), lambda: engine.logits(PROMPT)):
        with pytest.raises(ClosedError):
            use()
    assert engine.cancel(requests[0]) == []


def test_prompts_that_cannot_run_are_refused() -> None:
    engine = Engine(FakeBackend(context_size=8), FakeVocabulary())
    for prompt in ((), (12,), (-1,)):
        with pytest.raises(UsageError):
            engine.submit(Request(prompt))
    with pytest.raises(ContextError, match=r"8 tokens and the context 8"):
        engine.submit(Request((1,) * 8))
    assert not engine.busy


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_of_a_text_leave_nothing_behind(batch_size: int) -> None:
    main = FakeBackend(bias=RARE_END, batch_size=batch_size)
    engine = CheckedEngine(main, FakeVocabulary())
    row = engine.logits(PROMPTS[2])
    assert Outcome(engine.generate(Request(PROMPT, GREEDY))) == plain()
    np.testing.assert_array_equal(row, main.logits(PROMPTS[2]))
    engine.submit(Request(PROMPT))
    with pytest.raises(UsageError):
        engine.logits(PROMPT)


def test_statistics_count_what_happened() -> None:
    stats = Stats()
    text = [*PROMPT, *plain().tokens]
    drafter = follows(text, lambda place: place % 7 == 0)
    got = run(
        Request(PROMPT, GREEDY, SpeculationSettings(draft_max=4, p_min=0.0)), drafter, stats=stats
    )
    assert stats.prompt_tokens == len(PROMPT)
    assert stats.predicted_tokens == len(got.tokens) == len(stats.latencies) == 40
    assert stats.draft_n_accepted == got.drafted
    # The first token comes with the prompt; each round brings what was accepted and one more.
    assert stats.predicted_tokens == 1 + stats.draft_n_accepted + stats.rounds
    assert stats.draft_n == sum(stats.drafted_at) > stats.draft_n_accepted > 0
    assert stats.drafted_at[0] <= stats.rounds
    assert stats.time_to_first_token is not None


@pytest.mark.parametrize("place", range(1, 10))
def test_no_more_is_accepted_than_is_shown(place: int) -> None:
    stats = Stats()
    stop = plain().text[place : place + 2]
    sampling = GREEDY.model_copy(update={"stop": (stop,)})
    run(Request(PROMPT, sampling, SpeculationSettings(draft_max=8)), drafters()["right"](), stats=stats)
    assert stats.draft_n_accepted <= stats.predicted_tokens
