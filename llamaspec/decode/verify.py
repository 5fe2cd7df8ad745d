"""Verification: which draft tokens the main model keeps, and what comes after them.

Speculative sampling (Leviathan, Kalman and Matias 2023; Chen et al. 2023): a draft token x drawn
from q is kept with probability min(1, p(x) / q(x)); where it is not, the next token is drawn from the
normalised positive part of p - q. Whatever q is, the emitted tokens are distributed as if drawn from p.

That proof needs every drawn token to be judged unless one before it is refused. A rule that drops
tokens because of what was drawn (a probability was low, the grammar forbids one, the draft came out
too short) would break it, so the first token behind a cut is judged too: by the row that the batch has
anyway, in place of the token that would have been drawn from it. What follows that one is judged in
the rounds after (`Draft.owed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamaspec.decode.ports import Distribution, Draft, Row
from llamaspec.decode.sampling import Sampler, probability, residual


@dataclass(frozen=True, slots=True)
class Verdict:
    """`tokens` to emit, at least one; the first `accepted` of them went through the main model as draft."""

    tokens: list[int]
    accepted: int


def verify(
    rows: Row, draft: Draft, sampler: Sampler, history: Sequence[int], ends: Callable[[int], bool]
) -> Verdict:
    """Judge a draft by the main model's logits.

    `rows` has shape [draft.width + 1, vocab]: row i is what comes after i draft tokens. `history` is the
    sequence so far. Nothing is emitted after a token that `ends` the sequence. The sampler's grammar
    advances by the emitted tokens, and by those alone.
    """
    text = list(history)
    accepted = 0
    for position, row in enumerate(rows):
        if position < len(draft.tokens):
            proposed = draft.tokens[position]
            token = _judge(row, proposed, draft.proposals[position], sampler, text)
            kept = token == proposed
        else:
            token, kept = sampler.choose(row, text), False
        text.append(token)
        sampler.accept(token)
        accepted += kept and position < draft.width
        if not kept or ends(token):
            break
    return Verdict(text[len(history) :], accepted)


def _judge(
    row: Row, proposed: int, drawn_from: Distribution | None, sampler: Sampler, history: Sequence[int]
) -> int:
    """The token that follows: `proposed` if it is kept, else its correction, which is another one."""
    if drawn_from is None:
        # Chosen without chance: q(x) = 1. To keep x with probability p(x), and else to draw from p without
        # x, is to draw from p and look whether it is x: by the chance of the position, as if undrafted.
        return sampler.choose(row, history)
    p = sampler.distribution(row, history)
    p_x, q_x = probability(p, proposed), probability(drawn_from, proposed)
    if sampler.chance() * q_x < p_x:
        return proposed
    rest = residual(p, drawn_from)
    return proposed if rest is None else sampler.draw(rest)
