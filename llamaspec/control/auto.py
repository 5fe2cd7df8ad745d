"""The policy of mode `auto`: draft only what pays, by measured prices and calibrated acceptance.

Each round the best of three kinds of choice is taken: no draft; a free drafter's offer, cut to its best
length; or a drafter that evaluates a model, whose gain is not known before it was tried. The last are arms of
a bandit: one sample of each one's gain competes with the rest (Thompson 1933). What free drafters offer is
compared with the text whether it is used or not.

Playing an arm that is expected to lose has to be paid from a budget, a small share of the tokens emitted
so far: that bounds what exploration can ever cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from operator import mul
from random import Random
from typing import Any

from llamaspec.control.acceptance import Acceptance, Mood
from llamaspec.control.arms import Arm
from llamaspec.control.course import Plan, Situation
from llamaspec.control.pace import DraftPace, OfferPace
from llamaspec.control.policy import best_width, most_gained, quickest_width, round_costs
from llamaspec.control.prices import MAX_WIDTH, Prices
from llamaspec.control.stake import Stake
from llamaspec.decode.ports import Draft, Pace, Stop

_BUDGET_SHARE = 0.01  # of the tokens emitted may be spent on trying what seems to lose
_BUDGET_MOST = 3.0  # tokens; what a single text may cost at once
_RATE_MEMORY = 24.0  # plain rounds
_PAIR_RATE_GAIN = 1.0 / 400.0
_ALONE_MEMORY = 128.0  # tokens
_HORIZON = 256  # tokens of text ahead where its end is not in sight
_CAUTION = 2.0  # an investment has to promise so many times its price
_ASSUMED_STEP = 0.3  # price of a draft step to that of a main one, before it was measured
_CAUGHT_UP = 4  # unread tokens that are no more than a round leaves behind
_LEAST_WORK, _MOST_WORK, _WORK_GAIN, _WORK_LASTS = 0.25, 4.0, 0.05, 0.99
_OUTCOME = 0.5  # what a draft's outcome, mostly chance, weighs beside what was to be expected of it
_CURVES = ("main", "draft", "check")


@dataclass(slots=True)
class Knowledge:
    """What is known of a pair on this machine, from one text to the next.

    `work`: by drafter, what a drafted token takes, in steps of the draft model. `rate`: tokens per plain
    round's time, lately. `budget`: tokens that may be lost by trying.
    """

    prices: Prices = field(default_factory=Prices)
    acceptance: Acceptance = field(default_factory=Acceptance)
    work: dict[str, float] = field(default_factory=dict)
    rate: float = 1.0
    budget: float = _BUDGET_MOST

    def as_dict(self) -> dict[str, Any]:
        return {
            "prices": {name: getattr(self.prices, name).as_dict() for name in _CURVES},
            "acceptance": self.acceptance.as_dict(),
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
        self.work = {name: _within(_LEAST_WORK, work, _MOST_WORK) for name, work in data["work"].items()}
        self.rate = _within(1.0, data["rate"], MAX_WIDTH)
        self.budget = _within(0.0, data["budget"], _BUDGET_MOST)


def _within(least: float, value: Any, most: float) -> float:
    if not least <= value <= most:
        raise ValueError(f"{value} is not from {least} to {most}")
    return float(value)


@dataclass(slots=True)
class _Round:
    """A round that was chosen for: `costs` as in `policy`, those of a draft `step` and of a `second`."""

    situation: Situation
    offers: Mapping[str, Draft]
    costs: list[float]
    step: float
    second: float
    width: int = 0
    offered: bool = False
    played: str | None = None


class AutoCourse:
    """The policy for one sequence."""

    def __init__(
        self, knowledge: Knowledge, free: Sequence[str], paid: Sequence[str], random: Random | None = None
    ) -> None:
        self.free: Sequence[str] = list(free)
        self._knowledge = knowledge
        self._mood = Mood(knowledge.acceptance)
        self.pace: Pace = OfferPace(self._mood)
        self._random = random or Random(0)
        self._arms = {name: Arm(knowledge.acceptance.typical(name)) for name in paid}
        self._rate = knowledge.rate  # in rounds that no offer won
        self._stake = Stake()
        self._at_the_text: str | None = None  # who reads what it missed, over several rounds
        self._alone = 1.0  # the share of the tokens that came in such rounds
        self._round: _Round | None = None

    # The decision of a round.

    def choose(self, situation: Situation, offers: Mapping[str, Draft]) -> Plan | None:
        if not self._knowledge.prices.main.known or situation.beside + 2 > MAX_WIDTH:
            return None
        now = self._round = self._begin(situation, offers)
        if self._at_the_text in self._arms:  # what was decided is seen through
            now.played = self._at_the_text
            return Plan(now.played, self._pace_of(now.played, now))
        best, tokens, cost = None, 1.0, 1.0
        for name, offer in offers.items():
            survival = self._survival(offer, now)
            width = self._offer_width(survival, now.costs)
            offered = 1.0 + sum(survival[:width])
            if width and (best is None or offered / now.costs[width] > tokens / cost):
                best, tokens, cost = Plan(name, draft=offer), offered, now.costs[width]
                now.width = width
        now.offered = best is not None
        # What takes the place of an offer takes time in which it would go on like this.
        rate = max(self._rate, tokens / cost)
        gain = tokens - 1.0 - rate * (cost - 1.0)
        price = 0.0
        for name, arm in self._arms.items():
            sampled, loss = self._sampled_gain(name, arm, now, rate, gain)
            if sampled > gain and loss <= self._knowledge.budget:
                gain, price, now.played = sampled, loss, name
        if now.played is None:
            return best
        self._knowledge.budget -= price
        return Plan(now.played, self._pace_of(now.played, now))

    def cut(self, draft: Draft, beside: int | None = None) -> None:
        now = self._round
        if now is not None:
            if now.played:
                if beside is not None and beside != now.situation.beside:
                    now.costs = self._costs(now.situation, beside)
                now.width, _ = best_width(self._survival(draft, now), now.costs, self._rate)
            draft.cut(now.width, Stop.GAIN)

    def _offer_width(self, survival: Sequence[float], costs: Sequence[float]) -> int:
        """How much of an offer to verify: what is quickest, if it may be lost, else the best of what may."""
        if not best_width(survival, costs, 1.0)[0]:
            return 0  # most offers are of no use, which is seen in a fraction of the time
        width = quickest_width(survival, costs)
        if self._stake.covers(costs[width] - 1.0):
            return width
        while width and not self._stake.covers(costs[width] - 1.0):
            width -= 1
        return best_width(survival[:width], costs, 1.0)[0]

    def _begin(self, situation: Situation, offers: Mapping[str, Draft]) -> _Round:
        prices, sharing = self._knowledge.prices, max(1, situation.sharing)
        main = prices.main.prices(situation.depth)
        second = (situation.waiting + 1) / main[situation.waiting + 1]
        step = prices.draft.prices(situation.depth)[sharing] / sharing or _ASSUMED_STEP * main[1]
        costs = self._costs(situation, situation.beside)
        return _Round(situation, offers, costs, step * second, second)

    def _costs(self, situation: Situation, beside: int) -> list[float]:
        beside = min(beside, MAX_WIDTH - 2)
        limit = min(situation.limit, MAX_WIDTH - beside - 1)
        main = self._knowledge.prices.main.prices(situation.depth)
        return round_costs(main, limit, beside, situation.waiting)

    def _survival(self, draft: Draft, now: _Round) -> list[float]:
        rates = [self._mood.rate(evidence) for evidence in draft.evidence[: len(now.costs) - 1]]
        return list(accumulate(rates, mul))

    def _pace_of(self, name: str, now: _Round) -> DraftPace:
        prices, depth = self._knowledge.prices, now.situation.depth
        checks, single = prices.check.prices(depth), prices.draft.prices(depth)[1]
        arm, step = self._arms[name], self._step(name, now)
        # The text's own rate follows slowly: in a short one that is easy, time would be sold below its worth.
        rate = max(self._rate, most_gained(now.costs, step, arm.kept))
        return DraftPace(self._mood, arm, now.costs, step, rate, checks, single)

    # Drafters that evaluate a model.

    def _sampled_gain(
        self, name: str, arm: Arm, now: _Round, rate: float, otherwise: float
    ) -> tuple[float, float]:
        """A sample of the tokens that a round with this drafter gains, and the tokens that it is expected to
        lose against what is gained otherwise.
        """
        step = self._step(name, now)
        if most_gained(now.costs, step) <= 1.0:
            return -inf, 0.0
        tally = arm.estimate(now.costs, step, rate)
        gain = tally.gain(rate)
        sampled = gain + arm.luck(self._random) * tally.error()
        rounds = self._alone / (1.0 + tally.tokens / tally.rounds)
        loss = otherwise - gain + self._catching_up(name, now, rounds, gain)
        return sampled - self._catching_up(name, now, rounds, sampled), max(0.0, loss)

    def _catching_up(self, name: str, now: _Round, rounds: float, gain: float) -> float:
        """Tokens that it costs to have the drafter read what it did not, but for what that will earn.

        Each token of the text ahead brings so many `rounds` in which it gains so much. It will have to read
        what offers wrote, too; what it might earn in their place is not counted.
        """
        unread = now.situation.unread.get(name, 1)
        if unread <= _CAUGHT_UP:
            return 0.0
        reading = self._rate * self._reading(unread, now)
        earned = rounds * gain - (1.0 - self._alone) * reading / unread
        return max(0.0, reading - max(0.0, earned) * min(now.situation.remaining, _HORIZON) / _CAUTION)

    def _step(self, name: str, now: _Round) -> float:
        """Cost of a drafted token."""
        return now.step * self._knowledge.work.get(name, 1.0)

    def _reading(self, unread: int, now: _Round) -> float:
        """Cost of a step beyond the usual where so many tokens are to be evaluated for it."""
        prices = self._knowledge.prices.draft.prices(now.situation.depth)
        chunks, rest = divmod(unread, MAX_WIDTH - 1)
        return now.second * (chunks * prices[MAX_WIDTH - 1] + (prices[rest] if rest else 0.0) - prices[1])

    # What came of it.

    def learn(self, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        now, self._round = self._round, None
        if now is not None:
            self._learn_round(now, draft, emitted, draft_seconds)
        self._learn_acceptance(draft, emitted)
        for offer in now.offers.values() if now is not None else ():
            if offer is not draft:
                self._learn_acceptance(offer, emitted)

    def _learn_round(self, now: _Round, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        knowledge, acceptance = self._knowledge, self._knowledge.acceptance
        alone = now.played is not None or not now.offered
        self._alone += (alone - self._alone) * len(emitted) / (_ALONE_MEMORY + len(emitted))
        knowledge.budget = min(_BUDGET_MOST, knowledge.budget + _BUDGET_SHARE * len(emitted))
        tokens, cost = len(emitted) - 1.0, now.costs[draft.width] - 1.0
        self._stake.settle(0.0 if now.played else tokens - cost, len(emitted))
        if not draft.width and any(offer.tokens[:1] == list(emitted[:1]) for offer in now.offers.values()):
            self._stake.would_have(2.0 - now.costs[1])
        self._at_the_text = now.played if draft.stopped is Stop.READING else None
        if draft.stopped is Stop.CONTEXT and not draft.tokens and now.played:
            del self._arms[now.played]  # its context is full: it has nothing more to say
        for name, arm in self._arms.items():
            if name != now.played:
                arm.passed(acceptance.typical(name))
                knowledge.work[name] = 1.0 + _WORK_LASTS * (knowledge.work.get(name, 1.0) - 1.0)
            elif draft.tokens:
                rates = [self._mood.rate(evidence) for evidence in draft.evidence]
                for rate in rates:
                    if arm.new:  # so that every text has the same say
                        acceptance.learn_typical(name, rate)
                    arm.saw(rate)
                expected = sum(accumulate(rates[: draft.width], mul))
                tokens = _OUTCOME * tokens + (1.0 - _OUTCOME) * expected
                cost += self._drafting(name, now, len(draft.tokens), draft_seconds)
                arm.played(tokens, cost, self._rate)
        if alone:
            weight = (cost + 1.0) / (_RATE_MEMORY + cost + 1.0)
            self._rate = max(1.0, self._rate + weight * ((tokens + 1.0) / (cost + 1.0) - self._rate))
            knowledge.rate += (self._rate - knowledge.rate) * _PAIR_RATE_GAIN

    def _drafting(self, name: str, now: _Round, tokens: int, seconds: float) -> float:
        """Cost of having drafted so many tokens, without what was read to catch up."""
        unread = now.situation.unread.get(name, 1)
        if unread > _CAUGHT_UP or not seconds:
            return tokens * self._step(name, now)
        knowledge = self._knowledge
        cost = seconds / knowledge.prices.main.level.value * now.second
        work = knowledge.work.get(name, 1.0)
        work += _WORK_GAIN * ((cost - self._reading(unread, now)) / (tokens * now.step) - work)
        knowledge.work[name] = max(_LEAST_WORK, min(_MOST_WORK, work))
        return cost

    def _learn_acceptance(self, draft: Draft, emitted: Sequence[int]) -> None:
        for token, evidence, kept in zip(draft.tokens, draft.evidence, emitted, strict=False):
            self._mood.learn(evidence, token == kept)
            if token != kept:
                return
