"""The policy of mode `auto`: draft only what pays, by measured prices and calibrated acceptance.

Each round the best of three kinds of choice is taken: no draft; a free drafter's offer, cut to its best
length; or a drafter that evaluates a model, whose gain is not known before (`arms`). What free drafters offer
is compared with the text whether it is used or not.

Playing an arm that is expected to lose has to be paid from a budget, a small share of the tokens emitted
so far: that bounds what exploration can ever cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llamaspec.control.acceptance import Acceptance, Mood
from llamaspec.control.arms import Arm, Tally, promised
from llamaspec.control.course import Plan, Situation
from llamaspec.control.policy import best_ahead, best_width, most_gained, quickest_width, round_costs
from llamaspec.control.prices import MAX_WIDTH, Prices
from llamaspec.decode.ports import Draft, Evidence, Stop

import os
_E=lambda n,d: float(os.environ.get(n,d))
_BUDGET_SHARE = _E('BS',0.01)  # of the tokens emitted may be spent on trying what seems to lose
_BUDGET_FIRST = _E('BF',2.0)
_BUDGET_MOST = 16.0
_RATE_MEMORY = _E('RM',24)  # plain rounds
_PAIR_RATE_GAIN = 1.0 / 400.0
_ALONE_MEMORY = 48.0  # tokens
_HORIZON = 256  # tokens, where the end of the text is not in sight
_ASSUMED_STEP = 0.3  # price of a draft step to that of a main one, before it was measured
_ADMITS = 0.02
_CAUGHT_UP = 4  # unread tokens that are no more than a round leaves behind
_LEAST_WORK, _MOST_WORK = 0.25, 4.0
_WORK_GAIN = 0.05
_OUTCOME = _E('OUT',.5)  # what a round's outcome weighs beside what was to be expected of its draft: it is mostly chance
_CURVES = ("main", "draft", "check")


@dataclass(slots=True)
class Knowledge:
    """What is known of a pair on this machine, from one text to the next.

    `work`: by drafter, what drafting a token takes, in steps of the draft model. `rate`: tokens per plain
    round's time, lately. `budget`: tokens that may be lost by trying.
    """

    prices: Prices = field(default_factory=Prices)
    acceptance: Acceptance = field(default_factory=Acceptance)
    arms: dict[str, Tally] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    rate: float = 1.0
    budget: float = _BUDGET_FIRST

    def as_dict(self) -> dict[str, Any]:
        return {
            "prices": {name: getattr(self.prices, name).as_dict() for name in _CURVES},
            "acceptance": self.acceptance.as_dict(),
            "arms": {name: tally.as_list() for name, tally in self.arms.items()},
            "work": dict(self.work),
            "rate": self.rate,
            "budget": self.budget,
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what `as_dict` gave, where prices may be left out.

        Raises ValueError, TypeError, KeyError or AttributeError for anything else, and is of no use then.
        """
        for name in _CURVES:
            if name in data["prices"]:
                getattr(self.prices, name).restore(data["prices"][name])
        self.acceptance.restore(data["acceptance"])
        self.arms = {name: Tally.of(values) for name, values in data["arms"].items()}
        self.work = {name: _within(_LEAST_WORK, work, _MOST_WORK) for name, work in data["work"].items()}
        self.rate = _within(1.0, data["rate"], MAX_WIDTH)
        self.budget = _within(0.0, data["budget"], _BUDGET_MOST)


def _within(least: float, value: Any, most: float) -> float:
    if not least <= value <= most:
        raise ValueError(f"{value} is not from {least} to {most}")
    return float(value)


@dataclass(slots=True)
class _Round:
    """A round that was chosen for. `costs` as in `policy`; `step` is the draft model's, `second` is a second's."""

    situation: Situation
    offers: Mapping[str, Draft]
    costs: list[float]
    step: float
    second: float
    won: str | None = None
    played: str | None = None


@dataclass(slots=True)
class _Growing:
    """A draft in the making: the probability that all of it is kept, the tokens to expect, the best gain so far."""

    draft: Draft
    length: int = 0
    survives: float = 1.0
    rate: float = 1.0
    expected: float = 0.0
    best: float = 0.0


