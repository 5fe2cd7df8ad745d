"""How good a draft has to be before speculation pays. Plain numbers in and out."""

from collections.abc import Sequence
from dataclasses import dataclass

_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class BreakEven:
    """`acceptance`: the least rate, the same for every token, at which speculation is no slower than plain
    decoding; None where even a draft that is always right loses. `length`: the draft length for which that
    is so (where it never pays: the one that loses least). `most`: the speed relative to plain decoding if
    every draft token were accepted, at the best length.
    """

    acceptance: float | None
    length: int
    most: float


def break_even(main_prices: Sequence[float], draft_step: float) -> BreakEven:
    """From the price of a main decode of 1, 2, … n tokens (n >= 2) and of drafting one token.

    A round with k draft tokens, each accepted with probability a if those before it were, yields
    1 + a + … + a^k tokens (Leviathan et al. 2023) and costs main_prices[k] + k * draft_step. Any unit of
    time will do. Drafts of 1 to n - 1 tokens are looked at.
    """
    plain = main_prices[0]
    # What each length costs, in plain steps: it breaks even where it yields as many tokens.
    costs = [(price + k * draft_step) / plain for k, price in enumerate(main_prices[1:], 1)]
    best, most = max(((k, (k + 1) / cost) for k, cost in enumerate(costs, 1)), key=lambda choice: choice[1])
    acceptances = [(a, k) for k, cost in enumerate(costs, 1) if (a := _acceptance(k, cost)) is not None]
    if not acceptances:
        return BreakEven(None, best, most)
    least, length = min(acceptances)
    return BreakEven(least, length, most)


def _acceptance(k: int, tokens: float) -> float | None:
    """The rate at which a draft of `k` yields so many tokens a round; None where it can't."""
    if tokens > k + 1:
        return None
    if tokens <= 1:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(k + 1)) < tokens else (low, middle)
    return high
