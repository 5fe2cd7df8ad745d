"""What the drafters have in common that look up how a text went on before."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from llamaspec.decode.ports import Draft, DraftRequest, Evidence, Stop

MOST_VOTES = 16
"""Occurrences that are asked about one token: more cost time and change little."""

Guesses = Mapping[int, tuple[float, float, float, float]]
"""How often a match's token is right, by the match's order and agreement."""


class Match(NamedTuple):
    """How a text may go on.

    Its last `order` tokens stand elsewhere too; of the `occurrences` that were asked `votes` went on
    with `token`.
    """

    token: int
    order: int
    votes: int
    occurrences: int

    @property
    def agreement(self) -> int:
        """0: there is one occurrence; 1: several agree; 2: more than half of them do; 3: not even that."""
        if self.votes == self.occurrences:
            return 0 if self.occurrences == 1 else 1
        return 2 if 2 * self.votes > self.occurrences else 3


def most_voted(followers: Iterable[int], order: int) -> Match:
    """The most frequent of the first `MOST_VOTES` of `followers` (at least one); of equals the first."""
    votes: dict[int, int] = {}
    for token in islice(followers, MOST_VOTES):
        votes[token] = votes.get(token, 0) + 1
    best = max(votes, key=votes.__getitem__)
    return Match(best, order, votes[best], sum(votes.values()))


class LookupDrafter(ABC):
    """A `Drafter`, and a `Lookup`, that lets a text go on as it did where its last tokens occurred before.

    A token's bucket is 4 x the place of its match's order among the orders + its match's agreement.
    """

    name: str
    free = True

    def __init__(self, guesses: Guesses) -> None:
        self._longest = max(guesses)
        self._evidence = {
            order: [Evidence(self.name, guess, 4 * place + agreement) for agreement, guess in enumerate(row)]
            for place, (order, row) in enumerate(sorted(guesses.items()))
        }

    @abstractmethod
    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None: ...

    @abstractmethod
    def settle(self, sequence: int, tokens: Sequence[int]) -> None: ...

    @abstractmethod
    def end(self, sequence: int) -> None: ...

    @abstractmethod
    def _match(self, sequence: int, tail: Sequence[int]) -> Match | None:
        """What follows the longest end of `tail` that is known."""

    def unread(self, sequence: int, length: int) -> int:
        return 0

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(request) for request in requests]

    def follow(self, sequence: int, text: Sequence[int]) -> tuple[int, Evidence] | None:
        match = self._match(sequence, text[-self._longest :])
        if match is None:
            return None
        return match.token, self._evidence[match.order][match.agreement]

    def _draft(self, request: DraftRequest) -> Draft:
        self.settle(request.sequence, request.tokens)
        tail = list(request.tokens[-self._longest :])
        draft = Draft(stopped=Stop.CEILING)
        for _ in range(request.limit):
            guess = self.follow(request.sequence, tail)
            if guess is None:
                draft.stopped = Stop.MATCH
                break
            token, evidence = guess
            if not request.pace.admits(evidence):
                draft.stopped = request.pace.refusal
                break
            draft.add(token, None, evidence)
            tail.append(token)
        return draft