class AutoCourse:
    """The policy for one sequence. A `decode.ports.Pace` too: how far its drafts go."""

    def __init__(
        self, knowledge: Knowledge, free: Sequence[str], paid: Sequence[str], random: Random | None = None
    ) -> None:
        self.free = list(free)
        self._knowledge = knowledge
        self._mood = Mood(knowledge.acceptance)
        self._random = random or Random(0)
        self._arms = {name: Arm() for name in paid}
        self._rate = knowledge.rate  # of rounds that no offer won
        self._alone = 1.0  # the share of such rounds' tokens
        self._round: _Round | None = None
        self._growing: _Growing | None = None

    @property
    def pace(self) -> "AutoCourse":
        return self

    # The decision of a round.

    def choose(self, situation: Situation, offers: Mapping[str, Draft]) -> Plan | None:
        self._round = None
        if not self._knowledge.prices.main.known:
            return None
        now = self._round = self._begin(situation, offers)
        best, gain = None, 0.0
        for name, offer in offers.items():
            survival = self._survival(offer)
            width = quickest_width(survival, now.costs)
            gained = sum(survival[:width]) - self._rate * (now.costs[width] - 1.0)
            if width and (best is None or gained > gain):
                best, gain, now.won = Plan(name, draft=offer), gained, name
        for name, arm in self._arms.items():
            sampled = self._sampled_gain(name, arm, gain)
            if sampled > gain:
                best, gain, now.played = Plan(name, self), sampled, name
        return best

    def cut(self, draft: Draft) -> None:
        if (now := self._round) is not None:
            survival = self._survival(draft)
            if now.played:
                width, _ = best_width(survival, now.costs, self._rate)
            else:
                width = quickest_width(survival, now.costs)
            draft.cut(width, Stop.GAIN)

    def _begin(self, situation: Situation, offers: Mapping[str, Draft]) -> _Round:
        prices, beside = self._knowledge.prices, situation.beside
        main = prices.main.prices(situation.depth)
        second = (beside + 1) / main[beside + 1]
        step = prices.draft.prices(situation.depth)[1] or _ASSUMED_STEP * main[1]
        limit = min(situation.limit, MAX_WIDTH - beside - 1)
        return _Round(situation, offers, round_costs(main, limit, beside), step * second, second)

    def _survival(self, draft: Draft) -> list[float]:
        survives, survival = 1.0, []
        for evidence in draft.evidence[: len(self._round.costs) - 1]:
            survives *= self._mood.rate(evidence)
            survival.append(survives)
        return survival

    # Drafters that evaluate a model: arms whose gain is estimated.

    def _sampled_gain(self, name: str, arm: Arm, otherwise: float) -> float:
        """A sample of the tokens that a round with this drafter gains; nothing where it may not be tried."""
        now, knowledge = self._round, self._knowledge
        if most_gained(now.costs, self._step(name)) <= 1.0:
            return 0.0
        tally = arm.estimate(self._pair_arm(name))
        gain = tally.gain(self._rate)
        sampled = gain + self._random.gauss(0.0, 1.0) * tally.error()
        if sampled <= otherwise:
            return 0.0
        loss = max(0.0, otherwise - gain) + max(0.0, self._catching_up(name, tally))
        if loss > knowledge.budget:
            return 0.0
        knowledge.budget -= loss
        return sampled

    def _pair_arm(self, name: str) -> Tally:
        arms = self._knowledge.arms
        if name not in arms:
            arms[name] = promised(self._mood.next_rate(name), self._round.costs, self._step(name))
        return arms[name]

    def _step(self, name: str) -> float:
        """Cost of a drafted token."""
        return self._round.step * self._knowledge.work.get(name, 1.0)

    def _catching_up(self, name: str, tally: Tally) -> float:
        """Tokens that it costs to have the drafter read what it did not, less what that earns in the text ahead.

        From then on it reads what offers wrote, too. What it might earn in their place is not counted.
        """
        unread = self._round.situation.unread.get(name, 1)
        if unread <= _CAUGHT_UP:
            return 0.0
        reading = self._rate * self._reading(name)
        rounds = self._alone / (1.0 + max(0.0, tally.tokens / tally.rounds))
        earned = rounds * max(0.0, tally.gain(self._rate)) - (1.0 - self._alone) * reading / unread
        return reading - earned * min(self._round.situation.remaining, _HORIZON)

    def _reading(self, name: str) -> float:
        """Cost of catching up with the text, beyond a step, where that is more than a round leaves behind."""
        unread = self._round.situation.unread.get(name, 1)
        prices = self._knowledge.prices.draft.prices(self._round.situation.depth)
        if unread <= _CAUGHT_UP or not prices[1]:
            return 0.0
        chunks, rest = divmod(unread, MAX_WIDTH - 1)
        return self._round.second * (chunks * prices[MAX_WIDTH - 1] + prices[rest] - prices[1])

    # How far a draft goes.

    def admits(self, evidence: Evidence) -> bool:
        return evidence.source not in self.free or self._mood.rate(evidence) > _ADMITS

    def goes_on(self, draft: Draft) -> bool:
        now, costs = self._round, self._round.costs
        grown = self._grown(draft)
        if grown.length >= len(costs) - 1:
            return False
        last = draft.evidence[-1]
        ahead = best_ahead(
            grown.survives,
            grown.length,
            self._mood.rate_after(last, grown.rate),
            self._mood.next_rate(last.source),
            self._step(now.played) if now.played else now.step,
            costs,
            self._rate,
        )
        return grown.expected - self._rate * (costs[grown.length] - 1.0) + ahead > grown.best

    def _grown(self, draft: Draft) -> _Growing:
        """Take in what was added to the draft."""
        grown, costs = self._growing, self._round.costs
        if grown is None or grown.draft is not draft:
            grown = self._growing = _Growing(draft)
        for evidence in draft.evidence[grown.length : len(costs) - 1]:
            grown.length += 1
            grown.rate = self._mood.rate(evidence)
            grown.survives *= grown.rate
            grown.expected += grown.survives
            gain = grown.expected - self._rate * (costs[grown.length] - 1.0)
            grown.best = max(grown.best, gain)
        return grown

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        """As many as make the draft model's tokens cheapest, going by how often the main model agrees."""
        prices = self._knowledge.prices
        depth = self._round.situation.depth
        checks, cheapest = prices.check.prices(depth), prices.draft.prices(depth)[1]
        expected = survives = 1.0
        best = 0
        for count, guess in enumerate(guesses, 1):
            survives *= self._mood.rate(guess)
            expected += survives
            if checks[count + 1] and checks[count + 1] / expected < cheapest:
                best, cheapest = count, checks[count + 1] / expected
        return best

    # What came of it.

    def learn(self, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        now, self._round, self._growing = self._round, None, None
        if now is not None:
            self._round = now
            self._learn_round(draft, emitted, draft_seconds)
            self._round = None
        self._learn_acceptance(draft, emitted)
        for offer in now.offers.values() if now else ():
            if offer is not draft:
                self._learn_acceptance(offer, emitted)

    def _learn_round(self, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        now, knowledge = self._round, self._knowledge
        alone = now.won is None or now.played is not None
        self._alone += (alone - self._alone) * len(emitted) / (_ALONE_MEMORY + len(emitted))
        knowledge.budget = min(_BUDGET_MOST, knowledge.budget + _BUDGET_SHARE * len(emitted))
        tokens, cost = len(emitted) - 1.0, now.costs[draft.width] - 1.0
        if now.played and draft.tokens:
            survival = self._survival(draft)
            tokens = _OUTCOME * tokens + (1.0 - _OUTCOME) * sum(survival[: draft.width])
            cost += self._drafting(now.played, len(draft.tokens), draft_seconds)
            for evidence in draft.evidence:
                self._mood.saw(evidence, self._mood.rate(evidence))
        for name, arm in self._arms.items():
            if name != now.played:
                arm.passed()
            elif draft.tokens:
                arm.played(tokens, cost, self._rate, self._pair_arm(name))
        if alone:
            weight = (cost + 1.0) / (_RATE_MEMORY + cost + 1.0)
            self._rate = max(1.0, self._rate + weight * ((tokens + 1.0) / (cost + 1.0) - self._rate))
            knowledge.rate += (self._rate - knowledge.rate) * _PAIR_RATE_GAIN

    def _drafting(self, name: str, tokens: int, seconds: float) -> float:
        """Cost of having drafted, without what was read to catch up."""
        now, knowledge = self._round, self._knowledge
        if now.situation.unread.get(name, 1) > _CAUGHT_UP:
            return tokens * self._step(name)
        cost = seconds / knowledge.prices.main.level.value * now.second
        work = knowledge.work.get(name, 1.0)
        work += _WORK_GAIN * (cost / (tokens * now.step) - work)
        knowledge.work[name] = max(_LEAST_WORK, min(_MOST_WORK, work))
        return cost

    def _learn_acceptance(self, draft: Draft, emitted: Sequence[int]) -> None:
        for token, evidence, kept in zip(draft.tokens, draft.evidence, emitted, strict=False):
            self._mood.learn(evidence, token == kept)
            if token != kept:
                return
