"""How far a draft goes in mode `auto`. Each is a `decode.ports.Pace`."""

from collections.abc import Sequence

from llamaspec.control.acceptance import Mood
from llamaspec.control.arms import Arm
from llamaspec.control.policy import best_ahead
from llamaspec.decode.ports import Draft, Evidence, Stop

_ADMITS = 0.02  # rate below which nothing behind a token can be worth its place


class OfferPace:
    """For drafters that are free: as far as there is any hope. The offer is cut when it is taken."""

    refusal = Stop.GAIN

    def __init__(self, mood: Mood) -> None:
        self._mood = mood

    def admits(self, evidence: Evidence) -> bool:
        return self._mood.rate(evidence) > _ADMITS

    def goes_on(self, draft: Draft) -> bool:
        return True

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        return 0


class DraftPace(OfferPace):
    """For one draft that evaluates a model: while the tokens it is expected to gain still rise.

    `costs` of rounds as in `policy`; `step` is the cost of a drafted token, `rate` what a plain round's
    time is worth. `checks` are the draft model's prices by width where all rows are wanted, `single` that
    of one token.
    """

    def __init__(
        self,
        mood: Mood,
        arm: Arm,
        costs: Sequence[float],
        step: float,
        rate: float,
        checks: Sequence[float],
        single: float,
    ) -> None:
        super().__init__(mood)
        self._arm = arm
        self._costs = costs
        self._step = step
        self._rate = rate
        self._checks = checks
        self._single = single
        self._length = 0
        self._last = self._survives = 1.0  # rate of the last token; probability that all are kept
        self._expected = self._best = 0.0  # tokens; the most that a part of the draft gains

    def goes_on(self, draft: Draft) -> bool:
        for evidence in draft.evidence[self._length :]:
            self._take(evidence)
        if self._length >= len(self._costs) - 1:
            return False
        after = self._arm.rate_after(self._last)
        ahead = best_ahead(
            self._survives, self._length, after, self._arm.kept, self._step, self._costs, self._rate
        )
        return self._gain() + ahead > self._best

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        """As many as make the draft model's tokens cheapest, going by how often the main model agrees."""
        expected = survives = 1.0
        best, cheapest = 0, self._single
        for count, guess in enumerate(guesses, 1):
            survives *= self._mood.rate(guess)
            expected += survives
            price = self._checks[count + 1]
            if price and price / expected < cheapest:
                best, cheapest = count, price / expected
        return best

    def _take(self, evidence: Evidence) -> None:
        self._length += 1
        self._last = self._mood.rate(evidence)
        self._survives *= self._last
        self._expected += self._survives
        if self._length < len(self._costs):
            self._best = max(self._best, self._gain())

    def _gain(self) -> float:
        return self._expected - self._rate * (self._costs[self._length] - 1.0)
