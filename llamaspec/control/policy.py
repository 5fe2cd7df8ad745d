"""How long to draft: optimal stopping over known costs and estimated acceptances. Plain numbers in and out.

A round with k draft tokens yields 1 + S(1) + … + S(k) tokens, S(i) being the probability that the first i
are all kept (the `survival`), and has a cost. `costs[k]` counts it in rounds without a draft, so costs[0] is
1. Costs need not rise evenly, so all lengths are looked at and not just the next one.

What time is worth differs. Behind the draft of a model comes text like any other: a round is worth what it
yields less what its time yields on the whole, the `rate` in tokens per plain round. That is the
renewal-reward form of "most tokens per second in the long run". The offer of a lookup ends where the text
leaves what is known, and that place is where it is, however it is reached: the best draft of it is the one
with which it is reached soonest.
"""

from collections.abc import Sequence
from itertools import accumulate

_NEGLIGIBLE = 0.01  # survival from which on an offer is not looked at
_SUREST = 0.995  # rate that an offer is believed to go on at
_LEAST = 0.1  # cost of a round: what makes it less is noise


def round_costs(prices: Sequence[float], limit: int, beside: int = 0, waiting: int = 0) -> list[float]:
    """Costs of rounds with up to `limit` draft tokens.

    `prices[w]`: seconds of a batch of w tokens, `beside` of which are others'; so many sequences are
    `waiting` beside this one, each for as long as it. What their time is worth is what it yields when all of
    them decode plainly: that a prompt is being read, which makes this round long, does not make it cheap.
    """
    plain = prices[beside + 1]
    share = (waiting + 1) / prices[waiting + 1]
    return [max(_LEAST, 1.0 + share * (price - plain)) for price in prices[beside + 1 : beside + limit + 2]]


def best_width(survival: Sequence[float], costs: Sequence[float], rate: float) -> tuple[int, float]:
    """The number of draft tokens to verify, and the tokens that it gains over verifying none."""
    best, most, expected = 0, 0.0, 0.0
    for width, survives in enumerate(survival, 1):
        expected += survives
        gain = expected - rate * (costs[width] - 1.0)
        if gain > most:
            best, most = width, gain
    return best, most


def quickest_width(survival: Sequence[float], costs: Sequence[float]) -> int:
    """The number of tokens of an offer to verify so that its end, wherever that is, is reached soonest.

    By dynamic programming from the back over the number of tokens that were right so far. Beyond what is
    offered it is taken to go on as its last token does.
    """
    reach = [1.0, *(survives for survives in survival if survives > _NEGLIGIBLE)]
    end = len(reach) - 1
    if not end:
        return 0
    lasts = min(reach[end] / reach[end - 1], _SUREST)
    survives, soonest = lasts, costs[0] / (1.0 - lasts)
    for cost in costs[1 : end + 1]:
        survives *= lasts
        soonest = min(soonest, cost / (1.0 - survives))
    # left[i]: rounds until the end where i tokens were right, times the probability that they are.
    left = [0.0] * end + [reach[end] * soonest, reach[end] * lasts * soonest]
    best = 0
    for right in range(end - 1, -1, -1):
        here = reach[right]
        least = here * costs[0] + left[right + 1]
        best = 0
        for width in range(1, end - right + 1):
            rounds = here * costs[width] + left[right + width + 1]
            if rounds < least:
                best, least = width, rounds
        left[right] = least
    return best


def best_ahead(
    survives: float,
    drafted: int,
    next_rate: float,
    later_rate: float,
    step: float,
    costs: Sequence[float],
    rate: float,
) -> float:
    """Tokens gained by the best number of further draft tokens, over verifying the `drafted` ones alone.

    They are all kept with probability `survives`; the next one then with `next_rate`, each later one with
    `later_rate`. To draft one costs `step`.
    """
    most, gain, alive, before = 0.0, 0.0, survives * next_rate, costs[drafted]
    for cost in costs[drafted + 1 :]:
        gain += alive - rate * (cost - before + step)
        most = max(most, gain)
        alive *= later_rate
        before = cost
    return most


def most_gained(costs: Sequence[float], step: float, kept: float = 1.0) -> float:
    """Tokens per plain round's time that drafts bring at best whose tokens are each kept with one rate.

    With all of them kept, it is the bound of what a drafter with a cost of `step` per token can ever reach
    here; 1 or less means that it can't pay, however good it is.
    """
    tokens = accumulate(kept**width for width in range(len(costs)))
    return max(
        count / (cost + width * step) for width, (count, cost) in enumerate(zip(tokens, costs, strict=True))
    )
