"""Verification by exhaustive enumeration: whatever is drafted, the texts are distributed as without."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import pytest
from branching import Oracle, branching_sampler, enumerate_outcomes
from fake.backend import Alternating
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaspec.decode.ports import Distribution, Draft, Evidence, Row, Stop
from llamaspec.decode.sampling import Sampler, softmax
from llamaspec.decode.verify import Verdict, verify
from llamaspec.settings import SamplingSettings

VOCAB = 3
PURE = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
HISTORY = (2, 0)
SOMETHING = Evidence("drafter", 0.5)
Text = tuple[int, ...]
Texts = dict[Text, float]

logit = st.floats(-3.0, 3.0) | st.just(-np.inf)
row = st.lists(logit, min_size=VOCAB, max_size=VOCAB).filter(lambda values: max(values) > -np.inf)


def drafted(tokens: Sequence[int], proposals: Sequence[Distribution | None] = ()) -> Draft:
    """All of `tokens` to go through the main model, chosen without chance unless `proposals` are given."""
    draft = Draft()
    for token, q in zip_longest(tokens, proposals):
        draft.add(token, q, SOMETHING)
    return draft


def never_ends(token: int) -> bool:
    return False


class Model:
    """Logits after each text up to `depth` tokens: those of `rows`, dealt out in turn."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self._rows = [np.array(values, np.float32) for values in rows]

    def logits(self, text: Sequence[int]) -> Row:
        number = 0
        for token in text:
            number = number * VOCAB + token + 1
        return self._rows[number % len(self._rows)].copy()

    def distribution(self, text: Sequence[int]) -> Distribution:
        probs = softmax(self.logits(text).astype(np.float64))
        ids = np.flatnonzero(probs)
        return Distribution(ids, probs[ids])

    def texts(self, length: int, prefix: Text = ()) -> Texts:
        """Every text of `length` tokens, with its probability."""
        if length == len(prefix):
            return {prefix: 1.0}
        here = self.distribution(prefix)
        return {
            text: p * further
            for token, p in zip(here.ids.tolist(), here.probs.tolist(), strict=True)
            for text, further in self.texts(length, (*prefix, token)).items()
        }


def speculative_texts(main: Model, draft_model: Model, drawn: int, width: int, *, chance: bool) -> Texts:
    """Rounds of one draft and its verification until `drawn + 1` tokens are out.

    Of each draft `width` tokens go through the main model; those behind are owed, as in the engine.
    """
    length = drawn + 1

    def run(oracle: Oracle) -> Text:
        sampler = branching_sampler(oracle)(PURE, seed=0)
        text: Text = ()
        draft = Draft()
        while len(text) < length:
            if not draft.tokens:
                draft = propose(draft_model, sampler, text, drawn - len(text), chance=chance)
                draft.cut(width, Stop.GAIN)
            rows = np.array([main.logits((*text, *draft.tokens[:i])) for i in range(draft.width + 1)])
            verdict = verify(rows, draft, sampler, text, never_ends)
            text = (*text, *verdict.tokens)
            draft = draft.owed() if verdict.tokens == draft.tokens[: draft.width + 1] else Draft()
        return text[:length]

    return enumerate_outcomes(run)


def propose(model: Model, sampler: Sampler, text: Text, count: int, *, chance: bool) -> Draft:
    draft = Draft()
    for _ in range(count):
        q = model.distribution((*text, *draft.tokens))
        token = sampler.draw(q) if chance else int(q.ids[q.probs.argmax()])
        draft.add(token, q if chance else None, SOMETHING)
    return draft


def assert_same(one: Texts, other: Texts) -> None:
    for text in one.keys() | other.keys():
        assert one.get(text, 0.0) == pytest.approx(other.get(text, 0.0), abs=1e-9)


