from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamaspec.decode.drafters.lookup import MOST_VOTES, Match, most_voted
from llamaspec.decode.drafters.ngram import GUESSES, LONGEST, ORDERS, NgramDrafter, NgramIndex
from llamaspec.decode.ports import Draft, Drafter, DraftRequest, Evidence, Lookup, Stop
from llamaspec.decode.sampling import Sampler
from llamaspec.settings import SamplingSettings

# Few tokens and repeated stretches: short texts with matches of all lengths.
STRETCH = st.lists(st.integers(0, 3), min_size=1, max_size=12)
TEXT = st.lists(st.tuples(STRETCH, st.integers(1, 4)), max_size=6).map(
    lambda parts: [token for stretch, times in parts for token in stretch * times]
)


def scan(text: Sequence[int], tail: Sequence[int]) -> Match | None:
    """What `NgramIndex.follow` says, found by looking everywhere."""
    for order in sorted(ORDERS, reverse=True):
        places = [p for p in range(order, len(text)) if list(text[p - order : p]) == list(tail[-order:])]
        followers = [text[p] for p in reversed(places)][:MOST_VOTES]
        if followers and len(tail) >= order:
            votes = Counter(followers)
            most = max(votes.values())
            token = next(token for token in followers if votes[token] == most)
            return Match(token, order, most, len(followers))
    return None


class Pace:
    """Admits what the test says, and keeps what it was asked about."""

    refusal = Stop.GAIN

    def __init__(self, admits: Callable[[Evidence], bool] = lambda evidence: True) -> None:
        self.asked: list[Evidence] = []
        self._admits = admits

    def admits(self, evidence: Evidence) -> bool:
        self.asked.append(evidence)
        return self._admits(evidence)

    def goes_on(self, draft: Draft) -> bool:
        raise AssertionError("asked of draft models alone")

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        raise AssertionError("asked of draft models alone")


def draft(drafter: Drafter, tokens: Sequence[int], limit: int, pace: Pace, sequence: int = 0) -> Draft:
    sampler = Sampler(SamplingSettings(), 1)
    [made] = drafter.draft([DraftRequest(sequence, tokens, limit, pace, sampler)])
    return made


def begun(sequence: int = 0) -> NgramDrafter:
    drafter = NgramDrafter()
    drafter.begin(sequence)
    return drafter


@given(TEXT, TEXT)
@example([1, 2, 1, 2], [])
@example(list(range(40)) * 2, [])
@example([1] * 60, [])
def test_the_index_says_what_a_scan_says(text: list[int], drafted: list[int]) -> None:
    index = NgramIndex(text)
    for behind in range(len(drafted) + 1):
        tail = text + drafted[:behind]
        assert index.follow(tail) == index.follow(tail[-LONGEST:]) == scan(text, tail)


