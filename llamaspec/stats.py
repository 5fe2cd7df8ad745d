"""Counters of what happened, kept raw; ratios are formed only when they are shown.

Times are in seconds. A round is one draft and one verification; a plain round drafts nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`, or None where there is no whole."""
    return part / whole if whole else None


@dataclass(slots=True)
class SourceStats:
    """What one source of draft tokens came to: those that were verified, and of them those that were kept."""

    drafted: int = 0
    accepted: int = 0

    def record(self, drafted: int, accepted: int) -> None:
        self.drafted += drafted
        self.accepted += accepted

    def as_dict(self) -> dict[str, Any]:
        return {"draft_n": self.drafted, "draft_n_accepted": self.accepted}


@dataclass(slots=True)
class DrafterStats(SourceStats):
    """The same of one drafter, with the rounds that it was chosen in and what drafting took in them."""

    rounds: int = 0
    seconds: float = 0.0

    def add(self, other: "DrafterStats") -> None:
        """Count what another has counted, too."""
        self.record(other.drafted, other.accepted)
        self.rounds += other.rounds
        self.seconds += other.seconds

    def as_dict(self) -> dict[str, Any]:
        # Named in full: in a class with slots, `super()` alone doesn't find its way.
        return {**SourceStats.as_dict(self), "rounds": self.rounds, "seconds": self.seconds}


@dataclass(slots=True)
class Stats:
    """One request's counters, or the sums of several."""

    texts: int = 1
    """How many are counted together. The first token of each comes with the end of its prompt."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's tokens those that were held from before, and not evaluated again."""
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    """From the end of the wait for a slot until the prompt was read."""
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
    widths: Counter[int] = field(default_factory=Counter)
    """Rounds by how many draft tokens were verified in them; 0: plain ones."""
    sources: dict[str, SourceStats] = field(default_factory=dict)
    """Draft tokens by who proposed them."""
    drafters: dict[str, DrafterStats] = field(default_factory=dict)
    """Drafts by whom they were asked of. The tokens of a cascade are from several sources."""
    stops: Counter[str] = field(default_factory=Counter)
    """Why drafts were no wider."""
    undrafted: Counter[str] = field(default_factory=Counter)
    """Rounds without a draft, though there was room for one, by why."""
    plain_tokens: int = 0
    """Tokens behind the first for which the price of a plain round was known …"""
    plain_seconds: float = 0.0
    """… and what they would have taken at that price."""
    last_draft_seconds: float = 0.0
    last_plain_seconds: float = 0.0
    """What the last round would have taken without drafts; 0: nobody knows."""
    latencies: list[float] = field(default_factory=list)
    """Time from one token to the next: those that come out of one round together have 0 but for the first."""

    def record_round(self, draft_seconds: float, verify_seconds: float) -> None:
        self.rounds += 1
        self.draft_seconds += draft_seconds
        self.verify_seconds += verify_seconds
        self.last_draft_seconds = draft_seconds

    def record_draft(self, drafter: str, sources: Sequence[str], accepted: int) -> None:
        """`sources`: who proposed each token that was verified, of which the first `accepted` were kept.

        `drafter` is whom the draft was asked of, empty in a round without.
        """
        for counts, length in ((self.drafted_at, len(sources)), (self.accepted_at, accepted)):
            counts.extend([0] * (length - len(counts)))
            for position in range(length):
                counts[position] += 1
        self.widths[len(sources)] += 1
        for position, source in enumerate(sources):
            self.sources.setdefault(source, SourceStats()).record(1, position < accepted)
        if drafter:
            counted = self.drafters.setdefault(drafter, DrafterStats())
            counted.record(len(sources), accepted)
            counted.rounds += 1
            counted.seconds += self.last_draft_seconds

    def record_plain(self, count: int, seconds: float) -> None:
        """`count` tokens were emitted when one without drafts would have taken so long; 0: nobody knows."""
        if seconds:
            self.plain_tokens += count
            self.plain_seconds += count * seconds

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
    def later_tokens(self) -> int:
        """Those that took rounds of their own: all but the first, which the prompt's batch yields."""
        return max(0, self.predicted_tokens - self.texts)

    @property
    def tokens_per_second(self) -> float | None:
        """Of the later tokens, as llama-server counts; None where there are none."""
        return ratio(self.later_tokens, self.predicted_seconds) if self.later_tokens else None

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
    def estimated_speedup(self) -> float | None:
        """Against plain decoding at the price of a plain round as measured here: an estimate.

        No round is quicker than a plain one, so that the tokens of a round bound it, whatever the price says.
        """
        each = ratio(self.plain_seconds, self.plain_tokens) if self.draft_n else None
        estimate = each and ratio(each * self.later_tokens, self.predicted_seconds)
        bound = ratio(self.later_tokens, self.rounds)
        return estimate and bound and min(estimate, bound)

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
            "cached_tokens": self.cached_tokens,
            "queue_seconds": self.queue_seconds,
            "prompt_seconds": self.prompt_seconds,
            "prompt_per_second": ratio(self.prompt_tokens - self.cached_tokens, self.prompt_seconds),
            "predicted_tokens": self.predicted_tokens,
            "predicted_seconds": self.predicted_seconds,
            "predicted_per_second": self.tokens_per_second,
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
            "drafters": {name: counted.as_dict() for name, counted in self.drafters.items()},
            "sources": {name: counted.as_dict() for name, counted in self.sources.items()},
            "stops": dict(self.stops),
            "undrafted": dict(self.undrafted),
            "estimated_speedup": self.estimated_speedup,
        }