@given(st.lists(row, min_size=1, max_size=5), st.lists(row, min_size=1, max_size=5), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_texts_are_distributed_as_the_main_model_says(
    main_rows: list[list[float]], draft_rows: list[list[float]], chance: bool, data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(0, 2))
    width = data.draw(st.integers(0, drawn))
    main = Model(main_rows)
    got = speculative_texts(main, Model(draft_rows), drawn, width, chance=chance)
    assert_same(got, main.texts(drawn + 1))


@pytest.mark.parametrize("width", [0, 1, 2, 3])
@pytest.mark.parametrize("chance", [True, False])
def test_three_drawn_tokens_of_which_some_are_held_back(width: int, chance: bool) -> None:
    random = np.random.default_rng(width)
    main = Model(random.normal(size=(7, VOCAB)))
    got = speculative_texts(main, Model(random.normal(size=(5, VOCAB))), 3, width, chance=chance)
    assert_same(got, main.texts(4))


def test_a_draft_from_the_main_model_itself_is_always_kept() -> None:
    main = Model(np.random.default_rng(1).normal(size=(7, VOCAB)))

    def run(oracle: Oracle) -> int:
        sampler = branching_sampler(oracle)(PURE, seed=0)
        draft = propose(main, sampler, (), 2, chance=True)
        rows = np.array([main.logits(draft.tokens[:i]) for i in range(3)])
        return verify(rows, draft, sampler, (), never_ends).accepted

    assert enumerate_outcomes(run) == {2: pytest.approx(1.0)}


def judged(p: Sequence[float], q: Distribution | None, token: int) -> Texts:
    """What comes of one drafted token where the main model's probabilities are `p`."""
    with np.errstate(divide="ignore"):
        rows = np.log(np.array([p, p])).astype(np.float32)

    def run(oracle: Oracle) -> Text:
        sampler = branching_sampler(oracle)(PURE, seed=0)
        return tuple(verify(rows, drafted([token], [q]), sampler, HISTORY, never_ends).tokens[:1])

    return enumerate_outcomes(run)


def test_a_token_is_kept_with_the_ratio_of_its_probabilities() -> None:
    q = Distribution(np.array([0, 1]), np.array([0.8, 0.2]))
    # Kept with 0.2 / 0.8; else drawn from (p - q)+, which is 0.3 for 1 and 0.3 for 2.
    expected = {(0,): pytest.approx(0.25), (1,): pytest.approx(0.375), (2,): pytest.approx(0.375)}
    assert judged([0.2, 0.5, 0.3], q, 0) == expected


def test_a_token_chosen_without_chance_is_kept_with_its_own_probability() -> None:
    got = judged([0.2, 0.5, 0.3], None, 1)
    assert got == {
        (1,): pytest.approx(0.5),
        (0,): pytest.approx(0.2),
        (2,): pytest.approx(0.3),
    }


@pytest.mark.parametrize("q", [None, Distribution(np.array([1]), np.ones(1))])
def test_a_token_that_the_main_model_excludes_is_never_kept(q: Distribution | None) -> None:
    got = judged([0.6, 0.0, 0.4], q, 1)
    assert got == {(0,): pytest.approx(0.6), (2,): pytest.approx(0.4)}


def test_a_token_that_is_certain_is_always_kept() -> None:
    assert judged([0.0, 1.0, 0.0], None, 1) == {(1,): 1.0}
    assert judged([0.0, 1.0, 0.0], Distribution(np.arange(3), np.full(3, 1 / 3)), 1) == {(1,): 1.0}


def test_where_rounding_leaves_no_residual_the_token_stays() -> None:
    nearly = 0.5 + 2**-50
    rows = np.log(np.array([[0.5, 0.5]] * 2)).astype(np.float32)

    class Unlucky(Sampler):
        def chance(self) -> float:
            return 1.0 - 2**-53

    q = Distribution(np.array([0, 1]), np.array([nearly, nearly]))
    verdict = verify(rows, drafted([1], [q]), Unlucky(PURE, seed=0), (), never_ends)
    assert verdict.tokens[0] == 1
    assert verdict.accepted == 1


GREEDY = SamplingSettings(temperature=0.0)


@given(
    st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(0, 5), min_size=7, max_size=7), st.data()
)
def test_greedy_keeps_the_common_beginning(guesses: list[int], best: list[int], data: st.DataObject) -> None:
    width = data.draw(st.integers(max(0, len(guesses) - 1), len(guesses)))
    end = data.draw(st.integers(0, 8))
    rows = np.full((width + 1, 6), -1.0, np.float32)
    rows[np.arange(width + 1), best[: width + 1]] = 1.0
    draft = drafted(guesses)
    draft.cut(width, Stop.GAIN)
    verdict = verify(rows, draft, Sampler(GREEDY, 0), (), lambda token: token == end)
    expected: list[int] = []
    for place in range(width + 1):
        expected.append(best[place])
        if best[place] == end or place >= len(guesses) or guesses[place] != best[place]:
            break
    common = next((i for i, (a, b) in enumerate(zip(guesses, expected, strict=False)) if a != b), None)
    accepted = min(width, len(guesses) if common is None else common, len(expected))
    assert verdict == Verdict(expected, accepted)


def test_penalties_see_the_tokens_drafted_before() -> None:
    rows = np.array([[2.0, 1.9, 0.0]] * 3, np.float32)
    settings_ = SamplingSettings(temperature=0.0, presence_penalty=1.0)
    sampler = Sampler(settings_, 0)
    verdict = verify(rows, drafted([0, 1]), sampler, (), never_ends)
    assert verdict == Verdict([0, 1, 0], 2)
    assert rows.tolist() == np.array([[2.0, 1.9, 0.0]] * 3, np.float32).tolist()


def test_the_grammar_advances_by_emitted_tokens_alone() -> None:
    accepted: list[int] = []

    class Recording(Alternating):
        def accept(self, token: int) -> None:
            super().accept(token)
            accepted.append(token)

    rows = np.tile(np.arange(6, dtype=np.float32), (4, 1))
    sampler = Sampler(GREEDY, 0, grammar=Recording(parity=1))
    verdict = verify(rows, drafted([5, 2, 5]), sampler, (), never_ends)
    assert verdict == Verdict([5, 4], 1)
    assert accepted == [5, 4]