@given(TEXT, st.data())
def test_a_text_may_come_in_any_pieces(text: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    index = NgramIndex()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        index.extend(text[start:end])
        assert len(index) == end
        assert index.follow(text[:end]) == NgramIndex(text[:end]).follow(text[:end])


def test_token_by_token_is_all_at_once() -> None:
    text = [token % 7 for token in range(100)] + list(range(50)) * 2
    index = NgramIndex()
    for end, token in enumerate(text):
        assert index.follow(text[:end]) == scan(text[:end], text[:end])
        index.append(token)


def test_the_end_of_the_text_is_no_occurrence_of_itself() -> None:
    assert NgramIndex([5, 6, 7]).follow([5, 6, 7]) is None
    assert NgramIndex([5, 6, 7, 5, 6]).follow([5, 6, 7, 5, 6]) == Match(7, 2, 1, 1)


@pytest.mark.parametrize(
    ("followers", "expected"),
    [
        ([4], Match(4, 3, 1, 1)),
        ([4, 4], Match(4, 3, 2, 2)),
        ([4, 5, 5], Match(5, 3, 2, 3)),
        ([4, 5], Match(4, 3, 1, 2)),
        ([9] * MOST_VOTES + [8] * 100, Match(9, 3, MOST_VOTES, MOST_VOTES)),
    ],
)
def test_votes(followers: list[int], expected: Match) -> None:
    assert most_voted(followers, 3) == expected


@pytest.mark.parametrize(
    ("votes", "of", "agreement"), [(1, 1, 0), (3, 3, 1), (2, 3, 2), (2, 4, 3), (1, 3, 3)]
)
def test_agreement(votes: int, of: int, agreement: int) -> None:
    assert Match(7, 2, votes, of).agreement == agreement


def test_large_ids_and_long_texts_are_told_apart() -> None:
    text = [2**31 - 1, 0, 2**31 - 1, 5, 2**18, 0]
    assert NgramIndex(text).follow([2**31 - 1, 0]) == Match(2**31 - 1, 2, 1, 1)
    assert NgramIndex(text).follow([2**18, 0]) is None


def test_a_repeated_text_is_drafted_to_the_limit() -> None:
    text = list(range(100, 140))
    made = draft(begun(), [*text, 7, *text[:5]], 16, Pace())
    assert made.tokens == text[5:21]
    assert made.width == 16
    assert made.proposals == [None] * 16
    assert made.stopped is Stop.CEILING
    orders = [evidence.bucket // 4 for evidence in made.evidence]
    assert orders == sorted(orders), "what was drafted makes the match longer"
    assert {evidence.source for evidence in made.evidence} == {"ngram"}


def test_a_draft_ends_where_nothing_is_known() -> None:
    made = draft(begun(), [1, 2, 3, 4, 9, 1, 2], 16, Pace())
    assert made.tokens == [3, 4, 9, 1, 2, 3, 4, 9, 1, 2, 3, 4, 9, 1, 2, 3], "a loop has no end"
    made = draft(begun(), [1, 2, 3], 16, Pace())
    assert (made.tokens, made.width, made.stopped) == ([], 0, Stop.MATCH)
    made = draft(begun(), [8, 1, 2, 3, 8, 8, 1, 2, 3, 4, 1, 2, 3], 1, Pace())
    assert (made.tokens, made.stopped) == ([4], Stop.CEILING)


def test_the_pace_is_obeyed() -> None:
    text = list(range(50))
    pace = Pace(lambda evidence: len(pace.asked) < 4)
    made = draft(begun(), [*text, 99, *text[:4]], 16, pace)
    assert made.tokens == text[4:7]
    assert made.stopped is Stop.GAIN
    assert made.evidence == pace.asked[:3]


def test_evidence_is_the_measured_table() -> None:
    drafter = begun()
    drafter.settle(0, [1, 2, 3, 1, 2])
    once = drafter.follow(0, [1, 2, 3, 1, 2])
    assert once == (3, Evidence("ngram", GUESSES[2][0], 0))
    drafter.settle(0, [1, 2, 3, 1, 2, 3, 1, 2])
    assert drafter.follow(0, [9, 9, 1, 2]) == (3, Evidence("ngram", GUESSES[2][1], 1))
    drafter.settle(0, [1, 2, 3, 1, 2, 3, 1, 2, 4])
    assert drafter.follow(0, [9, 9, 1, 2]) == (3, Evidence("ngram", GUESSES[2][2], 2))
    drafter.settle(0, [1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 4])
    assert drafter.follow(0, [9, 9, 1, 2]) == (4, Evidence("ngram", GUESSES[2][3], 3))
    assert drafter.follow(0, [9, 2, 3, 1]) == (2, Evidence("ngram", GUESSES[3][1], 5))
    assert drafter.follow(0, [9, 9, 9]) is None
    assert drafter.follow(0, []) is None


def test_no_two_kinds_of_match_share_a_bucket() -> None:
    assert sorted(GUESSES) == list(ORDERS)
    buckets = {e.bucket for evidence in NgramDrafter()._evidence.values() for e in evidence}
    assert len(buckets) == 4 * len(ORDERS)
    assert all(0 < guess < 1 for row in GUESSES.values() for guess in row)


def test_sequences_are_apart_and_forgotten() -> None:
    drafter: Drafter = begun(0)
    drafter.begin(1)
    assert draft(drafter, [1, 2, 3, 1, 2], 1, Pace(), 0).tokens == [3]
    assert draft(drafter, [1, 2, 4, 1, 2], 1, Pace(), 1).tokens == [4]
    drafter.end(0)
    drafter.begin(0)
    assert draft(drafter, [1, 2], 1, Pace(), 0).tokens == []
    assert draft(drafter, [1, 2, 4, 1, 2, 4, 1, 2], 1, Pace(), 1).tokens == [4]


def test_it_evaluates_no_model() -> None:
    drafter: Drafter = begun()
    assert drafter.free
    assert drafter.unread(0, 1000) == 0


def test_what_was_drafted_is_not_taken_for_text() -> None:
    drafter = begun()
    text = [1, 2, 3, 9]
    drafter.settle(0, text)
    lookup: Lookup = drafter
    assert lookup.follow(0, [*text, 5, 6, 5, 6]) is None
    assert lookup.follow(0, [*text, 5, 1, 2]) == (3, Evidence("ngram", GUESSES[2][0], 0))
    drafter.settle(0, [*text, 5, 7, 5])
    assert lookup.follow(0, [*text, 5, 7, 5, 5, 7]) == (5, Evidence("ngram", GUESSES[2][0], 0))
