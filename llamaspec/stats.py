"""Counters of what happened, kept raw; ratios are formed only when they are shown.

Times are in seconds. A round is one draft and one verification; a plain round drafts nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`, or None where there is no whole."""
    return part / whole if whole else None


@dataclass(slots=True)
class Stats:
    """One request's counters."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    predicted_tokens: int = 0
    predicted_seconds: float = 0.0
    time_to_first_token: float | None = None
    rounds: int = 0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    drafted_at: list[int] = field(default_factory=list)
    """How many drafts had a token at position i."""
    accepted_at: list[int] = field(default_factory=list)
    """How many of those were accepted."""
    latencies: list[float] = field(default_factory=list)
    """Time from one token to the next: those that come out of one round together have 0 but for the first."""

    def record_draft(self, width: int, accepted: int) -> None:
        for counts, length in ((self.drafted_at, width), (self.accepted_at, accepted)):
            counts.extend([0] * (length - len(counts)))
            for position in range(length):
                counts[position] += 1

    def record_tokens(self, count: int, since_last: float) -> None:
        """`count` tokens were emitted at once, `since_last` after the ones before."""
        first = self.predicted_tokens == 0
        self.predicted_tokens += count
        self.latencies.extend([since_last, *[0.0] * (count - 1)][first:])

    @property
    def draft_n(self) -> int:
        return sum(self.drafted_at)

    @property
    def draft_n_accepted(self) -> int:
        return sum(self.accepted_at)

    @property
    def overhead_seconds(self) -> float:
        """What is neither drafting nor evaluating the main model: sampling, text, our own bookkeeping."""
        return max(0.0, self.predicted_seconds - self.draft_seconds - self.verify_seconds)

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted over drafted tokens."""
        return ratio(self.draft_n_accepted, self.draft_n)

    @property
    def acceptance_per_position(self) -> list[float]:
        """For each position: accepted over drafted there."""
        accepted = self.accepted_at + [0] * (len(self.drafted_at) - len(self.accepted_at))
        return [a / d for a, d in zip(accepted, self.drafted_at, strict=True)]

    @property
    def mean_accepted_length(self) -> float | None:
        """Accepted tokens per round that drafted."""
        return ratio(self.draft_n_accepted, self.drafted_at[0] if self.drafted_at else 0)

    @property
    def token_latency(self) -> dict[str, float] | None:
        """Percentiles (nearest rank) of the time from one token to the next."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return {f"p{p}": ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in (50, 95, 99)}

    def as_dict(self) -> Mapping[str, Any]:
        """The shape of `--json`; ratios without a denominator are null."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_seconds": self.prompt_seconds,
            "prompt_per_second": ratio(self.prompt_tokens, self.prompt_seconds),
            "predicted_tokens": self.predicted_tokens,
            "predicted_seconds": self.predicted_seconds,
            "predicted_per_second": ratio(self.predicted_tokens, self.predicted_seconds),
            "draft_n": self.draft_n,
            "draft_n_accepted": self.draft_n_accepted,
            "acceptance_rate": self.acceptance_rate,
            "acceptance_per_position": self.acceptance_per_position,
            "mean_accepted_length": self.mean_accepted_length,
            "rounds": self.rounds,
            "draft_seconds": self.draft_seconds,
            "verify_seconds": self.verify_seconds,
            "overhead_seconds": self.overhead_seconds,
            "time_to_first_token": self.time_to_first_token,
            "token_latency": self.token_latency,
        }
